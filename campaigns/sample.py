"""A sample of all the faults in this folder, by a fixed seed; one line of JSON for each: kind, place, what is wrong.

python -m campaigns.sample [--seed S]
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .calls import Call
from .inject import places, tried
from .replay import Log, losses, record
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
            steps = list(enumerate(places(log), 1))
            if setting is NEW:  # before change 20 there is no run yet
                chosen = [(kind, *draw.choice(steps[20:])) for kind in KINDS]
            else:
                chosen = [("SIGINT twice", *steps[nameless(log)])]
            for kind, place, step in chosen:
                yield kind, f"change {place}", tried(stage, kind, place, step)


def nameless(log: Log) -> int:
    """How many changes there are until the only checkpoint has been moved, and another not yet put in its place."""
    changes = [call for call in log if isinstance(call, Call)]
    return next(i for i, call in enumerate(changes, 1) if call.target.endswith("-before"))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    for found in sample(parser.parse_args().seed):
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
