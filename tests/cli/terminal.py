"""A terminal that the command runs on, as a person has it; behind the fixtures `shown` and `begin`,
which skip a test where there are none.
"""

import contextlib
import os
import pty
import select
import subprocess
import sys
import termios
from pathlib import Path

# Ctrl-C is for the processes whose controlling terminal it is typed on; a new session has none
# until it takes one. A test run that was started in the background ignores SIGINT, and would pass
# that on.
ON_ITS_TERMINAL = """
import fcntl, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGINT, signal.default_int_handler)
from textgen.cli import main
main(sys.argv[1:])
"""


def shown(*arguments, cwd, stdout=None):
    """The exit code of `python ARGUMENTS`, and what it wrote to a terminal of 80 columns that its
    streams are on; all but stdout, if that is given.
    """
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    with open(theirs, "r+b", buffering=0) as terminal:
        process = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            cwd=cwd,
            stdin=terminal,
            stdout=stdout or terminal,
            stderr=terminal,
        )
    seen = b""
    with contextlib.suppress(OSError):  # as Linux says that the other end is closed
        while data := os.read(ours, 65_536):
            seen += data
    os.close(ours)
    return process.wait(), seen.decode().replace("\r\n", "\n")


class Terminal:
    """A session of the command on a terminal of its own."""

    def __init__(self, *arguments, cwd, **variables):
        self._end, other = pty.openpty()
        environment = {**os.environ, "TERM": "dumb", "HOME": str(cwd), "INPUTRC": os.devnull}
        environment |= {"XDG_STATE_HOME": str(cwd / "state"), **variables}
        self.process = subprocess.Popen(
            [sys.executable, "-c", ON_ITS_TERMINAL, *map(str, arguments)],
            cwd=cwd,
            stdin=other,
            stdout=other,
            stderr=other,
            env=environment,
            start_new_session=True,
        )
        os.close(other)

    def read_to(self, mark):
        """What it wrote up to the next `mark`."""
        seen = bytearray()
        while not seen.endswith(mark.encode()):
            ready, _, _ = select.select([self._end], [], [], 300)
            assert ready, f"waited for {mark!r} after {seen[-1000:]!r}"
            try:
                data = os.read(self._end, 1)
            except OSError:  # the other end is closed
                data = b""
            assert data, f"ended before {mark!r}, after {seen[-1000:]!r}"
            seen += data
            assert len(seen) < 1_000_000, f"no {mark!r} in a megabyte that ends in {seen[-1000:]!r}"
        return seen.decode(errors="replace").replace("\r\n", "\n")

    def until_it_waits(self):
        """Until its process sleeps. Does nothing where there is no /proc."""
        state = Path(f"/proc/{self.process.pid}/stat")
        while state.exists() and state.read_text().rpartition(") ")[2][0] != "S":
            pass

    def send(self, text):
        os.write(self._end, text.encode(errors="surrogateescape"))

    def ask(self, line):
        """What it answers to a line, up to the next prompt."""
        self.send(f"{line}\n")
        return self.read_to("\n> ").partition("\n")[2].removesuffix("> ")

    def leave(self):
        """End the session with Ctrl-D."""
        self.send("\x04")
        assert self.process.wait(300) == 0

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self._end)
