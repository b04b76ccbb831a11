"""Generation from a finished run: prompts, seeds, streams and scores."""

from __future__ import annotations

import asyncio
import collections
import gc
import itertools
import math
import os
import shutil
import threading
import tracemalloc
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_type_hints

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textgen import (
    Component,
    ContractError,
    CorruptFileError,
    Engine,
    GenerationState,
    Generator,
    NoOptions,
    Piece,
    PluginSet,
    PromptError,
    RunError,
    UsageError,
    hookimpl,
    load,
    run,
)
from textgen.generation.arguments import GenerateArguments


@pytest.fixture(scope="module")
def generator(finished_run: Path) -> Generator:
    return load(finished_run)


@pytest.fixture(scope="module")
def lively(finished_run: Path) -> Generator:
    """One with large random weights, whose greedy text does not settle."""
    made = load(finished_run)
    draw = np.random.default_rng(6)
    tensors = made.model.tensors()
    made.model.load_tensors({n: draw.normal(0, 2, a.shape).astype(a.dtype) for n, a in sorted(tensors.items())})
    assert len(set(made.generate("the ", max_new_tokens=100, temperature=0).tokens)) > 5
    return made


def test_a_prompt_outside_the_vocabulary_is_an_error_that_lists_it(generator: Generator) -> None:
    with pytest.raises(PromptError) as caught:
        generator.generate("thé 😀 é\0")
    assert caught.value.characters == ("é", "😀", "\0")
    for part in ("'é' (U+00E9, write 'e')", "U+1F600", "U+0000", "skip", "unknown"):
        assert part in str(caught.value)


def test_the_policy_skip_continues_what_is_left(generator: Generator) -> None:
    skipped = generator.generate("thé 😀clock", unknown_characters="skip")
    assert skipped.tokens == generator.generate("th clock").tokens
    assert str(skipped).startswith("thé 😀clock")
    assert generator.generate("éé", unknown_characters="skip").tokens == generator.generate("").tokens


def test_the_policy_unknown_feeds_the_unknown_token(generator: Generator) -> None:
    ids = generator.encode_prompt("thé", "unknown")
    assert ids[-1] == generator.tokenizer.unknown_id
    assert generator.generate("thé", unknown_characters="unknown").tokens == (
        generator.generate("th\0", unknown_characters="unknown").tokens
    )


def test_the_command_refuses_such_a_prompt_in_one_line(
    textgen: Callable[..., Any], finished_run: Path, tmp_path: Path
) -> None:
    failed = textgen("generate", finished_run, "--prompt", "é", cwd=tmp_path)
    assert (failed.code, failed.stdout) == (2, "")
    assert len(failed.stderr.splitlines()) == 1
    assert "U+00E9" in failed.stderr
    done = textgen("generate", finished_run, "-p", "é", "--unknown-characters", "skip", "--no-echo", cwd=tmp_path)
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout == load(finished_run).generate().text + "\n"


def test_an_empty_prompt_starts_from_the_start_state(generator: Generator) -> None:
    generation = generator.generate("", max_new_tokens=25)
    assert len(generation.tokens) == len(generation.text) == 25
    assert str(generation) == generation.text
    assert generation.tokens == generator.generate(max_new_tokens=25).tokens


def test_no_new_tokens_are_no_text(generator: Generator) -> None:
    assert str(generator.generate("the", max_new_tokens=0)) == "the"
    assert list(generator.stream("the", max_new_tokens=0)) == []


def test_a_seed_and_an_index_fix_the_text(generator: Generator) -> None:
    text = generator.generate("the ", seed=5).text
    assert generator.generate("the ", seed=5).text == text
    assert generator.generate("the ", seed=6).text != text
    assert generator.generate("the ", seed=5, index=1).text != text
    assert generator.generate("the ").text == generator.generate("the ", seed=7).text  # the run's own seed


def test_a_shorter_text_is_the_beginning_of_a_longer_one(generator: Generator) -> None:
    longer = generator.generate("the ", max_new_tokens=300).text
    assert longer.startswith(generator.generate("the ", max_new_tokens=40).text)


def test_a_stream_gives_the_same_text_in_pieces(generator: Generator) -> None:
    pieces = list(generator.stream("the ", max_new_tokens=50, seed=3))
    assert len(pieces) > 1
    assert "".join(pieces) == generator.generate("the ", max_new_tokens=50, seed=3).text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("max_new_tokens", value) for value in (-1, 10**9 + 1, 1.0, True, "5")),
        *(("seed", value) for value in (-1, 2**64, 0.5, True)),
        *(("index", value) for value in (-1, 2**64)),
        ("unknown_characters", "ignore"),
    ],
)
def test_arguments_out_of_range_are_refused_before_anything_is_drawn(
    generator: Generator, name: str, value: Any
) -> None:
    with pytest.raises(UsageError, match=name):
        generator.generate("the", **{name: value})
    with pytest.raises(UsageError, match=name):
        generator.stream("the", **{name: value})


def test_a_greedy_chain_takes_the_most_likely_token(finished_run: Path) -> None:
    greedy = load(finished_run, sampler=[{"type": "greedy"}])
    tokens = greedy.generate("the ", max_new_tokens=30, seed=1).tokens
    assert tokens == greedy.generate("the ", max_new_tokens=30, seed=2).tokens
    decoder = greedy.model.decoder(1)
    logits = decoder.extend(greedy.encode_prompt("the ")[None])
    for token in tokens:
        assert token == int(np.argmax(logits))
        logits = decoder.extend(np.array([[token]]))


def test_temperature_zero_is_greedy(finished_run: Path) -> None:
    frozen = load(finished_run, sampler=[{"type": "temperature", "temperature": 0}])
    greedy = load(finished_run, sampler=[{"type": "greedy"}])
    assert frozen.generate("the ").text == greedy.generate("the ").text


def test_a_score_is_the_mean_loss_of_each_token_given_those_before(generator: Generator) -> None:
    text = "the clock struck"
    ids = generator.encode_prompt(text)
    decoder = generator.model.decoder(1)
    losses = []
    for before, after in itertools.pairwise(ids.tolist()):
        logits = np.asarray(decoder.extend(np.array([[before]])), np.float64)[0]
        losses.append(np.log(np.exp(logits).sum()) - logits[after])
    score = generator.score(text)
    assert (score.tokens, score.characters, score.unknown_tokens) == (15, 15, 0)
    assert score.loss == pytest.approx(np.mean(losses), abs=1e-5)
    assert score.perplexity == pytest.approx(math.exp(score.loss))
    assert score.bits_per_character == pytest.approx(score.loss / math.log(2))


def test_a_score_does_not_depend_on_the_pieces(generator: Generator) -> None:
    text = "the hour of the clock " * 500
    pieces = [text[i : i + 37] for i in range(0, len(text), 37)]
    whole, cut = generator.score(text), generator.score(pieces)
    assert whole.tokens == cut.tokens == len(text) - 1
    assert cut.loss == pytest.approx(whole.loss, rel=1e-6)


def test_a_score_counts_what_the_vocabulary_lacks(generator: Generator) -> None:
    assert generator.score("the é clock é").unknown_tokens == 2


@pytest.mark.parametrize("text", ["", "t"])
def test_there_must_be_something_to_score(generator: Generator, text: str) -> None:
    with pytest.raises(UsageError, match="less than two tokens"):
        generator.score(text)


def cut(text: str, stops: tuple[str, ...], after: int = 0) -> tuple[str, bool]:
    """What is left of a text, and whether a stop ended it: at the first moment when a stop stands whole in what came
    after the first `after` characters, up to the earliest that does. One token is one character."""
    for end in range(after, len(text) + 1):
        places = [place for stop in stops if (place := text[:end].find(stop, after)) >= 0]
        if places:
            return text[: min(places)], True
    return text, False


@given(data=st.data())
def test_a_stop_text_ends_it_wherever_token_borders_lie(generator: Generator, data: st.DataObject) -> None:
    length = 60
    whole = generator.generate("the ", max_new_tokens=length, seed=1).text
    pieces = st.tuples(st.integers(0, length - 1), st.integers(1, 6)).map(lambda p: whole[p[0] : p[0] + p[1]])
    other = st.text(alphabet="the clock", min_size=1, max_size=3)
    stops = tuple(data.draw(st.lists(pieces | other, min_size=1, max_size=4)))
    least = data.draw(st.sampled_from([0, 0, 10, length]))
    arguments: dict[str, Any] = {"max_new_tokens": length, "seed": 1, "stop": stops, "min_new_tokens": least}
    expected, stopped = cut(whole, stops, least)
    made = generator.generate("the ", **arguments)
    assert made.text == expected
    assert made.finish_reason == ("stop" if stopped else "length")
    assert whole.startswith(generator.tokenizer.decode(np.array(made.tokens)))
    shown = ""
    for piece in generator.stream("the ", **arguments):
        shown += piece
        assert expected.startswith(shown), "a stop text was shown in part"
    assert shown == expected
    assert list(generator.generate_many(["the "], **arguments)) == [made]


def test_a_stop_may_be_one_string(generator: Generator) -> None:
    assert generator.generate("the ", stop="e", seed=1) == generator.generate("the ", stop=["e"], seed=1)


def test_what_overlaps_a_stop_is_shown_once_it_is_none(generator: Generator) -> None:
    """The text goes on "aab": the stop "aac" is held back at "aa", and let go."""
    arguments: dict[str, Any] = {"logit_bias": {"t": 1000.0}, "max_new_tokens": 5}
    assert list(generator.stream("", stop=["ttth"], **arguments))[-1] == "ttt"
    assert "".join(generator.stream("", stop=["ttth"], **arguments)) == "ttttt"
    assert "".join(generator.stream("", stop=["ttth", "tt"], **arguments)) == ""
    assert "".join(generator.stream("", stop=["tttt", "ttt"], min_new_tokens=1, **arguments)) == "t"


def test_a_stop_token_ends_it_and_is_kept(generator: Generator) -> None:
    whole = generator.generate("the ", max_new_tokens=200, seed=2)
    token = whole.tokens[9]
    made = generator.generate("the ", max_new_tokens=200, seed=2, stop_tokens=[token])
    first = whole.tokens.index(token)
    assert made.tokens == whole.tokens[: first + 1]
    assert made.finish_reason == "stop"
    assert list(generator.generate_many(["the "], max_new_tokens=200, seed=2, stop_tokens=[token])) == [made]
    assert "".join(generator.stream("the ", max_new_tokens=200, seed=2, stop_tokens=[token])) == made.text


def test_a_stop_token_is_not_drawn_before_its_time(generator: Generator) -> None:
    stops = [int(token) for token in generator.encode_prompt("the ")]
    for seed in range(5):
        arguments: dict[str, Any] = {"seed": seed, "stop_tokens": stops, "min_new_tokens": 20, "max_new_tokens": 300}
        made = generator.generate("the ", **arguments)
        assert not set(made.tokens[:20]) & set(stops)
        assert made.finish_reason == "stop"
        assert made.tokens[-1] in stops
        assert not set(made.tokens[:-1]) & set(stops)
        assert list(generator.generate_many(["the "], **arguments)) == [made]


def test_no_time_is_no_text(generator: Generator) -> None:
    made = generator.generate("the ", time_limit=0)
    assert (made.text, made.tokens, made.finish_reason) == ("", (), "time")
    assert list(generator.stream("the ", time_limit=0)) == []
    many = list(generator.generate_many(["the ", "", "a"], n=2, time_limit=0, batch_size=2))
    assert [(m.prompt, m.text, m.finish_reason) for m in many] == [
        (prompt, "", "time") for prompt in ("the ", "the ", "", "", "a", "a")
    ]


def test_a_time_limit_ends_what_would_not_end(generator: Generator) -> None:
    made = generator.generate("the ", max_new_tokens=None, time_limit=0.05)
    assert made.finish_reason == "time"
    assert made.tokens


def test_length_is_a_reason_too(generator: Generator) -> None:
    assert generator.generate("the ", max_new_tokens=3).finish_reason == "length"
    assert generator.generate("the ", max_new_tokens=0).finish_reason == "length"


@pytest.mark.parametrize("many", [False, True])
def test_another_thread_can_cancel(generator: Generator, many: bool) -> None:
    begun, switch = threading.Event(), threading.Event()

    def cancelled() -> bool:
        begun.set()
        return switch.is_set()

    with ThreadPoolExecutor(1) as pool:
        if many:
            arguments: dict[str, Any] = {"max_new_tokens": None, "cancelled": cancelled}
            future = pool.submit(lambda: next(generator.generate_many(["the ", ""], **arguments)))
        else:
            future = pool.submit(lambda: generator.generate("the ", max_new_tokens=None, cancelled=cancelled))
        assert begun.wait(60)
        switch.set()
        made = future.result(60)
    assert made.finish_reason == "cancelled"
    assert made.text == generator.generate("the ", max_new_tokens=len(made.tokens)).text


def test_an_event_cancels_a_stream_at_once(generator: Generator) -> None:
    event = threading.Event()
    stream = generator.stream("the ", max_new_tokens=None, cancelled=event)
    assert len(list(itertools.islice(stream, 100))) == 100
    canceller = threading.Thread(target=event.set)
    canceller.start()
    canceller.join()
    assert list(stream) == []


@given(
    options=st.fixed_dictionaries(
        {"seed": st.integers(0, 2**64 - 1), "max_new_tokens": st.integers(0, 80)},
        optional={
            "temperature": st.sampled_from([0, 0.5, 1.0, 3.0]),
            "top_k": st.integers(0, 30),
            "top_p": st.floats(0.1, 1),
            "min_p": st.floats(0, 0.5),
            "typical_p": st.floats(0.1, 1),
            "repetition_penalty": st.sampled_from([0.8, 1.0, 1.5]),
            "presence_penalty": st.sampled_from([-0.5, 0.7]),
            "frequency_penalty": st.sampled_from([-0.1, 0.3]),
            "no_repeat_ngram": st.integers(3, 6),
            "logit_bias": st.sampled_from([{"e": 2.0}, {"t": -50.0, " ": 1.0}]),
            "min_new_tokens": st.integers(0, 20),
            "stop": st.sampled_from(["e", ["th", "the"], []]),
            "stop_tokens": st.sampled_from([[3], [4, 5], []]),
            "echo": st.booleans(),
        },
    ),
    prompt=st.sampled_from(["", "t", "the time traveller smiled"]),
    index=st.integers(0, 3),
)
def test_all_ways_give_the_same_text(generator: Generator, options: dict[str, Any], prompt: str, index: int) -> None:
    alone = generator.generate(prompt, index=index, **options)
    assert "".join(generator.stream(prompt, index=index, **options)) == alone.text
    assert list(generator.generate_many([prompt], n=index + 1, **options))[index] == alone
    assert len(alone.tokens) <= options["max_new_tokens"]


PROMPTS = ("the ", "", "the time traveller smiled, and ", "t", "", "hour of the clock", "struck")


@pytest.mark.parametrize("batch_size", [1, 2, 3, 64])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stop": ["e", " th"]},
        {"repetition_penalty": 1.3, "frequency_penalty": 0.2, "presence_penalty": 0.1},
        {"no_repeat_ngram": 3, "temperature": 0.5},
        {"temperature": 0, "echo": True, "max_new_tokens": 100},
        {"stop_tokens": [3, 4], "min_new_tokens": 5, "top_k": 9},
    ],
    ids=["plain", "stops", "penalties", "no-repeat", "greedy", "stop-tokens"],
)
def test_many_are_each_as_if_alone_and_in_order(generator: Generator, options: dict[str, Any], batch_size: int) -> None:
    arguments: dict[str, Any] = {"max_new_tokens": 70, "seed": 11, **options}
    many = list(generator.generate_many(PROMPTS, n=2, batch_size=batch_size, **arguments))
    alone = [
        generator.generate(prompt, index=2 * i + j, **arguments) for i, prompt in enumerate(PROMPTS) for j in range(2)
    ]
    assert many == alone


@pytest.mark.parametrize("batch_size", [1, 4, 64])
@pytest.mark.parametrize(
    "options", [{"temperature": 0}, {"top_k": 3, "stop": "e"}, {"echo": True, "min_new_tokens": 2}]
)
def test_many_have_the_log_probabilities_of_each_alone(
    generator: Generator, options: dict[str, Any], batch_size: int
) -> None:
    prompts = ["", "the ", "the time traveller", "t"]
    many = list(generator.generate_many(prompts, n=2, batch_size=batch_size, max_new_tokens=20, logprobs=2, **options))
    alone = [
        generator.generate(prompt, index=2 * place + j, max_new_tokens=20, logprobs=2, **options)
        for place, prompt in enumerate(prompts)
        for j in range(2)
    ]
    assert many == alone
    assert all(len(made.logprobs or ()) >= len(made.tokens) for made in many)


def test_many_prompts_are_read_as_their_turn_comes(generator: Generator) -> None:
    taken = itertools.count()

    def prompts() -> Iterator[str]:
        while True:
            next(taken)
            yield "the "

    many = generator.generate_many(prompts(), batch_size=4, max_new_tokens=3)
    assert [next(many).index for _ in range(10)] == list(range(10))
    assert next(taken) < 40


def test_a_prompt_among_many_outside_the_vocabulary_is_an_error(generator: Generator) -> None:
    with pytest.raises(PromptError, match=r"prompts\[1\].*é"):
        list(generator.generate_many(["the", "é"]))


def test_a_hundred_threads_get_what_each_would_have_got_alone(generator: Generator) -> None:
    arguments: list[dict[str, Any]] = [
        {"seed": i, "max_new_tokens": 40, "repetition_penalty": 1.1, "temperature": [0.0, 0.8][i % 2]}
        for i in range(100)
    ]
    expected = [generator.generate(PROMPTS[i % 7], **a).text for i, a in enumerate(arguments)]
    start = threading.Barrier(100)

    def work(i: int) -> str:
        start.wait(60)
        if i % 3 == 0:
            return "".join(generator.stream(PROMPTS[i % 7], **arguments[i]))
        if i % 3 == 1:
            return next(generator.generate_many([PROMPTS[i % 7]], **arguments[i])).text
        return generator.generate(PROMPTS[i % 7], **arguments[i]).text

    with ThreadPoolExecutor(100) as pool:
        assert list(pool.map(work, range(100))) == expected


@attrs.define(eq=False)
class Watcher:
    """A plugin with one sampler, which changes nothing, counts its calls and may be made to wait."""

    calls: int = 0
    histories: list[Any] = attrs.field(factory=list)
    begun: threading.Event = attrs.field(factory=threading.Event)
    gate: threading.Event | None = None

    @hookimpl
    def textgen_samplers(self) -> list[Component]:
        def sample(logits: Any, history: Any) -> Any:
            self.calls += 1
            self.histories.append(weakref.ref(history))
            self.begun.set()
            if self.gate is not None:
                assert self.gate.wait(60), "nobody opened the gate"
            return logits

        return [Component("watch", NoOptions, lambda config, context: sample)]


def watched(run: Path, **options: Any) -> tuple[Watcher, Generator]:
    watcher = Watcher(**options)
    plugins = PluginSet.discover()
    plugins.register(watcher, "watcher")
    return watcher, Engine(plugins).load(run, sampler=[{"type": "watch"}])


@attrs.define(eq=False)
class Counter:
    """Counts what a decoder is fed, and waits once it has been fed something."""

    fed: int = 0
    begun: threading.Event = attrs.field(factory=threading.Event)
    gate: threading.Event = attrs.field(factory=threading.Event)


def counting(run: Path) -> tuple[Counter, Generator]:
    """A generator whose model is that of a run, counted."""
    counter, inner = Counter(), load(run)

    class Model:
        def decoder(self, batch_size: int) -> Any:
            decoder = inner.model.decoder(batch_size)
            extend = decoder.extend

            def counted(tokens: Any) -> Any:
                if tokens.size:
                    counter.fed += tokens.size
                    counter.begun.set()
                    assert counter.gate.wait(60), "nobody opened the gate"
                return extend(tokens)

            return SimpleNamespace(extend=counted, read_state=decoder.read_state, write_state=decoder.write_state)

    return counter, attrs.evolve(inner, model=Model())


@pytest.mark.parametrize("close", [False, True])
@pytest.mark.parametrize("echo", [False, True])
def test_a_stream_that_is_left_does_no_more_work_and_leaves_no_memory(
    finished_run: Path, close: bool, echo: bool
) -> None:
    watcher, generator = watched(finished_run)
    stream = generator.stream("the ", max_new_tokens=None, echo=echo)
    for _ in range(10 + echo):
        next(stream)
    assert watcher.calls == 10
    if close:
        stream.close()
        assert list(stream) == []
        assert stream.finish_reason is None
    del stream
    gc.collect()
    assert watcher.calls == 10
    assert all(history() is None for history in watcher.histories)


def test_a_batch_that_is_left_does_no_more_work_and_leaves_no_memory(finished_run: Path) -> None:
    watcher, generator = watched(finished_run)
    many = generator.generate_many(itertools.repeat("the "), batch_size=3, max_new_tokens=5)
    next(many)
    calls = watcher.calls
    del many
    gc.collect()
    assert watcher.calls == calls <= 10
    assert all(history() is None for history in watcher.histories)


def test_an_async_stream_gives_the_same_text(generator: Generator) -> None:
    async def collect() -> str:
        return "".join([piece async for piece in generator.astream("the ", max_new_tokens=50, seed=3)])

    assert asyncio.run(collect()) == generator.generate("the ", max_new_tokens=50, seed=3).text


def joined(pieces: Iterable[Piece]) -> dict[int, tuple[str, str | None]]:
    """By index the text and the reason it ended; what comes after an end is an error."""
    texts: dict[int, tuple[str, str | None]] = {}
    for piece in pieces:
        text, reason = texts.get(piece.index, ("", None))
        assert reason is None
        assert piece.text or piece.finish_reason
        texts[piece.index] = (text + piece.text, piece.finish_reason)
    return texts


@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize("options", [{}, {"stop": ["e", " th"], "echo": True}, {"stop_tokens": [3, 4]}])
def test_texts_stream_side_by_side(lively: Generator, options: dict[str, Any], temperature: float) -> None:
    arguments: dict[str, Any] = {"n": 2, "max_new_tokens": 50, "seed": 3, "temperature": temperature, **options}
    pieces = list(lively.stream_many(PROMPTS, batch_size=5, **arguments))
    expected = {made.index: (made.text, made.finish_reason) for made in lively.generate_many(PROMPTS, **arguments)}
    assert joined(pieces) == expected
    first_end = next(i for i, piece in enumerate(pieces) if piece.finish_reason)
    assert len({piece.index for piece in pieces[:first_end]}) > 1, "one text after the other"

    async def collect() -> list[Piece]:
        return [piece async for piece in lively.astream_many(PROMPTS, batch_size=5, **arguments)]

    assert joined(asyncio.run(collect())) == expected


def test_the_pieces_of_a_step_take_one_turn_of_a_thread(generator: Generator) -> None:
    class Counting(ThreadPoolExecutor):
        submitted = 0

        def submit(self, *arguments: Any, **named: Any) -> Any:
            self.submitted += 1
            return super().submit(*arguments, **named)

    async def read(pool: Counting) -> int:
        asyncio.get_running_loop().set_default_executor(pool)
        return len([piece async for piece in generator.astream_many(["the "] * 50, max_new_tokens=20)])

    pool = Counting(1)
    assert asyncio.run(read(pool)) >= 50 * 20
    assert pool.submitted < 200


def test_prompts_of_a_stream_are_read_as_their_turn_comes(generator: Generator) -> None:
    read = []

    def prompts() -> Iterator[str]:
        for prompt in ["the ", "clock", "hour"]:
            read.append(prompt)
            yield prompt

    pieces = generator.stream_many(prompts(), batch_size=2, max_new_tokens=5)
    assert read == []
    assert next(pieces).index in (0, 1)
    assert read == ["the ", "clock"]
    assert {piece.index for piece in pieces} == {0, 1, 2}
    with pytest.raises(UsageError, match="several"):
        generator.stream_many("the ")
    with pytest.raises(UsageError, match="batch_size"):
        generator.stream_many(["the "], batch_size=0)


def test_the_event_loop_stays_free(finished_run: Path) -> None:
    """Each token waits for a gate that only the event loop opens."""
    watcher, generator = watched(finished_run, gate=threading.Event())

    async def open_gate() -> None:
        while not watcher.begun.is_set():
            await asyncio.sleep(0)
        assert watcher.gate is not None
        watcher.gate.set()

    async def read() -> list[str]:
        return [piece async for piece in generator.astream("the ", max_new_tokens=5)]

    async def both() -> list[str]:
        return (await asyncio.gather(read(), open_gate()))[0]

    assert len(asyncio.run(both())) == 5


def test_an_async_stream_that_is_left_stops(finished_run: Path) -> None:
    watcher, generator = watched(finished_run)

    async def read() -> int:
        stream = generator.astream("the ", max_new_tokens=None)
        async for _ in stream:
            if watcher.calls >= 5:
                break
        await stream.aclose()
        calls = watcher.calls
        assert [piece async for piece in stream] == []
        return calls

    assert asyncio.run(read()) == watcher.calls
    gc.collect()
    assert all(history() is None for history in watcher.histories)


@pytest.mark.parametrize("many", [False, True])
def test_a_task_that_is_cancelled_ends_its_text_while_the_prompt_is_read(finished_run: Path, many: bool) -> None:
    """Or a server would go on reading for a client that has gone."""
    counter, generator = counting(finished_run)
    prompt = "the " * 10_000

    async def read() -> None:
        stream = generator.astream_many([prompt], max_new_tokens=1) if many else generator.astream(prompt)
        async for _ in stream:
            pass

    async def leave() -> None:
        task = asyncio.create_task(read())
        while not counter.begun.is_set():
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        counter.gate.set()

    asyncio.run(leave())
    for thread in threading.enumerate():
        if thread.name.startswith("textgen-stream"):
            thread.join(60)
    assert counter.fed < len(prompt) / 2


def test_a_stream_is_closed_by_another_thread(finished_run: Path) -> None:
    counter, generator = counting(finished_run)
    stream = generator.stream("the " * 10_000)
    with ThreadPoolExecutor(1) as pool:
        pieces = pool.submit(list, stream)
        assert counter.begun.wait(60)
        stream.close()
        counter.gate.set()
        assert pieces.result(60) == []
    assert counter.fed < 20_000


def test_streams_leave_the_event_loops_own_threads_alone(finished_run: Path) -> None:
    watcher, generator = watched(finished_run, gate=threading.Event())

    async def both() -> list[str]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        reading = asyncio.create_task(anext(generator.astream("the ")))
        while not watcher.begun.is_set():
            await asyncio.sleep(0)
        assert watcher.gate is not None
        await asyncio.to_thread(watcher.gate.set)  # which a stream must not keep waiting
        return [await reading]

    assert len(asyncio.run(both())) == 1


def test_an_async_stream_ends_as_a_stream_does(generator: Generator) -> None:
    async def read(at: int) -> tuple[str, str | None, Any]:
        stream = generator.astream("the ", max_new_tokens=at, keep_state=True)
        assert (stream.finish_reason, stream.state) == (None, None)
        text = "".join([piece async for piece in stream])
        return text, stream.finish_reason, stream.state

    text, reason, state = asyncio.run(read(20))
    assert reason == "length"
    assert (
        text + generator.generate(state=state, max_new_tokens=30).text
        == generator.generate("the ", max_new_tokens=50).text
    )


def test_an_async_stream_gives_what_came_before_a_failure(finished_run: Path) -> None:
    class Failing:
        @hookimpl
        def textgen_samplers(self) -> list[Component]:
            calls = itertools.count()

            def sample(logits: Any, history: Any) -> Any:
                if next(calls) == 3:
                    raise KeyError("lost")
                return logits

            return [Component("failing", NoOptions, lambda config, context: sample)]

    plugins = PluginSet.discover()
    plugins.register(Failing(), "failing")
    generator = Engine(plugins).load(finished_run, sampler=[{"type": "failing"}])
    pieces: list[str] = []

    async def read() -> None:
        async for piece in generator.astream("the ", max_new_tokens=10):
            pieces.append(piece)

    with pytest.raises(ContractError, match="'failing' failed in sampling: KeyError: 'lost'") as caught:
        asyncio.run(read())
    assert len(pieces) == 3
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize("name", ["stream", "astream", "stream_many", "astream_many", "generate_many"])
def test_what_is_wrong_is_refused_before_the_first_piece_is_asked_for(generator: Generator, name: str) -> None:
    """So that a server knows it while there is still a status code to send."""
    begin, many = getattr(generator, name), name.endswith("many")
    with pytest.raises(UsageError, match="temperature"):
        begin(["the "] if many else "the ", temperature=-1)
    with pytest.raises(PromptError, match=r"prompts\[1\].*é" if many else "é"):
        begin(["the ", "é"] if many else "é")


def test_an_async_stream_goes_on_from_a_state(generator: Generator) -> None:
    whole = generator.generate("the ", max_new_tokens=30, seed=3)
    first = generator.generate("the ", max_new_tokens=10, seed=3, keep_state=True)

    async def rest() -> str:
        return "".join([piece async for piece in generator.astream(state=first.state, max_new_tokens=20)])

    assert first.text + asyncio.run(rest()) == whole.text


def test_a_generator_and_a_state_are_shown_in_a_line_without_their_arrays(generator: Generator) -> None:
    state = generator.generate("the ", max_new_tokens=3, keep_state=True).state
    assert str(generator.path) in repr(generator)
    assert len(repr(generator)) < 300
    assert "array" not in repr(state)


def test_every_argument_has_a_type() -> None:
    assert Any not in get_type_hints(GenerateArguments).values()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("max_new_tokens", value) for value in (-1, 10**10, 2**63)),
        *(("min_new_tokens", value) for value in (-1, 10**10)),
        *(("n", value) for value in (0, -1, 10**6 + 1, 1.0, True)),
        *(("batch_size", value) for value in (0, -1, 1.5)),
        *(("stop", value) for value in (["a"] * 1001, "a" * 10_001, "", [""], ["a", 1], ["\ud800"])),
        *(("stop_tokens", value) for value in ([-1], [10**6], [0.5], [1] * 1001, [True])),
        *(("time_limit", value) for value in (-1, math.nan, math.inf, "1")),
        ("echo", 1),
    ],
)
def test_limits_are_checked_before_anything_is_read_or_made(generator: Generator, name: str, value: Any) -> None:
    def prompts() -> Iterator[str]:
        raise AssertionError("the prompts were read")
        yield ""

    with pytest.raises(UsageError, match=name):
        generator.generate_many(prompts(), **{name: value})
    if name not in ("n", "batch_size"):
        with pytest.raises(UsageError, match=name):
            generator.generate("the", **{name: value})
        with pytest.raises(UsageError, match=name):
            generator.stream("the", **{name: value})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"cancelled": 5}, "cancelled: expected a function or an event"),
        ({"prompt": None}, "prompt: expected a string"),
        ({"prompt": ["the"]}, "prompt: expected a string"),
        ({"max_tokens": 5}, "did you mean 'max_new_tokens'"),
        ({"temprature": 1.0}, "did you mean 'temperature'"),
        ({"n": 2}, "n: an argument of other methods"),
        ({"logit_bias": {5: 1.0}}, "logit_bias: expected the text of one token"),
        ({"logit_bias": {"the": 1.0}}, "logit_bias: expected the text of one token"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(generator: Generator, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        generator.generate(**{"prompt": "the ", **arguments})
    with pytest.raises(UsageError, match=said):
        generator.stream(**{"prompt": "the ", **arguments})
    with pytest.raises(UsageError, match="logprobs: an argument of other methods"):
        generator.stream_many(["the "], logprobs=1)  # type: ignore[call-arg]


def test_numbers_may_be_those_of_numpy(generator: Generator) -> None:
    plain = generator.generate("the ", seed=3, index=2, max_new_tokens=50, top_k=5, temperature=0.5, stop_tokens=[3, 4])
    stops = generator.encode_prompt(generator.tokenizer.decode(np.array([3, 4])))
    made = generator.generate(
        "the ",
        seed=np.uint64(3),  # type: ignore[arg-type]
        index=np.int64(2),  # type: ignore[arg-type]
        max_new_tokens=np.int32(50),  # type: ignore[arg-type]
        top_k=np.int8(5),  # type: ignore[arg-type]
        temperature=np.float32(0.5),  # type: ignore[arg-type]
        stop_tokens=stops,
    )
    assert made == plain
    assert type(made.index) is type(made.seed) is int
    with pytest.raises(UsageError, match="max_new_tokens"):
        generator.generate("the ", max_new_tokens=np.float64(5.0))  # type: ignore[arg-type]


def test_no_stop_may_be_none(generator: Generator) -> None:
    assert generator.generate("the ", stop=None, stop_tokens=None) == generator.generate("the ")


def test_weights_that_change_on_disk_change_nothing_that_is_loaded(finished_run: Path, tmp_path: Path) -> None:
    path = shutil.copytree(finished_run, tmp_path / "run") / "model.safetensors"
    made = load(path.parent)
    text, score = made.generate("the ").text, made.score("the clock")
    for size, data in ((100, b""), (0, b"\xff" * path.stat().st_size)):
        os.truncate(path, size)
        with path.open("r+b") as file:
            file.write(data)
        assert made.generate("the ").text == text
        assert made.score("the clock") == score


def test_what_would_never_end_is_refused_where_it_must_end(generator: Generator) -> None:
    for call in (generator.generate, lambda prompt, **options: generator.generate_many([prompt], **options)):
        with pytest.raises(UsageError, match="never ends"):
            call("the ", max_new_tokens=None)
    assert generator.generate("the ", max_new_tokens=None, stop="e").finish_reason == "stop"


STATES = pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0},
        {"seed": 5},
        {"temperature": 0.8, "repetition_penalty": 1.3, "frequency_penalty": 0.3, "presence_penalty": 0.2},
        {"no_repeat_ngram": 3, "temperature": 0.7},
    ],
    ids=["greedy", "sampled", "penalties", "no-repeat"],
)


@STATES
@pytest.mark.parametrize("at", [0, 1, 37, 64, 65])
def test_a_state_continues_exactly(generator: Generator, options: dict[str, Any], at: int) -> None:
    whole = generator.generate("the ", max_new_tokens=150, index=4, **options)
    first = generator.generate("the ", max_new_tokens=at, index=4, keep_state=True, **options)
    rest = generator.generate(max_new_tokens=150 - at, state=first.state, **options)
    assert first.text + rest.text == whole.text
    streamed = "".join(generator.stream(max_new_tokens=150 - at, state=first.state, **options))
    assert streamed == rest.text, "a state can be used twice"


@pytest.mark.parametrize("streamed", [False, True])
def test_a_stop_text_is_found_across_a_saved_state(generator: Generator, streamed: bool) -> None:
    """What was shown of it cannot be taken back, but it ends the text where it would have ended."""
    whole = generator.generate("the ", max_new_tokens=80).text
    for end in (30, 47, 60):
        stop, begin = whole[end - 4 : end], whole.index(whole[end - 4 : end])
        for cut in range(begin + 1, begin + 4):
            stops = ["zzz", stop]
            first = generator.generate("the ", max_new_tokens=cut, stop=stops, keep_state=True)
            assert first.text == whole[:cut]
            state = first.state
            for _ in range(2):  # nothing generated leaves it as it was
                state = generator.generate(state=state, max_new_tokens=0, stop=stops, keep_state=True).state
            if streamed:
                stream = generator.stream(state=state, max_new_tokens=30, stop=stops)
                assert ("".join(stream), stream.finish_reason) == ("", "stop")
            else:
                rest = generator.generate(state=state, max_new_tokens=30, stop=stops)
                assert (rest.text, rest.finish_reason) == ("", "stop")
            assert len(generator.generate(state=state, max_new_tokens=9, stop=None).tokens) == 9
            other = generator.generate(state=state, max_new_tokens=30, stop=stop, min_new_tokens=10)
            assert len(other.tokens) >= 10


@STATES
@pytest.mark.parametrize("at", [0, 1, 37, 64, 65])
def test_the_state_of_a_stream_continues_exactly(generator: Generator, options: dict[str, Any], at: int) -> None:
    whole = generator.generate("the ", max_new_tokens=150, index=4, **options)
    stream = generator.stream("the ", max_new_tokens=at, index=4, keep_state=True, **options)
    assert (stream.finish_reason, stream.state) == (None, None)
    first = "".join(stream)
    assert stream.finish_reason == "length"
    assert first + generator.generate(max_new_tokens=150 - at, state=stream.state, **options).text == whole.text
    same = generator.generate("the ", max_new_tokens=at, index=4, keep_state=True, **options).state
    assert stream.state is not None
    assert same is not None
    assert stream.state.values == same.values


@STATES
def test_an_endless_stream_is_cancelled_and_gone_on_with(generator: Generator, options: dict[str, Any]) -> None:
    stream = generator.stream("the ", max_new_tokens=None, keep_state=True, stop=["the time machine"], **options)
    text = ""
    for piece in stream:
        text += piece
        if len(text) > 40:
            stream.cancel()
    assert stream.finish_reason == "cancelled"
    rest = generator.generate(max_new_tokens=50, state=stream.state, **options)
    assert text + rest.text == generator.generate("the ", max_new_tokens=len(text) + 50, **options).text


def test_a_stream_says_why_it_ended(generator: Generator) -> None:
    stop = generator.generate("the ", max_new_tokens=20).text[10:14]
    for arguments, reason in (
        ({"max_new_tokens": 3}, "length"),
        ({"max_new_tokens": 30, "stop": stop}, "stop"),
        ({"max_new_tokens": None, "time_limit": 0.01}, "time"),
        ({"max_new_tokens": None, "cancelled": lambda: True}, "cancelled"),
    ):
        stream = generator.stream("the ", **arguments)
        assert stream.finish_reason is None
        assert "".join(stream) == generator.generate("the ", **arguments).text or reason == "time"
        assert (stream.finish_reason, stream.state) == (reason, None)


def test_another_thread_can_cancel_a_stream(finished_run: Path) -> None:
    watcher, generator = watched(finished_run, gate=threading.Event())
    assert watcher.gate is not None
    stream = generator.stream("the ", max_new_tokens=None)
    with ThreadPoolExecutor(1) as pool:
        pieces = pool.submit(list, stream)
        assert watcher.begun.wait(60)
        stream.cancel()
        watcher.gate.set()
        assert len(pieces.result(60)) == watcher.calls == 1
    assert stream.finish_reason == "cancelled"


@STATES
def test_a_state_continues_in_another_process(
    python: Callable[..., Any], generator: Generator, finished_run: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    whole = generator.generate("the ", max_new_tokens=120, **options)
    first = generator.generate("the ", max_new_tokens=50, keep_state=True, **options)
    assert first.state is not None
    first.state.save(tmp_path / "state")
    assert (tmp_path / "state").stat().st_size < 10_000
    script = (
        "import sys, textgen\n"
        "state = textgen.GenerationState.load('state')\n"
        f"made = textgen.load(sys.argv[1]).generate(max_new_tokens=70, state=state, **{options!r})\n"
        "print(made.text, end='')\n"
    )
    done = python("-c", script, finished_run, cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert first.text + done.stdout == whole.text


@pytest.mark.parametrize("at", range(0, 60, 7))
def test_a_state_at_a_stop_is_that_of_what_was_shown(lively: Generator, at: int) -> None:
    """A greedy decoder runs ahead of the text; what it made beyond the stop must leave no trace."""
    whole = lively.generate("the ", max_new_tokens=120, temperature=0)
    stop = whole.tokens[at]
    end = whole.tokens.index(stop) + 1
    for arguments in ({"stop_tokens": [stop]}, {"stop": whole.text[:end]}):
        made = lively.generate("the ", max_new_tokens=120, temperature=0, keep_state=True, **arguments)
        assert (made.tokens, made.finish_reason) == (whole.tokens[:end], "stop")
        exact = lively.generate("the ", max_new_tokens=end, temperature=0, keep_state=True).state
        assert made.state is not None
        assert exact is not None
        assert made.state.values == exact.values
        assert made.state.arrays.keys() == exact.arrays.keys()
        assert all(np.array_equal(array, exact.arrays[name]) for name, array in made.state.arrays.items())


@given(
    length=st.integers(0, 150),
    least=st.integers(0, 30),
    stop_tokens=st.lists(st.integers(1, 12), max_size=2),
    stops=st.sampled_from([[], ["the t"], ["e", "  "], ["ll"]]),
    batch_size=st.sampled_from([1, 3, 64]),
)
def test_greedy_in_stretches_is_greedy_step_by_step(
    lively: Generator, length: int, least: int, stop_tokens: list[int], stops: list[str], batch_size: int
) -> None:
    """A bias far below rounding changes no choice, but goes through the samplers token by token."""
    arguments: dict[str, Any] = {
        "max_new_tokens": length,
        "min_new_tokens": least,
        "stop_tokens": stop_tokens,
        "stop": stops,
        "temperature": 0,
    }
    steps = [lively.generate(prompt, index=i, logit_bias={"t": 1e-30}, **arguments) for i, prompt in enumerate(PROMPTS)]
    assert [lively.generate(prompt, index=i, **arguments) for i, prompt in enumerate(PROMPTS)] == steps
    assert list(lively.generate_many(PROMPTS, batch_size=batch_size, **arguments)) == steps
    assert ["".join(lively.stream(prompt, **arguments)) for prompt in PROMPTS] == [made.text for made in steps]


def test_a_prompt_is_added_to_a_state(generator: Generator) -> None:
    first = generator.generate("the ", max_new_tokens=30, keep_state=True, temperature=0)
    added = generator.generate("clock", max_new_tokens=30, state=first.state, temperature=0)
    assert added.tokens == generator.generate(f"{first}clock", max_new_tokens=30, temperature=0).tokens


def test_a_state_says_what_the_samplers_lack(generator: Generator) -> None:
    plain = generator.generate("the ", max_new_tokens=10, keep_state=True)
    with pytest.raises(UsageError, match="sampling options that the text was begun with"):
        generator.generate(state=plain.state, repetition_penalty=1.2)


def test_a_state_keeps_its_seed_and_index_and_takes_another_seed(generator: Generator) -> None:
    first = generator.generate("the ", seed=9, index=4, max_new_tokens=20, keep_state=True)
    rest = generator.generate(state=first.state, max_new_tokens=50)
    assert (rest.seed, rest.index) == (9, 4)
    assert generator.generate(state=first.state, max_new_tokens=50, seed=9, index=4) == rest
    other = generator.generate(state=first.state, max_new_tokens=50, seed=10)
    assert (other.seed, other.index) == (10, 4)
    assert other.text != rest.text
    with pytest.raises(UsageError, match="index"):
        generator.generate(state=first.state, index=3)
    with pytest.raises(UsageError, match="GenerationState"):
        generator.generate(state="state.safetensors")  # type: ignore[arg-type]


def test_a_prompt_added_to_a_state_has_the_logprobs_of_the_whole(generator: Generator) -> None:
    before = generator.generate("the ", max_new_tokens=0, keep_state=True).state
    added = generator.generate("clock", state=before, max_new_tokens=5, echo=True, logprobs=1).logprobs
    whole = generator.generate("the clock", max_new_tokens=5, echo=True, logprobs=1).logprobs
    assert added is not None
    assert whole is not None
    assert added == whole[4:]


@pytest.mark.parametrize("ways", ["generate", "stream", "generate_many"])
def test_a_long_prompt_can_be_cancelled_while_it_is_fed(generator: Generator, ways: str) -> None:
    """Asked between blocks of the prompt, which takes more than one token's time; nothing is drawn before its end."""
    asked = itertools.count()
    arguments: dict[str, Any] = {"max_new_tokens": 20, "cancelled": lambda: next(asked) == 5}
    prompt = "the time traveller " * 1000
    if ways == "stream":
        assert "".join(generator.stream(prompt, **arguments)) == ""
    else:
        made = generator.generate(prompt, keep_state=True, **arguments) if ways == "generate" else None
        if made is None:
            (made,) = generator.generate_many([prompt], **arguments)
        assert (made.tokens, made.finish_reason) == ((), "cancelled")
        if made.state is not None:  # left in the middle of the prompt
            rest = generator.generate(state=made.state, max_new_tokens=20)
            assert rest.text == generator.generate(prompt, max_new_tokens=20).text
    assert next(asked) == 6


def test_the_state_of_another_model_is_refused(
    generator: Generator, tiny_pipeline: Callable[..., dict[str, Any]]
) -> None:
    other = run(tiny_pipeline(seed=8)).generator
    state = other.generate("the ", max_new_tokens=5, keep_state=True).state
    with pytest.raises(UsageError, match="another model"):
        generator.generate(state=state)
    with pytest.raises(UsageError, match="another model"):
        generator.stream(state=state)


def test_a_damaged_state_is_an_error_that_names_the_file(generator: Generator, tmp_path: Path) -> None:
    state = generator.generate("the ", max_new_tokens=5, keep_state=True, repetition_penalty=1.1).state
    assert state is not None
    path = tmp_path / "state"
    state.save(path)
    good = path.read_bytes()
    flips = [good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :] for at in range(0, len(good), 7)]
    cuts = [good[:size] for size in (0, 1, 8, 100, len(good) - 1)]
    for bad in [*flips, *cuts, b"version https://git-lfs.github.com/spec/v1\n", good + b"\0"]:
        path.write_bytes(bad)
        with pytest.raises(CorruptFileError, match="state"):
            GenerationState.load(path)
    path.write_bytes((generator.path / "model.safetensors").read_bytes())  # type: ignore[operator]
    with pytest.raises(CorruptFileError, match="state"):
        GenerationState.load(path)
    with pytest.raises(RunError, match="cannot be read") as caught:
        GenerationState.load(tmp_path / "missing")
    assert not isinstance(caught.value, CorruptFileError)
    with pytest.raises(RunError, match="missing/state cannot be written: No such file"):
        state.save(tmp_path / "missing/state")


@pytest.mark.parametrize(
    ("options", "sizes"),
    [({}, (50_000, 200_000)), ({"stop": "\0never\0", "repetition_penalty": 1.1}, (10_000, 40_000))],
    ids=["plain", "penalty"],
)
@pytest.mark.parametrize("many", [False, True], ids=["one", "two"])
def test_an_endless_stream_takes_no_more_memory(
    generator: Generator, options: dict[str, Any], sizes: tuple[int, int], many: bool
) -> None:
    stream: Iterator[Any] = generator.stream("the ", max_new_tokens=None, **options)
    if many:
        stream = generator.stream_many(["the ", "clock"], max_new_tokens=None, **options)
    collections.deque(itertools.islice(stream, 1000), maxlen=0)
    tracemalloc.start()
    try:
        collections.deque(itertools.islice(stream, sizes[0]), maxlen=0)
        early = tracemalloc.get_traced_memory()
        collections.deque(itertools.islice(stream, sizes[1] - sizes[0]), maxlen=0)
        late = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert late[0] - early[0] < 4096
    assert late[1] - early[1] < 4096


def test_logprobs_are_those_of_the_model_before_any_sampler(generator: Generator) -> None:
    made = generator.generate("the ", max_new_tokens=20, logprobs=3, top_k=2, temperature=0.5)
    assert made.logprobs is not None
    decoder = generator.model.decoder(1)
    logits = decoder.extend(generator.encode_prompt("the ")[None])
    for token, entry in zip(made.tokens, made.logprobs, strict=True):
        row = np.asarray(logits, np.float64)[0]
        row = row - np.log(np.exp(row).sum())
        assert entry.token == token
        assert entry.logprob == pytest.approx(row[token], abs=1e-6)
        assert [t for t, _ in entry.top] == np.argsort(-row, kind="stable")[:3].tolist()
        assert [p for _, p in entry.top] == pytest.approx(sorted(row, reverse=True)[:3], abs=1e-6)
        logits = decoder.extend(np.array([[token]]))
    assert made.tokens == generator.generate("the ", max_new_tokens=20, top_k=2, temperature=0.5).tokens


def test_with_echo_prompt_and_logprobs_of_the_prompt_come_first(generator: Generator) -> None:
    prompt = "the clock"
    plain = generator.generate(prompt, max_new_tokens=10, logprobs=0)
    echoed = generator.generate(prompt, max_new_tokens=10, logprobs=0, echo=True)
    assert echoed.text == str(echoed) == str(plain) == prompt + plain.text
    assert plain.logprobs is not None
    assert echoed.logprobs is not None
    assert [entry.token for entry in echoed.logprobs] == [*generator.encode_prompt(prompt), *plain.tokens]
    assert echoed.logprobs[len(prompt) :] == plain.logprobs
    scores = np.concatenate([block.logprobs for block in generator.score_tokens(prompt)])
    assert [entry.logprob for entry in echoed.logprobs[1 : len(prompt)]] == pytest.approx(list(scores[1:]), abs=1e-6)
    assert next(iter(generator.stream(prompt, max_new_tokens=2, echo=True))) == prompt


@pytest.mark.parametrize("value", [-1, 1000, 1.0, True])
def test_logprobs_are_at_most_the_vocabulary(generator: Generator, value: Any) -> None:
    with pytest.raises(UsageError, match="logprobs"):
        generator.generate("the ", logprobs=value)


def test_the_unknown_token_is_never_generated(generator: Generator) -> None:
    made = generator.generate("the ", max_new_tokens=5000, temperature=100.0)  # all tokens are about equally likely
    assert len(set(made.tokens)) == generator.tokenizer.vocab_size - 1
    assert generator.tokenizer.unknown_id not in made.tokens
    many = generator.generate_many([""] * 100, max_new_tokens=50, temperature=100.0)
    assert all(generator.tokenizer.unknown_id not in m.tokens for m in many)


def test_token_scores_say_which_token_is_how_likely(generator: Generator) -> None:
    text = "the hour " * 1000
    blocks = list(generator.score_tokens(text))
    assert len(blocks) > 1
    tokens = np.concatenate([block.tokens for block in blocks])
    logprobs = np.concatenate([block.logprobs for block in blocks])
    assert np.array_equal(tokens, generator.encode_prompt(text))
    assert np.isnan(logprobs[0])
    assert -logprobs[1:].mean() == pytest.approx(generator.score(text).loss)


def test_a_long_text_is_scored_in_bounded_memory(generator: Generator) -> None:
    def peak(characters: int) -> int:
        piece = "the time traveller smiled, and the clock struck. " * 100
        tracemalloc.start()
        try:
            generator.score(itertools.repeat(piece, characters // len(piece)))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(1_000_000) < peak(100_000) + 100_000
