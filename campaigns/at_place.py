"""The command textgen, in which a signal comes as a function is called.

Usage: python campaigns/at_place.py WHO SIGNAL MODULE:NAME COUNT ARGUMENTS

When the process of rank WHO calls the function for the COUNT-th time, it sends itself SIGNAL, such
as KILL or STOP; or, if that is MEMORY, runs out of memory. WHO may be "launcher": then rank 0 does,
and sends it to the process that started it. Nothing happens to processes that torchrun has started
again. With the variable PIDS, each process writes its id into that folder, and the file "struck" is
there from when it happens. TIMEOUT is in seconds: how long processes of a run wait for each other.
"""

import functools
import importlib
import itertools
import os
import signal
import sys
from functools import partial
from pathlib import Path


def main(who, name, place, count, *arguments):
    """Put the signal at its place, and run the command."""
    if "PIDS" in os.environ:
        Path(os.environ["PIDS"], os.environ["RANK"]).write_text(str(os.getpid()))
    is_struck = os.environ["RANK"] == ("0" if who == "launcher" else who)
    if is_struck and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
        process = os.getppid() if who == "launcher" else os.getpid()
        _hit(place, int(count), partial(_strike, process, name))
    from textgen import processes
    from textgen.cli import main as textgen

    processes.TIMEOUT = float(os.environ.get("TIMEOUT", processes.TIMEOUT))
    textgen(list(arguments))


def _strike(process, name):
    if "PIDS" in os.environ:
        Path(os.environ["PIDS"], "struck").touch()
    if name == "MEMORY":
        raise MemoryError
    os.kill(process, getattr(signal, f"SIG{name}"))


def _hit(place, count, strike):
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    owner = functools.reduce(getattr, owners, importlib.import_module(module))
    function, calls = getattr(owner, name), itertools.count(1)

    @functools.wraps(function)
    def struck(*arguments, **options):
        if next(calls) == count:
            strike()
        return function(*arguments, **options)

    setattr(owner, name, struck)


if __name__ == "__main__":
    main(*sys.argv[1:])
