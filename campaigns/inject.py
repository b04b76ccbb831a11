"""Kills, signals and errors of the disk at any change that a run makes to its files, and the run again after each.

    python -m campaigns.inject [--kind kill] [--places N] [--minutes M] [--seed S] [--setting new]

A kind is "kill", a signal, an error ("ENOSPC": the disk is full from then on), "removed" or "moved". Each is tried at
every change, in an order by chance, of which --places and --minutes take the beginning. `textgen run` must end by the
signal or with one line and exit code 1, and the same command again must end like a run that was not disturbed
(campaigns/runs.py).
"""

from __future__ import annotations

import argparse
import errno
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from .calls import Call, watch
from .replay import Log, end, record
from .runs import FAST, SETTINGS, Done, Setting, Stage, load_everything, within

SPACE = ("open", "write", "mkdir", "link")
ERRORS = {
    "ENOSPC": SPACE,
    "EDQUOT": SPACE,
    "EMFILE": ("open",),
    "EFBIG": ("write", "truncate"),
    "EROFS": (*SPACE, "truncate", "rename", "unlink", "rmdir"),
    "EIO": (*SPACE, "truncate", "rename", "unlink", "rmdir", "fsync"),
}
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGINT twice")
KINDS = ("kill", *SIGNALS, *ERRORS, "removed", "moved")


def fault(kind: str, place: int, run: Path) -> Callable[[], None]:
    """What to call in a process so that the fault comes with its change number `place`."""
    done = 0  # changes that were made: others fail without any fault, such as to remove what is not there

    def before(call: Call) -> None:
        nonlocal done
        if done + 1 < place:
            return
        if kind not in ERRORS:
            done = done if kind == "kill" else -(1 << 30)
            once(kind, run)
        elif call.name in ERRORS[kind]:
            number = getattr(errno, kind)
            where = (
                ()
                if call.name in ("write", "truncate", "fsync")
                else (str(run.parent / call.path),)
            )
            raise OSError(number, os.strerror(number), *where)

    def after(_: Call) -> None:
        nonlocal done
        done += 1

    def first() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
        watch(run.parent, before, after)

    return first


def once(kind: str, run: Path) -> None:
    """The faults that come once."""
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind in SIGNALS:
        for _ in range(1 + kind.endswith("twice")):
            os.kill(os.getpid(), getattr(signal, kind.partition(" ")[0]))
    elif run.exists():
        moved = run.with_name("moved")
        os.replace(run, moved)
        if kind == "removed":
            shutil.rmtree(moved)


def wrong_end(kind: str, done: Done, step: int | None) -> str:
    """What is wrong about how the disturbed run ended; "" if nothing. `step` is that of the last checkpoint."""
    if "Traceback" in done.stderr:
        return f"a traceback: {done.stderr}"
    if kind == "kill":
        return "" if done.code == -signal.SIGKILL else f"exit code {done.code}"
    if kind in SIGNALS:
        number = getattr(signal, kind.partition(" ")[0])
        return (
            ""
            if done.code in (0, 128 + number, -number)
            else f"exit code {done.code}: {done.stderr}"
        )
    if done.code not in (0, 1):
        return f"exit code {done.code}: {done.stderr}"
    lines = [
        line
        for line in done.stderr.splitlines()
        if not line.startswith("textgen: warning: the cache ")
    ]
    if done.code and (len(lines) != 1 or not lines[0].startswith("textgen: error: ")):
        return f"not one line: {done.stderr}"
    if not done.code or step is None or step == -1:
        return ""
    if kind in ("moved", "removed"):
        # Once the run is finished, and generates, it is only said that there is none.
        gone = ("moved or removed", "it has no run.json", "it does not exist")
        return (
            ""
            if any(each in done.stderr for each in gone)
            else f"does not say that it was {kind}: {done.stderr}"
        )
    kept = re.search(r"the checkpoint of step (\d+) is kept", done.stderr)
    # Where a file could not be opened only after what was done without one, the next checkpoint is complete by then.
    return (
        ""
        if kept and int(kept[1]) >= step
        else f"the checkpoint of step {step} is not said to be kept: {done.stderr}"
    )


def tried(stage: Stage, kind: str, place: int, step: int | None) -> str:
    """Do one fault, and run again; what is wrong, or ""."""
    case = stage.new_case()
    run = case / "run"
    options = (*stage.setting.options, "--quiet")
    done = stage.run(case, options=options, first=fault(kind, place, run))
    if said := wrong_end(kind, done, step):
        return said
    if kind in ("moved", "removed") and not run.exists():
        if not (case / "moved").exists():
            return ""
        (case / "moved").rename(run)
    elif kind in ("moved", "removed"):
        return "" if done.code == 0 or step is None else f"it made the folder anew: {done.stderr}"
    return stage.faults(case, step)


def places(calls: Log) -> list[int | None]:
    """For every change, the step of the last checkpoint before it; -1 after the end of the run."""
    steps: list[int | None] = []
    step, finished = None, end(calls)
    for place, call in enumerate(calls, 1):
        if isinstance(call, int):
            step = call
        else:
            steps.append(-1 if place > finished else step)
    return steps


def campaign(
    settings: list[Setting], kinds: tuple[str, ...], most: int | None, seconds: float, seed: int
) -> int:
    """Try faults of these kinds at all places, or so many of them, or for so long; return how many were wrong."""
    load_everything()
    begun, wrong, count = time.perf_counter(), 0, 0
    with tempfile.TemporaryDirectory(dir=FAST) as folder:
        cases: list[tuple[Stage, str, int, int | None]] = []
        for setting in settings:
            stage = Stage.make(Path(folder), setting)
            steps = list(enumerate(places(record(stage)), 1))
            cases += [(stage, kind, *place) for kind in kinds for place in steps]
        random.Random(seed).shuffle(cases)
        for stage, kind, place, step in within(seconds, cases[:most], "faults"):
            count += 1
            if said := tried(stage, kind, place, step):
                wrong += 1
                print(
                    f"{stage.setting.name}: {kind} at change {place} (step {step}): {said}",
                    flush=True,
                )
    spent = time.perf_counter() - begun
    print(
        f"{count} of {len(cases)} faults ({', '.join(kinds)}), {wrong} wrong, in {spent:.0f} s (seed {seed})"
    )
    return wrong


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kind", action="append", choices=KINDS)
    parser.add_argument("--places", type=int)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--setting", action="append", choices=SETTINGS)
    options = parser.parse_args()
    settings = [SETTINGS[name] for name in options.setting or SETTINGS]
    sys.exit(
        bool(
            campaign(
                settings,
                tuple(options.kind or KINDS),
                options.places,
                options.minutes * 60,
                options.seed,
            )
        )
    )


if __name__ == "__main__":
    main()
