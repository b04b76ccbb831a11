"""Commands of textgen in processes of their own, each a list of words.

A process is started so that it imports nothing from the folder that it works on: Python looks
neither there nor in the current folder, and every path is absolute.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, Final

import attrs

from textgen import TextgenError, UsageError
from textgen.files import inside, write_atomic
from textgen_serve.errors import logger

BEGUN: Final = ".begun"
"""The file that has the commands of a job until the last one is started."""
_RUN: Final = "run"
Words = Sequence[str | Path]
"""A command: its name, options, and paths that are relative to the folder of the job."""


@attrs.define(eq=False)
class Job:
    """Commands that follow each other until one fails.

    kind      what is going on while they run
    shown     those that were begun, as a person types them, a line each
    cause     why the last one could not be started or its result not be kept; "" where it was
    """

    name: str
    folder: Path
    kind: str
    commands: Sequence[Words]
    shown: str = ""
    is_alive: bool = True
    has_failed: bool = False
    cause: str = ""
    _process: subprocess.Popen[bytes] | None = None
    _is_stopped: bool = False
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def work(self) -> None:
        """Run them all."""
        try:
            run = self.folder / self.name
            _replace(run, BEGUN, "\n".join(map(shown_command, self.commands)).encode())
            for words in self.commands:
                if words[0] == _RUN:  # which goes on where the server is killed
                    (run / BEGUN).unlink(missing_ok=True)
                if not self._one(words):
                    break
            (run / BEGUN).unlink(missing_ok=True)
        except (TextgenError, OSError, ValueError) as error:
            self.has_failed, self.cause = True, str(error)
            logger.error("%s: %s", self.name, error)
        finally:
            self.is_alive = False

    def _one(self, words: Words) -> bool:
        run = self.folder / self.name
        self.shown += shown_command(words) + "\n"
        absolute = [str(self.folder / word) if isinstance(word, Path) else word for word in words]
        # A training is not stopped by a signal to the group of the server: that stops it itself,
        # or is killed, and the training goes on.
        with _new_log(run) as log, self._lock:
            if self._is_stopped:
                return False
            self._process = subprocess.Popen(  # noqa: S603  # a list of words, and no shell
                # -P: without it, `-m` puts the current folder first on the path of imports.
                [sys.executable, "-P", "-m", "textgen", *absolute],
                stdin=subprocess.DEVNULL,
                stdout=log if words[0] == _RUN else subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "PYTHONUTF8": "1"},
            )
        said, _ = self._process.communicate()
        self.has_failed = self._process.returncode != 0 and not self._is_stopped
        if said and not self._process.returncode:
            _replace(run, "found.json", said)
        return self._process.returncode == 0

    def stop(self) -> None:
        """End the command that runs, and begin no other."""
        with self._lock:
            self._is_stopped = True
            if self._process is not None and self._process.poll() is None:
                self._process.terminate()


def _replace(folder: Path, name: str, data: bytes) -> None:
    """Write a file in a folder that somebody else may have made."""
    write_atomic(inside(folder, name), data)


def _new_log(folder: Path) -> BinaryIO:
    """A new log.txt. What has its name loses it, and is not written to: it may be a link."""
    path = folder / "log.txt"
    path.unlink(missing_ok=True)
    return path.open("xb")


def shown_command(words: Words) -> str:
    """A command as a person types it in the folder of the job."""
    return shlex.join(["textgen", *map(str, words)])


@attrs.define
class Jobs:
    """The newest job of each name. The methods may be called by several threads."""

    _jobs: dict[str, Job] = attrs.field(factory=dict)
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def of(self, name: str) -> Job | None:
        """The newest of a name; it may be done."""
        return self._jobs.get(name)

    def start(
        self,
        name: str,
        folder: Path,
        kind: str,
        commands: Sequence[Words],
        shown: str = "",
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        """Start one, and do `prepare` before, while no other can be started.

        Raises UsageError where one runs, and what `prepare` raises.
        """
        with self._lock:
            before = self._jobs.get(name)
            if before is not None and before.is_alive:
                raise UsageError(f"{name} is busy: {before.shown}")
            prepare()
            self._jobs[name] = job = Job(name, folder, kind, commands, shown)
        threading.Thread(target=job.work, daemon=True).start()

    def stop(self, name: str, process: object = None) -> None:
        """End the job of a name, or else the process that trains."""
        job = self._jobs.get(name)
        if job is not None and job.is_alive:
            job.stop()
        elif type(process) is int and process > 1:
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGTERM)

    def stop_all(self) -> None:
        """End them all, a training with a checkpoint."""
        for job in [*self._jobs.values()]:
            if job.is_alive:
                job.stop()

    def forget(self, name: str) -> None:
        """Drop what is done."""
        self._jobs.pop(name, None)
