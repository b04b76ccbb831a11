"""Clients that are programs of their own. Each is skipped where it is not installed."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Serving, serving, train

import textgen

HARNESS = """
import json, sys
from lm_eval.api.instance import Instance
from lm_eval.models.openai_completions import LocalCompletionsAPI

def ask(kind, *arguments):
    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0)

lm = LocalCompletionsAPI(base_url=sys.argv[1] + "/v1/completions", model="ravens", max_length=512)
pairs = json.loads(sys.argv[2])
made = lm.loglikelihood([ask("loglikelihood", *pair) for pair in pairs])
until = {"until": ["h"], "max_gen_toks": 30, "do_sample": False}
text = lm.generate_until([ask("generate_until", "Once 3 ", until)])
rolling = None
if sys.argv[3:]:
    rolling = lm.loglikelihood_rolling([ask("loglikelihood_rolling", pairs[0][1])])
print(json.dumps([made, text, rolling]))
"""


def needs(module: str) -> pytest.MarkDecorator:
    found = importlib.util.find_spec(module) is not None
    return pytest.mark.skipif(not found, reason=f"needs {module}")


@needs("lm_eval")
def test_lm_evaluation_harness_gets_the_scores_of_the_generator(
    server: Serving, generator: textgen.Generator
) -> None:
    pairs = [["Once 3", " ravens flew"], ["Once 3 ravens", " came"], ["O", "nce"]]
    scores, texts, _ = harness(server, pairs)
    for (context, text), (score, is_greedy) in zip(pairs, scores, strict=True):
        scored = [b.logprobs for b in generator.score_tokens(text, prompt=context)]
        assert score == pytest.approx(sum(map(sum, scored)), rel=1e-12)
        greedy = generator.generate(context, temperature=0, max_new_tokens=len(text)).text
        assert is_greedy == (greedy == text)
    made = generator.generate("Once 3 ", temperature=0, max_new_tokens=30, stop="h")
    assert texts == [made.text]


@needs("lm_eval")
def test_lm_evaluation_harness_scores_documents_from_their_start(tmp_path: Path) -> None:
    corpus = [f"Once {n} ravens flew." for n in range(300)]
    generator = textgen.load(train(tmp_path / "ravens", corpus=corpus))
    with serving(tmp_path / "ravens") as server:
        _, _, (score,) = harness(server, [["Once", " 3 ravens flew."]], "rolling")
    (scored,) = generator.score_tokens(" 3 ravens flew.")
    assert score == pytest.approx(float(scored.logprobs[1:-1].sum()), rel=1e-12)


def harness(server: Serving, *arguments: object) -> list[list[object]]:
    """What lm-evaluation-harness computes."""
    texts = [a if isinstance(a, str) else json.dumps(a) for a in arguments]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OPENAI_API_KEY": "none"}
    line = [sys.executable, "-c", HARNESS, server.url, *texts]
    done = subprocess.run(line, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    made: list[list[object]] = json.loads(done.stdout.splitlines()[-1])
    return made


@needs("llm")
def test_llm_prints_the_text(server: Serving, generator: textgen.Generator, tmp_path: Path) -> None:
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: mine\n  model_name: ravens\n  api_base: {server.url}/v1\n  completion: true\n"
    )
    line = [sys.executable, "-m", "llm", "-m", "mine", "Once 3 ", "-o", "seed", "5"]
    environment = {**os.environ, "LLM_USER_PATH": str(tmp_path)}
    done = subprocess.run(line, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.removesuffix("\n") == generator.generate("Once 3 ", seed=5).text
