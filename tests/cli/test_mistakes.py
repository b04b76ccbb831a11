"""Mistakes on the command line: one line on stderr that says what was meant, exit code 2, and no
file lost.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from textgen import Generator, PromptError


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--greedy", "--temperature", "1"), "--temperature"),
        (("-p", "the", "--prompts-file", "-"), "--prompts-file"),
        (("--save-state", "state", "--n", "2"), "--save-state"),
        (("--logprobs", "1", "--n", "2"), "--output jsonl"),
        (("--prompts-file", "nowhere.txt"), "nowhere.txt"),
        (("--max-new-tokens", "-1"), "max_new_tokens"),
        (("--max-new-tokens", "some"), 'max_new_tokens: expected an integer, given "some"'),
        (("--max-new-tokens", "10000000000"), "max_new_tokens"),
        (("--n", "0"), "n: expected an integer from 1"),
        (("-n", "2", "--batch-size", "0"), "batch_size: expected an integer from 1"),
        (("--stop", "e", "--stop", ""), "stop: must hold texts of 1 to"),
        (("-p", "the \udcff"), "U+DCFF"),
        (("--temp", "0.5"), "--temperature"),
        (("--no-ech",), "--no-echo"),
        (("--logit-bias", "e=-inf"), "logit_bias.e: expected a finite number"),
        (("--logit-bias", "zz=1"), "error: logit_bias: expected the text of one token"),
        (("--seed", "-1"), "seed"),
        (("--time-limit", "nan"), "time_limit"),
        (("--top-p", "50", "--temperature", "-1"), "given 50.0; temperature: must be"),
        (("--output", "xml"), "jsonl"),
        (("--device", "gpu"), "device"),
        (("--save-state", "missing/state", "--max-new-tokens", "2"), "missing"),
    ],
)
def test_what_is_wrong_is_said_with_exit_code_2(
    generate: Callable[..., Any], arguments: tuple[str, ...], said: str
) -> None:
    failed = generate(*arguments)
    assert failed.code == 2, failed.stderr
    assert said in failed.stderr
    assert failed.stdout == ""
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("generate my.toml", "did you mean runs/my?"),
        ("generate nowhere", "there is no run directory nowhere; textgen run makes one"),
        ("evaluate my.toml my.txt", "did you mean runs/my?"),
        ("run my.txt", "textgen init my.txt writes one"),
        ("show my.txt", "textgen init my.txt writes one"),
        ("run runs/my", "runs/my/pipeline.toml"),
        ("run runs", "textgen init runs writes one"),
        ("run my", "my: cannot be read"),
        ("init my.toml", "textgen run my.toml"),
        ("my.toml", "no command is called 'my.toml'"),
        ("genrate runs/my", "did you mean 'generate'?"),
        ("run", "missing argument 'PIPELINE'; see textgen run --help"),
        ("run my.toml --set", "option '--set' requires an argument"),
        ("run my.toml --over", "--overwrite"),
        ("generate runs/my the door", "unexpected extra argument"),
        ("generate runs/my --top-k many", 'top_k: expected an integer, given "many"'),
        ("generate runs/my --logit-bias a", "--logit-bias expects TOKEN=VALUE"),
        ("plugins --knd", "see textgen plugins --help"),
        ("--nothing", "see textgen --help"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_was_meant(
    textgen: Callable[..., Any], workplace: Path, command: str, said: str
) -> None:
    failed = textgen(*command.split(), cwd=workplace)
    assert (failed.code, failed.stdout) == (2, ""), failed.stderr
    (line,) = failed.stderr.splitlines()
    assert line.startswith("textgen: error: ")
    assert said in line


def test_help_tells_what_every_command_does(textgen: Callable[..., Any], tmp_path: Path) -> None:
    shown = textgen("--help", cwd=tmp_path, env={"COLUMNS": "80"})
    assert shown.code == 0
    assert "..." not in shown.stdout.partition("Commands:")[2]
    assert max(map(len, shown.stdout.splitlines())) <= 80


def test_an_error_has_one_text_for_programs_and_the_command(
    generate: Callable[..., Any], generator: Generator
) -> None:
    with pytest.raises(PromptError, match="set unknown_characters to 'skip'") as raised:
        generator.generate("é")
    assert "--" not in str(raised.value)
    assert "unknown_characters to 'skip'" in generate("-p", "é").stderr


@pytest.fixture(scope="module")
def page(textgen: Callable[..., Any], workplace: Path) -> Path:
    """A page of the command evaluate, which has replaced an earlier one."""
    for _ in range(2):
        done = textgen("evaluate", "runs/my", "my.txt", "--html", "old.html", cwd=workplace)
        assert done.code == 0, done.stderr
    return workplace / "old.html"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("evaluate runs/my my.txt --html my.txt", "my.txt exists and is not a page"),
        ("evaluate runs/my my.txt --html ./my.toml", "is not a page of textgen evaluate"),
        ("evaluate runs/my my.txt --html runs/my/tokenizer.json", "is not a page"),
        ("evaluate runs/my my.txt --html runs", "runs exists and is not a page"),
        ("evaluate runs/my my.txt --html missing/page.html", "the folder missing does not exist"),
        ("generate runs/my -p t --save-state my.txt", "my.txt exists and is not a saved state"),
        ("generate runs/my -p t --save-state runs/my/model.safetensors", "is not a saved state"),
        ("generate runs/my -p t --save-state runs", "runs exists and is not a saved state"),
        ("generate runs/my -p t --load-state=", "'--load-state': File '' does not exist"),
        ("generate runs/my -p t --load-state nowhere", "'nowhere' does not exist"),
        ("generate runs/my -p t --load-state runs", "'--load-state': File 'runs' is a directory"),
        ("generate runs/my --prompts-file nowhere", "'nowhere' does not exist"),
        ("evaluate runs/my nowhere", "'nowhere' does not exist"),
    ],
)
@pytest.mark.usefixtures("page")
def test_no_file_is_lost_and_none_is_missed(
    textgen: Callable[..., Any], workplace: Path, command: str, said: str
) -> None:
    before = {path: path.read_bytes() for path in workplace.rglob("*") if path.is_file()}
    failed = textgen(*command.split(), cwd=workplace)
    assert (failed.code, failed.stdout) == (2, ""), failed.stderr
    (line,) = failed.stderr.splitlines()
    assert said in line
    assert {path: path.read_bytes() for path in workplace.rglob("*") if path.is_file()} == before


def test_a_saved_state_may_be_replaced(textgen: Callable[..., Any], workplace: Path) -> None:
    for _ in range(2):
        done = textgen(
            "generate", "runs/my", "-p", "t", "--save-state", "runs/my/state", cwd=workplace
        )
        assert done.code == 0, done.stderr
    (workplace / "runs/my/state").unlink()
