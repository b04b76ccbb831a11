"""Strategies: how a text is made of steps."""

import asyncio
import itertools
import threading
import time
from itertools import product

import numpy as np
import pytest
from components import Utf8, engine_of
from networks import Attention
from prompts import PROMPTS
from raising import raises
from test_same_text import asynchronous, one_by_one, streamed
from watching import join_background

import textgen
from textgen import ContractError, UsageError
from textgen.generation.scheduling import async_streams
from textgen.generation.steps.batch import Batch
from textgen.protocols import Moves, Ranking

TEXT = "the time traveller smiled, and the clock of the hall struck the hour by the sea. " * 20
SMALL = {"temperature": 0.8, "max_new_tokens": 24}
STRATEGIES = {
    "sample": {"strategy": "sample"},
    "beam": {"beams": 3},
    "beam-groups": {"beams": 4, "beam_groups": 2, "stop": "e "},
    "best-of": {"best_of": 4, "stop_tokens": [3], "min_new_tokens": 6},
    "guidance": {"negative_prompt": "and ", "guidance_scale": 2.0},
    "banned-phrases": {"ban_phrase": ["the", "clock o", "tr"], "repetition_penalty": 1.2},
    "fill": {"suffix": "sea", "candidates": 3, "xtc_probability": 0.5},
}


@pytest.fixture(
    scope="module", params=["rnn", pytest.param("ngram", marks=pytest.mark.slow), "growing"]
)
def generator(request):
    return trained(request.param)


def trained(kind, text=TEXT):
    model = {
        "rnn": {"type": "rnn", "cell": "gru", "hidden_size": 12},
        "ngram": {"type": "ngram", "order": 4},
        "growing": lambda context: Attention(context.vocab_size),
    }[kind]
    trainer = {"type": "count"} if kind == "ngram" else {"type": "sgd", "length": "2 epochs"}
    return textgen.train(corpus=text, model=model, trainer=trainer, device="cpu").generator


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_text_is_the_same_whichever_way_it_is_asked_for(generator, name):
    options = {**SMALL, **STRATEGIES[name]}
    alone, *ways = (way(generator, options, None) for way in (one_by_one, streamed, asynchronous))
    assert ways == [alone, alone]
    assert [made.text for made in generator.generate_many(PROMPTS, **options)] == alone
    others = [{"prompt": "a", "index": 9, **other} for other in STRATEGIES.values()]
    mine = [{"prompt": p, "index": i, **options} for i, p in enumerate(PROMPTS)]
    beside = [*generator.generate_many([*others, *mine, {"prompt": ""}], **SMALL)]
    assert [made.text for made in beside[len(others) : -1]] == alone


def test_sampling_is_a_strategy(generator, monkeypatch):
    from textgen_builtins.strategies.sample import Sample

    monkeypatch.setattr(Sample, "draws_only", False)
    for options in (
        {"logprobs": 2},
        {"top_k": 3, "repetition_penalty": 1.3, "xtc_probability": 0.5, "dry_multiplier": 0.8},
        {"stop": ["he", "and"], "min_new_tokens": 3},
        {"stop_tokens": [2], "temperature": 0},
        {"regex": "[a-z]{3,5}"},
        {"max_new_tokens": 0},
    ):
        plain = generator.generate("the ", **{**SMALL, **options})
        made = generator.generate("the ", strategy="sample", **{**SMALL, **options})
        assert (made.tokens, made.text, made.finish_reason) == (
            plain.tokens,
            plain.text,
            plain.finish_reason,
        )
        assert [each.token for each in made.logprobs] == [each.token for each in plain.logprobs]


def test_enough_beams_find_the_likeliest_text():
    generator = trained("ngram", "abcabdacb" * 200)
    best = generator.generate("a", beams=200, max_new_tokens=4, temperature=1)
    texts = {"".join(each) for each in product("abcd", repeat=4)}
    scores = {text: generator.score(text, prompt="a").loss for text in texts}
    assert best.text == min(scores, key=scores.__getitem__)
    assert [each.score for each in best.ranked] == sorted(
        (e.score for e in best.ranked), reverse=True
    )
    # The score is of what is drawn, so without <unk>, which the loss knows.
    assert -best.ranked[0].score == pytest.approx(scores[best.text], abs=0.01)


def test_lanes_count_where_texts_are_limited(monkeypatch):
    generator, sizes = trained("ngram"), []
    decoder = type(generator.model.decoder(1))
    extend = decoder.extend

    def counting(self, tokens):
        sizes.append(len(tokens))
        return extend(self, tokens)

    monkeypatch.setattr(decoder, "extend", counting)
    for most in (1, 6, 12):  # one text has room at any time
        sizes.clear()
        texts = generator.generate_many(PROMPTS, best_of=3, max_new_tokens=6, batch_size=most)
        assert len([*texts]) == len(PROMPTS)
        assert 3 <= max(sizes) <= max(3, most)


def test_groups_of_beams_begin_with_different_tokens(generator):
    made = generator.generate("a", beams=4, beam_groups=4, diversity_penalty=1e6, max_new_tokens=1)
    assert len({each.tokens for each in made.ranked[:4]}) == 4


def test_the_best_of_several_texts_has_the_highest_mean(generator):
    options = {"max_new_tokens": 24, "temperature": 3.0}
    made = generator.generate("the ", best_of=6, **options)
    assert made.text == max(made.ranked, key=lambda each: each.score).text
    assert len({each.tokens for each in made.ranked}) == 6
    assert generator.generate("the ", **options).tokens in {each.tokens for each in made.ranked}
    for each in made.ranked:
        assert -each.score == pytest.approx(
            generator.score(each.text, prompt="the ").loss, abs=1e-4
        )


def test_guidance_draws_from_the_difference_of_two_prompts(generator):
    text = ""
    for _ in range(6):
        here, there = (generator.next_logprobs(p + text)[0] for p in ("the ", "and "))
        guided = there + 3 * (here - there)
        text += generator.tokenizer.decode(np.array([guided.argmax()]))
    options = {"negative_prompt": "and ", "temperature": 0, "max_new_tokens": 6}
    assert generator.generate("the ", guidance_scale=3.0, **options).text == text
    sampled = {"temperature": 1.5, "max_new_tokens": 40}
    off = generator.generate("the ", negative_prompt="é", guidance_scale=1.0, **sampled)
    unknown, none = (
        generator.generate("the ", negative_prompt=negative, guidance_scale=3.0, **sampled).tokens
        for negative in ("é", "")
    )
    assert unknown == none
    assert off.tokens == generator.generate("the ", **sampled).tokens
    strongest = generator.generate("the ", negative_prompt="é", guidance_scale=1000.0, **sampled)
    assert len(strongest.tokens) == 40


def test_banned_phrases_never_come_and_other_texts_stay(generator):
    many = [{"prompt": "", "index": i} for i in range(12)]
    plain = [made.text for made in generator.generate_many(many, max_new_tokens=40)]
    phrases = ["the ", "CLOCK", "ea", "t"]
    for banned in (phrases[:3], phrases[3:]):
        made = [m.text for m in generator.generate_many(many, max_new_tokens=40, ban_phrase=banned)]
        for before, after in zip(plain, made, strict=True):
            assert not any(phrase.lower() in after.lower() for phrase in banned)
            begins = [i for p in banned if (i := before.lower().find(p.lower())) >= 0]
            assert after[: min(begins, default=None)] == before[: min(begins, default=None)]
            assert len(after) == 40


def test_phrases_are_banned_whose_characters_are_several_tokens():
    parts = {"tokenizer": Utf8(), "model": "ngram", "trainer": "count"}
    with textgen.train(corpus="kxé 😀 of kxy " * 60, **parts).generator as generator:
        plain, made = (
            generator.generate("k", max_new_tokens=80, ban_phrase=phrases).text
            for phrases in (["q"], ["É", "😀 of", "xz"])
        )
    for text, found in ((plain, (True, True, True)), (made, (False, False, True))):
        assert tuple(each in text for each in ("é", "😀 of", "kxy")) == found


@pytest.mark.parametrize("ranking", [{"beams": 2}, {"best_of": 2}])
def test_a_stop_text_of_many_tokens_ends_a_text_and_is_in_no_ranked_one(ranking):
    parts = {"tokenizer": Utf8(), "model": "ngram", "trainer": "count"}
    with textgen.train(corpus="ab 終わりの言葉です cd " * 100, **parts).generator as generator:
        stop = "終わりの言葉です"
        made = generator.generate("b", stop=stop, max_new_tokens=120, **ranking)
    assert (made.finish_reason, stop in made.ranked[0].text) == ("stop", False)
    assert made.ranked[0].text == made.text


def test_what_fills_a_gap_is_ranked_by_what_follows(generator):
    made = generator.generate("the ", suffix="sea.", candidates=5, **SMALL)
    for each in made.ranked:
        loss = generator.score("sea.", prompt="the " + each.text).loss
        assert -each.score == pytest.approx(4 * loss, abs=1e-3)
    assert made.text == max(made.ranked, key=lambda each: each.score).text


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_text_goes_on_from_the_state_of_the_one_that_was_chosen(name):
    generator = trained("rnn")
    options = {**SMALL, **STRATEGIES[name]}
    made = generator.generate("the ", keep_state=True, **options)
    rest = generator.generate(state=made.state, temperature=0, max_new_tokens=9)
    ids = [*generator.prepare("the ").ids, *made.tokens]
    assert rest.tokens == generator.generate(ids, temperature=0, max_new_tokens=9).tokens


@pytest.mark.parametrize("name", ["sample", "guidance"])
def test_a_text_in_two_parts_is_the_text_at_once(name, generator, tmp_path):
    options = {**STRATEGIES[name], "xtc_probability": 0.5, "repetition_penalty": 1.2}
    whole = generator.generate("the ", index=3, max_new_tokens=20, **options)
    part = generator.generate("the ", index=3, max_new_tokens=8, keep_state=True, **options)
    part.state.save(tmp_path / "state")
    state = textgen.GenerationState.load(tmp_path / "state")
    rest = generator.generate(state=state, max_new_tokens=12, **options)
    assert part.tokens + rest.tokens == whole.tokens
    assert generator.generate(state=state, best_of=2, max_new_tokens=3).tokens


@pytest.fixture(scope="module")
def words():
    """A generator whose tokens begin with the space before them."""
    tokenizer = {"type": "bpe", "vocab_size": 300}
    parts = {"corpus": {"type": "story"}, "model": "ngram", "trainer": "count"}
    return textgen.train(tokenizer=tokenizer, **parts).generator


def test_what_another_prompt_begins_after_is_kept_after_a_prompt_of_ids(words):
    """A text after ids begins after nothing else, also in the lane of the other prompt."""
    generator, options = words, {"negative_prompt": "The sea", "guidance_scale": 4.0}
    ids = generator.prepare("The door").ids
    for index in range(4):
        asked = {"index": index, **options}
        whole = generator.generate(ids, max_new_tokens=12, **asked)
        for cut in ({"max_new_tokens": 4}, {"cancelled": lambda: True}):
            first = generator.generate(ids, keep_state=True, **cut, **asked)
            left = 12 - len(first.tokens)
            rest = generator.generate(state=first.state, max_new_tokens=left, **options)
            assert first.tokens + rest.tokens == whole.tokens


def test_the_space_that_ends_a_prompt_is_in_no_stop_text(words):
    strategies = ({"ban_phrase": ["zzz"]}, {"best_of": 1}, {"guidance_scale": 1.0})
    for index, stop in product(range(5), (" b", " s", " w")):
        asked = {"index": index, "stop": [stop], "max_new_tokens": 8}
        sampled = words.generate("The ", **asked)
        for strategy in strategies:
            made = words.generate("The ", **asked, **strategy)
            assert (made.text, made.tokens, made.finish_reason) == (
                sampled.text,
                sampled.tokens,
                sampled.finish_reason,
            )
            assert [each.text for each in made.ranked[:1]] == [made.text] * len(made.ranked[:1])


@pytest.mark.parametrize("name", [*STRATEGIES][1:])
def test_a_text_that_is_cut_off_goes_on_with_its_lanes(generator, name, tmp_path, monkeypatch):
    options = {**STRATEGIES[name], "temperature": 0.8, "logprobs": 1}
    whole = generator.generate("the ", index=3, max_new_tokens=40, **options)
    asked, tokens, logprobs, parts, reason = {"prompt": "the ", "index": 3}, (), (), 0, "cancelled"
    monkeypatch.setattr(time, "perf_counter", itertools.count().__next__)  # asked after each step
    while reason == "cancelled":
        calls = iter([False] * (9 * (parts % 2)) + [True] * 4)  # every other one at once
        left = 40 - len(tokens)
        cut = {"max_new_tokens": left, "cancelled": calls.__next__, "keep_state": True}
        made = generator.generate(**asked, **cut, **options)
        made.state.save(tmp_path / "state")
        asked = {"state": textgen.GenerationState.load(tmp_path / "state")}
        tokens, logprobs, parts = tokens + made.tokens, logprobs + made.logprobs, parts + 1
        reason = made.finish_reason
    assert parts > 2
    assert (tokens, reason) == (whole.tokens, whole.finish_reason)
    assert [each.token for each in logprobs] == list(tokens)
    assert [each.text for each in made.ranked] == [each.text for each in whole.ranked]


@pytest.mark.parametrize("name", ["sample", "guidance", "banned-phrases"])
def test_a_text_that_nobody_reads_pauses(name, generator):
    options = {**STRATEGIES[name], "logprobs": 100, "max_new_tokens": 300}

    async def read():
        stream = await generator.astream("the ", **options)
        first = await anext(stream)
        await asyncio.to_thread(join_background)  # which ends when there is nothing to do
        assert stream.finish_reason is None
        return first + "".join([piece async for piece in stream])

    whole = generator.generate("the ", **options)
    assert asyncio.run(read()) == whole.text
    assert asyncio.run(generator.agenerate("the ", **options)) == whole, "which has no pause"


def test_a_reader_that_takes_all_just_before_the_text_pauses_is_woken(generator, monkeypatch):
    options, streams, pause = {"logprobs": 100, "max_new_tokens": 300}, [], Batch.pause
    reads = threading.Event()

    def late(batch, rows):
        paused = pause(batch, rows)
        while paused and streams[0]._row.has_news:
            reads.set()
            async_streams.wake([streams[0]._reader])
            time.sleep(0.05)  # in which it takes all, and waits again
        return paused

    monkeypatch.setattr(Batch, "pause", late)

    async def read():
        streams.append(await generator.astream("the ", **options))
        first = await anext(streams[0])
        await asyncio.to_thread(reads.wait, 20)
        return first + "".join([piece async for piece in streams[0]])

    made = asyncio.run(asyncio.wait_for(read(), 20))
    assert reads.is_set()
    assert made == generator.generate("the ", **options).text


def test_a_pipeline_has_a_strategy_and_requests_replace_it(tmp_path):
    run = textgen.train(
        corpus=TEXT,
        model={"type": "ngram"},
        trainer={"type": "count"},
        generate={"strategy": {"type": "beam", "beams": 2}, "max_new_tokens": 8},
    )
    tables = {**run.pipeline.to_dict(), "corpus": {"type": "story"}}
    named = textgen.Engine().pipeline(tables, {"generate.strategy": "beam"})
    assert named.to_dict()["generate"]["strategy"]["type"] == "beam"
    run.save(tmp_path / "run")
    loaded = textgen.load(tmp_path / "run")
    assert len(loaded.generate("a").ranked) >= 2
    assert not loaded.generate("a", strategy="sample").ranked
    assert len(loaded.generate("a", best_of=5).ranked) == 5
    assert loaded.generate("a", strategy="fill", suffix="b").ranked
    for more in ({"beams": 2}, {"strategy": "beam"}, {"strategy": {"type": "sample"}}):
        with raises(UsageError, argument="strategy"):
            loaded.generate("a", best_of=2, **more)
    assert loaded.generate("a", suffix="éb").ranked[0].score > -1e9
    with raises(UsageError, argument="suffix"):
        loaded.generate("a", suffix="é")
    with raises(UsageError, argument="suffix"):
        loaded.generate("a", strategy="fill")
    with pytest.raises(UsageError) as caught:
        loaded.generate("a", strategy="beem")
    assert "beam" in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        Moves([0, 0, 0], [(), (), ()]),
        Moves([3], [(1,)]),
        Moves([0], [(10_000,)]),
        Moves([0], []),
        Moves([0], [(1,)], {"x": np.zeros(2)}),
        Ranking([]),
        Ranking([7]),
        Ranking([0], [1.0, 2.0]),
    ],
)
def test_an_answer_that_is_none_is_blamed(answer):
    class Odd:
        lanes = 2

        def step(self, view):
            return answer

    run = engine_of(strategy=lambda context: Odd()).train(
        corpus=TEXT, model={"type": "ngram"}, trainer={"type": "count"}
    )
    with raises(ContractError, kind="strategy", component="odd"):
        run.generator.generate("a", strategy="textgen-odd:odd")


@pytest.mark.parametrize("kept", [0, 1], ids=["never ends", "takes back"])
def test_a_strategy_that_never_ends_or_takes_back_what_was_shown_is_blamed(kept):
    class Odd:
        lanes = 2

        def step(self, view):
            if len(view) == 1:
                return Moves([0, 0], [(1,), (2,)], final=1)
            return Moves([kept], [()])

    engine = engine_of(strategy=lambda context: Odd())
    run = engine.train(corpus=TEXT, model="ngram", trainer="count")
    with raises(ContractError, kind="strategy", component="odd"):
        run.generator.generate("a", strategy="textgen-odd:odd")
