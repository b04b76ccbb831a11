"""Runs the trials of a sweep, each as a process `textgen run`, some at a time."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from textgen import RunError, RunSummary, summarize
from textgen.cli.stop_switch import StopSwitch
from textgen_builtins.commands.trials import Trial

_POLL_SECONDS: Final = 0.1
_TELL_SECONDS: Final = 1.0
_LOGS: Final = ".logs"
_ERROR: Final = "textgen: error: "
_LOG_END: Final = 1 << 13  # bytes at the end of a log in which its error is looked for
_SIGNALS: Final = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


@attrs.frozen
class Command:
    """How a trial is run: `textgen OPTIONS run PIPELINE`, with at most so many threads."""

    pipeline: str
    folder: Path
    options: tuple[str, ...] = ()
    threads: int | None = None

    def path(self, trial: Trial) -> Path:
        """The run directory of a trial."""
        return self.folder / trial.name

    def log(self, trial: Trial) -> Path:
        """The file that holds what its processes write."""
        return self.folder / _LOGS / f"{trial.name}.log"

    def start(self, trial: Trial) -> subprocess.Popen[bytes]:
        """Start it. Ctrl-C on a terminal does not reach it: it gets its signal from here, and only one."""
        arguments = [
            *self.options,
            "run",
            self.pipeline,
            "--quiet",
            "--output",
            str(self.path(trial)),
        ]
        arguments += [word for override in trial.overrides for word in ("--set", override)]
        # Not as the pipeline's `threads`: the run is then the one that `textgen run` makes, and may do without torch.
        share = {} if self.threads is None else {"OMP_NUM_THREADS": str(self.threads)}
        # Without the current folder on its path, where a file could be called like a module: as `textgen` itself.
        safely = [] if sys.path[0] in ("", os.getcwd()) else ["-P"]
        group: dict[str, Any] = {"process_group": 0} if os.name == "posix" else {}
        with self.log(trial).open("wb") as log:
            return subprocess.Popen(  # noqa: S603 - this Python, and textgen
                [sys.executable, *safely, "-m", "textgen", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**share, **os.environ},
                **group,
            )


@attrs.define
class Sweep:
    """The state of a sweep: trials that wait, that run, and that are over, with the error of each that failed."""

    command: Command
    waiting: deque[Trial]
    running: dict[str, tuple[Trial, subprocess.Popen[bytes]]] = attrs.field(factory=dict)
    finished: list[Trial] = attrs.field(factory=list)
    failed: dict[str, str] = attrs.field(factory=dict)


def run_trials(
    command: Command, trials: Sequence[Trial], jobs: int, tell: Callable[[Sweep], None]
) -> tuple[Sweep, int]:
    """Run the trials, `jobs` at a time; `tell` hears how it stands whenever one is over, and every second.

    A trial that another process runs is waited for. The first signal stops all of them with a checkpoint, and its
    number is returned, or 0; a second one ends them at once.
    """
    sweep = Sweep(command, deque(trials))
    (command.folder / _LOGS).mkdir(parents=True, exist_ok=True)
    with _ended(sweep), StopSwitch(_SIGNALS) as switch:
        told = 0.0
        while sweep.waiting or sweep.running:
            if switch.is_on():
                _stop(sweep)
                break
            changed = _collect(sweep)
            while len(sweep.running) < jobs and (trial := _next(sweep)) is not None:
                sweep.running[trial.name] = (trial, command.start(trial))
                changed = True
            if changed or time.monotonic() - told > _TELL_SECONDS:
                told = time.monotonic()
                tell(sweep)
            time.sleep(_POLL_SECONDS)
        return sweep, switch.signal_number or 0


def status_of(path: Path) -> RunSummary | None:
    """The summary of a run directory; None where no run is yet."""
    try:
        return summarize(path)
    except (RunError, OSError):
        return None


def _next(sweep: Sweep) -> Trial | None:
    """The next trial that no other process runs."""
    for _ in range(len(sweep.waiting)):
        trial = sweep.waiting.popleft()
        found = status_of(sweep.command.path(trial))
        if found is None or found.status != "running":
            return trial
        sweep.waiting.append(trial)
    return None


def _collect(sweep: Sweep) -> bool:
    """Take note of the trials whose process is over."""
    over = [
        (trial, process) for trial, process in sweep.running.values() if process.poll() is not None
    ]
    for trial, process in over:
        del sweep.running[trial.name]
        found = status_of(sweep.command.path(trial))
        if process.returncode == 0:
            sweep.finished.append(trial)
        elif found is not None and found.status == "running":  # another process was quicker
            sweep.waiting.append(trial)
        else:
            sweep.failed[trial.name] = _error(sweep.command.log(trial), process.returncode, found)
    return bool(over)


def _error(log: Path, code: int, found: RunSummary | None) -> str:
    """Why a process failed: what it says, what the run has recorded, or what it wrote last."""
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"ended by {signal.Signals(-code).name}"
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_END))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    at = [
        place for place, line in enumerate(lines) if line.startswith(_ERROR)
    ]  # which may go on over several lines
    said = [" ".join(map(str.strip, lines[at[-1] :])).removeprefix(_ERROR)] if at else []
    recorded = [found.cause] if found is not None and found.cause else []
    written = [line for line in lines if line.strip()]
    return next(iter([*said, *recorded, *written[-1:]]), f"exit code {code}")


def _stop(sweep: Sweep) -> None:
    """Let every process write a checkpoint and end."""
    for _, process in sweep.running.values():
        if os.name == "posix":  # elsewhere the terminal has told it
            process.send_signal(signal.SIGINT)
    while sweep.running:
        _collect(sweep)
        time.sleep(_POLL_SECONDS)
    sweep.failed.clear()


@contextlib.contextmanager
def _ended(sweep: Sweep) -> Iterator[None]:
    """Leave no process behind, whatever happens here."""
    try:
        yield
    finally:
        for _, process in sweep.running.values():
            process.kill()
            process.wait()
