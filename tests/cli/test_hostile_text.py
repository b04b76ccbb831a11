"""Nothing that a stranger wrote commands a terminal; into a file, a text is exact."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from commands import environment, run_textgen

import textgen

ESCAPES = "\x1b]52;c;cm0=\x07\x1b[31m\x00\x08\r\x7f\x85\x9b2J\u202e\u2066"
SHOWN = r"\x1b]52;c;cm0=\x07\x1b[31m\x00\x08\r\x7f\x85\x9b2J\u202e\u2066"
RAW = tuple("\x1b\x07\x00\x08\x7f\x85\x9b\u202e\u2066")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose vocabulary has what commands a terminal."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "text.txt").write_bytes(f"the clock {ESCAPES} struck.\n".encode() * 30)
    tables = {
        "device": "cpu",
        "corpus": {"type": "file", "path": str(folder / "text.txt"), "encoding": "utf-8"},
        "tokenizer": {"type": "char"},
        "data": {"window_length": 16},
        "model": {"type": "rnn", "hidden_size": 8},
        "trainer": {"type": "sgd", "length": "1 epoch", "batch_size": 16},
        "observer": [],
    }
    path = textgen.run(tables, output=folder / "run").path
    assert path is not None
    return path


def on_terminal(*arguments: str | Path, cwd: Path) -> str:
    """What a command writes to a terminal that its three streams are on."""
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "textgen", *map(str, arguments)],
        cwd=cwd,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        seen = b""
        while data := _read(ours):
            seen += data
        process.wait(60)
    os.close(ours)
    return seen.decode().replace("\r\n", "\n")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # the other end is closed
        return b""


def test_generated_text_is_visible_on_a_terminal_and_exact_elsewhere(
    hostile: Path, tmp_path: Path
) -> None:
    prompt = f"the {ESCAPES} ".replace("\0", "").replace("\r", "")
    for how in ([], ["--novelty"]):
        command = ("generate", hostile, "--prompt", prompt, "--max-new-tokens", "40", *how)
        shown = on_terminal(*command, cwd=tmp_path)
        assert f"the {SHOWN} ".replace(r"\x00", "").replace(r"\r", "") in shown
        assert not [c for c in (*RAW, "\r") if c in shown], shown
    piped = tmp_path / "piped"
    with piped.open("wb") as file:
        subprocess.run(
            [sys.executable, "-m", "textgen", *map(str, command)],
            stdout=file,
            env=environment(),
            check=True,
        )
    assert piped.read_bytes().startswith(prompt.encode())


def test_a_session_shows_what_commands_a_terminal(hostile: Path, begin: Callable[..., Any]) -> None:
    session = begin(hostile)
    for option in ("temperature=3", "max-new-tokens=200"):
        session.ask(f"/set {option}")
    answer = session.ask("the ")
    assert r"\x1b" in answer
    assert not [c for c in RAW if c in answer]
    session.leave()


MESSAGES: dict[str, Callable[[Path, Path], tuple[str | Path, ...]]] = {
    "a path that is not there": lambda run, folder: ("show", f"{ESCAPES.replace(chr(0), '')}.toml"),
    "a key of a pipeline": lambda run, folder: ("show", _written(folder / "p.toml", {ESCAPES: 1})),
    "a name of a component": lambda run, folder: (
        "show",
        _written(folder / "p.toml", {"model": {"type": ESCAPES}}),
    ),
    "an override": lambda run, folder: (
        "show",
        _written(folder / "p.toml", {}),
        "--set",
        "model.\x1b]8=1",
    ),
    "a run record": lambda run, folder: (
        "generate",
        _edited(run, folder, '"finished"', '"\\u001b[31m\\u009b"'),
    ),
    "a name in the run record": lambda run, folder: (
        "generate",
        _edited(run, folder, '"seed"', '"\\u202e\\u001b[31m"'),
    ),
    "a folder of runs": lambda run, folder: ("generate", _folder_of(folder, "\x1b]8run")),
}


def _written(path: Path, tables: dict[str, Any]) -> Path:
    path.write_bytes(tomli_w.dumps(tables).encode())
    return path


def _edited(run: Path, folder: Path, before: str, after: str) -> Path:
    shutil.copytree(run, folder / "copy")
    record = folder / "copy/run.json"
    record.write_text(record.read_text().replace(before, after, 1))
    return folder / "copy"


def _folder_of(folder: Path, name: str) -> Path:
    (folder / "runs" / name).mkdir(parents=True)
    (folder / "runs" / name / "run.json").touch()
    return folder / "runs"


@pytest.mark.parametrize("what", MESSAGES)
def test_messages_show_what_commands_a_terminal(hostile: Path, tmp_path: Path, what: str) -> None:
    """In a file too: it may be shown later."""
    done = run_textgen(*MESSAGES[what](hostile, tmp_path), folder=tmp_path)
    assert done.returncode in (1, 2)
    assert not [c for c in (*RAW, "\r") if c in done.stderr + done.stdout], done.stderr


def test_messages_of_the_library_do_too(tmp_path: Path) -> None:
    with pytest.raises(textgen.TextgenError) as caught:
        textgen.load(tmp_path / "\x1b[31m")
    assert r"\x1b[31m" in str(caught.value)
    assert "\x1b" not in str(caught.value)
