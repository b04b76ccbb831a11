"""Checkpoints: all that a run needs to resume, each in its own folder, written atomically.

step-000400/   model.safetensors  trainer.safetensors  trainer.json  manifest.json
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import shutil
import time
import uuid
from pathlib import Path
from typing import Final

import attrs

from textgen.errors import CorruptFileError
from textgen.files import (
    dump_tensors,
    inside,
    load_tensors,
    read_checked,
    read_json,
    remove,
    sync_folder,
    write_durably,
)
from textgen.pipeline.records import read_structured
from textgen.protocols import Tensors, TrainerState
from textgen.runs.formats import SMALL, Manifest, Progress, TrainingState

logger = logging.getLogger("textgen")
_MANIFEST: Final = "manifest.json"
_TRIES: Final = 10  # to read what another process may be removing
_PAUSE: Final = 0.01  # seconds between them
_PARTS: Final = ("model.safetensors", "trainer.safetensors", "trainer.json")


@attrs.frozen
class Checkpoint:
    """A snapshot of model, trainer and progress, in memory or read from the disk."""

    tensors: Tensors
    trainer: TrainerState
    progress: Progress

    @property
    def step(self) -> int:
        """The step after which it was taken."""
        return self.progress.step


@attrs.frozen
class Checkpoints:
    """The checkpoints of a run, in the folder `path` of its run directory."""

    path: Path

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, in order. A folder with another name is not one."""
        numbered = [path for path in self.path.glob("step-*") if path.name[5:].isdecimal()]
        return sorted(step for path in numbered if path == self.folder(step := int(path.name[5:])))

    def read(self, step: int) -> Checkpoint:
        """Read a checkpoint back and verify every byte of it. Raises CorruptFileError naming the file."""
        folder = inside(self.path.parent, f"{self.path.name}/{self.folder(step).name}")
        manifest = read_structured(Manifest, folder / _MANIFEST, largest=SMALL)
        for name in _PARTS:
            if name not in manifest.files:
                raise CorruptFileError(folder / _MANIFEST, f"files: it does not list {name}")
        sums = {name: manifest.files[name].sha256 for name in _PARTS}
        tensors, arrays = (load_tensors(folder / name, read_checked(folder / name, sums[name])) for name in _PARTS[:2])
        state = read_structured(TrainingState, folder / _PARTS[2], sums[_PARTS[2]])
        for file, found in ((_MANIFEST, manifest.step), (_PARTS[2], state.progress.step)):
            if found != step:
                raise CorruptFileError(folder / file, f"it is of step {found}, and its folder of step {step}")
        return Checkpoint(tensors, TrainerState(arrays, dict(state.trainer)), state.progress)

    def last(self, up_to: float = math.inf) -> Checkpoint | None:
        """The newest intact checkpoint, up to a step; None if there is none.

        Raises CorruptFileError if all are damaged.
        """
        error = None
        for step in reversed([step for step in self.steps() if step <= up_to]):
            try:
                return self.read(step)
            except CorruptFileError as damaged:
                error = error or damaged
                logger.warning("checkpoint of step %d is damaged (%s); trying the one before", step, damaged)
        if error is not None:
            cause = f"no checkpoint of this run is intact (the newest: {error})"
            raise CorruptFileError(error.path, cause, expected=error.expected, actual=error.actual, remedy="overwrite")
        return None

    def to_resume(self) -> Checkpoint | None:
        """The newest intact checkpoint, as `last`. Where its best is damaged, the evaluations after it choose anew."""
        newest = self.last()
        if newest is None or newest.progress.best_step in (None, newest.step):
            return newest
        try:
            self.read(newest.progress.best_step)
        except CorruptFileError as damaged:
            step = newest.progress.best_step
            cause = "the best from here on will be the model"
            logger.warning("checkpoint of step %d, the best so far, is damaged (%s); %s", step, damaged, cause)
            progress = attrs.evolve(newest.progress, best_step=None, best_loss=None, since_best=0)
            return attrs.evolve(newest, progress=progress)
        return newest

    def best(self) -> Checkpoint:
        """The best of the checkpoints, by the newest; also while another process writes and removes them.

        There must be one. Raises CorruptFileError if all are damaged.
        """
        for _ in range(_TRIES):
            with contextlib.suppress(CorruptFileError, IndexError):
                newest = self.read(self.steps()[-1])
                best = newest.progress.best_step
                return newest if best in (None, newest.step) else self.read(best)
            time.sleep(_PAUSE)
        newest_intact = self.last()
        if newest_intact is None:
            raise CorruptFileError(self.path, "it holds no checkpoint any more")
        return newest_intact

    def write(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint under a temporary name, flush it to the disk, and rename it."""
        final = self.folder(checkpoint.step)
        partial = self.path / f".partial-{uuid.uuid4().hex}"
        values = {"trainer": checkpoint.trainer.values, "progress": attrs.asdict(checkpoint.progress)}
        arrays = (dump_tensors(checkpoint.tensors), dump_tensors(checkpoint.trainer.arrays))
        parts = dict(zip(_PARTS, (*arrays, json.dumps(values).encode()), strict=True))
        files = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in parts.items()}
        manifest = {"step": checkpoint.step, "files": files}
        try:
            partial.mkdir(parents=True)
            for name, data in parts.items():
                write_durably(partial / name, data)
            write_durably(partial / _MANIFEST, json.dumps(manifest, indent=2).encode())  # last: it says what is whole
            sync_folder(partial)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        aside = partial.with_name(f"{partial.name}-before")
        if final.exists():  # a resumed run repeats the step that it resumed from
            final.rename(aside)
        partial.rename(final)
        sync_folder(self.path)
        shutil.rmtree(aside, ignore_errors=True)
        return final

    def keep(self, steps: set[int]) -> None:
        """Remove the checkpoints of other steps."""
        for step in self.steps():
            if step not in steps:
                remove(self.folder(step))

    def recover(self) -> None:
        """Rename complete checkpoints that a killed process had not renamed yet."""
        for partial in self.path.glob(".partial-*"):
            step = _step_of(partial)
            if step is not None and not os.path.lexists(final := self.folder(step)):
                partial.rename(final)

    def folder(self, step: int) -> Path:
        """Where the checkpoint of a step is, or would be."""
        return self.path / f"step-{step:06d}"


def _step_of(folder: Path) -> int | None:
    """The step of a checkpoint that lacks only its name; None where its writer was killed before it was whole."""
    if folder.is_symlink() or not (folder / _MANIFEST).is_file():
        return None
    try:
        manifest = read_json(folder / _MANIFEST)
        step, files = manifest["step"], manifest["files"]
        whole = all((folder / name).stat().st_size == files[name]["bytes"] for name in _PARTS)
    except (CorruptFileError, OSError, KeyError, TypeError, RecursionError):
        return None
    return step if whole and type(step) is int and 0 <= step < 10**18 else None  # a bool is no step
