"""Faults of every kind, one after the other in the same run, for as long as you like.

    python -m campaigns.soak [--minutes 60] [--seed S] [--case N]

Each case is one run, of a setting by chance, that suffers up to six faults before it is left alone: kills and signals
at any change to its files, errors of the disk, power losses. Then it must end like one that was not disturbed. A case
follows from the seed and its number, which are printed when it goes wrong: `--seed S --case N` does it again.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from . import disk
from .calls import Call
from .inject import ERRORS, SIGNALS, fault
from .replay import recorded
from .runs import FAST, SETTINGS, Stage, load_everything

KINDS = ("kill", *SIGNALS, *ERRORS, "power loss")


def suffer(stage: Stage, case: Path, draw: random.Random) -> list[str]:
    """Let a run suffer up to six faults, and say which."""
    hits = []
    options = stage.setting.options
    for _ in range(draw.randint(1, 6)):
        kind, place = draw.choice(KINDS), int(draw.expovariate(1 / 70)) + 1
        hits.append(f"{kind} at change {place}")
        if kind == "power loss":
            code = lose_power(stage, case, place, options, draw)
        else:
            code = stage.run(case, options=options, first=fault(kind, place, case / "run")).code
        options = stage.setting.options if code == 2 else ()  # 2: the old run is there again
    return hits


def lose_power(
    stage: Stage, case: Path, place: int, options: tuple[str, ...], draw: random.Random
) -> int:
    """Kill the run after a change, and take from the disk what was not synced by then."""
    now = disk.Disk.of(case)
    done, log = recorded(stage, case, options, killed_at=place)
    if done.code < 0:
        for call in log:
            assert isinstance(call, Call)
            now.apply(call)
        shutil.rmtree(case)
        disk.write(draw.choice(list(now.states(draw.randrange(1 << 30), 10)))[1], case)
    return done.code


def campaign(seconds: float, seed: int, only: int | None) -> int:
    """Try cases for so long; return how many were wrong."""
    load_everything()
    begun, wrong, case = time.monotonic(), 0, only or 0
    with tempfile.TemporaryDirectory(dir=FAST) as folder:
        stages = [Stage.make(Path(folder), setting) for setting in SETTINGS.values()]
        while True:
            draw = random.Random(f"{seed} {case}")
            stage = draw.choice(stages)
            place = stage.new_case()
            hits = suffer(stage, place, draw)
            if said := stage.faults(place, None):
                wrong += 1
                print(
                    f"--seed {seed} --case {case}: {stage.setting.name}, {', '.join(hits)}: {said}",
                    flush=True,
                )
            case += 1
            if only is not None or time.monotonic() - begun > seconds:
                break
    print(
        f"{case - (only or 0)} cases, {wrong} wrong, in {time.monotonic() - begun:.0f} s (seed {seed})"
    )
    return wrong


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--case", type=int)
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 30) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    sys.exit(bool(campaign(options.minutes * 60, seed, options.case)))


if __name__ == "__main__":
    main()
