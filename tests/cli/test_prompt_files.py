"""Prompts from files and stdin: lines, encodings, and what is wrong with which line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from textgen import Generator


def test_only_the_end_of_a_line_ends_a_prompt(
    generate: Callable[..., Any], generator: Generator, tmp_path: Path
) -> None:
    prompts = ["the\fclock", "the\u2028hour", "", "t"]
    (tmp_path / "prompts.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(prompts).encode())
    skip = ("--unknown-characters", "skip", "--max-new-tokens", 5, "-o", "jsonl")
    done = generate("--prompts-file", "prompts.txt", *skip)
    assert [json.loads(line)["prompt"] for line in done.stdout.split("\n")[:-1]] == [
        p for p in prompts if p
    ]


@pytest.mark.parametrize("place", ["file", "stdin"])
def test_a_prompt_outside_the_vocabulary_is_named_with_its_line_before_any_text(
    generate: Callable[..., Any], tmp_path: Path, place: str
) -> None:
    text = "the \n" * 700 + "thé\n"
    (tmp_path / "prompts.txt").write_text(text, encoding="utf-8")
    source = "prompts.txt" if place == "file" else "-"
    failed = generate(
        "--prompts-file", source, "--max-new-tokens", 5, stdin=text if place == "stdin" else ""
    )
    assert (failed.code, failed.stdout, len(failed.stderr.splitlines())) == (2, "", 1)
    assert f"{source}:701: " in failed.stderr
    assert "U+00E9" in failed.stderr
    assert "unknown_characters" in failed.stderr


def test_the_tokens_of_a_prompt_are_counted_as_it_is_fed(
    generate: Callable[..., Any], textgen: Callable[..., Any], tiny_pipeline: Any, tmp_path: Path
) -> None:
    from textgen import run

    options = ("-p", "thé ", "--max-new-tokens", 2, "-o", "jsonl")
    for treatment, count in (("skip", 3), ("unknown", 4)):
        row = json.loads(generate(*options, "--unknown-characters", treatment).stdout)
        assert row["prompt_tokens"] == count
    made = run(tiny_pipeline(generate={"unknown_characters": "skip"}))
    done = textgen("generate", made.path, *options, cwd=tmp_path)  # as the run itself has it
    assert (done.code, json.loads(done.stdout)["prompt_tokens"]) == (0, 3)


def test_under_a_time_limit_it_is_named_when_its_turn_comes(
    generate: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "prompts.txt").write_text("the \n\nthé\n", encoding="utf-8")
    limit = ("--time-limit", 600, "--batch-size", 1, "--max-new-tokens", 1)
    failed = generate("--prompts-file", "prompts.txt", *limit)
    assert failed.code == 2
    assert failed.stdout.startswith("=== text 1 ===")
    assert failed.stderr.startswith("textgen: error: prompts.txt:3: the prompt has characters")


@pytest.mark.parametrize("place", ["file", "stdin"])
def test_prompts_that_are_not_utf_8_are_refused_with_their_line(
    finished_run: Path, tmp_path: Path, place: str
) -> None:
    data = "thé \n".encode() * 6 + b"th\xe9\n"
    (tmp_path / "prompts.txt").write_bytes(data)
    source = "prompts.txt" if place == "file" else "-"
    failed = subprocess.run(
        [sys.executable, "-m", "textgen", "generate", finished_run, "--prompts-file", source],
        cwd=tmp_path,
        input=data,
        capture_output=True,
        check=False,
    )
    assert (failed.returncode, failed.stdout) == (2, b"")
    assert (
        failed.stderr.decode()
        == f"textgen: error: {source}:7: not UTF-8; save the prompts as UTF-8 text\n"
    )


def test_without_stdin_there_is_no_prompt(
    generator: Generator, finished_run: Path, tmp_path: Path
) -> None:
    expected = f"{generator.generate(max_new_tokens=5)}\n"
    closed = subprocess.run(
        [
            "sh",
            "-c",
            'exec "$@" <&-',
            "sh",
            sys.executable,
            "-m",
            "textgen",
            "generate",
            finished_run,
            "--max-new-tokens",
            "5",
        ],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert (closed.returncode, closed.stdout, closed.stderr) == (0, expected, "")


@pytest.mark.parametrize("place", ["file", "stdin"])
def test_each_line_of_a_file_is_continued(
    generate: Callable[..., Any], generator: Generator, tmp_path: Path, place: str
) -> None:
    prompts = ["the ", "", "clock of the hall", "t"]
    text = "\n".join(prompts) + "\n"
    (tmp_path / "prompts.txt").write_text(text, encoding="utf-8")
    source = "prompts.txt" if place == "file" else "-"
    done = generate(
        *(
            "--prompts-file",
            source,
            "--n",
            2,
            "--batch-size",
            3,
            "--max-new-tokens",
            20,
            "--output",
            "jsonl",
        ),
        stdin=text if place == "stdin" else "",
    )
    assert done.code == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    expected = list(
        generator.generate_many(filter(None, prompts), n=2, max_new_tokens=20, echo=True)
    )
    assert [
        (row["prompt"], row["text"], row["index"], row["seed"], row["finish_reason"])
        for row in rows
    ] == [(made.prompt, made.text, made.index, made.seed, made.finish_reason) for made in expected]
