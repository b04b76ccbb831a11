"""Reads the files of a run against what the run recorded: to load it, or to say which are
damaged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import attrs

from textgen.errors import CorruptFileError, Fault, PipelineError, RunError
from textgen.files.opening import file_signature
from textgen.files.reading import (
    VOCABULARY,
    WEIGHTS,
    dump_tensors,
    read_json,
    read_weights,
    restorable,
)
from textgen.pipeline.pipeline import CHOICES, PipelineTables
from textgen.pipeline.raw_pipeline import RawPipeline
from textgen.plugin.structure import ConfigReader
from textgen.protocols import Table, Tensors
from textgen.runs.directory import RunDirectory, run_directory

FileState: TypeAlias = Literal["whole", "changed", "damaged", "missing", "unreadable"]
"""The state of a file of a run; a file is unreadable if the system refuses to read it, which need
not last.
"""
_PIPELINE: Final = "pipeline.toml"


@attrs.frozen
class StoredRun:
    """A run as it is on the disk.

    directory   where it was read; inside the one that was asked for while it is being put in place
    record      its run.json
    raw         its pipeline.toml
    vocabulary  its tokenizer.json
    is_edited   whether its pipeline.toml was changed since the run wrote it
    model_id    the SHA-256 of its weights, `tensors`
    remarks     what to warn of
    """

    directory: RunDirectory
    record: Table
    raw: RawPipeline
    vocabulary: Table
    is_edited: bool
    model_id: str
    tensors: Tensors
    remarks: tuple[str, ...]


@attrs.frozen
class CheckedFile:
    """A file of a run, or a checkpoint.

    name   its path inside the run directory
    state  "changed" is a pipeline.toml that was edited since the run was made
    cause  what is wrong
    """

    name: str
    state: FileState = "whole"
    cause: str = ""


@attrs.frozen(kw_only=True)
class RunReport:
    """The result of `verify`.

    status       "finished" or "unfinished", as run.json says; "" if that is damaged
    loads        whether `textgen.load` can use the run, as far as its files tell
    checkpoints  the steps of whole checkpoints; an unfinished run resumes from the last of them
    """

    path: Path
    status: str
    files: tuple[CheckedFile, ...]
    loads: bool
    checkpoints: tuple[int, ...]

    @property
    def whole(self) -> bool:
        """Whether every file can be read and is undamaged."""
        return all(file.state in ("whole", "changed") for file in self.files)


def read_stored(directory: RunDirectory, raw: RawPipeline | None = None) -> StoredRun:
    """Read a run, or while it has no model yet, the finished run that it replaces, or else its best
    checkpoint; with `raw` in the place of its pipeline.toml.

    It is read again if another run took its place meanwhile. Raises RunError, CorruptFileError,
    PipelineError.
    """
    while True:
        before = _signature(directory)
        try:
            with restorable():
                return _read(directory.current(), raw)
        except RunError:
            if _signature(directory) == before:
                raise


def verify(path: str | Path) -> RunReport:
    """Read every file of a run directory that has a checksum, and change nothing.

    While another run is to replace a finished one, the finished one is checked. Raises RunError
    where there is no run.
    """
    directory = run_directory(path).current()
    record: Table = {}
    files = [CheckedFile("run.json")]
    readers: dict[str, Callable[[], Any]] = {}
    try:
        record = directory.read_run()
    except CorruptFileError as error:
        files = [CheckedFile("run.json", "damaged", str(error))]
    else:
        for name, read in ((VOCABULARY, _vocabulary), (_PIPELINE, _pipeline), (WEIGHTS, _weights)):
            if name in record["files"]:
                readers[name] = partial(read, directory, record)
    steps = {}
    for step in directory.checkpoints.steps():
        name = f"checkpoints/{directory.checkpoints.folder(step).name}"
        steps[name], readers[name] = step, partial(directory.checkpoints.read, step)
    files += [_checked(directory.path, name, read) for name, read in readers.items()]
    # A checkpoint that is missing by now was removed by a process that trains.
    files = [file for file in files if file.state != "missing" or file.name not in steps]
    whole = {file.name for file in files if file.state in ("whole", "changed")}
    intact = tuple(step for name, step in steps.items() if name in whole)
    has_weights = WEIGHTS in whole if record.get("status") == "finished" else bool(intact)
    return RunReport(
        path=directory.path,
        status=record.get("status", ""),
        files=tuple(files),
        loads=has_weights and {VOCABULARY, _PIPELINE} <= whole,
        checkpoints=intact,
    )


def _read(directory: RunDirectory, raw: RawPipeline | None) -> StoredRun:
    record, remarks, is_edited = directory.read_run(), [], False
    if directory.next.exists():
        remarks.append(
            f"the new run in {directory.path} is not finished; this is the one that it "
            f"replaces once it is"
        )
    if raw is None:
        raw, is_edited = _pipeline(directory, record)
    if is_edited:
        remarks.append(f"{raw.source} was changed since the run was made")
    vocabulary = _vocabulary(directory, record)
    if record["status"] == "finished":
        model_id, tensors = record["files"][WEIGHTS], _weights(directory, record)
    elif directory.checkpoints.steps():
        checkpoint = directory.checkpoints.best()
        tensors = checkpoint.published or checkpoint.tensors
        model_id = hashlib.sha256(dump_tensors(tensors)).hexdigest()
        cause = f"training is not finished: the model is that of step {checkpoint.step}"
        remarks.append(f"{directory.path}: {cause}")
    else:
        cause = f"the run in {directory.path} is not finished and has no checkpoint yet"
        raise RunError(f"{cause}; run its pipeline again to resume", directory.path)
    return StoredRun(
        directory, record, raw, vocabulary, is_edited, model_id, tensors, tuple(remarks)
    )


def _vocabulary(directory: RunDirectory, record: Table) -> Table:
    return read_json(directory.inside(VOCABULARY), record["files"][VOCABULARY])


def _weights(directory: RunDirectory, record: Table) -> Tensors:
    return read_weights(directory.inside(WEIGHTS), record["files"][WEIGHTS])


def _pipeline(directory: RunDirectory, record: Table) -> tuple[RawPipeline, bool]:
    """A run's pipeline.toml, and whether it was changed since the run wrote it.

    Raises PipelineError, RunError.
    """
    raw = directory.read_pipeline()
    reader = ConfigReader(raw.folder)
    reader.table(PipelineTables, raw.tables, "")
    gone = [kind for kind in CHOICES if kind not in raw.tables]
    reader.faults.extend(Fault(kind, "the run wrote this table, and it is gone") for kind in gone)
    reader.check(raw.source)
    return raw, raw.sha256 != record["files"][_PIPELINE]


def _checked(folder: Path, name: str, read: Callable[[], Any]) -> CheckedFile:
    """A file that is read as loading the run does."""
    try:
        found = read()
    except (PipelineError, RunError) as error:
        is_damage = isinstance(error, PipelineError | CorruptFileError)
        state: FileState = "damaged" if is_damage else "unreadable"
        return CheckedFile(name, state if (folder / name).exists() else "missing", str(error))
    is_changed = name == _PIPELINE and found[1]
    return CheckedFile(name, "changed" if is_changed else "whole")


def _signature(directory: RunDirectory) -> tuple[Any, ...]:
    """A value that changes whenever a run takes the place of another, or writes a checkpoint."""
    places = directory, directory.next
    return tuple((file_signature(p.path / "run.json"), p.checkpoints.steps()) for p in places)
