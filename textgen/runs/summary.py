"""What a run directory says about its run: its status and figures, without loading the model."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import attrs

from textgen.errors import CorruptFileError, RunError
from textgen.files.opening import UNFORESEEN, opened
from textgen.files.reading import LARGEST, files_under, inside, parse_json
from textgen.runs.directory import RunDirectory, no_run
from textgen.runs.formats import read_intact

Status: TypeAlias = Literal["finished", "running", "stopped", "damaged"]
"""Whether a run has finished, is running, was stopped, or cannot be read."""
_TAIL: Final = 1 << 16  # bytes at the end of metrics.jsonl, some two hundred rows
_KILLED: Final = "killed"


@attrs.frozen(kw_only=True)
class RunSummary:
    """A run, as far as its directory tells.

    status           "finished"; "running", while a process trains it; "stopped", which its pipeline resumes; "damaged"
    cause            why it ended before its time, or what is damaged; "" where neither is so
    step, steps      how far it is, and how many steps there are to be; None where that is not known
    best_step, best_loss   the evaluation with the lowest loss, in nats per token: that of the held-out text, if there
                     is one
    seconds          of training, as of the last evaluation or the end
    bytes, checkpoint_bytes   size on disk, of all of it and of its checkpoints
    changed          when it was last written to, in seconds of the epoch
    record           run.json, if its checksum is right; else {}
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
    checkpoint_bytes: int = 0
    changed: float = 0.0
    record: Mapping[str, Any] = attrs.field(factory=dict, repr=False)

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of its metrics.jsonl, one an evaluation; lines that cannot be read are left out."""
        return _rows(RunDirectory(self.path).latest().path, limit=None)

    @property
    def characters_per_second(self) -> float | None:
        """The speed of training before the last evaluation."""
        rows = _rows(RunDirectory(self.path).latest().path, limit=_TAIL)
        return finite(rows[-1].get("characters_per_second")) if rows else None

    @property
    def parameters(self) -> int | None:
        """The number of learnt parameters."""
        return _parameters(RunDirectory(self.path).latest())


def summarize(path: str | Path) -> RunSummary:
    """The summary of a run directory, also while another process trains it. Loads no model and writes nothing.

    Raises RunError where no run is; what is damaged is said in the summary.
    """
    path = Path(path).absolute()
    directory = RunDirectory(path)
    place = directory.latest()
    has_record = os.path.lexists(place.path / "run.json")
    if not has_record and not directory.is_begun():
        raise no_run(path)
    files = list(files_under(path))
    checkpoints = str(directory.checkpoints.path) + os.sep
    summary = RunSummary(
        path=path,
        status="damaged",
        bytes=sum(found.st_size for _, found in files),
        checkpoint_bytes=sum(
            found.st_size for name, found in files if name.startswith(checkpoints)
        ),
        changed=max((found.st_mtime for _, found in files), default=0.0),
    )
    record: dict[str, Any]
    try:
        locked = directory.is_locked()
        record = _read_figures(place) if has_record else {"status": "training"}
        finished = record["status"] == "finished"
        figures = record if finished or not has_record else _so_far(record, place)
    except (RunError, OSError) as error:
        return attrs.evolve(summary, cause=str(error) or type(error).__name__)
    status, cause = _status(record, locked=locked)
    summary = attrs.evolve(summary, status=status, cause=cause)
    if not has_record:
        return summary
    step, steps = figures["step"], record.get("steps")
    return attrs.evolve(
        summary,
        step=step,
        steps=None if steps is None or steps < step else steps,  # what was only a guess
        best_step=figures.get("best_step"),
        best_loss=finite(figures.get("best_loss")),
        seconds=finite(figures.get("seconds")),
        record=record,
    )


def _read_figures(place: RunDirectory) -> dict[str, Any]:
    """The record in run.json, with the figures of a summary checked. Raises RunError.

    A full check of the record takes five times as long, which counts in a folder of thousands of runs.
    """
    path = place.inside("run.json")
    record = read_intact(path)
    stopped, counts = record.get("stopped"), (record.get("steps"), record.get("best_step"))
    if not (
        record.get("status") in ("training", "unfinished", "finished")
        and _is_step(record.get("step"))
        and all(count is None or _is_step(count) for count in counts)
        and (stopped is None or (isinstance(stopped, dict) and {"by", "reason"} <= stopped.keys()))
        and isinstance(record.get("cause"), str | None)
    ):
        raise CorruptFileError(path, "its status or its figures are not those of a run")
    return record


def _status(record: Mapping[str, Any], *, locked: bool) -> tuple[Status, str]:
    if record["status"] == "finished":
        stopped = record.get("stopped")
        return "finished", "" if stopped is None else f"{stopped['by']}: {stopped['reason']}"
    if locked:
        return "running", ""
    return "stopped", record.get("cause") or "interrupted" if record[
        "status"
    ] == "unfinished" else _KILLED


def _so_far(record: Mapping[str, Any], directory: RunDirectory) -> dict[str, Any]:
    """The figures of a run that is not finished: run.json has them as they were when it began, or ended."""
    rows = _rows(directory.path, limit=_TAIL)
    last, best = rows[-1] if rows else {}, _best(rows)
    step = max(record["step"], last.get("step", 0), *directory.checkpoints.steps())
    return {
        "step": step,
        "best_step": best.get("step"),
        "best_loss": chosen_loss(best),
        "seconds": last.get("seconds"),
    }


def _rows(path: Path, limit: int | None) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, or those that its last bytes hold; lines that cannot be read are left out."""
    try:
        with opened(inside(path, "metrics.jsonl")) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0 if limit is None else max(0, size - limit))
            lines = file.read(LARGEST).splitlines()
    except (OSError, RunError):
        return []
    rows = []
    for line in lines:
        with contextlib.suppress(ValueError):
            row = parse_json(line)
            if _is_step(row.get("step")):
                rows.append(row)
    return rows


def _best(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The row that a run chooses: with nothing held out, the latest."""
    held_out = [
        (loss, row) for row in rows if (loss := finite(row.get("validation_loss"))) is not None
    ]
    return min(held_out, key=lambda pair: pair[0])[1] if held_out else rows[-1] if rows else {}


def chosen_loss(row: Mapping[str, Any]) -> float | None:
    """The loss that a run chooses by."""
    held_out = finite(row.get("validation_loss"))
    return finite(row.get("training_loss")) if held_out is None else held_out


def _parameters(directory: RunDirectory) -> int | None:
    """From the header of the weights, or of the newest checkpoint's."""
    with contextlib.suppress(OSError, RunError, *UNFORESEEN):
        path = directory.path / "model.safetensors"
        if not path.exists():
            path = directory.checkpoints.folder(directory.checkpoints.steps()[-1]) / path.name
        with opened(inside(directory.path, str(path.relative_to(directory.path)))) as file:
            header = parse_json(file.read(min(int.from_bytes(file.read(8), "little"), 1 << 24)))
        header.pop("__metadata__", None)
        return int(sum(math.prod(entry["shape"]) for entry in header.values()))
    return None


def _is_step(value: Any) -> bool:
    return type(value) is int and 0 <= value < 10**18  # a bool is no step


def finite(value: Any) -> float | None:
    """The number as a float; None for anything else, infinity and NaN."""
    return float(value) if type(value) in (int, float) and math.isfinite(value) else None
