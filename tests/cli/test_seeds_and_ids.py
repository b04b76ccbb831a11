"""The command generate: seeds that are drawn, ids of tokens, exactness."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from textgen import Generator


@pytest.mark.parametrize("options", [(), ("-o", "lines"), ("-n", "2")])
def test_a_random_seed_is_reported_on_stderr(
    generate: Callable[..., Any], generator: Generator, options: tuple[str, ...]
) -> None:
    done = generate("-p", "the ", "--max-new-tokens", 12, "--seed", "random", *options)
    found = re.fullmatch(r"seed (\d+)\n", done.stderr)
    assert found is not None, done.stderr
    assert str(generator.generate("the ", max_new_tokens=12, seed=int(found[1]))) in done.stdout
    again = generate("-p", "the ", "--max-new-tokens", 12, "--seed", found[1], *options)
    assert (again.stdout, again.stderr) == (done.stdout, "")


def test_json_lines_have_the_drawn_seed_and_the_ids(
    generate: Callable[..., Any], generator: Generator
) -> None:
    done = generate(
        "-p", "the ", "--max-new-tokens", 12, "--seed", "random", "-n", 2, "-o", "jsonl"
    )
    assert (done.code, done.stderr) == (0, "")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert rows[0]["seed"] == rows[1]["seed"]
    for row in rows:
        made = generator.generate("the ", max_new_tokens=12, seed=row["seed"], index=row["index"])
        assert row["token_ids"] == list(made.tokens)
        assert row["tokens"] == len(made.tokens)
        assert "logprobs" not in row


def test_help_says_what_sampling_options_change(generate: Callable[..., Any]) -> None:
    shown = " ".join(generate("--help").stdout.split())
    assert "--temperature FLOAT Changes the run's samplers: " in shown
    assert "A sampling option changes that option of the run's own samplers" in shown
    assert "'random' draws one" in shown
