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


def test_a_pipe_that_nobody_writes_to_is_not_waited_for(
    finished_run: Path, generator: Generator, tmp_path: Path
) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "textgen", "generate", finished_run, *map(str, TOKENS)],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        assert process.wait(timeout=60) == 0
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read() == f"{generator.generate('', max_new_tokens=5).text}\n"
        assert "--prompt-file - waits for it" in process.stderr.read()


@pytest.mark.parametrize("source", ["prompt.txt", "-"])
def test_a_prompt_file_is_one_prompt_of_many_lines(
    generate: Callable[..., Any], generator: Generator, tmp_path: Path, source: str
) -> None:
    text = "the clock\n\nof the hall\n"
    (tmp_path / "prompt.txt").write_text(text)
    done = generate("--prompt-file", source, "-o", "jsonl", stdin=text if source == "-" else "")
    (row,) = map(json.loads, done.stdout.splitlines())
    assert row["prompt"] == text[:-1]
    assert row["text"] == generator.generate(text[:-1], max_new_tokens=5, echo=True).text
    assert generate("--prompt-file", source, "--stream", stdin=text).stdout == f"{row['text']}\n"


@pytest.mark.parametrize("other", [("-p", "the "), ("--prompts-file", "prompt.txt")])
def test_one_place_of_prompts_is_enough(
    generate: Callable[..., Any], tmp_path: Path, other: tuple[str, str]
) -> None:
    (tmp_path / "prompt.txt").write_text("the ")
    failed = generate("--prompt-file", "prompt.txt", *other)
    assert (failed.code, failed.stdout) == (2, "")
    assert "--prompt, --prompt-file and --prompts-file exclude each other" in failed.stderr


def test_a_prompt_file_that_is_not_there_is_one_line(generate: Callable[..., Any]) -> None:
    failed = generate("--prompt-file", "nowhere")
    (line,) = failed.stderr.splitlines()
    assert (failed.code, "'--prompt-file': File 'nowhere' does not exist" in line) == (2, True)


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


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="there is no /dev/zero")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("generate", "RUN", "--prompt-file", "/dev/zero"),
            "/dev/zero has more than 64 MB, too much for prompts",
        ),
        (
            ("evaluate", "RUN", "/dev/zero"),
            "/dev/zero is a device, which may have no end; give a file, or - for stdin",
        ),
    ],
)
def test_a_device_without_end_is_one_line(
    textgen: Callable[..., Any],
    finished_run: Path,
    arguments: tuple[str, ...],
    said: str,
    tmp_path: Path,
) -> None:
    done = textgen(
        *(str(finished_run) if each == "RUN" else each for each in arguments), cwd=tmp_path
    )
    assert (done.code, done.stdout, done.stderr) == (2, "", f"textgen: error: {said}\n")
