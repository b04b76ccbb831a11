"""Thousands of requests that are wrong in one way or another: each is answered or refused, and none is a fault."""

from __future__ import annotations

import http.client
import json
import random
from collections import Counter
from typing import Any

from conftest import Serving, texts_at

from textgen_serve.parameters import ALIASES, NEUTRAL

NAMES = [
    *("model", "prompt", "n", "best_of", "stream", "stream_options", "echo", "seed", "logprobs"),
    *("prompt_logprobs", "max_tokens", "return_token_ids", "stop", "stop_tokens", "ignore_end"),
    *("min_new_tokens", "unknown_characters", "time_limit", "logit_bias", "temperature", "top_k"),
    *("top_p", "min_p", "typical_p", "repetition_penalty", "presence_penalty", "frequency_penalty"),
    *("no_repeat_ngram", "dry_multiplier", "dry_base", "dry_allowed_length", "dry_penalty_last_n"),
    *("dry_sequence_breakers", "xtc_probability", "xtc_threshold", "mirostat_tau", "mirostat_eta"),
    *("regex", "json_schema", "state", "cancelled", "keep_state", "index", "", "é", "a" * 1000),
    *ALIASES,
    *NEUTRAL,
]
VALUES: list[Any] = [
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


def bodies(count: int) -> list[bytes]:
    """Bodies with one to three parameters that are mostly wrong; every eighth is damaged as bytes."""
    draw = random.Random(1)
    made = []
    for i in range(count):
        body: dict[str, Any] = {"prompt": "Once ", "max_tokens": 2}
        for _ in range(draw.randint(1, 3)):
            body[draw.choice(NAMES)] = draw.choice(VALUES)
        data = bytearray(json.dumps(body).encode())
        if i % 8 == 0:
            data[draw.randrange(len(data))] = draw.randrange(256)
        made.append(bytes(data))
    return made


def test_malformed_requests_are_refused_and_leave_nothing_behind(server: Serving) -> None:
    host, _, port = server.url.rpartition("/")[2].partition(":")
    client = http.client.HTTPConnection(host, int(port), timeout=60)
    statuses: Counter[int] = Counter()
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
