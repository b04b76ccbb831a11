"""Reads the files of a run and compares them with its record: to load, verify or summarize it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import attrs

from textgen.errors import CorruptFileError, Fault, PipelineError, RunError
from textgen.files.opening import file_signature, inside
from textgen.files.paths import file_states
from textgen.files.reading import parse_json, read_bytes, read_json
from textgen.files.tensors import WEIGHTS, dump_tensors, read_weights
from textgen.files.vocabularies import VOCABULARY
from textgen.pipeline.pipeline import CHOICES, PipelineTables
from textgen.pipeline.raw_pipeline import RawPipeline
from textgen.plugin.config_reader import ConfigReader, Faults
from textgen.protocols import Table, Tensors
from textgen.runs.directory import RunDirectory, no_run, run_directory
from textgen.runs.formats import RunFigures, read_record

_PIPELINE: Final = "pipeline.toml"
_FIGURES: Final = ("step", "steps", "best_step", "best_loss", "seconds")  # of a RunSummary


@attrs.frozen
class StoredRun:
    """A run as it is on the disk, or the tables that a plugin offers in its place.

    raw         its pipeline.toml, or the tables
    directory   where it was read; inside the one that was asked for while it is being put in place
    record      its run.json
    vocabulary  its tokenizer.json
    is_edited   whether its pipeline.toml was changed since the run wrote it
    model_id    the SHA-256 of its weights, `tensors`
    remarks     what to warn of
    """

    raw: RawPipeline
    directory: RunDirectory | None = None
    record: Table = attrs.field(factory=dict)
    vocabulary: Table = attrs.field(factory=dict)
    is_edited: bool = False
    model_id: str = ""
    tensors: Tensors = attrs.field(factory=dict)
    remarks: tuple[str, ...] = ()


def read_stored(directory: RunDirectory, raw: RawPipeline | None = None) -> StoredRun:
    """Read a run, or while it has no model yet, the finished run that it replaces, or else its best
    checkpoint; with `raw` in the place of its pipeline.toml.

    It is read again if another run took its place meanwhile. Raises RunError, CorruptFileError,
    PipelineError.
    """
    while True:
        before = _signature(directory)
        try:
            return _read(directory.current(), raw)
        except RunError:
            if _signature(directory) == before:
                raise


def verify(path: str | Path) -> dict[str, str]:
    """Check the files and checkpoints of a run directory against their checksums.

    Returns what is wrong with each file or checkpoint, by name; "" if it is whole. Nothing is
    changed. While a new run is about to replace a finished one, the finished one is checked.

    Raises RunError if there is no run.
    """
    directory = run_directory(path).current()
    readers: dict[str, Callable[[], Any]] = {"run.json": directory.read_run}
    with contextlib.suppress(CorruptFileError):
        record = directory.read_run()
        own = {VOCABULARY: _vocabulary, _PIPELINE: _pipeline, WEIGHTS: _weights}
        for name, check in own.items():
            if name in record["files"]:
                readers[name] = partial(check, directory, record)
    checkpoints = directory.checkpoints
    for step in checkpoints.steps():
        name = f"checkpoints/{checkpoints.folder(step).name}"
        readers[name] = partial(checkpoints.read, step)
    wrong = {}
    for name, read in readers.items():
        try:
            read()
            wrong[name] = ""
        except (PipelineError, RunError) as error:
            # A checkpoint that is gone by now was removed by a process that trains.
            if "step-" not in name or (directory.path / name).exists():
                wrong[name] = str(error)
    return wrong


def _read(directory: RunDirectory, raw: RawPipeline | None) -> StoredRun:
    record = directory.read_run()
    remarks, is_edited = [], False
    if directory.next.exists():
        remarks.append(
            f"the new run in {directory.path} is not finished; this is the one that it replaces "
            "once it is"
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
        raw, directory, record, vocabulary, is_edited, model_id, tensors, tuple(remarks)
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
    faults = Faults()
    with faults.collected():
        ConfigReader(raw.folder, None, raw.source).table(PipelineTables, raw.tables)
    gone = [kind for kind in CHOICES if kind not in raw.tables]
    faults += [Fault(kind, "the run wrote this table, and it is gone") for kind in gone]
    faults.check(raw.source)
    return raw, raw.sha256 != record["files"][_PIPELINE]


def _signature(directory: RunDirectory) -> tuple[Any, ...]:
    """A value that changes whenever a run takes the place of another, or writes a checkpoint."""
    directories = directory, directory.next
    return tuple((file_signature(p.path / "run.json"), p.checkpoints.steps()) for p in directories)


Status: TypeAlias = Literal["finished", "running", "unfinished", "damaged"]
"""Whether a run has finished, is running, can be resumed, or cannot be read."""


@attrs.frozen(kw_only=True)
class RunSummary:
    """The summary of a run directory.

    status           "finished"; "running" while a process trains it; "unfinished" if it can be
                     resumed; "damaged" if it cannot be read
    cause            why the run ended early, or what is damaged; otherwise ""
    step, steps      the last step, and the total number of steps; None if unknown
    best_step, best_loss   step and loss of the evaluation that the weights are from, as in Run
    seconds          duration of training
    bytes            size on disk
    changed          time of the last change, in seconds since the epoch
    record           run.json, if its checksum is right; otherwise {}
    """

    path: Path
    status: Status
    cause: str = ""
    step: int | None = None
    steps: int | None = None
    best_step: int | None = None
    best_loss: float | None = None
    seconds: float | None = None
    bytes: int = 0
    changed: float = 0.0
    record: Table = attrs.field(factory=dict, repr=False)

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl, one per evaluation, without lines that cannot be read."""
        return read_metrics(RunDirectory(self.path).latest().path)

    def tables(self) -> Table:
        """The tables of pipeline.toml; {} if it cannot be read."""
        with contextlib.suppress(PipelineError, RunError):
            return RunDirectory(self.path).latest().read_pipeline().tables
        return {}

    @property
    def parameters(self) -> int | None:
        """Number of trained weights; None if unknown, or for a model without weights."""
        return self.record.get("parameters")


def summarize(path: str | Path) -> RunSummary:
    """Summarize a run directory without loading the model, also while another process trains it.

    Nothing is written. Damage is reported in the summary. Raises RunError if there is no run.
    """
    path = Path(path).absolute()
    directory = RunDirectory(path)
    latest = directory.latest()
    has_record = os.path.lexists(latest.path / "run.json")
    if not has_record and not directory.is_begun():
        raise no_run(path)
    files = list(file_states(path))
    summary = RunSummary(
        path=path,
        status="damaged",
        bytes=sum(found.st_size for found in files),
        changed=max((found.st_mtime for found in files), default=0.0),
    )
    record: Table = {}
    try:
        status: Status = "running" if directory.is_locked() else "unfinished"
        # A full check of the record takes five times as long, which counts in a folder of thousands
        # of runs.
        if has_record:
            record = read_record(latest.inside("run.json"), RunFigures)
    except (RunError, OSError) as error:
        return attrs.evolve(summary, cause=str(error) or type(error).__name__)
    cause = "" if status == "running" else record.get("cause") or "killed"
    if record.get("status") == "finished":
        stopped = record.get("stopped")
        status, cause = "finished", f"{stopped['by']}: {stopped['reason']}" if stopped else ""
    figures = {name: finite(record.get(name)) for name in _FIGURES}
    return attrs.evolve(summary, status=status, cause=cause, record=record, **figures)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run directory's metrics.jsonl. Lines that cannot be read are left out; what is
    not a finite number is None.
    """
    rows = []
    with contextlib.suppress(RunError):
        for line in read_bytes(inside(folder, "metrics.jsonl")).splitlines():
            with contextlib.suppress(ValueError):
                row = {key: finite(value) for key, value in parse_json(line).items()}
                if isinstance(row.get("step"), int) and 0 <= row["step"] < 2**63:
                    rows.append(row)
    return rows


def finite(value: Any) -> Any:
    """The number; None for anything else, infinity and NaN."""
    is_finite = type(value) in (int, float) and abs(value) <= sys.float_info.max
    return value if is_finite else None
