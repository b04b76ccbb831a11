"""Checkpoints: all that a run needs to resume, each in its own folder, written atomically.

step-000400/   model.safetensors  trainer.safetensors  trainer.json  manifest.json
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Collection, Iterator
from itertools import chain
from pathlib import Path
from typing import Final

import attrs

from textgen.errors import CorruptFileError
from textgen.files.durable import (
    PARTIAL,
    link,
    new_folder,
    remove_folder,
    rename,
    sync_folder,
    write_synced,
)
from textgen.files.reading import (
    checked_json,
    dump_tensors,
    file_checksum,
    inside,
    read_tensors,
    read_weights,
)
from textgen.pipeline.records import read_structured
from textgen.protocols import Tensors, TrainerState
from textgen.runs.formats import Manifest, Progress, TrainingState

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
        """The steps that have a checkpoint, in order. A folder with another name is not one. Raises RunError."""
        self.check()
        numbered = [path for path in self.path.glob("step-*") if path.name[5:].isdecimal()]
        return sorted(step for path in numbered if path == self.folder(step := int(path.name[5:])))

    def check(self) -> None:
        """Raise RunError where something else is in place of the folder of the checkpoints."""
        if os.path.lexists(inside(self.path.parent, self.path.name)) and not self.path.is_dir():
            raise CorruptFileError(
                self.path, "it is no folder, and that of the checkpoints has this name; remove it"
            )

    def read(self, step: int) -> Checkpoint:
        """Read a checkpoint back and verify every byte of it. Raises CorruptFileError naming the file."""
        paths = {name: self._part(step, name) for name in (_MANIFEST, *_PARTS)}
        manifest = self._manifest(step, *_PARTS)
        sums = {name: manifest.files[name] for name in _PARTS}
        tensors = read_weights(paths[_PARTS[0]], sums[_PARTS[0]])
        arrays = read_tensors(paths[_PARTS[1]], sums[_PARTS[1]])
        state = read_structured(TrainingState, paths[_PARTS[2]], sums[_PARTS[2]])
        for file, found in ((_MANIFEST, manifest.step), (_PARTS[2], state.progress.step)):
            if found != step:
                raise CorruptFileError(
                    paths[file], f"it is of step {found}, and its folder of step {step}"
                )
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
                logger.warning(
                    "checkpoint of step %d is damaged (%s); trying the one before", step, damaged
                )
        if error is not None:
            cause = f"no checkpoint of this run is intact (the newest: {error})"
            raise CorruptFileError(
                error.path, cause, expected=error.expected, actual=error.actual, remedy="overwrite"
            )
        return None

    def to_resume(self, up_to: float = math.inf) -> Checkpoint | None:
        """The newest intact checkpoint, as `last`. Where its best is not there, later evaluations choose anew."""
        newest = self.last(up_to)
        if newest is None or newest.progress.best_step in (None, newest.step):
            return newest
        step = newest.progress.best_step
        try:
            if step in self.steps():
                self.read(step)
                return newest
        except CorruptFileError as damaged:
            cause = "the best from here on will be the model"
            logger.warning(
                "checkpoint of step %d, the best so far, is damaged (%s); %s", step, damaged, cause
            )
        progress = attrs.evolve(newest.progress, best_step=None, best_loss=None, since_best=0)
        return attrs.evolve(newest, progress=progress)

    def best(self) -> Checkpoint:
        """The checkpoint that the model of an unfinished run is read from, see `Progress.model_step`.

        Another process may write and remove checkpoints meanwhile. There must be one. Raises CorruptFileError if all
        are damaged.
        """
        for _ in range(_TRIES):
            with contextlib.suppress(CorruptFileError, IndexError):
                newest = self.read(self.steps()[-1])
                step = newest.progress.model_step
                return newest if step == newest.step else self.read(step)
            time.sleep(_PAUSE)
        newest_intact = self.last()
        if newest_intact is None:
            raise CorruptFileError(self.path, "it holds no checkpoint any more")
        return newest_intact

    def refused(self, step: int, error: Exception, *, loading: bool = False) -> CorruptFileError:
        """The error for a state of training that its trainer refuses, while loading it, or in `train`."""
        file, other = (_PARTS[2], _PARTS[1]) if loading else _PARTS[1:]
        cause = f"its trainer refuses it, or {other} beside it: {error}"
        return CorruptFileError(self.folder(step) / file, cause, remedy="overwrite")

    def write(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint, which is there whole or not at all (textgen.files.durable). Raises OSError."""
        final = self.folder(checkpoint.step)
        if os.path.lexists(final) and not _is_own(final):
            raise FileExistsError(
                errno.EEXIST,
                f"{final} is in the way, and is not a checkpoint; move it away",
                str(final),
            )
        values = {
            "trainer": checkpoint.trainer.values,
            "progress": attrs.asdict(checkpoint.progress),
        }
        try:
            state = checked_json(json.dumps(values).encode())
        except ValueError as error:
            cause = f"the values of its trainer are too large ({error}), and belong into arrays"
            raise OSError(errno.EFBIG, cause, str(final / _PARTS[2])) from error
        arrays = map(dump_tensors, (checkpoint.tensors, checkpoint.trainer.arrays))
        with new_folder(final) as folder:
            parts = zip(_PARTS, chain(arrays, [state]), strict=True)
            files = {name: _write_part(folder / name, data) for name, data in parts}
            manifest = {"step": checkpoint.step, "files": files}
            write_synced(
                folder / _MANIFEST, json.dumps(manifest, indent=2).encode()
            )  # last: it says what is whole
        return final

    def link_weights(self, step: int, target: Path) -> str:
        """Make the file `target` the weights of a checkpoint; return their SHA-256.

        Raises CorruptFileError if they are damaged; then `target` is as it was.
        """
        source = self._part(step, _PARTS[0])
        expected = self._manifest(step, _PARTS[0]).files[_PARTS[0]]
        if file_checksum(source) != expected:
            read_tensors(source, expected)  # says what it is instead
        link(source, target)
        return expected

    def keep(self, steps: Collection[int | None]) -> None:
        """Remove the checkpoints of other steps, but for those in which Windows has a file open."""
        for step in self.steps():
            if step not in steps and _is_own(self.folder(step)):
                with contextlib.suppress(PermissionError):
                    remove_folder(self.folder(step))

    def surplus(self, stable_steps: int | None) -> list[int]:
        """Steps of the checkpoints that a finished run needs no longer: those it cannot be trained on from."""
        most = -1 if stable_steps is None else stable_steps
        return [step for step in self.steps() if step > most and _is_own(self.folder(step))]

    def recover(self) -> list[int]:
        """Put whole checkpoints in place that a killed process had not renamed yet; return their steps."""
        found = []
        for step, partial in self.nameless():
            if not os.path.lexists(final := self.folder(step)):
                rename(partial, final)
                found.append(step)
        if found:
            sync_folder(self.path)
        return found

    def nameless(self) -> Iterator[tuple[int, Path]]:
        """Step and folder of the whole checkpoints that lack only their name: what `recover` puts in place."""
        for partial in sorted(self.path.glob(f"{PARTIAL}*")):
            if (step := _step_of(partial)) is not None:
                yield step, partial

    def foreign(self) -> list[Path]:
        """Folders with the name of a checkpoint that no run wrote. They are left alone."""
        return [folder for step in self.steps() if not _is_own(folder := self.folder(step))]

    def _manifest(self, step: int, *names: str) -> Manifest:
        """What a checkpoint's manifest.json says, these files among it."""
        path = self._part(step, _MANIFEST)
        manifest = read_structured(Manifest, path)
        for name in names:
            if name not in manifest.files:
                raise CorruptFileError(path, f"files: it does not list {name}")
        return manifest

    def _part(self, step: int, name: str) -> Path:
        """A file of a checkpoint, refused where a link leads out of the run directory."""
        return inside(self.path.parent, f"{self.path.name}/{self.folder(step).name}/{name}")

    def folder(self, step: int) -> Path:
        """Where the checkpoint of a step is, or would be."""
        return self.path / f"step-{step:06d}"


def _write_part(path: Path, data: bytes) -> str:
    """Write a file of a checkpoint and return its SHA-256."""
    write_synced(path, data)
    return hashlib.sha256(data).hexdigest()


def _is_own(folder: Path) -> bool:
    """Whether a run wrote the folder of this name: what it writes has a manifest from the beginning."""
    return folder.is_symlink() or os.path.lexists(folder / _MANIFEST)


def _step_of(folder: Path) -> int | None:
    """The step of a checkpoint that lacks only its name; None where its writer was killed before it was whole."""
    if folder.is_symlink():
        return None
    try:
        manifest = read_structured(Manifest, folder / _MANIFEST)
        is_whole = all(file_checksum(folder / name) == manifest.files[name] for name in _PARTS)
    except (CorruptFileError, KeyError):
        return None
    return manifest.step if is_whole else None
