"""The commands generate and evaluate: what they write, where, and with which exit code."""

from __future__ import annotations

import json
import math
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import attrs
import pytest

from textgen import Generator, load

# A test run that was started in the background ignores SIGINT, and would pass that on.
HEEDING_SIGINT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from textgen.cli import main
main(sys.argv[1:])
"""
# Ctrl-C is for the processes whose controlling terminal it is typed on; a new session has none until it takes one.
ON_ITS_TERMINAL = "import fcntl, termios\nfcntl.ioctl(0, termios.TIOCSCTTY, 0)\n" + HEEDING_SIGINT


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
    expected = list(generator.generate_many(prompts, n=2, max_new_tokens=20, echo=True))
    assert [(row["prompt"], row["text"], row["index"], row["seed"], row["finish_reason"]) for row in rows] == [
        (made.prompt, made.text, made.index, made.seed, made.finish_reason) for made in expected
    ]


def test_n_texts_come_one_after_the_other(generate: Callable[..., Any], generator: Generator) -> None:
    done = generate("-p", "the ", "--n", 3, "--max-new-tokens", 20)
    made = generator.generate_many(["the "], n=3, max_new_tokens=20)
    assert done.stdout == "".join(f"{text}\n" for text in made)


def test_json_lines_hold_what_is_known_of_a_text(generate: Callable[..., Any], generator: Generator) -> None:
    done = generate("-p", "the ", "--max-new-tokens", 8, "--output", "jsonl", "--logprobs", 2, "--no-echo")
    assert done.code == 0, done.stderr
    (line,) = done.stdout.splitlines()
    row = json.loads(line)
    expected = generator.generate("the ", max_new_tokens=8, logprobs=2)
    assert expected.logprobs is not None
    assert (row["text"], row["finish_reason"], row["tokens"]) == (expected.text, "length", 8)
    for entry, known in zip(row["logprobs"], expected.logprobs, strict=True):
        assert entry["logprob"] == pytest.approx(known.logprob)
        assert [token for token, _ in entry["top"]] == [token for token, _ in known.top]


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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--greedy", "--temperature", "1"), "--temperature"),
        (("-p", "the", "--prompts-file", "-"), "--prompts-file"),
        (("--stream", "--n", "2"), "--stream"),
        (("--stream", "--output", "jsonl"), "--output"),
        (("--logprobs", "1", "--n", "2", "--output", "jsonl"), "--logprobs"),
        (("--prompts-file", "nowhere.txt"), "nowhere.txt"),
        (("--max-new-tokens", "-1"), "max-new-tokens"),
        (("--max-new-tokens", "some"), "none"),
        (("--max-new-tokens", "10000000000"), "max_new_tokens"),
        (("--n", "0"), "n must be"),
        (("--batch-size", "0"), "batch_size must be"),
        (("--stop", ""), "stop"),
        (("--seed", "-1"), "seed"),
        (("--time-limit", "nan"), "time_limit"),
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


@pytest.mark.parametrize(("data", "code"), [(None, 1), (b"a\xff", 1), (b"", 2), (b"t", 2)])
def test_evaluate_says_what_is_wrong_with_a_file(
    textgen: Callable[..., Any], finished_run: Path, tmp_path: Path, data: bytes | None, code: int
) -> None:
    if data is not None:
        (tmp_path / "text.txt").write_bytes(data)
    failed = textgen("evaluate", finished_run, "text.txt", cwd=tmp_path)
    assert (failed.code, failed.stdout) == (code, ""), failed.stderr
    assert len(failed.stderr.splitlines()) == 1


class Page(HTMLParser):
    """The text of the `pre` element, the titles of its spans, and whether every element is closed in turn."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.text = ""
        self.bits: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag != "meta":
            self.open.append(tag)
        if "pre" in self.open and tag == "span":
            self.bits.append(dict(attributes)["title"] or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "pre" in self.open:
            self.text += data


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
    assert page.bits[0].startswith("-")  # nothing foretells the first
    assert all(bits.endswith(" bits") for bits in page.bits)
    assert "<script>" not in (tmp_path / "page.html").read_text(encoding="utf-8")


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


class Terminal:
    """A session of the command on a terminal of its own."""

    def __init__(self, *arguments: str, cwd: Path) -> None:
        self._end, other = pty.openpty()
        environment = {**os.environ, "TERM": "dumb", "HOME": str(cwd), "INPUTRC": os.devnull}
        self.process = subprocess.Popen(
            [sys.executable, "-c", ON_ITS_TERMINAL, *arguments],
            cwd=cwd,
            stdin=other,
            stdout=other,
            stderr=other,
            env=environment,
            start_new_session=True,
        )
        os.close(other)

    def read_to(self, mark: str) -> str:
        """What it wrote up to the next `mark`."""
        seen = bytearray()
        while not seen.endswith(mark.encode()):
            ready, _, _ = select.select([self._end], [], [], 60)
            assert ready, f"waited for {mark!r} after {seen[-1000:]!r}"
            try:
                data = os.read(self._end, 1)
            except OSError:  # the other end is closed
                data = b""
            assert data, f"ended before {mark!r}, after {seen[-1000:]!r}"
            seen += data
            assert len(seen) < 1_000_000, f"no {mark!r} in a megabyte that ends in {seen[-1000:]!r}"
        return seen.decode().replace("\r\n", "\n")

    def send(self, text: str) -> None:
        os.write(self._end, text.encode())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._end)


@pytest.fixture
def session(finished_run: Path, tmp_path: Path) -> Iterator[Terminal]:
    """A session with 30 tokens for each text, at its first prompt."""
    terminal = Terminal("generate", str(finished_run), "--max-new-tokens", "30", "--greedy", cwd=tmp_path)
    try:
        assert "/set KEY=VALUE" in terminal.read_to("> ")
        yield terminal
    finally:
        terminal.close()


def test_a_session_continues_prompts_with_live_options(session: Terminal, generator: Generator) -> None:
    session.send("the \n")
    expected = generator.generate("the ", max_new_tokens=30, temperature=0)
    assert f"{expected}\n" in session.read_to("\n> ")
    session.send("/set temperature=0.5\n")
    session.read_to("> ")
    session.send("/set max_new_tokens=12\n")
    session.read_to("> ")
    session.send("/options\n")
    shown = session.read_to("\n> ")
    assert "temperature = 0.5" in shown
    assert "max_new_tokens = 12" in shown
    session.send("the \n")
    expected = generator.generate("the ", max_new_tokens=12, temperature=0.5, index=1)
    assert f"{expected}\n" in session.read_to("\n> ")
    session.send("/unset temperature\n")
    session.read_to("> ")
    session.send("the \n")
    assert f"{generator.generate('the ', max_new_tokens=12, index=2)}\n" in session.read_to("\n> ")
    session.send("\x04")
    assert session.process.wait(60) == 0


def test_a_session_survives_mistakes(session: Terminal) -> None:
    for line, said in (
        ("/set temperature=-1", "temperature"),
        ("/set temprature=1", "temperature"),
        ("/set temperature", "/set KEY=VALUE"),
        ("/nonsense", "/set KEY=VALUE"),
        ("/set stop=[", "TOML"),
        ("é", "U+00E9"),
    ):
        session.send(f"{line}\n")
        shown = session.read_to("\n> ").partition(line)[2] or ""
        assert said in shown, line
        assert "Traceback" not in shown
    session.send("/set max_new_tokens=none\n")
    session.read_to("> ")
    session.send("the \n")
    session.read_to("the ")
    session.read_to("e")  # it writes, and would go on for ever
    session.send("\x03")
    session.read_to("\n> ")
    session.send("\x04")
    assert session.process.wait(60) == 0
