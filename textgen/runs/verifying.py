"""Checks every file of a run directory against what the run recorded, and mends those of which there is a good copy."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import attrs

from textgen.errors import CorruptFileError, PipelineError, RunError
from textgen.files.durable import remove, write_atomic
from textgen.files.reading import dump_tensors, file_checksum, parse_json, read_bytes, read_json
from textgen.generation.novelty import FOLDER, check_index
from textgen.generation.results import GenerationState
from textgen.plugin.structure import listed
from textgen.runs.directory import RunDirectory, run_directory
from textgen.runs.record import pipeline_text
from textgen.runs.stored import SHOWN, misdescribing, read_pipeline, undisturbed

FileState: TypeAlias = Literal["whole", "changed", "damaged", "missing", "repaired"]
"""What became of a file of a run."""
_PIPELINE, _VOCABULARY, _WEIGHTS, _METRICS = (
    "pipeline.toml",
    "tokenizer.json",
    "model.safetensors",
    "metrics.jsonl",
)
_BAD = ("damaged", "missing")


@attrs.frozen
class CheckedFile:
    """A file of a run, or a checkpoint.

    name   its path inside the run directory; that of a saved state as it was given
    state  "changed" is a pipeline.toml that was edited since the run was made, in what may change
    cause  what is wrong, or what was changed or done
    """

    name: str
    state: FileState = "whole"
    cause: str = ""


@attrs.frozen(kw_only=True)
class RunReport:
    """What `verify` found.

    status        "finished", "unfinished" or "training", as run.json says; "" if that is damaged
    loads         whether `textgen.load` can use the run
    checkpoints   the steps of whole checkpoints
    resumes_from  the step from which `textgen run` goes on with a run that is not finished; None if there is none
    leftovers     what a killed process has left, or one that is at work is writing
    """

    path: Path
    status: str
    files: tuple[CheckedFile, ...]
    loads: bool
    checkpoints: tuple[int, ...]
    resumes_from: int | None
    leftovers: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether no file is damaged or missing."""
        return not any(file.state in _BAD for file in self.files)


def verify(
    path: str | Path, *, repair: bool = False, states: Iterable[str | Path] = ()
) -> RunReport:
    """Check every file of a run directory, and saved states, against their checksums.

    While another run is to replace a finished one, that is the finished one. With `repair`, leftovers of a killed
    process are removed; the model is made again from its checkpoint, and pipeline.toml from run.json; damaged
    checkpoints are removed if another one is whole, or the run is finished; so are a damaged index of the corpus and
    the torn last line of metrics.jsonl.

    Raises RunError where there is no run, and to repair, RunLockedError while a process trains it.
    """
    directory, states = run_directory(path), tuple(states)
    if not repair:
        return undisturbed(
            directory, lambda: _report(directory.loadable(), states), lambda report: report.whole
        )
    if not directory.exists() and not directory.loadable().exists():
        directory.read_run()  # raises
    directory.prepare()  # nothing that leads out is followed, and it can be written to
    with directory.locked():
        directory.sweep()
        before = _report(directory, ())
        bad = sorted(file.name for file in before.files if file.state in _BAD)
        done = {name: _mend(directory, before, name) for name in bad}
        after = _report(directory, states)
    files = {file.name: file for file in after.files}
    files |= {name: CheckedFile(name, "repaired", cause) for name, cause in done.items() if cause}
    return attrs.evolve(after, files=tuple(files.values()))


def _report(directory: RunDirectory, states: Iterable[str | Path]) -> RunReport:
    record: dict[str, Any] = {}
    files = [CheckedFile("run.json")]
    try:
        record = directory.read_run()
    except CorruptFileError as error:
        files = [CheckedFile("run.json", "damaged", str(error))]
    checkpoints = list(_checkpoints(directory))
    for name, sha256 in record.get("files", {}).items():
        files.append(_checked(directory, name, partial(_compared, directory, record, name, sha256)))
    files += [*(file for _, file in checkpoints), *_others(directory, record)]
    intact = tuple(step for step, file in checkpoints if file.state == "whole")
    bad = {file.name for file in files if file.state in _BAD}
    finished = record.get("status") == "finished"
    has_weights = _WEIGHTS not in bad if finished else bool(intact)
    return RunReport(
        path=directory.path,
        status=record.get("status", ""),
        files=(*files, *(_state(path, record) for path in states)),
        loads=bool(record) and has_weights and not bad & {_PIPELINE, _VOCABULARY},
        checkpoints=intact,
        resumes_from=intact[-1] if record and intact and not finished else None,
        leftovers=tuple(
            sorted(str(path.relative_to(directory.path)) for path in directory.leftovers())
        ),
    )


def _checked(directory: RunDirectory, name: str, check: Callable[[], object]) -> CheckedFile:
    """What `check` finds about a file, if that is more than nothing; bad where it raises."""
    try:
        found = check()
    except (PipelineError, RunError) as error:
        is_gone = not (directory.path / name).exists()
        return CheckedFile(name, "missing" if is_gone else "damaged", str(error))
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
    if wrong := misdescribing(record, edits):
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


def _others(directory: RunDirectory, record: Mapping[str, Any]) -> Iterator[CheckedFile]:
    """Metrics and the index of the corpus, where they are."""
    with contextlib.suppress(RunError):
        if (path := directory.inside(_METRICS)).exists():
            yield _metrics(path)
    model = record.get("files", {}).get(_WEIGHTS, "")
    if (directory.path / FOLDER).exists() and model:
        yield _checked(directory, FOLDER, partial(check_index, directory.path, model))


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


def _state(path: str | Path, record: Mapping[str, Any]) -> CheckedFile:
    try:
        state = GenerationState.load(path)
    except RunError as error:
        return CheckedFile(
            str(path), "damaged" if isinstance(error, CorruptFileError) else "missing", str(error)
        )
    own = state.values["model"] == record.get("files", {}).get(_WEIGHTS)
    return CheckedFile(
        str(path), "whole", "" if own else "it resumes with another model than that of this run"
    )


def _mend(directory: RunDirectory, report: RunReport, name: str) -> str:
    """Mend a bad file; what was done, or "" if nothing can be."""
    path = directory.path / name
    if name == _PIPELINE and report.status:
        directory.write_artifact(name, pipeline_text(directory.read_run()["pipeline"]))
        return "written again from run.json"
    if name == _WEIGHTS and report.status:
        return _restore_weights(directory)
    if name == FOLDER:
        remove(path)
        return "removed; it is made again when it is needed"
    if name == _METRICS and (data := read_bytes(path))[-1:] != b"\n":
        write_atomic(path, data[: data.rfind(b"\n") + 1])
        return "its torn last line removed" if _metrics(path).state == "whole" else ""
    if name.startswith("checkpoints/") and (report.checkpoints or report.status == "finished"):
        remove(path)
        return "removed"
    return ""


def _restore_weights(directory: RunDirectory) -> str:
    """Make the model again from the checkpoint that has it."""
    sha256 = directory.read_run()["files"][_WEIGHTS]
    for step in directory.checkpoints.steps():
        with contextlib.suppress(RunError):
            data = dump_tensors(directory.checkpoints.read(step).tensors)
            if hashlib.sha256(data).hexdigest() == sha256:
                directory.write_artifact(_WEIGHTS, data)
                return f"made again from the checkpoint of step {step}"
    return ""
