"""Removing the checkpoints of a finished run. Apart, since commands import it before they need NumPy."""

from __future__ import annotations

from pathlib import Path

from textgen.errors import RunError
from textgen.files.reading import folder_size
from textgen.runs.directory import RunDirectory


def prune(path: str | Path) -> int:
    """Remove the checkpoints of a finished run, and return how many bytes they took.

    The run generates and is evaluated as before. It can no longer be trained on with more steps or epochs, but by
    starting again. Raises RunError where there is no run, or one that is not finished, RunLockedError while another
    process uses it, CorruptFileError.
    """
    directory = RunDirectory(Path(path).absolute())
    _check_finished(directory)  # without touching what is no finished run
    with directory.locked():
        _check_finished(directory)
        freed, _ = folder_size(directory.inside("checkpoints"))
        directory.checkpoints.keep(set())
        return freed


def _check_finished(directory: RunDirectory) -> None:
    status = directory.read_run()["status"]
    if status != "finished":
        cause = f"the run in {directory.path} is not finished ({status}), and resumes from its checkpoints"
        raise RunError(f"{cause}; they are not removed", directory.path)
