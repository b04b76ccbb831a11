"""Saves a generator as a run directory; finishes a run early."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import attrs

from textgen.errors import RunError
from textgen.files.reading import VOCABULARY, WEIGHTS, dump_tensors, dump_vocabulary
from textgen.generation.generator import Generator
from textgen.runs import record as run_record
from textgen.runs.directory import RunDirectory, run_directory
from textgen.runs.formats import Stopped

_STOPPED: Final = Stopped("textgen run --finish", "by request")


def save_run(generator: Generator, path: str | Path) -> None:
    """Write all that it takes to load the generator to a run directory.

    Raises RunError where a run or other files are in the way.
    """
    directory = run_directory(path)
    with directory.prepared(), directory.locked():
        if directory.exists():
            raise RunError(
                f"{directory.path} holds a run already; choose another folder", directory.path
            )
        record = {**generator.record, "status": "finished"}  # though training is not
        contents = {
            "pipeline.toml": run_record.pipeline_text(generator.tables),
            WEIGHTS: dump_tensors(generator.model.tensors()),
            VOCABULARY: dump_vocabulary(generator.tokenizer),
        }
        sums = {name: directory.write_artifact(name, data) for name, data in contents.items()}
        directory.write_run({**record, "files": {**record["files"], **sums}})


def finish_run(directory: RunDirectory) -> bool:
    """Take a run's checkpoint of `Progress.model_step` as its model; False if it was finished
    already.

    Raises RunError where there is no run, no checkpoint, RunLockedError while another process
    trains there.
    """
    if directory.latest().read_run()["status"] == "finished":
        return False
    with directory.locked():
        place = directory.latest()
        record = place.read_run()
        if record["status"] == "finished":  # by another process, or the new run came to nothing
            return False
        newest = place.checkpoints.last()
        if newest is None:
            cause = (
                f"the run in {directory.path} has no checkpoint yet; run its pipeline "
                f"again to train it"
            )
            raise RunError(cause, directory.path)
        progress = newest.progress
        if progress.model_step != progress.best_step:  # not evaluated
            progress = attrs.evolve(
                progress, best_step=progress.model_step, best_loss=None, best_objective=None
            )
        run_record.finish(place, record, progress, _STOPPED)
        return True
