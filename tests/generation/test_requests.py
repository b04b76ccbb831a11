"""What a request may ask for: token ids, options of its own, the run's chain changed, chance."""

import asyncio
import gc
import importlib.util
import weakref

import numpy as np
import pytest
from watching import join_background

from textgen import UsageError, load, run
from textgen.generation import generator as generators


def test_options_change_the_runs_chain_and_keep_the_rest(finished_run):
    """One is off, and two join at their places."""
    sharp = {"type": "temperature", "temperature": 0.5}
    chain = [{"type": "top-k", "k": 3}, sharp]
    same = [{"type": "penalties", "repetition": 1.5}, {"type": "top-p", "p": 0.6}, sharp]
    options = {"top_k": 0, "top_p": 0.6, "repetition_penalty": 1.5}
    made, expected = (
        load(finished_run, sampler=each).generate("the ", max_new_tokens=40, seed=2, **given).text
        for each, given in ((chain, options), (same, {}))
    )
    assert made == expected


def test_a_bias_is_given_by_text_or_id(generator):
    token = int(generator.tokenizer.encode("e")[0])
    by_text = generator.generate("the ", max_new_tokens=20, logit_bias={"e": 100})
    assert by_text.text == "e" * 20
    for key in (token, np.int64(token)):
        assert generator.generate("the ", max_new_tokens=20, logit_bias={key: 100.0}) == by_text


def test_a_random_seed_is_reported_and_gives_the_text_again(generator):
    made = [generator.generate("the ", max_new_tokens=30, seed="random") for _ in range(3)]
    assert len({generation.text for generation in made}) > 1
    assert generator.generate("the ", max_new_tokens=30, seed=made[0].seed) == made[0]
    prompts = ["the ", {"prompt": "the "}, {"prompt": "the ", "index": 0}]
    first, *others = generator.generate_many(prompts, max_new_tokens=30, seed="random")
    assert {each.seed for each in others} == {first.seed}
    assert others[1].text == first.text


def test_numbers_may_be_those_of_numpy(generator):
    options = {"seed": 3, "index": 2, "max_new_tokens": 50, "stop_tokens": [3, 4]}
    of_numpy = {
        "seed": np.uint64(3),
        "index": np.int64(2),
        "max_new_tokens": np.int32(50),
        "stop_tokens": np.array([3, 4]),
    }
    ids = generator.prepare("the ").ids
    made = generator.generate(ids, **of_numpy, temperature=np.float32(0.5))
    assert made == generator.generate(ids.tolist(), **options, temperature=0.5)
    assert type(made.index) is type(made.seed) is int


@pytest.mark.parametrize("stop", [(), ("o", "t the rive")])
def test_a_stream_has_the_ids_and_log_probabilities_of_its_pieces(generator, stop):
    options = {"max_new_tokens": 60, "logprobs": 2, "stop": stop}
    whole = generator.generate("the ", **options)
    ids, logprobs = [], []
    with generator.stream("the ", **options) as stream:
        for _ in stream:
            ids += stream.ids.tolist()
            logprobs += stream.logprobs
    ids += stream.ids.tolist()
    logprobs += stream.logprobs
    assert (tuple(ids), tuple(logprobs)) == (whole.tokens, whole.logprobs)
    assert (whole.finish_reason == "stop") == bool(stop)
    assert all(
        entry.rank == 1 + [token for token, _ in entry.top].index(entry.token)
        for entry in logprobs
        if entry.token in dict(entry.top)
    )


def test_the_next_token_has_log_probabilities_before_and_after_the_samplers(generator):
    options = {"temperature": 0.5, "top_k": 3}
    before, after = generator.next_logprobs("the clock", **options)
    (entry,) = generator.generate("the clock", max_new_tokens=1, logprobs=5, **options).logprobs
    assert [before[token] for token, _ in entry.top] == [logprob for _, logprob in entry.top]
    kept = [token for token, _ in entry.top[:3]]
    assert np.flatnonzero(np.isfinite(after)).tolist() == sorted(kept)
    assert np.exp(after).sum() == pytest.approx(1)
    assert after[kept[0]] - after[kept[1]] == pytest.approx(2 * (before[kept[0]] - before[kept[1]]))
    _, certain = generator.next_logprobs("the clock", temperature=0)
    assert (certain[kept[0]], np.isfinite(certain).sum()) == (0, 1)
    _, goes_on = generator.next_logprobs("the clock", stop_tokens=[5], min_new_tokens=1)
    assert goes_on[5] == -np.inf < before[5]
    _, ended = generator.next_logprobs("the clock", regex="")
    assert np.isneginf(ended).all()


def test_logits_are_those_that_log_probabilities_come_from(generator):
    logits = generator.logits("the clock")
    assert logits.shape == (9, generator.tokenizer.vocab_size)
    ids = [*generator.record["priming"], *generator.tokenizer.encode("the clock")]
    assert np.array_equal(logits, generator.logits(ids)[-9:])
    first = generator.generate("the clock", max_new_tokens=1, temperature=0)
    assert first.tokens[0] == logits[-1].argmax()
    with pytest.raises(UsageError):
        generator.logits("")


def test_the_torch_module_of_a_run(generator):
    import torch

    module = generator.module()
    assert not module.training
    text = generator.prepare("the clock").ids
    ids = torch.tensor([[*generator.record["priming"], *text]])
    with torch.no_grad():
        logits, _ = module(ids)
        np.testing.assert_allclose(logits[0, -9:].numpy(), generator.logits("the clock"), atol=1e-4)
        next(module.parameters()).zero_()
    assert not np.array_equal(generator.logits("a"), module(ids[:, :1])[0].detach().numpy()[0])


@pytest.mark.parametrize(
    ("few", "many"), [(30, 90), pytest.param(200, 2000, marks=pytest.mark.slow)]
)
def test_what_belongs_to_a_request_goes_with_it(finished_run, monkeypatch, few, many):
    """After many different requests, as many objects are alive as after few."""
    monkeypatch.setattr(generators, "_CACHED", 10_000)  # bytes of states inside prompts
    generator, alive = load(finished_run), list[int]()
    has_forms = importlib.util.find_spec("llguidance") is not None

    async def ask(number):
        options = {"temperature": 0.5 + number, "max_new_tokens": 2}
        await generator.agenerate(f"{number * 'the '}clock"[-300:], seed=number, **options)
        form = {"regex": f"t{{1,{number + 2}}}|h"} if has_forms else {}
        generator.generate("t", dry_multiplier=1 + number, **form, **options)
        with pytest.raises(UsageError):
            generator.generate("t", top_p=number + 2)

    for number in range(many):
        asyncio.run(ask(number))
        if number + 1 in (few, many):
            gc.collect()
            alive.append(len(gc.get_objects()))
    assert alive[1] - alive[0] < few


@pytest.mark.parametrize("model", ["rnn", "mixture"])
def test_a_generator_that_is_dropped_is_gone_at_once(tiny_pipeline, model):
    tables = tiny_pipeline()
    if model == "mixture":
        second = {"type": "ngram", "order": 3}
        tables["model"] = {"type": "mixture", "first": tables["model"], "second": second}
        tables["trainer"] = {"type": "mixture", "first": tables["trainer"]}
    path = run(tables).path
    gc.collect()
    gc.disable()
    try:
        generator = load(path)
        generator.generate("t", max_new_tokens=3, temperature=0.5)
        asyncio.run(generator.agenerate("t", max_new_tokens=3))
        join_background()
        refs = [weakref.ref(part) for part in (generator, generator.model, generator.tokenizer)]
        del generator
        assert [ref() for ref in refs] == [None] * 3
    finally:
        gc.enable()
