"""Summaries of run directories: status and figures, without loading the model."""

from __future__ import annotations

import contextlib
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

Status: TypeAlias = Literal["finished", "running", "unfinished", "damaged"]
"""Whether a run has finished, is running, can be resumed, or cannot be read."""


@attrs.frozen(kw_only=True)
class RunSummary:
    """The summary of a run directory.

    status           "finished"; "running" while a process trains it; "unfinished" if its
                     pipeline resumes it; "damaged"
    cause            why the run ended early, or what is damaged; else ""
    step, steps      the last step, and the number of all steps; None if unknown
    best_step, best_loss   the evaluation whose weights it has, and its loss, as of Run
    seconds          of training
    bytes            size on disk
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
        """The number of weights that were trained; None for a model of counts, or if unknown."""
        return self.record.get("parameters")


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
    summary = RunSummary(
        path=path,
        status="damaged",
        bytes=sum(found.st_size for _, found in files),
        changed=max((found.st_mtime for _, found in files), default=0.0),
    )
    record: Table = {}
    try:
        status: Status = "running" if directory.is_locked() else "unfinished"
        # A full check of the record takes five times as long, which counts in a folder of thousands
        # of runs.
        if has_record:
            record = read_record(place.inside("run.json"), RunFigures)
    except (RunError, OSError) as error:
        return attrs.evolve(summary, cause=str(error) or type(error).__name__)
    cause = "" if status == "running" else record.get("cause") or "killed"
    if record.get("status") == "finished":
        stopped = record.get("stopped")
        status, cause = "finished", f"{stopped['by']}: {stopped['reason']}" if stopped else ""
    step, steps = record.get("step", 0), record.get("steps")
    return attrs.evolve(
        summary,
        status=status,
        cause=cause,
        step=step,
        steps=None if steps is None or steps < step else steps,  # what was only a guess
        best_step=record.get("best_step"),
        best_loss=finite(record.get("best_loss")),
        seconds=finite(record.get("seconds")),
        record=record,
    )


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
