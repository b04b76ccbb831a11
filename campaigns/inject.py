"""Kills, signals and errors of the disk at any change that a run makes to its files, and the run
again after each.

    python -m campaigns.inject [--kind kill] [--cases N] [--minutes M] [--seed S] [--setting new]

A kind is "kill", a signal, an error ("ENOSPC": the disk is full from then on), "removed" or
"moved". Each is tried at every change, in an order by chance, of which --cases and --minutes take
the beginning. `textgen run` must end by the signal or with one line and exit code 1, and the same
command again must end like a run that was not disturbed (campaigns/runs.py).
"""

import errno
import os
import shutil
import signal
from functools import partial

from .calls import watch
from .runs import campaign, steps

SPACE = ("open", "write", "mkdir")
NAMES = ("truncate", "rename", "unlink", "rmdir")
ERRORS = {
    "ENOSPC": SPACE,
    "EDQUOT": SPACE,
    "EMFILE": ("open",),
    "EFBIG": ("write", "truncate"),
    "EROFS": (*SPACE, *NAMES),
    "EIO": (*SPACE, *NAMES, "fsync"),
}
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGINT twice")
KINDS = ("kill", *SIGNALS, *ERRORS, "removed", "moved")


def fault(kind, number, run):
    """What to call in a process so that the fault comes with its change number `number`."""
    # changes that were made: others fail without any fault, such as to remove what is not there
    done = 0

    def before(call):
        nonlocal done
        if done + 1 < number:
            return
        if kind not in ERRORS:
            done = -(1 << 30)  # it comes once
            strike(kind, run)
        elif call.name in ERRORS[kind]:
            code = getattr(errno, kind)
            has_name = call.name not in ("write", "truncate", "fsync")
            where = (str(run.parent / call.path),) if has_name else ()
            raise OSError(code, os.strerror(code), *where)

    def after(_):
        nonlocal done
        done += 1

    def first():
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
        watch(run.parent, before, after)

    return first


def strike(kind, run):
    """A fault that comes once."""
    if kind == "kill" or kind in SIGNALS:
        for _ in range(1 + kind.endswith("twice")):
            os.kill(os.getpid(), signal_of(kind))
    elif run.exists():
        moved = run.with_name("moved")
        os.replace(run, moved)
        if kind == "removed":
            shutil.rmtree(moved)


def signal_of(kind):
    """The number of a signal."""
    return int(getattr(signal, "SIGKILL" if kind == "kill" else kind.partition(" ")[0]))


def wrong_end(kind, done):
    """What is wrong about how the disturbed run ended; "" if nothing."""
    if kind == "kill" or kind in SIGNALS:
        number = signal_of(kind)
        codes = (-number,) if kind == "kill" else (0, 128 + number, -number)
    else:
        codes = (0, 1)
    if done.code not in codes or "Traceback" in done.stderr:
        return f"exit code {done.code}: {done.stderr}"
    if done.code != 1:
        return ""
    lines = done.stderr.splitlines()
    lines = [line for line in lines if not line.startswith("textgen: warning: the cache ")]
    if len(lines) != 1 or not lines[0].startswith("textgen: error: "):
        return f"not one line: {done.stderr}"
    return ""


def tried(stage, kind, number, step):
    """Do one fault, and run again; what is wrong, or ""."""
    case = stage.new_case()
    run, moved = case / "run", case / "moved"
    options = (*stage.setting.options, "--quiet")
    done = stage.run(case, "p.toml", options, fault(kind, number, run))
    if said := wrong_end(kind, done):
        return said
    if kind in ("moved", "removed"):
        if run.exists():
            return "" if done.code == 0 or step is None else f"it was made anew: {done.stderr}"
        if not moved.exists():
            return ""
        moved.rename(run)
    return stage.faults(step)


def cases(stage, given):
    """Each kind at each change."""
    for number, step in enumerate(steps(stage.recorded())[:-1], 1):
        for kind in given.kind or KINDS:
            name = f"{stage.name}: {kind} at change {number} (step {step})"
            yield name, partial(tried, stage, kind, number, step)


if __name__ == "__main__":
    campaign(__doc__, cases, ("--kind", {"action": "append", "choices": KINDS}))
