"""The commands generate and evaluate: what they write, where, and with which exit code."""

from __future__ import annotations

import itertools
import json
import math
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import termios
import tomllib
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import attrs
import pytest
from commands import HEEDING_SIGINT

from textgen import Engine, Generator, PromptError, load


@pytest.fixture(scope="module")
def generator(finished_run: Path) -> Generator:
    return load(finished_run)


@pytest.fixture
def generate(textgen: Callable[..., Any], finished_run: Path, tmp_path: Path) -> Callable[..., Any]:
    """`textgen generate RUN ARGUMENTS` in tmp_path."""

    def run(*arguments: object, stdin: str = "") -> Any:
        return textgen("generate", finished_run, *arguments, cwd=tmp_path, stdin=stdin)

    return run


def test_it_prints_prompt_and_text_and_nothing_else(generate: Callable[..., Any], generator: Generator) -> None:
    done = generate("--prompt", "the ", "--max-new-tokens", 30, "--seed", 4)
    expected = generator.generate("the ", max_new_tokens=30, seed=4)
    assert (done.code, done.stdout, done.stderr) == (0, f"{expected}\n", "")
    bare = generate("--prompt", "the ", "--max-new-tokens", 30, "--seed", 4, "--no-echo")
    assert bare.stdout == f"{expected.text}\n"


def test_options_are_those_of_the_python_function(generate: Callable[..., Any], generator: Generator) -> None:
    done = generate(
        *("-p", "the ", "--max-new-tokens", 80, "--min-new-tokens", 10, "--stop", "e", "--stop", "st"),
        *("--temperature", 0.7, "--top-k", 9, "--top-p", 0.95, "--min-p", 0.01, "--typical-p", 0.98),
        *("--repetition-penalty", 1.1, "--presence-penalty", 0.1, "--frequency-penalty", 0.05),
        *("--no-repeat-ngram", 5, "--logit-bias", "a=1.5", "--logit-bias", "t=-2"),
    )
    expected = generator.generate(
        "the ",
        max_new_tokens=80,
        min_new_tokens=10,
        stop=["e", "st"],
        temperature=0.7,
        top_k=9,
        top_p=0.95,
        min_p=0.01,
        typical_p=0.98,
        repetition_penalty=1.1,
        presence_penalty=0.1,
        frequency_penalty=0.05,
        no_repeat_ngram=5,
        logit_bias={"a": 1.5, "t": -2.0},
    )
    assert (done.code, done.stdout) == (0, f"{expected}\n"), done.stderr


def test_greedy_is_temperature_zero(generate: Callable[..., Any], generator: Generator) -> None:
    expected = f"{generator.generate('the ', max_new_tokens=30, temperature=0)}\n"
    assert generate("-p", "the ", "--max-new-tokens", 30, "--greedy").stdout == expected
    assert generate("-p", "the ", "--max-new-tokens", 30, "--temperature", 0).stdout == expected


def test_a_stream_prints_the_same(generate: Callable[..., Any], generator: Generator) -> None:
    done = generate("-p", "the ", "--max-new-tokens", 50, "--stream")
    assert (done.code, done.stdout) == (0, f"{generator.generate('the ', max_new_tokens=50)}\n")


def test_only_the_end_of_a_line_ends_a_prompt(
    generate: Callable[..., Any], generator: Generator, tmp_path: Path
) -> None:
    prompts = ["the\fclock", "the\u2028hour", "", "t"]
    (tmp_path / "prompts.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(prompts).encode())
    skip = ("--unknown-characters", "skip", "--max-new-tokens", 5, "-o", "jsonl")
    done = generate("--prompts-file", "prompts.txt", *skip)
    assert [json.loads(line)["prompt"] for line in done.stdout.split("\n")[:-1]] == ["the\fclock", "the\u2028hour", "t"]


@pytest.mark.parametrize("place", ["file", "stdin"])
def test_a_prompt_outside_the_vocabulary_is_named_with_its_line_before_any_text(
    generate: Callable[..., Any], tmp_path: Path, place: str
) -> None:
    text = "the \n" * 700 + "thé\n"
    (tmp_path / "prompts.txt").write_text(text, encoding="utf-8")
    source = "prompts.txt" if place == "file" else "-"
    failed = generate("--prompts-file", source, "--max-new-tokens", 5, stdin=text if place == "stdin" else "")
    assert (failed.code, failed.stdout, len(failed.stderr.splitlines())) == (2, "", 1)
    assert f"{source}:701: " in failed.stderr
    assert "U+00E9" in failed.stderr
    assert "--unknown-characters" in failed.stderr


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


@pytest.mark.parametrize("place", ["file", "stdin"])
def test_prompts_that_are_not_utf_8_are_refused_with_their_line(finished_run: Path, tmp_path: Path, place: str) -> None:
    data = b"the \n" * 6 + b"th\xe9\n"
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
    assert failed.stderr.decode() == f"textgen: error: {source}:7: not UTF-8; save the prompts as UTF-8 text\n"


def test_stdin_is_read_only_where_it_has_a_prompt_that_nothing_else_gives(
    generate: Callable[..., Any], generator: Generator, finished_run: Path, tmp_path: Path
) -> None:
    expected = f"{generator.generate(max_new_tokens=5)}\n"
    for arguments, stdin in (((), ""), (("-p", ""), "the clock\n")):
        done = generate("--max-new-tokens", 5, *arguments, stdin=stdin)
        assert (done.code, done.stdout, done.stderr) == (0, expected, "")
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


@pytest.mark.parametrize("arguments", [("-p", "the ", "-n", "40"), ("--prompts-file", "prompts.txt", "-n", "20")])
def test_a_bar_on_the_terminal_counts_the_texts_that_go_to_a_file(
    finished_run: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "prompts.txt").write_text("the \nclock\n", encoding="utf-8")
    end, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    command = [sys.executable, "-m", "textgen", "generate", str(finished_run), "--max-new-tokens", "3", *arguments]
    with (tmp_path / "texts").open("wb") as texts:
        done = subprocess.run(
            [*command, "-o", "jsonl"],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=texts,
            stderr=terminal,
            check=False,
        )
    os.close(terminal)
    shown = os.read(end, 100_000).decode()
    os.close(end)
    assert done.returncode == 0, shown
    assert "40/40" in shown
    assert len((tmp_path / "texts").read_text(encoding="utf-8").splitlines()) == 40


def test_a_file_without_prompts_is_a_warning(generate: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("")
    done = generate("--prompts-file", "prompts.txt")
    assert (done.code, done.stdout) == (0, "")
    assert done.stderr == "textgen: warning: prompts.txt has no prompt to continue\n"


@pytest.mark.parametrize(
    ("closed", "code", "said"), [(">&-", 1, "textgen: error: stdout is closed"), ("2>&-", 0, ""), (">&- 2>&-", 1, "")]
)
def test_closed_streams_are_no_bug(finished_run: Path, tmp_path: Path, closed: str, code: int, said: str) -> None:
    command = [sys.executable, "-m", "textgen", "generate", str(finished_run), "-p", "the ", "--max-new-tokens", "3"]
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *command],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == code
    assert done.stderr.startswith(said)
    assert len(done.stderr.splitlines()) == bool(said)


def test_a_bar_for_training_fits_80_columns(write_pipeline: Any, tiny_pipeline: Any, tmp_path: Path) -> None:
    pipeline = write_pipeline(tiny_pipeline(observers=True, trainer={"epochs": 12}))
    end, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    command = [sys.executable, "-m", "textgen", "run", str(pipeline)]
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=terminal):
        os.close(terminal)
        shown = read_all(end)
    os.close(end)
    drawn = [line for line in re.split(r"[\r\n]+", shown) if "%|" in line]
    assert drawn
    assert max(map(len, drawn)) < 80
    assert all(line.rstrip().endswith("]") for line in drawn)
    assert len(drawn[-1].split("|")[1]) >= 8
    assert re.search(r"loss \d\.\d{3}, val \d\.\d{3}, \S+ char/s\]", drawn[-1])


def read_all(end: int) -> str:
    """What comes out of a terminal until its other end is closed."""
    seen = b""
    while True:
        try:
            data = os.read(end, 65_536)
        except OSError:  # as Linux says that it is
            data = b""
        if not data:
            return seen.decode()
        seen += data


@pytest.mark.parametrize("place", ["file", "stdin"])
def test_each_line_of_a_file_is_continued(
    generate: Callable[..., Any], generator: Generator, tmp_path: Path, place: str
) -> None:
    prompts = ["the ", "", "clock of the hall", "t"]
    text = "\n".join(prompts) + "\n"
    (tmp_path / "prompts.txt").write_text(text, encoding="utf-8")
    source = "prompts.txt" if place == "file" else "-"
    done = generate(
        *("--prompts-file", source, "--n", 2, "--batch-size", 3, "--max-new-tokens", 20, "--output", "jsonl"),
        stdin=text if place == "stdin" else "",
    )
    assert done.code == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    expected = list(generator.generate_many(filter(None, prompts), n=2, max_new_tokens=20, echo=True))
    assert [(row["prompt"], row["text"], row["index"], row["seed"], row["finish_reason"]) for row in rows] == [
        (made.prompt, made.text, made.index, made.seed, made.finish_reason) for made in expected
    ]


@pytest.mark.parametrize("option", ["--n", "-n"])
def test_several_texts_are_told_apart(generate: Callable[..., Any], generator: Generator, option: str) -> None:
    done = generate("-p", "the ", option, 3, "--max-new-tokens", 20)
    made = generator.generate_many(["the "], n=3, max_new_tokens=20)
    assert done.stdout == "\n".join(f"=== text {i} ===\n{text}\n" for i, text in enumerate(made, 1))


def test_several_prompts_are_all_continued(generate: Callable[..., Any], generator: Generator) -> None:
    done = generate("-p", "the ", "-p", "clock", "--max-new-tokens", 20)
    made = generator.generate_many(["the ", "clock"], max_new_tokens=20)
    assert done.stdout == "\n".join(f"=== text {i} ===\n{text}\n" for i, text in enumerate(made, 1))
    failed = generate("-p", "the ", "-p", "clock", "--stream")
    assert (failed.code, failed.stdout, "--stream" in failed.stderr) == (2, "", True)


def test_an_endless_text_is_one_text(generate: Callable[..., Any], generator: Generator) -> None:
    for more in (("-n", 2), ("--output", "jsonl"), ("--novelty",)):
        failed = generate("-p", "the ", "--max-new-tokens", "none", *more)
        assert (failed.code, failed.stdout) == (2, "")
        assert "--max-new-tokens none never ends" in failed.stderr
    stopped = generate("-p", "the ", "--max-new-tokens", "none", "--stop", "e", "-n", 2)
    made = generator.generate_many(["the "], n=2, max_new_tokens=None, stop="e")
    assert stopped.stdout == "\n".join(f"=== text {i} ===\n{text}\n" for i, text in enumerate(made, 1))


def test_json_lines_hold_what_is_known_of_a_text(generate: Callable[..., Any], generator: Generator) -> None:
    done = generate("-p", "the ", "--max-new-tokens", 8, "--output", "jsonl", "--logprobs", 2, "--no-echo")
    assert done.code == 0, done.stderr
    (line,) = done.stdout.splitlines()
    row = json.loads(line)
    expected = generator.generate("the ", max_new_tokens=8, logprobs=2)
    assert expected.logprobs is not None
    assert (row["text"], row["finish_reason"], row["tokens"]) == (expected.text, "length", 8)
    for entry, known in zip(row["logprobs"], expected.logprobs, strict=True):
        assert (entry["token"], entry["logprob"]) == (known.token, pytest.approx(known.logprob))
        assert [likely["token"] for likely in entry["top"]] == [token for token, _ in known.top]
        assert all(likely["text"] == generator.tokenizer.decode([likely["token"]]) for likely in entry["top"])
    assert "".join(entry["text"] for entry in row["logprobs"]) == expected.text


def test_many_json_lines_have_log_probabilities_too(generate: Callable[..., Any], generator: Generator) -> None:
    options = ("--max-new-tokens", 8, "--output", "jsonl", "--logprobs", 1)
    done = generate("-p", "the ", "-p", "a clock", "-n", 2, *options)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["prompt"], row["index"]) for row in rows] == [("the ", 0), ("the ", 1), ("a clock", 2), ("a clock", 3)]
    for row in rows:
        made = generator.generate(row["prompt"], index=row["index"], max_new_tokens=8, logprobs=1, echo=True)
        assert made.logprobs is not None
        assert "".join(entry["text"] for entry in row["logprobs"]) == row["text"] == made.text
        prompt = row["logprobs"][: row["prompt_tokens"]]
        assert "".join(entry["text"] for entry in prompt) == row["prompt"]
        assert [entry["logprob"] for entry in row["logprobs"]] == [entry.logprob for entry in made.logprobs]


def test_a_json_line_is_made_again_alone_by_its_index(generate: Callable[..., Any]) -> None:
    options = ("--max-new-tokens", 8, "--output", "jsonl")
    lines = generate("-p", "the ", "-p", "a clock", "-n", 3, *options).stdout.splitlines()
    assert [generate("-p", "a clock", "--index", index, *options).stdout for index in (3, 5)] == [
        f"{lines[3]}\n",
        f"{lines[5]}\n",
    ]


def test_what_a_run_was_given_by_set_holds_for_later_texts(
    textgen: Callable[..., Any], write_pipeline: Any, tiny_pipeline: Any, tmp_path: Path
) -> None:
    pipeline = write_pipeline(tiny_pipeline())
    changes = ("--set", "generate.max_new_tokens=3", "--set", "generate.seed=5", "--set", 'sampler=[{type="greedy"}]')
    for given, expected in ((), {}), (changes, {"max_new_tokens": 3, "seed": 5, "temperature": 0}):
        assert textgen("run", pipeline, *given, cwd=tmp_path).code == 0
        made = load(tmp_path / "run").generate("the ", **expected)
        assert textgen("generate", "run", "-p", "the ", cwd=tmp_path).stdout == f"{made}\n"


@pytest.mark.parametrize("options", [("--greedy",), ("--temperature", "0.8", "--repetition-penalty", "1.2")])
def test_a_saved_state_goes_on(
    generate: Callable[..., Any], generator: Generator, tmp_path: Path, options: tuple[str, ...]
) -> None:
    whole = generate("-p", "the ", "--max-new-tokens", 60, *options)
    first = generate("-p", "the ", "--max-new-tokens", 25, *options, "--save-state", "state")
    second = generate("--max-new-tokens", 20, *options, "--load-state", "state", "--save-state", "later")
    last = generate("--max-new-tokens", 15, *options, "--load-state", "later", "--stream")
    parts = [done.stdout.removesuffix("\n") for done in (first, second, last)]
    assert "".join(parts) + "\n" == whole.stdout
    (tmp_path / "state").write_bytes((tmp_path / "state").read_bytes()[:-3])
    failed = generate("--load-state", "state")
    assert (failed.code, failed.stdout) == (1, "")
    assert len(failed.stderr.splitlines()) == 1


@pytest.mark.parametrize("newline", ["\n", "\0"], ids=["after-a-line", "after-some-bytes"])
def test_an_endless_text_ends_when_nobody_reads_on(finished_run: Path, tmp_path: Path, newline: str) -> None:
    command = [sys.executable, "-m", "textgen", "generate", str(finished_run), "--max-new-tokens", "none"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    read = process.stdout.readline() if newline == "\n" else process.stdout.read(5000)
    assert read
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == 0


def test_an_interrupt_ends_an_endless_text(finished_run: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", HEEDING_SIGINT, "generate", str(finished_run), "--max-new-tokens", "none"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read(100)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("options", [("--greedy",), ("--temperature", "0.7"), ("--stop", "the clock the clock")])
def test_a_signal_ends_a_text_and_saves_where_it_stands(
    generate: Callable[..., Any], finished_run: Path, tmp_path: Path, options: tuple[str, ...], number: signal.Signals
) -> None:
    asked = ("generate", str(finished_run), "-p", "the ", *options, "--max-new-tokens", "none", "--save-state", "state")
    process = subprocess.Popen(
        [sys.executable, "-c", HEEDING_SIGINT, *asked],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        begun = process.stdout.read(100)
        process.send_signal(number)
        text = (begun + process.stdout.read()).removesuffix("\n")
        assert process.stderr.read() == "textgen: stopped; --load-state state resumes from there\n"
    assert process.returncode == 128 + number
    later = generate("--load-state", "state", *options, "--max-new-tokens", 30).stdout
    whole = generate("-p", "the ", *options, "--max-new-tokens", len(text) - len("the ") + 30).stdout
    assert text + later == whole


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--greedy", "--temperature", "1"), "--temperature"),
        (("-p", "the", "--prompts-file", "-"), "--prompts-file"),
        (("--stream", "--n", "2"), "--stream"),
        (("--stream", "--output", "jsonl"), "--output"),
        (("--logprobs", "1", "--n", "2"), "--output jsonl"),
        (("--prompts-file", "nowhere.txt"), "nowhere.txt"),
        (("--max-new-tokens", "-1"), "max-new-tokens"),
        (("--max-new-tokens", "some"), "none"),
        (("--max-new-tokens", "10000000000"), "--max-new-tokens"),
        (("--n", "0"), "--n: expected an integer from 1"),
        (("--batch-size", "0"), "--batch-size: expected an integer from 1"),
        (("--stop", "e", "--stop", ""), "--stop was given an empty text"),
        (("-p", "the \udcff"), "not valid UTF-8: byte 0xff after 'the '"),
        (("--temp", "0.5"), "there is no option --temp; did you mean '--temperature'? see textgen generate --help\n"),
        (("--no-ech",), "there is no option --no-ech; did you mean '--no-echo'? see"),
        (("--logit-bias", "e=-inf"), "--logit-bias 'e=-inf': expected a finite number; -100 forbids a token"),
        (("--logit-bias", "e=1", "--logit-bias", "e=2"), "--logit-bias gives the token 'e' more than once"),
        (("--logit-bias", "zz=1"), "error: --logit-bias: expected the text of one token"),
        (("--logit-bias", "zz=1", "--logit-bias", "yy=1"), "; --logit-bias: expected the text of one token"),
        (("--seed", "-1"), "--seed"),
        (("--time-limit", "nan"), "--time-limit"),
        (("--top-p", "50", "--temperature", "-1"), "given 50.0; --temperature: must be"),
        (("--output", "xml"), "jsonl"),
        (("--output", "text.txt"), "> FILE"),
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


@pytest.fixture(scope="module")
def workplace(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text, a pipeline of the same name and its run, as somebody has it who has just begun."""
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "my.txt").write_text("the clock struck nine and nobody came.\n" * 90, encoding="utf-8")
    (folder / "my.toml").write_bytes((finished_run / "pipeline.toml").read_bytes())
    (folder / "other.toml").write_text("")
    shutil.copytree(finished_run, folder / "runs/my")
    return folder


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("generate my.toml", "did you mean textgen generate runs/my?"),
        ("generate other.toml", "textgen run other.toml trains its model"),
        ("generate my", "did you mean textgen generate runs/my?"),
        ("generate my.txt", "my.txt is a file, and the directory of a run is wanted"),
        ("generate nowhere", "there is no run directory nowhere"),
        ("generate runs/mi", "did you mean 'runs/my'?"),
        ("generate mi", "did you mean 'runs/my'?"),
        ("generate runs", "those in it are runs/my"),
        ("evaluate my.toml my.txt", "did you mean textgen evaluate runs/my?"),
        ("run my.txt", "textgen init my.txt writes a pipeline"),
        ("show my.txt", "textgen init my.txt writes a pipeline"),
        ("run runs/my", "runs/my/pipeline.toml"),
        ("run runs", "textgen init runs writes a pipeline"),
        ("run my", "did you mean my.toml?"),
        ("run mi.toml", "did you mean 'my.toml'?"),
        ("run my.toml --set trainer.epochs 3", "--set KEY=VALUE"),
        ("init my.toml", "textgen run my.toml"),
        ("my.toml", "did you mean 'textgen run my.toml'?"),
        ("my.txt", "did you mean 'textgen init my.txt'?"),
        ("runs/my", "did you mean 'textgen generate runs/my'?"),
        ("train my.toml", "did you mean 'run'?"),
        ("genrate runs/my", "did you mean 'generate'?"),
        ("run my.toml --debug", "textgen --debug run"),
        ("run", "missing argument 'PIPELINE'; see textgen run --help"),
        ("run my.toml --set", "see textgen run --help"),
        ("generate runs/my --lenght 3", "there is no option --lenght; see textgen generate --help"),
        ("run my.toml --over", "did you mean '--overwrite'? see textgen run --help"),
        ("generate runs/my the door", "--prompt TEXT"),
        ("init my.txt my.txt", "give the folder"),
        ("run my.toml --epochs 3", "--set KEY=VALUE"),
        ("generate runs/my --top-k many", "see textgen generate --help"),
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


@pytest.mark.parametrize("module", ["click", "numpy"])
def test_an_interrupt_during_imports_is_quiet(python: Callable[..., Any], finished_run: Path, module: str) -> None:
    script = (
        "import importlib.abc, os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Pressed(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        f"        if name == {module!r}:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Pressed())\n"
        "from textgen.cli import main\n"
        "main(['generate', '.'])\n"
    )
    stopped = python("-c", script, cwd=finished_run)
    assert (stopped.code, stopped.stdout) == (130, "")
    assert stopped.stderr.strip() in ("", "textgen: interrupted")


STORY = "the clock struck nine and nobody came.\n" * 90


@pytest.mark.parametrize(
    ("data", "written", "said"),
    [
        (STORY.encode(), None, ""),
        (STORY.encode("utf-8-sig"), None, ""),
        (STORY.encode("utf-16"), "utf-16", ""),
        (b"\xfe\xff" + STORY.encode("utf-16-be"), "utf-16", ""),
        (STORY.encode("utf-32"), "utf-32", ""),
        ((STORY + "é").encode("cp1252"), None, "option encoding"),
    ],
    ids=["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "cp1252"],
)
def test_init_finds_out_how_a_text_is_encoded(
    textgen: Callable[..., Any], tmp_path: Path, data: bytes, written: str | None, said: str
) -> None:
    (tmp_path / "my.txt").write_bytes(data)
    done = textgen("init", "my.txt", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert len(done.stderr.splitlines()) == (2 if said else 1)
    assert said in done.stderr
    pipeline = (tmp_path / "my.toml").read_text(encoding="utf-8")
    assert tomllib.loads(pipeline)["corpus"].get("encoding") == written
    assert ("# encoding" in pipeline) == bool(said)
    if not said:
        read = "".join(Engine().read_corpus({**tomllib.loads(pipeline)["corpus"], "path": str(tmp_path / "my.txt")}))
        assert read == STORY


def test_init_finds_the_one_file_that_is_encoded_otherwise(textgen: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for name, encoding in (("a.txt", "utf-8"), ("b.txt", "utf-16"), ("c.txt", "utf-8")):
        (tmp_path / "texts" / name).write_text(STORY, encoding=encoding)
    done = textgen("init", "texts", cwd=tmp_path)
    assert (done.code, "texts/b.txt is utf-16" in done.stderr) == (0, True)
    (tmp_path / "book.txt").write_bytes(b"%PDF-1.7\n" + b"x" * 5000)
    refused = textgen("init", "book.txt", cwd=tmp_path)
    assert (refused.code, "is a PDF" in refused.stderr) == (2, True)
    assert not (tmp_path / "book.toml").exists()


def test_the_python_api_names_its_arguments_and_the_command_its_options(
    generate: Callable[..., Any], generator: Generator
) -> None:
    with pytest.raises(PromptError, match="set unknown_characters to") as raised:
        generator.generate("é")
    assert "--" not in str(raised.value)
    assert "--unknown-characters to 'skip'" in generate("-p", "é").stderr


@pytest.mark.parametrize("command", ["generate", "evaluate"])
def test_a_missing_run_directory_is_an_error(textgen: Callable[..., Any], tmp_path: Path, command: str) -> None:
    failed = textgen(command, "nowhere", *(["text.txt"] if command == "evaluate" else []), cwd=tmp_path)
    assert failed.code in (1, 2)
    assert failed.stdout == ""
    assert "nowhere" in failed.stderr
    assert len(failed.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("generate", "RUN", "-p", "the ", "--max-new-tokens", "5", "--temperature", "0.7", "--top-k", "5"),
        ("generate", "RUN", "-p", "the ", "--n", "3", "--max-new-tokens", "5"),
        ("evaluate", "RUN", "text.txt"),
    ],
)
def test_no_torch_is_loaded_on_a_cpu(
    python: Callable[..., Any], finished_run: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "text.txt").write_text("the clock struck", encoding="utf-8")
    given = [str(finished_run) if argument == "RUN" else argument for argument in arguments] + ["--device", "cpu"]
    script = (
        "import sys\n"
        "from textgen.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit as stop:\n    assert stop.code == 0, stop.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = python("-c", script, *given, cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert done.stdout


def test_evaluate_measures_a_file(textgen: Callable[..., Any], finished_run: Path, tmp_path: Path) -> None:
    text = "the time traveller smiled, and the clock struck é.\n" * 20
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    done = textgen("evaluate", finished_run, "text.txt", "--json", cwd=tmp_path)
    assert done.code == 0, done.stderr
    score = json.loads(done.stdout)
    assert score == pytest.approx(attrs.asdict(load(finished_run).score(text)))
    assert score["tokens"] == len(text) - 1
    assert score["unknown_tokens"] == 20
    plain = textgen("evaluate", finished_run, "text.txt", cwd=tmp_path)
    assert f"{score['perplexity']:.4f}" in plain.stdout
    assert f"{score['loss'] / math.log(2):.4f}" in plain.stdout


@pytest.mark.parametrize(
    ("data", "code", "said"),
    [
        (None, 2, "text.txt does not exist"),
        (b"a\xff", 1, "set the option --encoding to its own, such as cp1252"),
        ("the clock".encode("utf-16"), 1, "set the option --encoding to utf-16"),
        ("the clock".encode("utf-32"), 1, "--encoding to utf-32"),
        (b"", 2, "two tokens"),
        (b"t", 2, "two tokens"),
    ],
)
def test_evaluate_says_what_is_wrong_with_a_file(
    textgen: Callable[..., Any], finished_run: Path, tmp_path: Path, data: bytes | None, code: int, said: str
) -> None:
    if data is not None:
        (tmp_path / "text.txt").write_bytes(data)
    failed = textgen("evaluate", finished_run, "text.txt", cwd=tmp_path)
    assert (failed.code, failed.stdout) == (code, ""), failed.stderr
    assert len(failed.stderr.splitlines()) == 1
    assert "text.txt" in failed.stderr
    assert said in failed.stderr
    assert "option encoding" not in failed.stderr


def test_a_corpus_with_a_mark_says_its_encoding(
    textgen: Callable[..., Any], write_pipeline: Any, tiny_pipeline: Any, tmp_path: Path
) -> None:
    pipeline = write_pipeline(tiny_pipeline())
    (tmp_path / "corpus.txt").write_text(STORY, encoding="utf-16")
    failed = textgen("run", pipeline, cwd=tmp_path)
    assert (failed.code, failed.stdout) == (1, "")
    assert "set the option encoding to utf-16" in failed.stderr
    assert textgen("run", pipeline, "--set", "corpus.encoding=utf-16", cwd=tmp_path).code == 0


def test_evaluate_counts_what_is_outside_the_vocabulary_among_the_predicted(
    textgen: Callable[..., Any], finished_run: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text("éééé", encoding="utf-8")
    done = textgen("evaluate", finished_run, "text.txt", cwd=tmp_path)
    assert "tokens              3 (3 outside the vocabulary)\n" in done.stdout


def test_evaluate_reads_stdin_and_pipes(textgen: Callable[..., Any], finished_run: Path, tmp_path: Path) -> None:
    text = "the clock struck the hour, and the hall was é.\n" * 30
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    of_a_file = textgen("evaluate", finished_run, "text.txt", "--json", "--html", "a.html", cwd=tmp_path)
    piped = textgen("evaluate", finished_run, "-", "--json", "--html", "b.html", cwd=tmp_path, stdin=text)
    named = textgen("evaluate", finished_run, "/dev/stdin", "--json", "--html", "c.html", cwd=tmp_path, stdin=text)
    assert piped.stdout == named.stdout == of_a_file.stdout
    pages = [(tmp_path / f"{name}.html").read_text(encoding="utf-8") for name in "abc"]
    assert [page.partition("<pre>")[2] for page in pages] == [pages[0].partition("<pre>")[2]] * 3
    assert "<h1>stdin</h1>" in pages[1]
    failed = textgen("evaluate", finished_run, "-", cwd=tmp_path)
    assert (failed.code, failed.stderr.startswith("textgen: error: stdin: ")) == (2, True)


def test_evaluate_takes_the_texts_of_a_folder(textgen: Callable[..., Any], finished_run: Path, tmp_path: Path) -> None:
    for name, text in (("a.txt", "the clock\n"), ("b.txt", "the hall\n"), ("c.md", "no\n")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    done = textgen("evaluate", finished_run, ".", "--json", cwd=tmp_path)
    assert json.loads(done.stdout) == pytest.approx(attrs.asdict(load(finished_run).score("the clock\nthe hall\n")))
    assert "a folder of .txt files" in textgen("evaluate", "--help", cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("evaluate runs/my my.txt --html my.txt", "my.txt exists and is not a page"),
        ("evaluate runs/my my.txt --html ./my.toml", "is not a page of textgen evaluate"),
        ("evaluate runs/my old.html --html old.html", "old.html is the text itself"),
        ("evaluate runs/my my.txt --html runs/my/tokenizer.json", "is not a page"),
        ("evaluate runs/my my.txt --html runs/my/page.html", "among the files of the run"),
        ("evaluate runs/my my.txt --html runs/my/checkpoints/page.html", "among the files of the run"),
        ("evaluate runs/my my.txt --html runs", "the name of a file, given 'runs'"),
        ("evaluate runs/my my.txt --html missing/page.html", "the folder missing does not exist"),
        ("generate runs/my -p t --save-state my.txt", "my.txt exists and is not a saved state"),
        ("generate runs/my -p t --save-state runs/my/model.safetensors", "is not a saved state"),
        ("generate runs/my -p t --save-state runs/my/checkpoints/state", "among the files of the run"),
        ("generate runs/my -p t --save-state runs", "the name of a file, given 'runs'"),
        ("generate runs/my -p t --save-state=", "--save-state expects the name of a file"),
        ("generate runs/my -p t --load-state=", "--load-state is empty"),
        ("generate runs/my -p t --load-state nowhere", "nowhere does not exist"),
        ("generate runs/my -p t --load-state runs", "runs is a folder"),
        ("generate runs/my --prompts-file nowhere", "nowhere does not exist"),
        ("evaluate runs/my nowhere", "nowhere does not exist"),
    ],
)
def test_no_file_is_lost_and_none_is_missed(
    textgen: Callable[..., Any], workplace: Path, command: str, said: str
) -> None:
    page = textgen("evaluate", "runs/my", "my.txt", "--html", "old.html", cwd=workplace)
    assert page.code == 0, page.stderr  # its own page it replaces
    before = {path: path.read_bytes() for path in workplace.rglob("*") if path.is_file()}
    failed = textgen(*command.split(), cwd=workplace)
    assert (failed.code, failed.stdout) == (2, ""), failed.stderr
    (line,) = failed.stderr.splitlines()
    assert said in line
    assert {path: path.read_bytes() for path in workplace.rglob("*") if path.is_file()} == before


def test_a_saved_state_may_be_replaced(textgen: Callable[..., Any], workplace: Path) -> None:
    for _ in range(2):
        done = textgen("generate", "runs/my", "-p", "t", "--save-state", "runs/my/state", cwd=workplace)
        assert done.code == 0, done.stderr
    (workplace / "runs/my/state").unlink()


def test_evaluate_reads_another_encoding(textgen: Callable[..., Any], finished_run: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("the clock é", encoding="cp1252")
    done = textgen("evaluate", finished_run, "text.txt", "--encoding", "cp1252", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["unknown_tokens"] == 1
    failed = textgen("evaluate", finished_run, "text.txt", "--encoding", "cp9999", cwd=tmp_path)
    assert (failed.code, failed.stdout) == (2, "")
    assert "--encoding: must be an encoding that Python knows" in failed.stderr


class Page(HTMLParser):
    """The text of the `pre` element, the titles of its spans, and whether every element is closed in turn."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.text = ""
        self.bits: list[str] = []
        self.marked = ""
        self.breaks = 0

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag != "meta":
            self.open.append(tag)
        if "pre" in self.open and tag == "span":
            self.bits.append(dict(attributes)["title"] or "")
        self.marked += "" if tag != "u" else "|"
        self.breaks += tag == "i"

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "pre" in self.open:
            self.text += data
        if "u" in self.open:
            self.marked += data


@pytest.mark.parametrize("lower_case", [False, True])
def test_a_page_shows_what_the_vocabulary_lacks_and_marks_it(
    textgen: Callable[..., Any], tmp_path: Path, tiny_pipeline: Any, lower_case: bool
) -> None:
    from textgen import run

    made = run(tiny_pipeline(text="the clock <b> struck nine\n" * 20, tokenizer={"lower_case": lower_case}))
    text = "the clöck & the \U0001f570 struck <nine>\n"
    written = text.title() if lower_case else text
    (tmp_path / "text.txt").write_text(written, encoding="utf-8")
    done = textgen("evaluate", made.path, "text.txt", "--html", "page.html", cwd=tmp_path)
    assert done.code == 0, done.stderr
    page = Page()
    page.feed((tmp_path / "page.html").read_text(encoding="utf-8"))
    page.close()
    assert page.open == []
    assert page.text == text
    assert page.marked == "|ö|&|\U0001f570"


def test_evaluate_paints_a_page(textgen: Callable[..., Any], tmp_path: Path, tiny_pipeline: Any) -> None:
    from textgen import run

    text = "<b>the</b> & \"clock\" <script>'tick'\n\n tock &amp; é</script>\n" * 12
    made = run(tiny_pipeline(text=text))
    name = "<i>&.txt"
    (tmp_path / name).write_text(text, encoding="utf-8")
    done = textgen("evaluate", made.path, name, "--html", "page.html", "--json", cwd=tmp_path)
    assert done.code == 0, done.stderr
    page = Page()
    page.feed((tmp_path / "page.html").read_text(encoding="utf-8"))
    page.close()
    assert page.open == []
    assert page.text == text
    assert page.bits[0].startswith("< -")  # nothing foretells the first
    paired = [pair.rsplit(" ", 1) for bits in page.bits for pair in bits.removesuffix(" bits").split(" · ")]
    assert "".join(token for token, _ in paired) == text.translate({10: "⏎", 32: "␣"})
    assert all(float(bits) >= 0 for _, bits in paired[1:])
    assert page.breaks == text.count("\n")
    assert f"over {json.loads(done.stdout)['tokens']:,} tokens" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert all(bits.endswith(" bits") for bits in page.bits)
    assert "<script>" not in (tmp_path / "page.html").read_text(encoding="utf-8")


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 has it."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_the_colours_of_a_page_tell_steps_apart_and_leave_the_text_readable(
    textgen: Callable[..., Any], finished_run: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text("the clock", encoding="utf-8")
    assert textgen("evaluate", finished_run, "text.txt", "--html", "page.html", cwd=tmp_path).code == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    letters, darker = re.findall(r"[^-]color: light-dark\((#\w+), (#\w+)\)", page)[0]
    steps = re.findall(r"\.s\d \{ background: light-dark\((#\w+), (#\w+)\)", page)
    for text, colours in ((letters, [light for light, _ in steps]), (darker, [dark for _, dark in steps])):
        there = [luminance(colour) for colour in colours]
        assert len(there) == 7
        contrasts = [(max(one, luminance(text)) + 0.05) / (min(one, luminance(text)) + 0.05) for one in there]
        assert min(contrasts) >= 4.5
        assert sorted(contrasts, reverse=True) == contrasts
        assert all(before / after > 1.09 for before, after in itertools.pairwise(contrasts))
    assert "white-space: nowrap" in page


def test_a_page_shows_the_beginning_of_a_long_text(
    textgen: Callable[..., Any], finished_run: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text("the clock " * 6000, encoding="utf-8")
    done = textgen("evaluate", finished_run, "text.txt", "--html", "page.html", cwd=tmp_path)
    assert done.code == 0, done.stderr
    page = Page()
    page.feed((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert page.text == "the clock " * 5000
    failed = textgen("evaluate", finished_run, "text.txt", "--html", "missing/page.html", cwd=tmp_path)
    assert (failed.code, failed.stdout, len(failed.stderr.splitlines())) == (2, "", 1)
