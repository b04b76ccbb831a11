"""Runs `textgen` as a user does: in a process of its own, in a folder of its own; behind the
fixtures `textgen` and `python`.
"""

import contextlib
import os
import subprocess
import sys
from typing import TextIO

import attrs
import fork_server
from fork_server import start  # noqa: F401 - for tests that give a command streams of their own


def environment(site=(), extra=None):
    """This process's environment, with `site` before its own PYTHONPATH."""
    path = filter(None, [*map(str, site), os.environ.get("PYTHONPATH")])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), **(extra or {})}


def run_textgen(*arguments, folder, site=(), extra=None, stdin=None):
    """`textgen ARGUMENTS` in `folder`, in a process that has imported torch already."""
    command, given = ["-m", "textgen", *map(str, arguments)], environment(site, extra)
    # these are about how Python starts
    if any(name.startswith(("PYTHON", "LC_", "LANG")) for name in extra or ()):
        return run_python(*command, folder=folder, site=site, extra=extra, stdin=stdin)
    return fork_server.run(command, folder, given, stdin=stdin)


@attrs.frozen
class Running:
    """A command that runs, and our ends of the pipes to its streams."""

    process: fork_server.Process | subprocess.Popen
    stdin: TextIO
    stdout: TextIO
    stderr: TextIO

    def end(self):
        """Wait until it has ended; its exit code, and the rest of what it wrote to stdout and
        stderr.
        """
        errors = self.stderr.read()  # first: on stdout there is less than a pipe holds
        return self.process.wait(), self.stdout.read(), errors


@contextlib.contextmanager
def running(*arguments, folder, site=(), extra=None, piped=False, module="textgen"):
    """`textgen ARGUMENTS`, or another module; ended at the end, whatever has happened.

    piped  whether its stdin is a pipe too, and not empty
    """
    command, given = ["-m", module, *map(str, arguments)], environment(site, extra)
    flags = (os.O_RDONLY, os.O_WRONLY)
    pipes = [
        os.pipe() if piped else [os.open(os.devnull, flag) for flag in flags],
        os.pipe(),
        os.pipe(),
    ]
    theirs = [pipes[0][0], pipes[1][1], pipes[2][1]]
    ours = [pipes[0][1], pipes[1][0], pipes[2][0]]
    try:
        process = fork_server.start(command, folder, given, theirs)
    finally:
        for descriptor in theirs:
            os.close(descriptor)
    with open(ours[0], "w") as stdin, open(ours[1]) as stdout, open(ours[2]) as stderr:
        try:
            yield Running(process, stdin, stdout, stderr)
        finally:
            process.kill()
            process.wait()


def wait_for(command, phrase):
    """The first line on stderr that holds `phrase`."""
    seen = []
    for line in command.stderr:
        seen.append(line)
        if phrase in line:
            return line
    raise AssertionError(f"no {phrase!r} in {seen}")


def run_python(*arguments, folder, site=(), extra=None, stdin=None):
    """`python ARGUMENTS` in `folder`."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env=environment(site, extra),
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )


def run_with_torch(*arguments, folder, site=(), extra=None):
    """`python ARGUMENTS` in `folder`, in a process that has imported torch: much quicker for what
    needs it.
    """
    return fork_server.run([*map(str, arguments)], folder, environment(site, extra))
