"""Power losses: replays the writes of a run to every prefix, loses what was not synced, and runs it again.

    python -m campaigns.replay [--states N] [--minutes M] [--seed S] [--setting new]

Every change to the disk of `textgen run` is recorded: three checkpoints and a finish, of a new run, of one that
replaces a finished run, and of one that trains a finished run on. After each change the machine may stop. What is left
then is worked out by campaigns/disk.py: unsynced data dropped, torn or zeroed, changes to folders lost in any order
between folders. In each state `textgen run` again must end with the weights and text of the run that was not
disturbed, go on from the last complete checkpoint at least, and leave nothing behind. They come in an order by
chance, of which --states and --minutes take the beginning.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import attrs

from . import disk
from .calls import Call, watch
from .runs import (
    FAST,
    SETTINGS,
    Done,
    Setting,
    Stage,
    difference,
    load_everything,
    marks,
    tree,
    within,
)


@attrs.frozen
class Loss:
    """A state after a power loss.

    step  of the last checkpoint that was complete before it; -1: the run was finished; None: there was none
    """

    name: str
    state: disk.State
    step: int | None


Log: TypeAlias = list[Call | int]
"""The changes of a run in order, and among them the step of each checkpoint, at the place where it is complete."""


def record(stage: Stage) -> Log:
    """What an undisturbed run does."""
    case = stage.new_case()
    done, log = recorded(stage, case, stage.setting.options)
    assert done.code == 0, done.stderr
    assert tree(case / "run") == stage.tree, difference(tree(case / "run"), stage.tree)
    return log


def recorded(
    stage: Stage, case: Path, options: tuple[str, ...], killed_at: int | None = None
) -> tuple[Done, Log]:
    """Run, and say what it did; it is killed after so many changes."""
    file = stage.folder / "log"
    seen: Log = []

    def last() -> None:
        file.write_text(
            repr([attrs.astuple(each) if isinstance(each, Call) else each for each in seen])
        )

    def after(call: Call) -> None:
        seen.append(call)
        if len(seen) == killed_at:
            last()
            os.kill(os.getpid(), signal.SIGKILL)

    def first() -> None:
        watch(case, lambda call: None, after)
        if killed_at is None:
            marks(seen.append)()

    done = stage.run(case, options=options, first=first, last=last)
    listed = ast.literal_eval(file.read_text())
    return done, [each if isinstance(each, int) else Call(*each) for each in listed]


def losses(stage: Stage, calls: Log, seed: int, more: int = 3) -> Iterator[Loss]:
    """Every distinct state that a power loss may leave, at any moment of the run."""
    now = disk.Disk.of(stage.new_case())
    seen = set()
    step, finished = None, end(calls)
    for place, call in enumerate([None, *calls]):
        if isinstance(call, int):
            step = call
        elif call is not None:
            now.apply(call)
            step = -1 if place >= finished else step
        for name, state in now.states(seed + place, more):
            if (key := (disk.digest(state), step)) not in seen:
                seen.add(key)
                yield Loss(
                    f"{stage.setting.name}, after call {place} ({call}): {name}", state, step
                )
    case = stage.folder / "case"
    shutil.rmtree(case)
    disk.write(next(now.states(seed, 0))[1], case)
    assert tree(case / "run") == stage.tree, "the recorder missed a write"


def end(calls: Log) -> int:
    """The place of the call that makes the end of the run durable."""
    renamed = max(
        i
        for i, call in enumerate(calls)
        if isinstance(call, Call) and call.target == "run/run.json"
    )
    synced = (
        i
        for i, call in enumerate(calls)
        if isinstance(call, Call) and (call.name, call.path) == ("fsync", "run")
    )
    return next(i for i in synced if i > renamed) + 1


def tried(stage: Stage, loss: Loss) -> str:
    """What is wrong after a run again; "" if nothing."""
    case = stage.folder / "case"
    shutil.rmtree(case, ignore_errors=True)
    disk.write(loss.state, case)
    return stage.faults(case, loss.step)


def campaign(settings: list[Setting], states: int | None, seconds: float, seed: int) -> int:
    """Try all states, or so many of them, or for so long; return how many were wrong."""
    load_everything()
    begun, wrong, count, most = time.perf_counter(), 0, 0, 0
    with tempfile.TemporaryDirectory(dir=FAST) as folder:
        stages = [Stage.make(Path(folder), setting) for setting in settings]
        found = [(stage, loss) for stage in stages for loss in losses(stage, record(stage), seed)]
        most = len(found)
        random.Random(seed).shuffle(found)
        for stage, loss in within(seconds, found[:states], "states"):
            count += 1
            if said := tried(stage, loss):
                wrong += 1
                print(f"{loss.name} (seed {seed}, step {loss.step}): {said}", flush=True)
    spent = time.perf_counter() - begun
    print(
        f"{count} of {most} distinct states after a power loss, {wrong} wrong, in {spent:.0f} s (seed {seed})"
    )
    return wrong


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--states", type=int)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--setting", action="append", choices=SETTINGS)
    options = parser.parse_args()
    settings = (
        [SETTINGS[name] for name in options.setting] if options.setting else list(SETTINGS.values())
    )
    sys.exit(bool(campaign(settings, options.states, options.minutes * 60, options.seed)))


if __name__ == "__main__":
    main()
