"""Texts of different lengths generated in one batch, against the same texts alone."""

import asyncio

import attrs
import numpy as np
import pytest
from conftest import CONTEXT
from test_model import built, decoder, tokens

import textgen

WORDS = (
    "The time machine stood still; The café served naïve travellers tea and they "
    "said: how fine! It's 1895."
)
PROMPTS = [WORDS[i : i + length] for i, length in enumerate((1, 30, 7, 90, 3, 12, 50, 0, 21, 2))]
CLOSE = 1e-4  # logits this close may be drawn either way


@pytest.fixture
def sizes(run, monkeypatch):
    """The number of rows in each call of the network."""
    seen = []
    network = run.generator.model.model
    forward = network.forward

    def watched(*args, **kwargs):
        seen.append(len(kwargs["input_ids"]))
        return forward(*args, **kwargs)

    monkeypatch.setattr(network, "forward", watched)
    return seen


def assert_same_text(generator, given, expected):
    """Equal, or different from a place on where two tokens are equally likely up to rounding."""
    for place, (mine, theirs) in enumerate(zip(given.tokens, expected.tokens, strict=False)):
        if mine != theirs:
            before = [*generator.prepare(given.prompt).ids, *expected.tokens[:place]]
            logits = generator.model.decoder(1).extend(np.array([before]))[0]
            assert abs(logits[mine] - logits[theirs]) < CLOSE
            return
    assert (given.tokens, given.text, given.finish_reason) == (
        expected.tokens,
        expected.text,
        expected.finish_reason,
    )


class Rows:
    """Rows of one decoder, with all that each was fed."""

    def __init__(self, run, fed):
        self.run, self.fed, self.decoder = run, [*fed], decoder(run, len(fed))
        self.decoder.extend(fed)

    def join(self, other):
        self.decoder.join(other.decoder)
        self.fed += other.fed

    def taken(self, rows):
        made = object.__new__(Rows)
        made.run, made.decoder, made.fed = (
            self.run,
            self.decoder.take(rows),
            [self.fed[row] for row in rows],
        )
        return made

    def extend(self, ids):
        given = self.decoder.extend(ids)
        self.fed = [np.append(before, new) for before, new in zip(self.fed, ids, strict=True)]
        for row, fed in enumerate(self.fed):
            np.testing.assert_allclose(
                given[row], decoder(self.run).extend(fed[None])[0], atol=1e-5
            )


def test_rows_of_different_lengths_come_go_and_fill_their_contexts(run):
    lengths = [3, CONTEXT, 0, CONTEXT - 1, 2 * CONTEXT + 5]
    together = Rows(run, tokens(1, lengths[0]))
    for length in lengths[1:]:
        together.join(Rows(run, tokens(1, length)))
        together.extend(tokens(len(together.fed), 0))
    for step in range(CONTEXT):
        together.extend(
            tokens(5, step + 4)[: len(together.fed), step : step + (3 if step % 7 == 0 else 1)]
        )
        if step == 9:
            whole, together = together, together.taken([3, 0, 0, 2])
    together.join(whole)
    together.extend(tokens(len(together.fed), CONTEXT + 1))
    scored, fed = together.decoder.score(tokens(9, 15)), together.fed
    for row, before in enumerate(fed):
        alone = decoder(run)
        alone.extend(before[None])
        np.testing.assert_allclose(
            scored[row], alone.score(tokens(9, 15)[row : row + 1])[0], atol=1e-5
        )


@pytest.mark.parametrize("joins", [True, False])
def test_a_row_that_joins_before_it_was_fed_begins_as_it_does_alone(run, monkeypatch, joins):
    monkeypatch.setattr(run.generator.model, "begin", 7)  # as of Llama, Mistral and Gemma
    alone, decoders = [decoder(run), decoder(run)], [decoder(run), decoder(run)]
    decoders[joins].extend(tokens(1, 9))
    alone[joins].extend(tokens(1, 9))
    together = decoders[0]
    together.join(decoders[1])
    for length in (3, 1, CONTEXT):
        fed = tokens(2, length)
        given = together.extend(fed)
        for row, each in enumerate(alone):
            np.testing.assert_allclose(given[row], each.extend(fed[row : row + 1])[0], atol=1e-5)


def test_the_state_of_a_row_has_no_padding(run):
    together = Rows(run, tokens(2, 9))
    together.join(Rows(run, tokens(1, 4)))
    with pytest.raises(ValueError, match=r"\[9, 9, 4\]"):
        together.decoder.read_state()
    alone = decoder(run)
    alone.extend(tokens(1, 4))
    expected = alone.read_state()
    state = together.decoder.take([2]).read_state()
    assert state.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(state[name], array)  # nothing was fed since it was alone
    assert together.decoder.take([1, 0]).read_state()["tokens"].shape == (2, 9)


def test_texts_in_a_batch_are_those_of_single_calls(run, sizes):
    ends = set()
    for options in (
        {"max_new_tokens": 60},
        {"stop": ["i", " t"], "stop_tokens": [101], "max_new_tokens": 40},
    ):
        sizes.clear()
        given = list(
            run.generator.generate_many(PROMPTS, batch_size=4, **options)
        )  # rows leave, and others join
        assert max(sizes) == 4
        expected = [run.generator.generate(prompt, **options) for prompt in PROMPTS]
        for mine, theirs in zip(given, expected, strict=True):
            assert_same_text(run.generator, mine, theirs)
            ends.add(theirs.finish_reason)
    assert ends == {"stop", "length"}


def test_requests_of_different_lengths_and_options_share_a_batch(run, sizes):
    options = [
        {"max_new_tokens": 12 + 9 * (i % 4), "temperature": 0.8 * (i % 2), "seed": i, "logprobs": 2}
        for i in range(len(PROMPTS))
    ]
    requests = [dict(prompt=prompt, **each) for prompt, each in zip(PROMPTS, options, strict=True)]
    given = list(run.generator.generate_many(requests))
    assert max(sizes) == len(PROMPTS)
    for i, (mine, prompt) in enumerate(zip(given, PROMPTS, strict=True)):
        theirs = run.generator.generate(prompt, index=i, **options[i])
        assert_same_text(run.generator, mine, theirs)
        pairs = [
            (a.logprob, b.logprob) for a, b in zip(mine.logprobs, theirs.logprobs, strict=True)
        ]
        np.testing.assert_allclose(*zip(*pairs, strict=True), atol=CLOSE)


def test_a_state_that_was_kept_in_a_batch_goes_on_alone_and_in_a_batch(run, tmp_path):
    counts = [5, 17, 40]
    requests = [
        {"prompt": p, "max_new_tokens": n, "keep_state": True}
        for p, n in zip(PROMPTS[1:], counts, strict=False)
    ]
    halves = list(run.generator.generate_many(requests))
    expected = [
        run.generator.generate(r["prompt"], max_new_tokens=n + 20)
        for r, n in zip(requests, counts, strict=True)
    ]
    rest = [{"state": half.state, "max_new_tokens": 20} for half in halves]
    for many, half, whole in zip(run.generator.generate_many(rest), halves, expected, strict=True):
        half.state.save(tmp_path / "state")
        alone = run.generator.generate(
            state=textgen.GenerationState.load(tmp_path / "state"), max_new_tokens=20
        )
        for second in (alone, many):
            joined = attrs.evolve(
                whole, tokens=half.tokens + second.tokens, text=half.text + second.text
            )
            assert_same_text(run.generator, joined, whole)


def test_asynchronous_streams_share_batches(run, sizes):
    async def text(prompt, count):
        stream = await run.generator.astream(prompt, max_new_tokens=count)
        return "".join([piece async for piece in stream])

    async def all_of_them():
        return await asyncio.gather(*(text(prompt, 30 + i) for i, prompt in enumerate(PROMPTS)))

    given = asyncio.run(all_of_them())
    assert max(sizes) > 1
    for i, (mine, prompt) in enumerate(zip(given, PROMPTS, strict=True)):
        theirs = run.generator.generate(prompt, max_new_tokens=30 + i)
        assert mine == theirs.text


TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}


@pytest.mark.parametrize(
    ("architecture", "config", "shares"),
    [
        (
            "bloom",
            {"hidden_size": 16, "n_layer": 2, "n_head": 2},
            True,
        ),  # positions from the mask alone
        (
            "opt",
            {
                "hidden_size": 16,
                "word_embed_proj_dim": 16,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "ffn_dim": 16,
            },
            True,
        ),
        ("mistral", {**TINY, "num_key_value_heads": 1, "sliding_window": 3}, True),
        (
            "bart",
            {
                "d_model": 16,
                "decoder_layers": 2,
                "decoder_attention_heads": 2,
                "decoder_ffn_dim": 16,
            },
            False,
        ),  # one position for all rows
        (
            "llama",
            {**TINY, "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
            False,
        ),
        ("mamba", {"hidden_size": 16, "num_hidden_layers": 1}, False),
    ],
)
def test_architectures_share_batches_where_rows_stay_independent(run, architecture, config, shares):
    model = built({"architecture": architecture, "config": config}, run)
    assert hasattr(model.decoder(1), "take") == hasattr(model.decoder(1), "join") == shares
    if shares:
        together, alone = model.decoder(1), [model.decoder(1), model.decoder(1)]
        other = model.decoder(1)
        for given, expected, ids in zip(
            (together, other), alone, (tokens(1, 9), tokens(1, 2)), strict=True
        ):
            given.extend(ids), expected.extend(ids)
        together.join(other)
        for ids in tokens(6, 2, 1):
            apart = np.concatenate(
                [single.extend(ids[i : i + 1]) for i, single in enumerate(alone)]
            )
            np.testing.assert_allclose(together.extend(ids), apart, atol=1e-5)


def test_a_prompt_that_comes_again_gives_the_same_text_and_is_not_fed_again(run, monkeypatch):
    generator = textgen.load(run.path, device="cpu")
    prompt, options = "the clock struck " * 40, {"max_new_tokens": 12, "seed": 3}
    fed, compute = [0], generator.model.run

    def counted(tokens, *arguments, **keywords):
        fed[-1] += tokens.numel()
        return compute(tokens, *arguments, **keywords)

    monkeypatch.setattr(generator.model, "run", counted)

    async def texts():
        made = []
        for more in ("", "", "and the clock struck"):
            made.append((await generator.agenerate(prompt + more, **options)).text)
            fed.append(0)
        return made

    made = asyncio.run(texts())
    assert made[:2] == [run.generator.generate(prompt, **options).text] * 2
    assert max(fed[1:3]) < 0.8 * fed[0]
