"""Thousands of requests that are wrong in one way or another: each is answered or refused, and none
is a fault.
"""

import http.client
import json
import random
from collections import Counter

import pytest
from conftest import texts_at

from textgen_serve.parameters import ALIASES, NEUTRAL

NAMES = [
    *("model", "prompt", "n", "best_of", "stream", "stream_options", "echo", "seed", "logprobs"),
    *("prompt_logprobs", "max_tokens", "return_token_ids", "stop", "stop_tokens", "ignore_end"),
    *("min_new_tokens", "unknown_characters", "time_limit", "logit_bias", "temperature", "top_k"),
    *("top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"),
    *("dry_multiplier", "dry_allowed_length"),
    *("xtc_probability", "xtc_threshold"),
    *("regex", "json_schema", "state", "cancelled", "keep_state", "index", "", "é", "a" * 1000),
    *ALIASES,
    *NEUTRAL,
]
VALUES = [
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        7,
        2**31,
        2**63,
        2**64,
        10**20,
        0.5,
        1.5,
        -0.0,
        1e308,
        -1e308,
    ),
    *("", "x", "Once", "\0", "é", "\u2028", "9" * 100, "random", [], [[]], {}, [None], [True]),
    *([1, 2], [[1], [2]], ["a", 1], ["Once", "O"], [1.0], [-1], {"a": 1}, {"5": True}, {"5": "x"}),
    *({"1": 1e308}, {"type": "object"}, {"type": 5}, ["\n", ""], "(" * 50, "a{1,99999}", "(?=a)"),
]


def bodies(count):
    """Bodies with one to three parameters that are mostly wrong; every eighth is damaged as
    bytes.
    """
    draw = random.Random(1)
    made = []
    for i in range(count):
        body = {"prompt": "Once ", "max_tokens": 2}
        for _ in range(draw.randint(1, 3)):
            body[draw.choice(NAMES)] = draw.choice(VALUES)
        data = bytearray(json.dumps(body).encode())
        if i % 8 == 0:
            data[draw.randrange(len(data))] = draw.randrange(256)
        made.append(bytes(data))
    return made


def test_malformed_requests_are_refused_and_leave_nothing_behind(server):
    host, _, port = server.url.rpartition("/")[2].partition(":")
    client = http.client.HTTPConnection(host, int(port), timeout=60)
    statuses = Counter()
    for path in ("/v1/completions", "/next_tokens", "/tokenize", "/detokenize"):
        for body in bodies(2000 if path == "/v1/completions" else 200):
            client.request("POST", path, body, {"Content-Type": "application/json"})
            answer = client.getresponse()
            content = answer.read()
            statuses[answer.status] += 1
            assert answer.status in (200, 400, 404), (body, answer.status, content)
            assert b"Traceback" not in content
            if answer.status != 200:
                assert json.loads(content)["error"]["message"], body
    client.close()
    assert (statuses[200] > 100, statuses[400] > 1000) == (True, True)
    assert texts_at(server.url) == 0


LARGE = {
    "parameters": (400, {f"k{i}": i for i in range(50_000)}),
    "name": (400, {"k" * 1_000_000: 1}),
    "biases": (400, {"logit_bias": {str(i): 1 for i in range(5000)}}),
    "wrong biases": (400, {"logit_bias": {str(1000 + i): 1 for i in range(1000)}}),
    "names of an object": (400, {"logit_bias": {str(i): 1 for i in range(20_000)}}),
    "values": (413, {"prompt": [1] * 300_000}),
    "objects": (413, {"logit_bias": [{}] * 300_000}),
    "stop text": (400, {"stop": "x" * 1_000_000}),
    "echo": (400, {"prompt": "Once " * 20_000, "n": 256, "echo": True, "max_tokens": 0}),
    "scores": (400, {"prompt": [1] * 100_000, "echo": True, "logprobs": 5, "max_tokens": 0}),
    "ranks": (400, {"prompt": [1] * 100_000, "prompt_logprobs": 5, "max_tokens": 0}),
    "likeliest": (400, {"n": 256, "max_tokens": 200, "logprobs": 20}),
    "likeliest in a stream": (400, {"n": 256, "logprobs": 100, "stream": True}),
    "texts to choose from": (400, {"best_of": 256, "max_tokens": 100_000}),
}


@pytest.mark.parametrize(("status", "body"), LARGE.values(), ids=LARGE)
def test_a_request_that_would_hold_up_all_others_is_refused_in_short(http, status, body):
    answer = http.post("/v1/completions", json=body)
    assert (answer.status_code, len(answer.content) < 5000) == (status, True), answer.text[:5000]
    assert answer.json()["error"]["message"]


def test_other_endpoints_have_the_limit_of_a_prompt(http):
    for path, body, most in (
        ("/tokenize", {"prompt": "a" * 200_001}, "200,000"),
        ("/detokenize", {"tokens": [1] * 200_001}, "200,000"),
        ("/next_tokens", {"prompt": "a" * 200_001}, "200,000"),
    ):
        answer = http.post(path, json=body)
        assert (answer.status_code, most in answer.text) == (400, True), answer.text[:5000]
    assert len(http.get(f"/v1/models/{'a' * 50_000}").content) < 5000
