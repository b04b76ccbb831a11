"""Fine-tuning: a run that starts from the model and the tokenizer of another, `[model] start`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from textgen.errors import Fault, PipelineError, RunError, TextgenError
from textgen.files.reading import VOCABULARY, inside, read_tensors, read_tokenizer, with_remedy
from textgen.pipeline.document import Document, read_document
from textgen.pipeline.options import StartOptions
from textgen.pipeline.pipeline import Pipeline, make_choice, without_start
from textgen.plugin.component import ComponentSource
from textgen.plugin.structure import Reader, merged
from textgen.protocols import Tokenizer
from textgen.runs.directory import RunDirectory

_WEIGHTS = "model.safetensors"


def with_start(
    document: Document, plugins: ComponentSource, output: Path | None = None
) -> Document:
    """A document in which the path at `[model] start` is replaced by what that run is: options, tokenizer, checksums.

    If it is gone, a run that started from it, in the document's run directory or `output`, knows the same.
    Raises PipelineError.
    """
    model, given = without_start(document.tables.get("model"))
    if given is None or isinstance(given, Mapping):  # nothing, or what a run has written
        return document
    reader = Reader(document.folder)
    path = reader.value(Path, given, "model.start")
    if reader.faults:
        raise PipelineError(reader.faults, document.source)
    try:
        other = _tables_of(path.absolute(), output or _output(document))
    except RunError as error:
        raise PipelineError([Fault("model.start", str(error))], document.source) from error
    if "tokenizer" in document.tables:
        _check_tokenizer(document, other, path, plugins)
    tables = {**document.tables, "tokenizer": other["tokenizer"]}
    tables["model"] = {**merged(other["model"], model), "start": other["model"]["start"]}
    return attrs.evolve(document, tables=tables)


def start_tokenizer(
    tokenizer: Tokenizer, start: StartOptions, record: Mapping[str, Any] | None, own: Path
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


def _tables_of(path: Path, output: Path) -> dict[str, Any]:
    """The tables of a finished run, with its own checksums at `model.start`."""
    directory = RunDirectory(path)
    if not directory.exists() and (kept := _written(RunDirectory(output), path)) is not None:
        return kept
    record = directory.read_run()
    if record["status"] != "finished":
        cause = f"the run in {path} is not finished; `textgen run --finish` takes a checkpoint as the model"
        raise RunError(cause, path)
    tables = dict(record["pipeline"])
    sums = {"weights": record["files"][_WEIGHTS], "tokenizer": record["files"][VOCABULARY]}
    tables["model"] = {**tables["model"], "start": {"run": str(path), **sums}}
    return tables


def _written(directory: RunDirectory, path: Path) -> dict[str, Any] | None:
    """The tables of a run that started from the one at `path`; None if this one did not."""
    try:
        tables = dict(read_document(directory.inside("pipeline.toml")).tables)
        return tables if tables["model"]["start"]["run"] == str(path) else None
    except (TextgenError, KeyError, TypeError):
        return None


def _output(document: Document) -> Path:
    """The run directory of a document that is not checked yet."""
    output, name = document.tables.get("output"), document.tables.get("name")
    if isinstance(output, str | Path):
        return document.folder / output
    return Path.cwd() / "runs" / (name if isinstance(name, str) else document.default_name)


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
