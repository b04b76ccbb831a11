"""Prompts that come from a pipe or a file, and stop texts as a shell gives them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from textgen import Generator, load

TOKENS = ("--max-new-tokens", 5)


@pytest.fixture(scope="module")
def generator(finished_run: Path) -> Generator:
    return load(finished_run)


@pytest.fixture
def generate(textgen: Callable[..., Any], finished_run: Path, tmp_path: Path) -> Callable[..., Any]:
    def run(*arguments: object, stdin: str = "") -> Any:
        return textgen("generate", finished_run, *TOKENS, *arguments, cwd=tmp_path, stdin=stdin)

    return run


@pytest.mark.parametrize(
    ("given", "prompt"),
    [
        ("the clock\n", "the clock"),
        ("the\r\nclock", "the\nclock"),
        ("the \n\n", "the \n"),
        ("\n", ""),
        ("", ""),
    ],
)
def test_what_is_piped_in_is_the_prompt_without_its_last_line_break(
    generate: Callable[..., Any], generator: Generator, given: str, prompt: str
) -> None:
    done = generate(stdin=given)
    assert (done.code, done.stdout) == (
        0,
        f"{generator.generate(prompt, max_new_tokens=5, echo=True).text}\n",
    )
    assert done.stderr == ""


def test_a_file_on_stdin_is_the_prompt(
    finished_run: Path, generator: Generator, tmp_path: Path
) -> None:
    (tmp_path / "prompt.txt").write_text("the clock\n")
    with (tmp_path / "prompt.txt").open("rb") as file:
        done = subprocess.run(
            [sys.executable, "-m", "textgen", "generate", finished_run, *map(str, TOKENS)],
            cwd=tmp_path,
            stdin=file,
            capture_output=True,
            encoding="utf-8",
            check=True,
        )
    assert done.stdout == f"{generator.generate('the clock', max_new_tokens=5, echo=True).text}\n"


def test_empty_lines_are_skipped_and_counted(generate: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("\nthe\n\n\nclock\n\n")
    done = generate("--prompts-file", "prompts.txt", "-o", "jsonl")
    assert [json.loads(line)["prompt"] for line in done.stdout.splitlines()] == ["the", "clock"]
    (tmp_path / "prompts.txt").write_text("\nthe\n\né\n", encoding="utf-8")
    failed = generate("--prompts-file", "prompts.txt")
    assert (failed.code, failed.stdout) == (2, "")
    assert failed.stderr.startswith("textgen: error: prompts.txt:4: the prompt has characters")


def test_a_stop_text_may_be_an_escape(
    generate: Callable[..., Any], textgen: Callable[..., Any], finished_run: Path, tmp_path: Path
) -> None:
    bias = ("--logit-bias", "\n=100", "--logit-bias", "t=99.9", "-p", "the ", "--no-echo")
    whole, ended = generate(*bias).stdout, generate(*bias, "--stop", r"\n").stdout
    assert "\n" in whole[:-1]
    assert ended == whole.partition("\n")[0] + "\n"
    shown = textgen("generate", "--help", cwd=tmp_path).stdout
    assert r"\n is a line break" in " ".join(shown.split())
