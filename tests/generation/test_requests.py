"""What a request may ask for: token ids, options of its own, the run's chain changed, chance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from textgen import Generator, UsageError, load

SHARP = [{"type": "top-k", "k": 3}, {"type": "temperature", "temperature": 0.5}]


@pytest.fixture(scope="module")
def sharp(finished_run: Path) -> Generator:
    """A generator whose run samples from few tokens."""
    return load(finished_run, sampler=SHARP)


def with_chain(run: Path, *tables: dict[str, Any]) -> str:
    return load(run, sampler=list(tables)).generate("the ", max_new_tokens=40, seed=2).text


def test_an_option_changes_that_of_the_runs_chain_and_keeps_the_rest(
    sharp: Generator, finished_run: Path
) -> None:
    text = sharp.generate("the ", max_new_tokens=40, seed=2, temperature=2.0).text
    assert text == with_chain(finished_run, SHARP[0], {"type": "temperature", "temperature": 2.0})


def test_an_option_joins_the_chain_at_its_standard_place(
    sharp: Generator, finished_run: Path
) -> None:
    text = sharp.generate("the ", max_new_tokens=40, seed=2, top_p=0.6, repetition_penalty=1.5).text
    penalty, nucleus = {"type": "penalties", "repetition": 1.5}, {"type": "top-p", "p": 0.6}
    assert text == with_chain(finished_run, penalty, SHARP[0], nucleus, SHARP[1])


def test_an_option_that_is_off_takes_its_sampler_out(sharp: Generator, finished_run: Path) -> None:
    text = sharp.generate("the ", max_new_tokens=40, seed=2, top_k=0).text
    assert text == with_chain(finished_run, SHARP[1])


def test_an_option_that_allows_everything_changes_no_text(sharp: Generator) -> None:
    plain = sharp.generate("the ", max_new_tokens=40, seed=2).text
    size = sharp.tokenizer.vocab_size
    assert sharp.generate("the ", max_new_tokens=40, seed=2, top_p=1.0).text == plain
    assert load(sharp.path or "", sampler=SHARP[1:]).generate(
        "the ", max_new_tokens=40, seed=2, top_k=size
    ).text == (
        load(sharp.path or "", sampler=SHARP[1:]).generate("the ", max_new_tokens=40, seed=2).text
    )


def test_greedy_gives_way_to_a_temperature(finished_run: Path) -> None:
    greedy = load(finished_run, sampler=[{"type": "greedy"}])
    text = greedy.generate("the ", max_new_tokens=40, seed=2, temperature=0.9).text
    assert text == with_chain(finished_run, {"type": "temperature", "temperature": 0.9})


def test_a_prompt_may_be_token_ids(generator: Generator) -> None:
    ids = generator.tokenizer.encode("the clock")
    expected = generator.generate("the clock", max_new_tokens=20)
    assert generator.generate(ids, max_new_tokens=20) == expected
    assert generator.generate(ids.tolist(), max_new_tokens=20) == expected
    assert next(iter(generator.generate_many([ids, "the clock"], max_new_tokens=20))) == expected
    assert "".join(generator.stream(ids.tolist(), max_new_tokens=20)) == expected.text


@pytest.mark.parametrize("prompt", [[0.5], [[1, 2]], [-1], [10**6], 5, None])
def test_what_is_no_prompt_is_a_usage_error(generator: Generator, prompt: Any) -> None:
    with pytest.raises(UsageError, match="prompt"):
        generator.generate(prompt)


def test_a_bias_is_given_by_text_or_id(generator: Generator) -> None:
    token = int(generator.tokenizer.encode("e")[0])
    by_text = generator.generate("the ", max_new_tokens=20, logit_bias={"e": 100})
    assert by_text.text == "e" * 20
    assert generator.generate("the ", max_new_tokens=20, logit_bias={token: 100.0}) == by_text
    with pytest.raises(UsageError, match="token id from 0"):
        generator.generate("the ", logit_bias={10**6: 1.0})


def test_a_random_seed_is_reported_and_gives_the_text_again(generator: Generator) -> None:
    made = [generator.generate("the ", max_new_tokens=30, seed="random") for _ in range(3)]
    assert len({generation.text for generation in made}) > 1
    assert generator.generate("the ", max_new_tokens=30, seed=made[0].seed) == made[0]
    stream = generator.stream("the ", max_new_tokens=30, seed="random")
    assert "".join(stream) == generator.generate("the ", max_new_tokens=30, seed=stream.seed).text
    with pytest.raises(UsageError, match="seed"):
        generator.generate("the ", seed="chance")  # type: ignore[arg-type]


def test_each_of_many_may_have_options_of_its_own(generator: Generator) -> None:
    requests = [
        "the ",
        {"prompt": "the ", "temperature": 0, "max_new_tokens": 7},
        {"prompt": "a", "top_k": 2, "seed": 9, "index": 4},
        {"prompt": "the clock", "stop": " ", "max_new_tokens": None},
        {"prompt": "the ", "logprobs": 2, "echo": True},
        {"prompt": generator.tokenizer.encode("an"), "min_new_tokens": 3, "stop_tokens": [0, 1]},
    ]
    made = list(generator.generate_many(requests, max_new_tokens=25, temperature=0.9, seed=3))
    last: dict[str, Any] = {"min_new_tokens": 3, "stop_tokens": [0, 1]}
    assert made == [
        generator.generate("the ", max_new_tokens=25, temperature=0.9, seed=3),
        generator.generate("the ", max_new_tokens=7, temperature=0, seed=3, index=1),
        generator.generate("a", max_new_tokens=25, temperature=0.9, top_k=2, seed=9, index=4),
        generator.generate(
            "the clock", max_new_tokens=None, stop=" ", temperature=0.9, seed=3, index=3
        ),
        generator.generate(
            "the ", max_new_tokens=25, temperature=0.9, seed=3, index=4, logprobs=2, echo=True
        ),
        generator.generate("an", max_new_tokens=25, temperature=0.9, seed=3, index=5, **last),
    ]


def test_each_of_many_keeps_its_state_if_asked(generator: Generator) -> None:
    prompts = [{"prompt": prompt, "keep_state": True} for prompt in ("the ", "a clock", "")]
    made = list(generator.generate_many(prompts, max_new_tokens=15, temperature=0.9))
    for generation in made:
        whole = generator.generate(
            generation.prompt, max_new_tokens=40, temperature=0.9, index=generation.index
        )
        rest = generator.generate(state=generation.state, max_new_tokens=25, temperature=0.9)
        assert generation.text + rest.text == whole.text
    again = list(
        generator.generate_many(
            [{"state": generation.state} for generation in made], max_new_tokens=5
        )
    )
    assert [generation.index for generation in again] == [0, 1, 2]


def test_a_stream_has_the_ids_and_log_probabilities_of_its_pieces(generator: Generator) -> None:
    whole = generator.generate("the ", max_new_tokens=30, temperature=0.9, logprobs=2)
    ids, logprobs = [], []
    with generator.stream("the ", max_new_tokens=30, temperature=0.9, logprobs=2) as stream:
        for _ in stream:
            ids += stream.ids.tolist()
            logprobs += stream.logprobs
    assert (tuple(ids), tuple(logprobs)) == (whole.tokens, whole.logprobs)


def test_a_stream_that_is_left_as_a_context_is_closed(generator: Generator) -> None:
    with generator.stream("the ", max_new_tokens=None) as stream:
        next(stream)
    assert list(stream) == []


def test_logits_are_those_that_log_probabilities_come_from(generator: Generator) -> None:
    logits = generator.logits("the clock")
    assert logits.shape == (9, generator.tokenizer.vocab_size)
    assert np.array_equal(logits, generator.logits(generator.tokenizer.encode("the clock")))
    first = generator.generate("the clock", max_new_tokens=1, logprobs=1, temperature=0)
    assert first.tokens[0] == logits[-1].argmax()
    with pytest.raises(UsageError, match="empty"):
        generator.logits("")


def test_hidden_states_and_the_torch_module_of_a_run(generator: Generator) -> None:
    import torch

    states = generator.hidden_states("the clock")
    assert states["hidden"].shape == (9, 1, 8)
    module = generator.module()
    assert not module.training
    ids = torch.from_numpy(generator.tokenizer.encode("the clock").astype(np.int64))[None]
    with torch.no_grad():
        logits, state = module(ids)
        np.testing.assert_allclose(logits[0].numpy(), generator.logits("the clock"), atol=1e-4)
        np.testing.assert_allclose(state[0].numpy(), states["hidden"][-1], atol=1e-5)
        next(module.parameters()).zero_()
    assert not np.array_equal(generator.logits("a"), module(ids[:, :1])[0].detach().numpy()[0])
