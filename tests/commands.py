"""Runs `textgen` as a user does, behind the fixtures `textgen` and `python`.

`run_textgen` runs it in this process, at once. `run_python` and `running` start a process of its
own, for signals, kills, closed streams, and whatever else is about a process: it takes two seconds
to import torch.
"""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import TextIO

import attrs
import pytest

from textgen.cli import main

TIMEOUT = 300  # seconds


def run_textgen(*arguments, folder, site=(), extra=None, stdin=None):
    """`textgen ARGUMENTS` in `folder`, in this process, which is afterwards what it was before.

    site   folders in which packages are installed
    extra  variables of the environment
    stdin  the text on its stdin; without one, that has ended
    """
    arguments = [*map(str, arguments)]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with _put_back(), _modules_of([folder, *site]), _streams(stdin or "", out, err):
            os.chdir(folder)
            os.environ.update(extra or {})
            sys.path[:0] = map(str, site)
            with pytest.raises(SystemExit) as ended:
                main(arguments)
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
        return subprocess.CompletedProcess(arguments, ended.value.code, _text(out), _text(err))


@contextlib.contextmanager
def _put_back():
    """Put back what a command changes, which believes that the process is its own."""
    import torch  # here, once conftest.py has set its number of threads

    before, environment, path = Path.cwd(), dict(os.environ), [*sys.path]
    logger, threads = logging.getLogger("textgen"), torch.get_num_threads()
    handlers, level = [*logger.handlers], logger.level
    answers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    shown = dict(warnings.onceregistry)
    try:
        with warnings.catch_warnings():  # which restores the filters
            _show_warnings_as_python_does()
            yield
    finally:
        os.chdir(before)
        os.environ.clear()
        os.environ.update(environment)
        sys.path[:] = path
        logger.handlers[:] = handlers
        logger.setLevel(level)
        torch.set_num_threads(threads)
        warnings.onceregistry.clear()
        warnings.onceregistry.update(shown)
        for number, handler in answers.items():
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)


def _show_warnings_as_python_does():
    """Not as pytest does, which makes errors of them."""
    warnings.resetwarnings()
    for category in (DeprecationWarning, PendingDeprecationWarning, ResourceWarning):
        warnings.simplefilter("ignore", category)
    warnings.onceregistry.clear()


@contextlib.contextmanager
def _modules_of(folders):
    """Forget the modules that the block imports from the folders, which another command may not
    find.
    """
    before = set(sys.modules)
    try:
        yield
    finally:
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file and any(Path(file).is_relative_to(folder) for folder in folders):
                del sys.modules[name]


@contextlib.contextmanager
def _streams(text, out, err):
    """A stdin that holds a text, and a stdout and stderr that are written to files."""
    with tempfile.TemporaryFile() as source, pytest.MonkeyPatch.context() as patch:
        source.write(text.encode())
        source.seek(0)
        for name, file, options in (
            ("stdin", source, {}),
            ("stdout", out, {"mode": "w"}),
            ("stderr", err, {"mode": "w", "buffering": 1, "errors": "backslashreplace"}),
        ):
            stream = open(file.fileno(), encoding="utf-8", closefd=False, **options)  # noqa: SIM115
            patch.setattr(sys, name, stream)
        yield


def _text(file):
    file.seek(0)
    return file.read().decode()


def run_python(*arguments, folder, site=(), extra=None, stdin=""):
    """`python ARGUMENTS` in `folder`, in a process of its own; the rest as in `run_textgen`."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env=_environment(site, extra),
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT,
        check=False,
    )


def _environment(site, extra):
    """This process's environment, with `site` before its own PYTHONPATH."""
    path = filter(None, [*map(str, site), os.environ.get("PYTHONPATH")])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), **(extra or {})}


@attrs.frozen
class Running:
    """A process that runs, and our ends of the pipes to its streams."""

    process: subprocess.Popen
    stdin: TextIO | None
    stdout: TextIO
    stderr: TextIO

    def end(self):
        """Wait until it has ended; its exit code, and the rest of what it wrote to stdout and
        stderr.
        """
        errors = self.stderr.read()  # first: on stdout there is less than a pipe holds
        return self.process.wait(TIMEOUT), self.stdout.read(), errors


# A test run that was started in the background ignores Ctrl-C, and would pass that on.
INTERRUPTIBLE = """
import runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""


@contextlib.contextmanager
def running(*arguments, folder, site=(), extra=None, piped=False, module="textgen"):
    """`python -m textgen ARGUMENTS`, or another module, in a process of its own, which is killed
    at the end if it still runs.

    piped  whether its stdin is a pipe that we write to; else that has ended
    """
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, module, *map(str, arguments)],
        cwd=folder,
        env=_environment(site, extra),
        stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        try:
            yield Running(process, process.stdin, process.stdout, process.stderr)
        finally:
            process.kill()


def wait_for(command, phrase):
    """The first line on stderr that holds `phrase`."""
    seen = []
    for line in command.stderr:
        seen.append(line)
        if phrase in line:
            return line
    raise AssertionError(f"no {phrase!r} in {seen}")
