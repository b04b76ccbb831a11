"""Limits of a server for each request."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class Limits:
    """Each is checked before anything is allocated for a request.

    texts             that are generated or wait at one time, of all requests, each counted as
                      often as it has lanes; beyond it the answer is 429
    texts_per_request prompts times n or best_of
    body_bytes        of a request
    body_values       numbers, strings, lists and objects of a request
    prompt_tokens     of one prompt
    new_tokens        `max_tokens` of a request
    logprobs          likeliest tokens for each token
    answer            echoed tokens and log-probabilities of an answer, as far as they are held at
                      one time
    seconds           that a request may take
    """

    texts: int = 2048
    texts_per_request: int = 256
    body_bytes: int = 4 << 20
    body_values: int = 250_000
    prompt_tokens: int = 200_000
    new_tokens: int = 100_000
    logprobs: int = 100
    answer: int = 100_000
    seconds: float = 600.0
