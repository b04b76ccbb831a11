"""What Windows does otherwise, simulated: each script makes one call behave as it does there."""

import signal

import pytest
from cli.terminal import shown

pytestmark = pytest.mark.unix  # Windows itself needs no simulation

STDOUT = """
import io, os, sys
import textgen.windows
from textgen.cli import main

textgen.windows.WINDOWS = True
"""


def test_a_reader_that_is_gone_is_no_error_though_it_is_told_as_an_invalid_argument(
    python, finished_run, tmp_path
):
    script = f"""{STDOUT}
class Pipe(io.RawIOBase):
    def writable(self):
        return True

    def write(self, data):
        raise OSError(22, "Invalid argument")

sys.stdout = io.TextIOWrapper(io.BufferedWriter(Pipe()), write_through=True)
main(["generate", {str(finished_run)!r}, "-p", "the ", "--max-new-tokens", "5"])
"""
    done = python("-c", script, cwd=tmp_path)
    assert (done.code, done.stderr) == (0, "")


def test_line_breaks_are_written_as_they_are(python, finished_run, tmp_path):
    script = f"""{STDOUT}
sys.stdout = io.TextIOWrapper(open("text", "wb"), newline="\\r\\n")
main(["generate", {str(finished_run)!r}, "-p", "the ", "--max-new-tokens", "5"])
"""
    assert python("-c", script, cwd=tmp_path).code == 0
    text = (tmp_path / "text").read_bytes()
    assert text.endswith(b"\n")
    assert b"\r" not in text


def test_nothing_reaches_a_terminal_past_what_makes_it_safe(tmp_path):
    # click writes to a console of Windows through a stream that it makes of the `buffer` of stdout
    # or stderr
    (tmp_path / "script.py").write_text(f"""{STDOUT}
import click._compat

def console_stream(stream, encoding, errors):
    buffer = getattr(stream, "buffer", None)
    return buffer and io.TextIOWrapper(buffer, "utf-8", "strict", line_buffering=True)

click._compat._get_windows_console_stream = console_stream
main(["run", "no\\x1b[2Jsuch.toml"])
""")
    code, seen = shown("script.py", cwd=tmp_path)
    assert code == 2
    assert r"no\x1b[2Jsuch.toml" in seen
    assert "\x1b" not in seen


def test_ctrl_break_stops_a_run_after_a_checkpoint(python, tmp_path):
    """So does the end of a console, which comes as the same signal. Another stands for it here."""
    (tmp_path / "breaks.py").write_text("""
import os, signal
from textgen import Component, NoOptions, hookimpl

class Breaks:
    def observe(self, event):
        if type(event).__name__ == "StepDone":
            os.kill(os.getpid(), signal.SIGBREAK)

@hookimpl
def textgen_observers():
    return [Component("breaks", NoOptions, lambda config, context: Breaks())]
""")
    (tmp_path / "p.toml").write_text(
        'corpus.type = "story"\ntokenizer.type = "char"\nmodel.type = "ngram"\n'
        'trainer.type = "count"\n[[observer]]\ntype = "breaks"\n'
    )
    script = """
import signal
signal.SIGBREAK = signal.SIGUSR1
from textgen.cli import main
main(["--plugin", "breaks.py", "run", "p.toml"])
"""
    done = python("-c", script, cwd=tmp_path)
    assert done.code == 128 + signal.SIGUSR1, done.stderr
    assert len(list((tmp_path / "runs/p/checkpoints").iterdir())) == 1
