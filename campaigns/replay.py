"""Power losses: replays the writes of a run to every prefix, loses what was not synced, and runs it
again.

    python -m campaigns.replay [--cases N] [--minutes M] [--seed S] [--setting new]

Every change to the disk of `textgen run` is recorded: three checkpoints and a finish, of a new run,
of one that replaces a finished run, and of one that trains a finished run on. After each change the
machine may stop. What is left then is worked out by campaigns/disk.py: unsynced data dropped, torn
or zeroed, changes to folders lost in any order between folders. In each state `textgen run` again
must end with the weights and text of the run that was not disturbed, go on from the last complete
checkpoint at least, and leave nothing behind. The states come in an order by chance, of which
--cases and --minutes take the beginning.
"""

import shutil
from functools import partial

from . import disk
from .runs import campaign, difference, steps, tree


def cases(stage, given):
    """Every distinct state that a power loss may leave, at any moment of the run."""
    calls = stage.recorded()
    now, seen = disk.Disk.of(stage.new_case()), set()
    for index, step in enumerate(steps(calls)):
        if index:
            now.apply(calls[index - 1])
        for name, state in now.states(given.seed + index, 3):
            key = hash((step, *state))
            if key not in seen:
                seen.add(key)
                name = f"{stage.name}, after call {index} of step {step}: {name}"
                yield name, partial(tried, stage, state, step)
    put(stage, next(now.states(given.seed, 0))[1])
    said = difference(tree(stage.case / "run"), stage.tree)
    assert not said, f"the recorder missed a write: {said}"


def tried(stage, state, step):
    """What is wrong after a run again; "" if nothing."""
    put(stage, state)
    return stage.faults(step)


def put(stage, state):
    """Make the case be a state."""
    shutil.rmtree(stage.case, ignore_errors=True)
    disk.write(state, stage.case)


if __name__ == "__main__":
    campaign(__doc__, cases)
