"""Clients that are programs of their own, each skipped where it is not installed; and requests as
others send them, with what they read of the answer.
"""

import importlib.util
import json
import os
import subprocess
import sys

import pytest
from conftest import events_of, serving, train

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


def needs(module):
    found = importlib.util.find_spec(module) is not None
    return pytest.mark.skipif(not found, reason=f"needs {module}")


@needs("lm_eval")
def test_lm_evaluation_harness_gets_the_scores_of_the_generator(server, generator):
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
def test_lm_evaluation_harness_scores_documents_from_their_start(tmp_path):
    corpus = [f"Once {n} ravens flew." for n in range(300)]
    generator = textgen.load(train(tmp_path / "ravens", corpus=corpus))
    with serving(tmp_path / "ravens") as server:
        _, _, (score,) = harness(server, [["Once", " 3 ravens flew."]], "rolling")
    (scored,) = generator.score_tokens(" 3 ravens flew.")
    assert score == pytest.approx(float(scored.logprobs[:-1].sum()), rel=1e-12)


def harness(server, *arguments):
    """The scores that lm-evaluation-harness computes."""
    texts = [a if isinstance(a, str) else json.dumps(a) for a in arguments]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OPENAI_API_KEY": "none"}
    line = [sys.executable, "-c", HARNESS, server.url, *texts]
    done = subprocess.run(line, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@needs("llm")
def test_llm_prints_the_text(server, generator, tmp_path):
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: mine\n  model_name: ravens\n  api_base: {server.url}/v1\n  completion: true\n"
    )
    line = [sys.executable, "-m", "llm", "-m", "mine", "Once 3 ", "-o", "seed", "5"]
    environment = {**os.environ, "LLM_USER_PATH": str(tmp_path)}
    done = subprocess.run(line, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.removesuffix("\n") == generator.generate("Once 3 ", seed=5).text


BODY = {"model": "ravens", "prompt": "Once ", "max_tokens": 4, "temperature": 0.7, "top_p": 0.9}
PENALTIES = {"frequency_penalty": 0, "presence_penalty": 0.1}
TOKENS = ("choices.0.logprobs.tokens.0", "choices.0.logprobs.top_logprobs.0")
LEGACY = (*TOKENS, "choices.0.logprobs.token_logprobs.0")
REQUESTS = {
    "mikupad": (
        {
            **BODY,
            **PENALTIES,
            "model": "",  # until one chooses
            "seed": 5,
            "repetition_penalty": 1.1,
            "repetition_penalty_range": 0,
            "top_k": 40,
            "penalize_nl": True,
            "ban_eos_token": False,
            "min_p": 0.05,
            "typical_p": 1,
            "tfs": 1,
            "xtc_probability": 0,
            "xtc_threshold": 0.1,
            "dry_multiplier": 0,
            "dry_base": 1.75,
            "dry_allowed_length": 2,
            "dry_sequence_breakers": '["\\n"]',
            "mirostat_mode": 0,
            "banned_tokens": [],
            "dynamic_temperature": False,
            "dynatemp_low": 0.5,
            "dynatemp_high": 1.5,
            "dynatemp_exponent": 1,
            "grammar_string": "",
            "logprobs": 10,
            "stream": True,
            "stop": [],
        },
        TOKENS,
    ),
    "SillyTavern": (
        {
            **BODY,
            **PENALTIES,
            "seed": -1,
            "stop": [],
            "logit_bias": {},
            "logprobs": 10,
            "n": 1,
            "best_of": 1,
            "stream": True,
        },
        TOKENS,
    ),
    "SillyTavern for vLLM": (
        {
            **BODY,
            **PENALTIES,
            "n": 1,
            "best_of": 1,
            "stop": ["\n"],
            "stop_token_ids": [],
            "stream": True,
            "top_k": -1,
            "min_p": 0,
            "repetition_penalty": 1,
            "min_tokens": 0,
            "ignore_eos": False,
            "use_beam_search": False,
            "length_penalty": 1,
            "early_stopping": False,
            "include_stop_str_in_output": False,
            "skip_special_tokens": True,
            "spaces_between_special_tokens": True,
            "guided_grammar": "",
            "truncate_prompt_tokens": None,
            "user": "me",
            "suffix": "",
            "logprobs": 10,
        },
        TOKENS,
    ),
    "Kobold Lite": (
        {**BODY, "presence_penalty": 0.1, "logprobs": 5, "stop": ["\n"], "logit_bias": {}},
        LEGACY,
    ),
    "Continue": ({**BODY, **PENALTIES, "stream": True, "stop": ["\n\n"]}, ()),
    "logitloom": ({**BODY, "top_p": 1, "temperature": 0, "logprobs": 7}, TOKENS),
    "Obsidian loom": ({**BODY, **PENALTIES, "n": 3}, ("choices.2.text",)),
    "LangChain": (
        {
            **BODY,
            **PENALTIES,
            "prompt": ["Once ", "O"],
            "n": 1,
            "logit_bias": {},
            "seed": None,
            "logprobs": None,
        },
        ("choices.1.text", "choices.1.finish_reason", "usage.total_tokens", "system_fingerprint"),
    ),
    "llama.cpp model of lm-evaluation-harness": (
        {"prompt": "Once ", "logprobs": 10, "temperature": 0, "max_tokens": 1, "echo": True},
        ("choices.0.logprobs.tokens.5", "choices.0.logprobs.text_offset.5"),
    ),
    "guidellm": (
        {
            **BODY,
            "max_completion_tokens": 4,
            "ignore_eos": True,
            "stop": None,
            "stream": True,
            "stream_options": {"include_usage": True},
        },
        (),
    ),
}


@pytest.mark.parametrize(("body", "read"), REQUESTS.values(), ids=REQUESTS)
def test_a_request_of_another_client_has_what_the_client_reads(http, body, read):
    headers = {"authorization": "Bearer none", "api-key": "none", "x-api-key": "none"}
    seeded = {**body, "seed": 7}  # a drawn seed may end the text with a token that has no text
    answer = http.post("/v1/completions", json=seeded, headers=headers)
    assert answer.status_code == 200, answer.text
    events = events_of(answer.text) if body.get("stream") else [answer.json()]
    for event in events[:1]:
        for path in ("choices.0.text", "choices.0.index", "id", "object", "created", *read):
            found = event
            for name in path.split("."):
                found = found[int(name) if name.isdigit() else name]
            assert found is not None, path
    if body.get("stream") and "logprobs" in body:  # they look for the text of the event
        for event in events[:-1]:
            (choice,) = event["choices"]
            assert choice["text"] in choice["logprobs"]["top_logprobs"][0]


def test_what_fills_in_the_middle_is_refused_as_clients_expect(http):
    assert http.post("/v1/fim/completions", json=BODY).json()["error"]["message"]
