"""Progress bars on a terminal, closed streams, and signals."""

import re
import subprocess
import sys

import pytest
from cli.terminal import shown
from commands import running


@pytest.mark.parametrize(
    ("closed", "code", "said"),
    [
        ("<&-", 0, ""),
        (">&-", 0, ""),
        ("2>&-", 0, ""),
        (">&- 2>&-", 0, ""),
    ],
)
def test_closed_streams_are_no_bug(finished_run, generator, closed, code, said):
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
    assert (done.returncode, done.stdout) == (code, expected)
    assert done.stderr.startswith(said)
    assert len(done.stderr.splitlines()) == bool(said)


def test_a_bar_for_training_fits_80_columns(write_pipeline, tiny_pipeline, tmp_path):
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
