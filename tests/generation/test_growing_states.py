"""Models whose state grows with the text: their rows share batches where decoders take rows out and
in.
"""

import asyncio
import types

import attrs
import numpy as np
import pytest
from prompts import PROMPTS
from watching import Watcher, text_of

from textgen import GenerationState, load
from textgen.generation.scheduling import scheduler


class Growing:
    """A decoder that carries all of its tokens: the logits follow from the last three and their
    number.
    """

    def __init__(self, rows, vocab_size, watcher):
        self.rows, self.vocab_size, self.watcher = rows, vocab_size, watcher

    def extend(self, tokens):
        self.watcher.sizes.append(len(tokens))
        self.watcher.wait()
        for row, ids in zip(self.rows, tokens.tolist(), strict=True):
            row.extend(ids)
        seeds = ([len(row), *row[-3:]] for row in self.rows)
        return np.stack([np.random.default_rng(s).normal(size=self.vocab_size) for s in seeds])

    score = extend  # no text is scored here

    def read_state(self):
        return {"tokens": np.array(self.rows, np.int64)}  # NumPy refuses rows of different lengths

    def write_state(self, state):
        self.rows = state["tokens"].tolist()


class GrowingRows(Growing):
    def take(self, rows):
        return type(self)([[*self.rows[row]] for row in rows], self.vocab_size, self.watcher)

    def join(self, other):
        self.rows += other.rows


class Refusing(GrowingRows):
    def join(self, other):
        super().join(other)
        raise KeyError("no room")


def growing(run, kind):
    """A generator with such a decoder, which is watched, and waits at a gate."""
    watcher, inner = Watcher(), load(run)

    class Model:
        def decoder(self, batch_size):
            rows = [[] for _ in range(batch_size)]
            return kind(rows, inner.tokenizer.vocab_size, watcher)

    return watcher, attrs.evolve(inner, model=Model())


@pytest.mark.parametrize("kind", [Growing, GrowingRows])
@pytest.mark.parametrize("temperature", [0, 0.7])
def test_texts_of_different_lengths_and_their_states_are_those_of_single_calls(
    finished_run, kind, temperature, tmp_path
):
    watcher, generator = growing(finished_run, kind)
    watcher.gate.set()
    requests = [
        {
            "prompt": prompt,
            "max_new_tokens": 4 + 11 * (place % 3),
            "stop": ["q", "e"][place % 2],
            "temperature": temperature,
            "index": place,
            "keep_state": True,
        }
        for place, prompt in enumerate(PROMPTS * 2)
    ]
    halves = list(generator.generate_many(requests, batch_size=4))
    assert max(watcher.sizes) == (1 if kind is Growing else 4)
    assert halves == [generator.generate(**each) for each in requests]

    further = {"max_new_tokens": 30, "temperature": temperature}
    resumed = [{"state": half.state, **further} for half in halves]
    rest = list(generator.generate_many(resumed, batch_size=4))
    for half, many, each in zip(halves, rest, requests, strict=True):
        half.state.save(tmp_path / "state")
        alone = generator.generate(state=GenerationState.load(tmp_path / "state"), **further)
        count = len(half.tokens) + 30
        whole = generator.generate(**each | {"max_new_tokens": count, "stop": None})
        assert half.tokens + alone.tokens == half.tokens + many.tokens == whole.tokens


@pytest.mark.parametrize("kind", [GrowingRows, Refusing])
def test_asynchronous_texts_share_batches_and_all_say_so_where_rows_cannot_be_joined(
    finished_run, kind, monkeypatch
):
    # One step of the texts to each chunk of the prompts: else the short ones may end before.
    clock = types.SimpleNamespace(perf_counter=lambda: 0.0)
    monkeypatch.setattr(scheduler, "time", clock)
    watcher, generator = growing(finished_run, kind)

    async def texts():
        streams = (generator.astream(prompt, max_new_tokens=50) for prompt in PROMPTS)
        made = [asyncio.create_task(text_of(stream)) for stream in streams]
        await asyncio.sleep(0)  # each has asked for its first piece now
        watcher.gate.set()
        return await asyncio.gather(*made, return_exceptions=True)

    given = asyncio.run(texts())
    if kind is Refusing:
        assert any("no room" in repr(each) for each in given)
    else:
        assert max(watcher.sizes) == len(PROMPTS)
        assert given == [generator.generate(each, max_new_tokens=50).text for each in PROMPTS]
