"""Reads what a run directory holds that it takes to generate: all of it of one run, whoever replaces it meanwhile."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

import attrs

from textgen.errors import CorruptFileError, Difference, PipelineError, RunError
from textgen.files.opening import file_signature
from textgen.files.reading import dump_tensors, read_bytes, read_json, read_weights, with_remedy
from textgen.pipeline.document import Document, document_of
from textgen.pipeline.pipeline import CHOICES, read_own_tables
from textgen.plugin.structure import Reader, flat, listed
from textgen.protocols import Tensors
from textgen.runs.directory import RunDirectory
from textgen.runs.record import differences

_PATIENCE: Final = 10.0  # seconds for which a run is read again while others replace it
SHOWN: Final = 5  # edits that a message lists
_T = TypeVar("_T")


@attrs.frozen
class StoredRun:
    """A run as it is on the disk.

    directory   where it was read; inside the one that was asked for while it is being put in place
    record      its run.json
    document    its pipeline.toml
    vocabulary  its tokenizer.json
    edits       how pipeline.toml differs from what the run wrote
    model_id    the SHA-256 of its weights, `tensors`
    remarks     what to warn of
    """

    directory: RunDirectory
    record: dict[str, Any]
    document: Document
    vocabulary: dict[str, Any]
    edits: tuple[Difference, ...]
    model_id: str
    tensors: Tensors
    remarks: tuple[str, ...]


def read_stored(directory: RunDirectory) -> StoredRun:
    """Read a run, or while it has no model yet, the finished run that it replaces, or else its best checkpoint.

    Raises RunError, CorruptFileError.
    """
    # Checksums tie the files of a finished run to its record. What has none may be of the run that comes after.
    return read_consistently(
        directory,
        lambda current: _read(directory, current),
        lambda stored: stored.record["status"] == "finished" and not stored.edits,
    )


def read_consistently(
    directory: RunDirectory, read: Callable[[RunDirectory], _T], is_whole: Callable[[_T], bool]
) -> _T:
    """What `read` gives of the current run. It reads again if another run took its place meanwhile.

    is_whole  whether checksums show that all of the result is of one run anyway
    """
    deadline = time.monotonic() + _PATIENCE
    while True:
        before = _signature(directory)
        try:
            found = read(directory.current())
        except RunError:
            if time.monotonic() > deadline or _signature(directory) == before:
                raise
            continue
        if is_whole(found) or _signature(directory) == before or time.monotonic() > deadline:
            return found


def read_pipeline(
    directory: RunDirectory, record: Mapping[str, Any]
) -> tuple[Document, tuple[Difference, ...]]:
    """A run's pipeline.toml, and how it differs from what the run wrote.

    Raises CorruptFileError where it is none, PipelineError for a key or a value that no pipeline may have.
    """
    path = directory.inside("pipeline.toml")
    data = read_bytes(path)
    try:
        document = document_of(data, path)
    except PipelineError as error:
        place = error.source.removeprefix(str(path)).removeprefix(":")
        raise CorruptFileError(
            path, "; ".join(map(str, error.faults)), remedy="copy", place=place
        ) from error
    if missing := [key for key in CHOICES if key not in document.tables]:
        raise CorruptFileError(
            path, f"it has no table [{missing[0]}], and the run wrote one", remedy="copy"
        )
    reader = Reader(document.folder)
    read_own_tables(document.tables, reader)
    if reader.faults:
        raise PipelineError(reader.faults, str(path))
    if hashlib.sha256(data).hexdigest() == record["files"]["pipeline.toml"]:
        return document, ()
    edits = differences(_numbered(record["pipeline"]), _numbered(document.tables))
    return document, tuple(edit for edit in edits if edit.key != "output")


def edits_that_break_weights(
    record: Mapping[str, Any], edits: Iterable[Difference]
) -> list[Difference]:
    """Those of the edits of pipeline.toml that no longer describe the weights, as far as the record alone can say.

    A component may leave options out of its fingerprint: these may change.
    """
    shapes = {key: record["fingerprint"][key] for key in ("seed", "data", "tokenizer", "model")}
    told, written = flat(_numbered(shapes)), flat(_numbered(record["pipeline"]))

    def is_wrong(edit: Difference) -> bool:
        return edit.key not in written or told.get(edit.key, edit.now) != edit.now

    return [edit for edit in edits if edit.key.partition(".")[0] in shapes and is_wrong(edit)]


def _read(directory: RunDirectory, current: RunDirectory) -> StoredRun:
    remarks = []
    if current.next.exists():
        remarks.append(
            f"the new run in {directory.path} is not finished; this is the one that it replaces once it is"
        )
    record = current.read_run()
    if record["status"] != "finished" and not current.checkpoints.steps():
        cause = f"the run in {directory.path} is not finished ({record['status']}) and has no checkpoint yet"
        raise RunError(f"{cause}; run its pipeline again to resume", directory.path)
    document, edits = read_pipeline(current, record)
    if edits:
        remarks.append(
            f"{document.source} was changed since the run was made: {listed(edits, SHOWN)}"
        )
    with with_remedy("copy"):
        vocabulary = read_json(current.inside("tokenizer.json"), record["files"]["tokenizer.json"])
    model_id, tensors, remark = _weights(current, record)
    return StoredRun(
        current, record, document, vocabulary, edits, model_id, tensors, (*remarks, *remark)
    )


def _weights(
    directory: RunDirectory, record: Mapping[str, Any]
) -> tuple[str, Tensors, Sequence[str]]:
    """The SHA-256 and the tensors of the model; while there is none, those of the best checkpoint, and a remark."""
    if record["status"] == "finished":
        path, sha256 = directory.inside("model.safetensors"), record["files"]["model.safetensors"]
        with with_remedy("copy"):
            return sha256, read_weights(path, sha256), ()
    checkpoint = directory.checkpoints.best()
    progress = checkpoint.progress
    loss = (
        f", with a loss of {progress.best_loss:.3f}"
        if progress.best_step == checkpoint.step
        else ""
    )
    what = f"the model is that of step {checkpoint.step}{loss}"
    if not checkpoint.step:
        what = (
            "there is no checkpoint after a step yet, and the model is as it was before the first"
        )
    remark = f"{directory.path}: training is not finished: {what}"
    return (
        hashlib.sha256(dump_tensors(checkpoint.tensors)).hexdigest(),
        checkpoint.tensors,
        (remark,),
    )


def _numbered(value: Any) -> Any:
    """Tables in which a list of tables is one too, with its places as keys."""
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        value = {str(place): item for place, item in enumerate(value)}
    return (
        {key: _numbered(item) for key, item in value.items()}
        if isinstance(value, Mapping)
        else value
    )


def _signature(directory: RunDirectory) -> tuple[tuple[int, ...] | None, ...]:
    """What changes whenever a run takes the place of another."""
    return tuple(file_signature(place.path / "run.json") for place in (directory, directory.next))
