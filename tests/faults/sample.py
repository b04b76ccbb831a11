"""A sample of all the faults in this folder, by a fixed seed; one line of JSON for each: kind, place, what is wrong.

python -m tests.faults.sample [--seed S]
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .inject import places, tried
from .replay import losses, record
from .replay import tried as lost
from .runs import FAST, NEW, OVERWRITE, Stage, load_everything

LOSSES = {NEW: 17, OVERWRITE: 8}
KINDS = ("kill", "kill", "SIGTERM", "SIGHUP", "SIGINT twice", "ENOSPC", "EROFS", "moved")


def sample(seed: int) -> Iterator[tuple[str, str, str]]:
    """Kind, place and what is wrong ("" if nothing) of each fault."""
    load_everything()
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory(dir=FAST) as folder:
        for setting, count in LOSSES.items():
            stage = Stage.make(Path(folder), setting)
            log = record(stage)
            for loss in draw.sample(list(losses(stage, log, seed, more=1)), count):
                yield "power loss", loss.name, lost(stage, loss)
            if setting is NEW:
                steps = list(enumerate(places(log), 1))
                for kind in KINDS:
                    place, step = draw.choice(steps[20:])  # before that there is no run yet
                    yield kind, f"change {place}", tried(stage, kind, place, step)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    for found in sample(parser.parse_args().seed):
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
