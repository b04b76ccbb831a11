"""Finishes a run before its time."""

from __future__ import annotations

from typing import Final

from textgen.errors import RunError
from textgen.runs import record as run_record
from textgen.runs.directory import RunDirectory
from textgen.runs.observers import Stopped

_STOPPED: Final = Stopped("textgen finish", "by request")


def finish_run(directory: RunDirectory) -> bool:
    """Take the best checkpoint of a run as its model; False if it was finished already, and is left as it is.

    Raises RunError where there is no run, no checkpoint or none after a step, RunLockedError while another process
    trains there.
    """
    if directory.read_run()["status"] == "finished":
        return False
    with directory.locked():
        directory.sweep()
        record = directory.read_run()
        if record["status"] == "finished":  # so another process has finished it, or a run was restored
            return False
        newest = directory.checkpoints.last()
        if newest is None:
            cause = f"the run in {directory.path} has no checkpoint yet; run its pipeline again to train it"
            raise RunError(cause, directory.path)
        if not newest.step:
            cause = f"the run in {directory.path} has made no step yet, so its model knows nothing of the text"
            raise RunError(f"{cause}; run its pipeline again to train it", directory.path)
        run_record.finish(directory, record, newest.progress, _STOPPED)
        return True
