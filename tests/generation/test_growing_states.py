"""Models whose state grows with the text: their rows share batches where decoders take rows out and in."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

from textgen import GenerationState, Generator, UsageError, load

PROMPTS = ["the time", "a", "", "the clock of the hall struck", "he smiled, and", "hour"]


class Growing:
    """A decoder that carries all of its tokens: the logits follow from the last three and their number."""

    def __init__(self, size: int, vocab_size: int, watch: Callable[[int], object]) -> None:
        self.rows: list[list[int]] = [[] for _ in range(size)]
        self.vocab_size, self.watch = vocab_size, watch

    @property
    def batch_size(self) -> int:
        return len(self.rows)

    def _logits(self) -> Any:
        draws = [
            np.random.default_rng([len(row), *row[-3:]]).normal(size=self.vocab_size)
            for row in self.rows
        ]
        return np.stack(draws)

    def extend(self, tokens: Any) -> Any:
        self.watch(len(tokens))
        for row, ids in zip(self.rows, tokens.tolist(), strict=True):
            row.extend(ids)
        return self._logits()

    def score(self, tokens: Any) -> Any:
        return np.stack([self.extend(tokens[:, i : i + 1]) for i in range(tokens.shape[1])], axis=1)

    def read_state(self) -> Any:
        return {"tokens": np.array(self.rows, np.int64)}  # NumPy refuses rows of different lengths

    def write_state(self, state: Any) -> None:
        self.rows = state["tokens"].tolist()


class GrowingRows(Growing):
    exact_rows = False

    def take(self, rows: Any) -> Any:
        taken = type(self)(len(rows), self.vocab_size, self.watch)
        taken.rows = [list(self.rows[row]) for row in rows]
        return taken

    def join(self, other: Any) -> None:
        self.rows += other.rows


class GreedyRows(GrowingRows):
    exact_rows = True

    def continue_greedily(self, tokens: Any, steps: int, forbidden: Any) -> Any:
        made = []
        for _ in range(steps):
            logits = self.extend(tokens[:, None])
            logits[:, list(forbidden)] = -np.inf
            tokens = logits.argmax(axis=1)
            made.append(tokens)
        return np.stack(made, axis=1)


def growing(
    run: Path, kind: type[Growing], gate: threading.Event | None = None
) -> tuple[Generator, list[int]]:
    """A generator with such a decoder, which waits for the gate, and the number of rows of each call."""
    inner, sizes = load(run), []

    def watch(size: int) -> None:
        sizes.append(size)
        assert gate is None or gate.wait(60), "nobody opened the gate"

    class Model:
        def decoder(self, batch_size: int) -> Growing:
            return kind(batch_size, inner.tokenizer.vocab_size, watch)

    return attrs.evolve(inner, model=Model()), sizes


@pytest.mark.parametrize("kind", [Growing, GrowingRows, GreedyRows])
@pytest.mark.parametrize("sampling", [{"temperature": 0}, {"temperature": 0.7}])
def test_texts_of_different_lengths_are_those_of_single_calls(
    finished_run: Path, kind: Any, sampling: Any
) -> None:
    generator, sizes = growing(finished_run, kind)
    options = [
        {"max_new_tokens": 4 + 11 * (i % 3), "stop": "q", **sampling} for i in range(len(PROMPTS))
    ]
    requests = [dict(prompt=prompt, **each) for prompt, each in zip(PROMPTS, options, strict=True)]
    given = list(generator.generate_many(requests * 2, batch_size=4))
    assert max(sizes) == (1 if kind is Growing else 4)
    for i, text in enumerate(given):
        place = i % len(PROMPTS)
        assert text == generator.generate(PROMPTS[place], index=i, **options[place])


@pytest.mark.parametrize("kind", [GrowingRows, GreedyRows])
def test_states_kept_in_a_batch_continue_alone_and_in_a_batch(
    finished_run: Path, kind: Any, tmp_path: Path
) -> None:
    generator, _ = growing(finished_run, kind)
    options = {"temperature": 0, "stop": ["e", "q"]}
    requests = [
        dict(prompt=p, max_new_tokens=9 + i, keep_state=True, **options)
        for i, p in enumerate(PROMPTS)
    ]
    halves = list(generator.generate_many(requests))
    assert {half.finish_reason for half in halves} == {"stop", "length"}
    further: dict[str, Any] = {"max_new_tokens": 30, "temperature": 0, "stop": None}
    rest = list(generator.generate_many([{"state": half.state, **further} for half in halves]))
    for half, many, prompt in zip(halves, rest, PROMPTS, strict=True):
        assert half.state is not None
        half.state.save(tmp_path / "state")
        alone = generator.generate(state=GenerationState.load(tmp_path / "state"), **further)
        whole = generator.generate(
            prompt, max_new_tokens=len(half.tokens) + 30, temperature=0, stop=None
        )
        assert half.tokens + alone.tokens == half.tokens + many.tokens == whole.tokens


def test_where_rows_cannot_be_joined_every_text_says_so(finished_run: Path) -> None:
    class Refusing(GrowingRows):
        def join(self, other: Any) -> None:
            super().join(other)
            raise KeyError("no room")

    async def texts() -> list[Any]:
        made = (generator.agenerate(prompt) for prompt in ("the ", "a clock of the hall"))
        return await asyncio.gather(*made, return_exceptions=True)

    generator, _ = growing(finished_run, Refusing)
    assert ["no room" in repr(error) for error in asyncio.run(texts())] == [True, True]


def test_asynchronous_streams_share_batches(finished_run: Path) -> None:
    async def text(prompt: str, count: int) -> str:
        return "".join(
            [piece async for piece in await generator.astream(prompt, max_new_tokens=count)]
        )

    async def texts() -> list[str]:
        tasks = [asyncio.create_task(text(prompt, 50 + i)) for i, prompt in enumerate(PROMPTS)]
        await asyncio.sleep(0)  # each has asked for its first piece now
        gate.set()
        return await asyncio.gather(*tasks)

    gate = threading.Event()
    generator, sizes = growing(finished_run, GrowingRows, gate)
    given = asyncio.run(texts())
    assert (
        max(sizes) >= len(PROMPTS) // 2
    )  # those that came first may have ended before the others joined
    assert given == [
        generator.generate(p, max_new_tokens=50 + i).text for i, p in enumerate(PROMPTS)
    ]


@pytest.mark.parametrize("kind", [Growing, GrowingRows])
def test_states_that_grow_have_no_hidden_states(finished_run: Path, kind: Any) -> None:
    with pytest.raises(UsageError, match="grows with the text"):
        growing(finished_run, kind)[0].hidden_states("the time")
