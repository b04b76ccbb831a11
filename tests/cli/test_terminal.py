"""Progress bars on a terminal, closed streams, and signals."""

import io
import os
import re
import signal
import subprocess
import sys

import pytest
from commands import running

from textgen.cli import terminal
from textgen.cli.signal_switch import SignalSwitch


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_are_no_bug(finished_run, generator, closed):
    command = [sys.executable, "-m", "textgen", "generate", ".", "--max-new-tokens", "5"]
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *command],
        cwd=finished_run,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    expected = f"{generator.generate(max_new_tokens=5)}\n" * (not closed.startswith(">"))
    assert (done.returncode, done.stdout, done.stderr) == (0, expected, "")


def test_a_shell_completes_commands():
    words = {"COMP_WORDS": "textgen gen", "COMP_CWORD": "1"}
    for instruction, said in (("bash_source", "complete"), ("bash_complete", "plain,generate")):
        given = {**os.environ, **words, "_TEXTGEN_COMPLETE": instruction}
        command = [sys.executable, "-m", "textgen"]
        done = subprocess.run(command, env=given, capture_output=True, text=True, check=True)
        assert said in done.stdout
        assert done.stderr == ""


def test_a_bar_for_training_fits_80_columns(shown, write_pipeline, tiny_pipeline, tmp_path):
    pipeline = write_pipeline(tiny_pipeline(observers=True, trainer={"length": "12 epochs"}))
    code, seen = shown("-m", "textgen", "run", pipeline, cwd=tmp_path)
    drawn = [line for line in re.split(r"[\r\n]+", seen) if "%|" in line]
    assert (code, max(map(len, drawn)) <= 80) == (0, True)
    assert all(line.rstrip().endswith("]") for line in drawn)
    assert len(drawn[-1].split("|")[1]) >= 8
    assert re.search(r"loss \d\.\d{3}, val \d\.\d{3}, best \d\.\d{3}\]", drawn[-1])


@pytest.mark.fault(14)
@pytest.mark.parametrize("newline", ["\n", "\0"], ids=["after-a-line", "after-some-bytes"])
def test_an_endless_text_ends_when_nobody_reads_on(finished_run, tmp_path, newline):
    with running("generate", finished_run, "--max-new-tokens", "none", folder=tmp_path) as command:
        assert command.stdout.readline() if newline == "\n" else command.stdout.read(5000)
        command.stdout.close()
        assert command.stderr.read() == ""
        assert command.process.wait() == 0


@pytest.mark.unix
@pytest.mark.parametrize("module", ["click", "numpy"])
def test_an_interrupt_during_imports_is_quiet(python, finished_run, module):
    script = f"""
import importlib.abc, os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
class Pressed(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Pressed())
from textgen.cli import main
main(['generate', '.'])
"""
    stopped = python("-c", script, cwd=finished_run)
    assert (stopped.code, stopped.stdout) == (130, "")
    assert stopped.stderr.strip() in ("", "textgen: interrupted")


class Gone(io.RawIOBase):
    """A stdout that nobody reads any more, as Windows says it."""

    def writable(self):
        return True

    def write(self, data):
        raise OSError(22, "Invalid argument")


def test_on_windows_a_reader_that_has_gone_is_known_by_another_error(monkeypatch):
    monkeypatch.setattr("textgen.operating_system.WINDOWS", True)
    monkeypatch.setattr("sys.stderr", io.StringIO())
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BufferedWriter(Gone())))
    terminal.prepare()
    with pytest.raises(BrokenPipeError):
        terminal.print_text("the clock")


def test_on_windows_line_breaks_are_written_as_they_are(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr("sys.stderr", io.StringIO())
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, newline="\r\n"))
    terminal.prepare()
    terminal.print_text("the clock\n")
    assert written.getvalue() == b"the clock\n"
    assert sys.stdout.buffer is None, "click would write to a console through it"


@pytest.mark.skipif(not hasattr(signal, "SIGBREAK"), reason="only Windows has Ctrl-Break")
def test_ctrl_break_stops_a_run():
    with SignalSwitch() as stop:
        signal.raise_signal(signal.SIGBREAK)
    assert stop.is_on()
