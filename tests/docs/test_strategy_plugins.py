"""Strategies of the docs that draft tokens, avoid an amateur's, or search by contrast."""

from pathlib import Path

import numpy as np
import pytest
from components import engine_with
from test_one_file_plugins import example

from textgen import Engine, PluginSet, UsageError
from textgen.testing import command_line


@pytest.mark.parametrize(
    "strategy",
    [
        {"drafts": 6},
        pytest.param({"draft": "small", "draft_tokens": 3}, marks=pytest.mark.slow),
    ],
)
def test_drafted_texts_are_those_of_sampling(tmp_path, monkeypatch, strategy):
    monkeypatch.chdir(tmp_path)
    plugins = PluginSet.discover()
    for name in ("ahead.py", "two_runs.py"):
        Path(name).write_text(example(name))
        plugins.register_file(Path(name))
    engine = Engine(plugins)
    text = "the river carried its light away in pieces to the sea. " * 40
    counted = {"corpus": text, "trainer": "count"}
    generator = engine.train(model={"type": "ngram", "order": 4}, **counted).generator
    engine.train(model={"type": "ngram", "order": 2}, **counted).save("small")
    for options in (
        {"temperature": 0.7, "logprobs": 1},
        {"xtc_probability": 0.5, "repetition_penalty": 1.2},
        {"stop": ["sea", "iec"], "min_new_tokens": 20, "temperature": 0.1},
        {"regex": "[a-z .]{3,40}"},
    ):
        for index in range(3):
            asked = {"max_new_tokens": 40, "index": index, **options}
            plain = generator.generate("the ", **asked)
            drafted = generator.generate("the ", **asked, **strategy)
            assert (drafted.tokens, drafted.finish_reason) == (plain.tokens, plain.finish_reason)
            asked["max_new_tokens"] = 15
            part = generator.generate("the ", **asked, **strategy, keep_state=True)
            rest = generator.generate(state=part.state, **asked | {"max_new_tokens": 25})
            if "stop" not in options:  # min_new_tokens counts from the beginning
                assert part.tokens + rest.tokens == plain.tokens


@pytest.mark.slow
def test_an_amateur_is_avoided(tmp_path):
    engine = engine_with(tmp_path / "two_runs.py", example("two_runs.py"))
    counted = {"corpus": "abacabad" * 100, "trainer": "count"}
    generator = engine.train(model={"type": "ngram", "order": 4}, **counted).generator
    amateur = engine.train(model={"type": "ngram", "order": 1}, **counted)
    amateur.save(tmp_path / "amateur")
    asked = {"max_new_tokens": 12, "temperature": 0}
    counted["corpus"] = "the ferry had left. " * 60
    engine.train(model="ngram", **counted).save(tmp_path / "other")
    size = generator.tokenizer.vocab_size
    with pytest.raises(UsageError, match=rf"12 tokens.* {size}"):
        generator.generate("ab", amateur=str(tmp_path / "other"))
    (tmp_path / "other").rename(tmp_path / "run")
    named = ("two_runs:contrast", engine.plugins(), [f"contrast.amateur={tmp_path / 'run'}"])
    *_, (_, last) = command_line.check_named(*named)
    assert "another vocabulary" in last
    assert "--start RUN" in last
    *_, (status, last) = command_line.check_named(*named, start=str(tmp_path / "run"))
    assert (status, last.rpartition(" ")[2]) == ("ok", "strategy-memory"), last
    made = generator.generate("ab", amateur=str(tmp_path / "amateur"), **asked)
    ids = [*generator.prepare("ab").ids]
    for token in made.tokens:
        expert, other = (g.next_logprobs(ids)[0] for g in (generator, amateur.generator))
        scores = np.where(
            expert >= expert.max() + np.log(0.1), expert - np.maximum(other, -100), -np.inf
        )
        assert scores[token] == pytest.approx(scores.max())
        ids.append(token)


def test_contrastive_search_weighs_candidates_by_likeness(tmp_path):
    engine = engine_with(tmp_path / "contrastive.py", example("contrastive.py"))
    text = "the river carried its light away in pieces to the sea. " * 40
    generator = engine.train(corpus=text, model="ngram", trainer="count").generator
    asked = {"max_new_tokens": 12, "temperature": 1}
    likely = generator.generate("the", contrastive=3, contrastive_penalty=0, **asked)
    assert likely.tokens == generator.generate("the", max_new_tokens=12, temperature=0).tokens
    made = generator.generate("the", contrastive=3, contrastive_penalty=0.9, **asked)
    ids, seen = [*generator.prepare("the").ids], []
    for token in made.tokens:
        here = np.exp(generator.next_logprobs(ids)[0])
        seen.append(np.sqrt(here))
        scores = {}
        for other in np.argsort(-here)[:3].tolist():
            after = np.sqrt(np.exp(generator.next_logprobs([*ids, other])[0]))
            scores[other] = here[other] / 9 - max(after @ each for each in seen)
        assert scores[token] == pytest.approx(max(scores.values()), abs=1e-5)
        ids.append(token)
    assert made.tokens != likely.tokens
