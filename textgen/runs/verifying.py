"""Checks every file of a run directory against what the run recorded. Nothing is changed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import attrs

from textgen.errors import CorruptFileError, PipelineError, RunError
from textgen.files.reading import file_checksum, parse_json, read_bytes, read_json
from textgen.plugin.structure import listed
from textgen.runs.directory import RunDirectory, run_directory
from textgen.runs.stored import SHOWN, edits_that_break_weights, read_consistently, read_pipeline

FileState: TypeAlias = Literal["whole", "changed", "damaged", "missing", "unreadable"]
"""The state of a file of a run; a file is unreadable if the system refuses to read it, which need not last."""
_PIPELINE, _VOCABULARY, _WEIGHTS, _METRICS = (
    "pipeline.toml",
    "tokenizer.json",
    "model.safetensors",
    "metrics.jsonl",
)


@attrs.frozen
class CheckedFile:
    """A file of a run, or a checkpoint.

    name   its path inside the run directory
    state  "changed" is a pipeline.toml that was edited since the run was made, in what may change
    cause  what is wrong, or what was changed
    """

    name: str
    state: FileState = "whole"
    cause: str = ""


@attrs.frozen(kw_only=True)
class RunReport:
    """The result of `verify`.

    status       "finished", "unfinished" or "training", as run.json says; "" if that is damaged
    loads        whether `textgen.load` can use the run
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


def verify(path: str | Path) -> RunReport:
    """Check every file of a run directory against its checksum.

    While another run is to replace a finished one, the finished one is checked. Raises RunError where there is no run.
    """
    directory = run_directory(path)
    return read_consistently(directory, _report, lambda report: report.whole)


def _report(directory: RunDirectory) -> RunReport:
    record: dict[str, Any] = {}
    files = [CheckedFile("run.json")]
    try:
        record = directory.read_run()
    except CorruptFileError as error:
        files = [CheckedFile("run.json", "damaged", str(error))]
    checkpoints = list(_checkpoints(directory))
    for name, sha256 in record.get("files", {}).items():
        files.append(_checked(directory, name, partial(_compared, directory, record, name, sha256)))
    files += [*(file for _, file in checkpoints), *_others(directory)]
    intact = tuple(step for step, file in checkpoints if file.state == "whole")
    bad = {file.name for file in files if file.state not in ("whole", "changed")}
    has_weights = _WEIGHTS not in bad if record.get("status") == "finished" else bool(intact)
    return RunReport(
        path=directory.path,
        status=record.get("status", ""),
        files=tuple(files),
        loads=bool(record) and has_weights and not bad & {_PIPELINE, _VOCABULARY},
        checkpoints=intact,
    )


def _checked(directory: RunDirectory, name: str, check: Callable[[], object]) -> CheckedFile:
    """The result of `check` for a file: what it returns, or why it raises."""
    try:
        found = check()
    except (PipelineError, RunError) as error:
        refused = isinstance(error, RunError) and not isinstance(error, CorruptFileError)
        is_gone = not (directory.path / name).exists()
        state: FileState = "missing" if is_gone else "unreadable" if refused else "damaged"
        return CheckedFile(name, state, str(error))
    return found if isinstance(found, CheckedFile) else CheckedFile(name)


def _compared(
    directory: RunDirectory, record: Mapping[str, Any], name: str, sha256: str
) -> CheckedFile:
    """A file and its checksum. Raises PipelineError and RunError."""
    path = directory.inside(name)
    if not path.exists():
        return CheckedFile(name, "missing", f"{path} is not there")
    if name == _PIPELINE:
        return _pipeline(directory, record)
    if name == _VOCABULARY:
        read_json(path, sha256)
    elif (actual := file_checksum(path)) != sha256:
        cause = f"its SHA-256 is {actual[:12]}…, and the run wrote {sha256[:12]}…"
        return CheckedFile(name, "damaged", f"{path}: {cause}")
    return CheckedFile(name)


def _pipeline(directory: RunDirectory, record: Mapping[str, Any]) -> CheckedFile:
    edits = read_pipeline(directory, record)[1]
    if wrong := edits_that_break_weights(record, edits):
        return CheckedFile(
            _PIPELINE, "damaged", f"it no longer describes the weights: {listed(wrong, SHOWN)}"
        )
    return (
        CheckedFile(_PIPELINE, "changed", listed(edits, SHOWN)) if edits else CheckedFile(_PIPELINE)
    )


def _checkpoints(directory: RunDirectory) -> Iterator[tuple[int, CheckedFile]]:
    for step in directory.checkpoints.steps():
        name = f"checkpoints/{directory.checkpoints.folder(step).name}"
        file = _checked(directory, name, partial(directory.checkpoints.read, step))
        if file.state != "missing":  # else a process that trains has removed it
            yield step, file


def _others(directory: RunDirectory) -> Iterator[CheckedFile]:
    """Metrics, where they are."""
    with contextlib.suppress(RunError):
        if (path := directory.inside(_METRICS)).exists():
            yield _metrics(path)


def _metrics(path: Path) -> CheckedFile:
    lines = read_bytes(path).split(b"\n")
    for number, line in enumerate(lines[:-1], 1):
        try:
            parse_json(line)
        except ValueError as error:
            return CheckedFile(_METRICS, "damaged", f"{path}: line {number}: {error}")
    return (
        CheckedFile(_METRICS, "damaged", f"{path}: its last line is torn")
        if lines[-1]
        else CheckedFile(_METRICS)
    )
