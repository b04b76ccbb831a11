"""Fine-tuning: a run that starts from the model and the tokenizer of another, `[model] start`."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from textgen.errors import Fault, PipelineError, RunError, TextgenError
from textgen.files.reading import VOCABULARY, inside, read_tensors, read_tokenizer, with_remedy
from textgen.pipeline.document import Document, Start
from textgen.pipeline.pipeline import Pipeline, make_choice, without_start
from textgen.plugin.component import ComponentSource
from textgen.plugin.structure import Reader, merged
from textgen.protocols import Tokenizer
from textgen.runs.directory import RunDirectory

_WEIGHTS = "model.safetensors"


def with_start(
    document: Document, plugins: ComponentSource, output: Path | None = None
) -> Document:
    """A document with the options and the tokenizer of the run at `[model] start`, if it starts from one.

    If that run is gone, the run in the document's run directory, or in `output`, recorded the same.
    Raises PipelineError.
    """
    model, given = without_start(document.tables.get("model"))
    if given is None:
        return document
    reader = Reader(document.folder)
    path = reader.value(Path, given, "model.start")
    if reader.faults:
        raise PipelineError(reader.faults, document.source)
    try:
        other, start = _find(path.absolute(), output or _output(document))
    except RunError as error:
        raise PipelineError([Fault("model.start", str(error))], document.source) from error
    if "tokenizer" in document.tables:
        _check_tokenizer(document, other, path, plugins)
    tables = {**document.tables, "tokenizer": other["tokenizer"]}
    tables["model"] = {**merged(other["model"], model), "start": str(start.run)}
    return attrs.evolve(document, tables=tables, start=start)


def start_tokenizer(
    tokenizer: Tokenizer, start: Start, record: Mapping[str, Any] | None, own: Path
) -> Tokenizer:
    """The tokenizer of the run that this one starts from; once this one has a record, from its own directory."""
    if record is not None:
        with with_remedy("copy"):
            return read_tokenizer(tokenizer, own, record["files"][VOCABULARY])
    with with_remedy("copy", "model.start"):
        return read_tokenizer(tokenizer, start.run, start.tokenizer)


def load_start(model: Any, pipeline: Pipeline) -> None:
    """Load the weights of the run that the pipeline starts from, if any. Raises PipelineError if they do not fit."""
    start = pipeline.start
    if start is None:
        return
    path = inside(start.run, _WEIGHTS)
    with with_remedy("copy", "model.start"):
        tensors = read_tensors(path, start.weights)
    try:
        model.load_tensors(tensors)
    except ValueError as error:
        cause = f"the weights of {start.run} do not fit: {error}"
        hint = "leave out of [model] what is to be as in that run"
        raise PipelineError([Fault("model.start", cause, "", hint)], pipeline.name) from error


def _find(path: Path, output: Path) -> tuple[Mapping[str, Any], Start]:
    """The tables and the checksums of a finished run, or what a run that started from it recorded. Raises RunError."""
    directory = RunDirectory(path)
    if not directory.exists():
        with contextlib.suppress(TextgenError, KeyError, TypeError):  # a record may hold anything
            own = RunDirectory(output).latest().read_run()
            if own["pipeline"]["model"]["start"] == str(path):
                return own["pipeline"], Start(path, **own["fingerprint"]["model"]["start"])
    record = directory.read_run()
    if record["status"] != "finished":
        cause = f"the run in {path} is not finished; `textgen run --finish` takes a checkpoint as the model"
        raise RunError(cause, path)
    return record["pipeline"], Start(path, record["files"][_WEIGHTS], record["files"][VOCABULARY])


def _output(document: Document) -> Path:
    """The run directory of a document that is not checked yet."""
    output = document.tables.get("output")
    if isinstance(output, str | Path):
        return document.folder / output
    return Path.cwd() / "runs" / document.name


def _check_tokenizer(
    document: Document, other: Mapping[str, Any], path: Path, plugins: ComponentSource
) -> None:
    """Raise PipelineError if the document has another tokenizer than the run that it starts from."""
    readers = (Reader(document.folder, plugins), Reader(path, plugins))
    tables = (document.tables["tokenizer"], other["tokenizer"])
    ours, theirs = (
        make_choice("tokenizer", table, reader, source=document.source)
        for table, reader in zip(tables, readers, strict=True)
    )
    if (ours.offer, ours.options) != (theirs.offer, theirs.options):
        cause = f"the model of {path} has a tokenizer of its own, which is another"
        raise PipelineError(
            [Fault("tokenizer", cause, "", "leave the table [tokenizer] out")], document.source
        )
