"""Checkpoints: all that a run needs to resume, each in its own folder, written atomically.

step-000400/   model.safetensors  trainer.safetensors  trainer.json  manifest.json
               published.safetensors  the weights to generate with, where a trainer publishes others
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import math
import os
from collections.abc import Collection
from pathlib import Path
from typing import Final

import attrs

from textgen.errors import CorruptFileError
from textgen.files.durable import new_folder, remove_folder, rename, write_synced
from textgen.files.opening import inside
from textgen.files.reading import read_bytes
from textgen.files.tensors import WEIGHTS, dump_tensors, read_tensors, read_weights
from textgen.plugin.strict_json import read_strict_json
from textgen.protocols import Table, Tensors, TrainerState
from textgen.runs.formats import Manifest, Progress, TrainingState

logger = logging.getLogger("textgen")
_PUBLISHED: Final = "published.safetensors"
_ARRAYS: Final = "trainer.safetensors"
_STATE: Final = "trainer.json"
_MANIFEST: Final = "manifest.json"


@attrs.frozen
class Checkpoint:
    """A snapshot of model, trainer and progress, in memory or read from the disk.

    tensors    the weights that training goes on from
    published  the weights to generate with, where a trainer publishes others; else empty
    """

    tensors: Tensors
    trainer: TrainerState
    progress: Progress
    observers: Table = attrs.field(factory=dict)
    published: Tensors = attrs.field(factory=dict)

    @property
    def step(self) -> int:
        """The step after which it was taken."""
        return self.progress.step


@attrs.frozen
class Checkpoints:
    """The checkpoints of a run, in the folder `path` of its run directory."""

    path: Path

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, in order.

        Folders with other names are ignored. Raises RunError.
        """
        inside(self.path.parent, self.path.name)  # no link leads out of the run directory
        names = {path.name for path in self.path.glob("step-*")}
        steps = {int(name[5:]) for name in names if name[5:].isdecimal()}
        return sorted(step for step in steps if self.folder(step).name in names)

    def read(self, step: int) -> Checkpoint:
        """Read a checkpoint back and verify every byte of it.

        Raises CorruptFileError naming the file.
        """
        sums = self._manifest(step).files
        tensors = read_weights(self._file(step, WEIGHTS), sums[WEIGHTS])
        published: Tensors = {}
        if _PUBLISHED in sums:
            published = read_weights(self._file(step, _PUBLISHED), sums[_PUBLISHED])
        arrays = read_tensors(self._file(step, _ARRAYS), sums[_ARRAYS])
        state = read_strict_json(TrainingState, self._file(step, _STATE), sums[_STATE])
        trainer = TrainerState(arrays, dict(state.trainer))
        return Checkpoint(tensors, trainer, state.progress, state.observers, published)

    def last(self, up_to: float = math.inf) -> Checkpoint | None:
        """The newest intact checkpoint, up to a step; None if there is none.

        If the checkpoint with the best weights is damaged or missing, the best is forgotten: later
        evaluations choose among what follows. Raises CorruptFileError if all are damaged.
        """
        error = None
        for step in reversed([step for step in self.steps() if step <= up_to]):
            try:
                return self._with_best(self.read(step))
            except CorruptFileError as damaged:
                error = error or damaged
                logger.warning(
                    "checkpoint of step %d is damaged (%s); trying the one before", step, damaged
                )
        if error is not None:
            cause = f"no checkpoint of this run is intact (the newest: {error.message})"
            raise _lost(CorruptFileError(error.path, cause))
        return None

    def _with_best(self, newest: Checkpoint) -> Checkpoint:
        """The newest checkpoint, without its best step if that one's checkpoint cannot be read."""
        step = newest.progress.best_step
        if step in (None, newest.step):
            return newest
        try:
            if step in self.steps():
                self.read(step)
                return newest
        except CorruptFileError as damaged:
            cause = "the best from here on will be the model"
            logger.warning(
                "checkpoint of step %d, the best so far, is damaged (%s); %s", step, damaged, cause
            )
        progress = attrs.evolve(
            newest.progress, best_step=None, best_loss=None, best_objective=None, since_best=0
        )
        return attrs.evolve(newest, progress=progress)

    def best(self) -> Checkpoint:
        """The checkpoint that the model of an unfinished run is read from, see
        `Progress.model_step`.

        Raises CorruptFileError if none is intact.
        """
        newest = self.last()
        if newest is None:
            raise CorruptFileError(self.path, "it holds no checkpoint any more")
        step = newest.progress.model_step
        return newest if step == newest.step else self.read(step)

    def refused(self, step: int, error: Exception) -> CorruptFileError:
        """The error for a state of training that its trainer refuses."""
        cause = f"its trainer refuses it, or {_ARRAYS} beside it: {error}"
        return _lost(CorruptFileError(self.folder(step) / _STATE, cause))

    def write(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint, which is there whole or not at all (textgen.files.durable).

        What has its name already is moved aside: a program that synchronises folders, say, brought
        back a part of a checkpoint. Raises OSError.
        """
        if os.path.lexists(self.folder(checkpoint.step)):
            self._move_aside(checkpoint.step)
        progress = attrs.asdict(checkpoint.progress)
        state = {
            "trainer": checkpoint.trainer.values,
            "progress": progress,
            "observers": checkpoint.observers,
        }
        tensors = {WEIGHTS: checkpoint.tensors, _ARRAYS: checkpoint.trainer.arrays}
        if checkpoint.published:
            tensors[_PUBLISHED] = checkpoint.published
        with new_folder(self.folder(checkpoint.step)) as folder:
            sums = {
                name: write_synced(folder / name, dump_tensors(each))
                for name, each in tensors.items()
            }
            sums[_STATE] = write_synced(folder / _STATE, json.dumps(state).encode())
            write_synced(folder / _MANIFEST, json.dumps({"files": sums}, indent=2).encode())
        return self.folder(checkpoint.step)

    def weights(self, step: int) -> bytes:
        """The bytes of the weights that a checkpoint publishes. Raises CorruptFileError if they are
        damaged.
        """
        files = self._manifest(step).files
        name = _PUBLISHED if _PUBLISHED in files else WEIGHTS
        return read_bytes(self._file(step, name), files[name], tensors=True)

    def keep(self, steps: Collection[int | None]) -> None:
        """Remove the checkpoints of other steps, but for those in which Windows has a file open."""
        for step in self.steps():
            folder = self.folder(step)
            if step not in steps and os.path.lexists(folder / _MANIFEST):  # else no run wrote it
                with contextlib.suppress(PermissionError):
                    remove_folder(folder)

    def folder(self, step: int) -> Path:
        """The folder of a step's checkpoint, which need not exist."""
        return self.path / f"step-{step:06d}"

    def _move_aside(self, step: int) -> None:
        """Give what has the name of a checkpoint, and is not the run's, another name."""
        taken = self.folder(step)
        numbers = itertools.count(1)
        names = (taken.with_name(f"{taken.name}.aside-{number}") for number in numbers)
        free = next(name for name in names if not os.path.lexists(name))
        rename(taken, free)
        logger.warning("%s was no checkpoint of this run, and is %s now", taken, free.name)

    def _manifest(self, step: int) -> Manifest:
        path = self._file(step, _MANIFEST)
        manifest = read_strict_json(Manifest, path)
        for name in (WEIGHTS, _ARRAYS, _STATE):
            if name not in manifest.files:
                raise CorruptFileError(path, f"files: it does not list {name}")
        return manifest

    def _file(self, step: int, name: str) -> Path:
        """A file of a checkpoint, refused if a link leads out of the run directory."""
        return inside(self.path.parent, f"{self.path.name}/{self.folder(step).name}/{name}")


def _lost(error: CorruptFileError) -> CorruptFileError:
    """An error that leaves nothing to resume from, with the advice that fits."""
    error.advice = "restore it from a copy, or start again with `overwrite`"
    return error
