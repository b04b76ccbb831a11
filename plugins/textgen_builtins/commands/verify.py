"""textgen verify."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from textgen.cli.options import check_run


@click.command("verify")
@click.argument("run", type=click.Path())
@click.argument("states", nargs=-1, type=click.Path())
@click.option(
    "--repair",
    is_flag=True,
    help="Mend what there is a good copy of, and remove what a killed run has left.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify_command(run: str, states: tuple[str, ...], repair: bool, as_json: bool) -> None:
    """Check every file of a run directory against its checksum, and repair what can be.

    RUN is a run directory, such as runs/my; STATES are saved states of texts (--save-state). Says what is damaged, and
    what still works. Exit code 0: nothing is damaged, or not any more; 1: something is.

    --repair makes the model again from its checkpoint and pipeline.toml from run.json, and removes damaged checkpoints
    if another is whole, so that a run resumes from that.
    """
    from textgen import verify

    check_run(run, "verify")
    report = verify(run, repair=repair, states=states)
    click.echo(json.dumps(_as_json(report), ensure_ascii=False) if as_json else _as_text(report))
    if not report.whole:
        sys.exit(1)


def _as_json(report: Any) -> dict[str, Any]:
    files = [{"name": file.name, "state": file.state, "cause": file.cause} for file in report.files]
    keys = ("status", "whole", "loads", "checkpoints", "resumes_from", "leftovers")
    return {"path": str(report.path), **{key: getattr(report, key) for key in keys}, "files": files}


def _as_text(report: Any) -> str:
    width = max(len(file.name) for file in report.files)
    rows = [(file, _cause(report, file)) for file in report.files]
    lines = [f"{file.name:{width}}  {file.state}{cause and f': {cause}'}" for file, cause in rows]
    if report.leftovers:
        lines.append(
            f"left by a process that was killed, or is at work: {', '.join(report.leftovers)}"
        )
    bad = sum(file.state in ("damaged", "missing") for file in report.files)
    verdict = (
        f"{bad} of {len(report.files)} files are damaged or missing"
        if bad
        else "no file is damaged"
    )
    return "\n".join([*lines, f"{verdict}; {_what_works(report)}"])


def _cause(report: Any, file: Any) -> str:
    """What is wrong with a file, without its name, which the line begins with; of a folder, with the file in it."""
    for path in (
        report.path / file.name,
        Path(file.name),
    ):  # of the run; a saved state, as it was given
        rest = str(file.cause).removeprefix(str(path))
        if rest != file.cause and rest.startswith((":", " ", os.sep)):
            return rest.lstrip(f": {os.sep}")
    return str(file.cause)


def _what_works(report: Any) -> str:
    """What the run is still good for."""
    loads = "the run can be used" if report.loads else "the run cannot be used"
    if not report.status or report.status == "finished":
        return loads
    place = (
        f"resumes from step {report.resumes_from}"
        if report.resumes_from is not None
        else "begins anew"
    )
    return f"{loads}, and textgen run {place}"
