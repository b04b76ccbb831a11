"""Summaries of run directories: status and figures, without loading the model."""

from __future__ import annotations

import contextlib
import math
import os
import sys
from pathlib import Path
from typing import Any, Literal, TypeAlias

import attrs

from textgen.errors import PipelineError, RunError
from textgen.files.reading import files_under, inside, parse_json, read_bytes
from textgen.protocols import Table
from textgen.runs.directory import RunDirectory, no_run
from textgen.runs.formats import RunFigures, read_record

Status: TypeAlias = Literal["finished", "running", "stopped", "damaged"]
"""Whether a run has finished, is running, was stopped, or cannot be read."""


@attrs.frozen(kw_only=True)
class RunSummary:
    """The summary of a run directory.

    status           "finished"; "running" while a process trains it; "stopped" if its pipeline
                     resumes it; "damaged"
    cause            why the run ended early, or what is damaged; else ""
    step, steps      the last step, and the number of all steps; None if unknown
    best_step, best_loss   the evaluation with the lowest loss, in nats per token, of the held-out
                           text if there is one
    seconds          of training, as of the last evaluation or the end
    bytes, checkpoint_bytes   size on disk of the run and of its checkpoints
    changed          time of the last change, in seconds since the epoch
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
    record: Table = attrs.field(factory=dict, repr=False)

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of its metrics.jsonl, one an evaluation; lines that cannot be read are left
        out.
        """
        return read_metrics(RunDirectory(self.path).latest().path)

    def tables(self) -> Table:
        """The tables of its pipeline.toml; {} where they cannot be read."""
        with contextlib.suppress(PipelineError, RunError):
            return RunDirectory(self.path).read_pipeline().tables
        return {}

    @property
    def parameters(self) -> int | None:
        """The number of learnt parameters, from the header of the weights, or of the newest
        checkpoint's.
        """
        from safetensors import SafetensorError, safe_open

        place = RunDirectory(self.path).latest()
        with contextlib.suppress(OSError, RunError, SafetensorError, IndexError):
            name = "model.safetensors"
            if not (place.path / name).exists():
                newest = place.checkpoints.folder(place.checkpoints.steps()[-1])
                name = f"checkpoints/{newest.name}/{name}"
            with safe_open(inside(place.path, name), "numpy") as file:
                weights = map(file.get_slice, file.keys())
                return int(sum(math.prod(each.get_shape()) for each in weights))
        return None


def summarize(path: str | Path) -> RunSummary:
    """The summary of a run directory, also while another process trains it.

    Loads no model and writes nothing.

    Raises RunError without a run. Damage is reported in the summary.
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
    record: Table = {}
    try:
        status: Status = "running" if directory.is_locked() else "stopped"
        # A full check of the record takes five times as long, which counts in a folder of thousands
        # of runs.
        if has_record:
            record = read_record(place.inside("run.json"), RunFigures)
        is_finished = record.get("status") == "finished"
        figures = record if is_finished else _so_far(record, place)
    except (RunError, OSError) as error:
        return attrs.evolve(summary, cause=str(error) or type(error).__name__)
    cause = "" if status == "running" else record.get("cause") or "killed"
    if is_finished:
        stopped = record.get("stopped")
        status, cause = "finished", f"{stopped['by']}: {stopped['reason']}" if stopped else ""
    step, steps = figures["step"], record.get("steps")
    return attrs.evolve(
        summary,
        status=status,
        cause=cause,
        step=step,
        steps=None if steps is None or steps < step else steps,  # what was only a guess
        best_step=figures.get("best_step"),
        best_loss=finite(figures.get("best_loss")),
        seconds=finite(figures.get("seconds")),
        record=record,
    )


def _so_far(record: Table, directory: RunDirectory) -> Table:
    """The figures of a run that is not finished: run.json has them as they were when it began, or
    ended.
    """
    rows = read_metrics(directory.path)
    last, best = rows[-1] if rows else {}, _best(rows)
    steps = record.get("step", 0), last.get("step", 0), *directory.checkpoints.steps()
    return {
        "step": max(steps),
        "best_step": best.get("step"),
        "best_loss": best.get("validation_loss", best.get("training_loss")),
        "seconds": last.get("seconds"),
    }


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


def _best(rows: list[dict[str, Any]]) -> Table:
    """The row that a run chooses: with nothing held out, the latest."""
    held_out = [row for row in rows if row.get("validation_loss") is not None]
    if held_out:
        return min(held_out, key=lambda row: row["validation_loss"])
    return rows[-1] if rows else {}


def finite(value: Any) -> Any:
    """The number; None for anything else, infinity and NaN."""
    is_finite = type(value) in (int, float) and abs(value) <= sys.float_info.max
    return value if is_finite else None
