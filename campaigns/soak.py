"""Faults of every kind, one after the other in the same run, for as long as you like.

    python -m campaigns.soak --cases N [--minutes M] [--seed S] [--only CASE]

Each case is one run, of a setting by chance, that suffers up to six faults before it is left alone:
kills and signals at any change to its files, errors of the disk, power losses. Then it must end
like one that was not disturbed. A case follows from the seed and its number, which are printed when
it goes wrong: `--seed S --only CASE` does it again.
"""

import random
from functools import partial

from . import disk
from .inject import ERRORS, SIGNALS, fault
from .replay import put
from .runs import campaign

KINDS = ("kill", *SIGNALS, *ERRORS, "power loss")


def suffer(stage, seed):
    """Let a run suffer up to six faults; what is wrong then, after their names, or ""."""
    draw, hits = random.Random(seed), []
    stage.new_case()
    options = stage.setting.options
    for _ in range(draw.randint(1, 6)):
        kind, number = draw.choice(KINDS), int(draw.expovariate(1 / 70)) + 1
        hits.append(f"{kind} at change {number}")
        if kind == "power loss":
            code = lose_power(stage, number, options, draw)
        else:
            first = fault(kind, number, stage.case / "run")
            code = stage.run(stage.case, "p.toml", options, first).code
        options = stage.setting.options if code == 2 else ()  # 2: the old run is there again
    said = stage.faults(None)
    return said and f"{', '.join(hits)}: {said}"


def lose_power(stage, number, options, draw):
    """Kill the run after a change, and take from the disk what was not synced by then."""
    now = disk.Disk.of(stage.case)
    done, calls = stage.record(options, kill_at=number)
    if done.code < 0:
        for call in calls:
            now.apply(call)
        put(stage, draw.choice(list(now.states(draw.randrange(1 << 30), 10)))[1])
    return done.code


def cases(stage, given):
    """A thousand for each setting, or the one that is asked for."""
    for number in range(1000):
        name = f"{stage.name}-{number}"
        if given.only in (None, name):
            yield (
                f"--seed {given.seed} --only {name}",
                partial(suffer, stage, f"{given.seed} {name}"),
            )


if __name__ == "__main__":
    campaign(__doc__, cases, ("--only", {"help": "a case, such as new-17"}))
