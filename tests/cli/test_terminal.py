"""Progress bars on a terminal, closed streams, and signals."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fork_server
import pytest
from commands import running


def test_a_bar_on_the_terminal_counts_the_texts_that_go_to_a_file(
    finished_run: Path, tmp_path: Path
) -> None:
    end, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    options = ["-p", "the ", "-n", "40", "--max-new-tokens", "3", "-o", "jsonl"]
    with (tmp_path / "texts").open("wb") as texts:
        done = subprocess.run(
            [sys.executable, "-m", "textgen", "generate", finished_run, *options],
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


@pytest.mark.parametrize(
    ("closed", "code", "said"),
    [(">&-", 1, "textgen: error: stdout is closed"), ("2>&-", 0, ""), (">&- 2>&-", 1, "")],
)
def test_closed_streams_are_no_bug(
    finished_run: Path, tmp_path: Path, closed: str, code: int, said: str
) -> None:
    options = ["--prompt", "the ", "-n", "2", "--max-new-tokens", "3"]
    command = [sys.executable, "-m", "textgen", "generate", str(finished_run), *options]
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


def test_a_bar_for_training_fits_80_columns(
    write_pipeline: Any, tiny_pipeline: Any, tmp_path: Path
) -> None:
    pipeline = write_pipeline(tiny_pipeline(observers=True, trainer={"length": "12 epochs"}))
    end, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    with open(os.devnull, "r+b") as null:
        streams = [null.fileno(), null.fileno(), terminal]
        process = fork_server.start(
            ["-m", "textgen", "run", str(pipeline)], tmp_path, os.environ, streams
        )
    os.close(terminal)
    shown = read_all(end)
    os.close(end)
    assert process.wait() == 0
    drawn = [line for line in re.split(r"[\r\n]+", shown) if "%|" in line]
    assert drawn
    assert max(map(len, drawn)) <= 80
    assert all(line.rstrip().endswith("]") for line in drawn)
    assert len(drawn[-1].split("|")[1]) >= 8
    assert re.search(r"loss \d\.\d{3}, val \d\.\d{3}, best \d\.\d{3}\]", drawn[-1])


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


@pytest.mark.fault(14)
@pytest.mark.parametrize("newline", ["\n", "\0"], ids=["after-a-line", "after-some-bytes"])
def test_an_endless_text_ends_when_nobody_reads_on(
    finished_run: Path, tmp_path: Path, newline: str
) -> None:
    with running("generate", finished_run, "--max-new-tokens", "none", folder=tmp_path) as command:
        assert command.stdout.readline() if newline == "\n" else command.stdout.read(5000)
        command.stdout.close()
        assert command.stderr.read() == ""
        assert command.process.wait() == 0


def test_an_interrupt_ends_an_endless_text(finished_run: Path, tmp_path: Path) -> None:
    with running("generate", finished_run, "--max-new-tokens", "none", folder=tmp_path) as command:
        command.stdout.read(100)
        command.process.send_signal(signal.SIGINT)
        command.stdout.read()
        code, _, errors = command.end()
    assert code == 130
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("options", "number"),
    [(("--greedy",), signal.SIGTERM), (("--temperature", "0.7"), signal.SIGINT)],
)
def test_a_signal_ends_a_text_and_saves_where_it_stands(
    generate: Callable[..., Any],
    finished_run: Path,
    tmp_path: Path,
    options: tuple[str, ...],
    number: signal.Signals,
) -> None:
    asked = (
        "generate",
        str(finished_run),
        "-p",
        "the ",
        *options,
        "--max-new-tokens",
        "none",
        "--save-state",
        "state",
    )
    with running(*asked, folder=tmp_path) as command:
        begun = command.stdout.read(100)
        command.process.send_signal(number)
        text = (begun + command.stdout.read()).removesuffix("\n")
        assert command.stderr.read() == "textgen: stopped; --load-state state resumes from there\n"
        assert command.process.wait() == 128 + number
    later = generate("--load-state", "state", *options, "--max-new-tokens", 30).stdout
    whole = generate(
        "-p", "the ", *options, "--max-new-tokens", len(text) - len("the ") + 30
    ).stdout
    assert text + later == whole


@pytest.mark.parametrize("module", ["click", "numpy"])
def test_an_interrupt_during_imports_is_quiet(
    python: Callable[..., Any], finished_run: Path, module: str
) -> None:
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
