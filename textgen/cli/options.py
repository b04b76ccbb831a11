"""Options that several subcommands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import click

from textgen.cli.prompts import as_text
from textgen.errors import UsageError
from textgen.suggest import nearest
from textgen.windows import quoted

_BEGINNING = 1 << 16  # bytes that tell what a file is
_TEXT_SUFFIXES = (
    ".txt",
    ".text",
    ".md",
    ".jsonl",
    ".rst",
    ".csv",
    ".html",
    ".pdf",
    ".epub",
    ".docx",
)

set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    callback=lambda _ctx, _parameter, given: tuple(map(as_text, given)),
    help="Override a key of the pipeline, as in trainer.batch_size=8. May be given several times.",
)
device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="NAME",
    help='"auto", "cpu", "cuda", "cuda:N" or "mps".',
)
readable_file = click.Path(exists=True, dir_okay=False, allow_dash=True)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def check_output(
    option: str, given: str, what: str, is_one: Callable[[bytes], bool], *, in_run: bool = False
) -> None:
    """Raise UsageError, before any work, where a file cannot be written or would destroy something.

    A file that is there is replaced only if its beginning is that of `what`. A new one stays out of the folders of a
    run directory, and of the run directory itself unless `in_run`.
    """
    path = Path(given)
    try:
        if not given or path.is_dir():
            raise UsageError(f"{option} expects the name of a file, given {given!r}")
    except OSError as error:  # a name that is too long
        raise UsageError(
            f"{option} {given} cannot be written: {error.strerror or error}"
        ) from error
    folder = path.resolve().parent
    if not folder.is_dir():
        raise UsageError(f"{given} cannot be written: the folder {path.parent} does not exist")
    if os.path.exists(given):
        if not (path.is_file() and is_one(_beginning(path))):
            raise UsageError(
                f"{given} exists and is not a {what}; {option} does not replace it: give another name"
            )
        return
    for run in (folder, *folder.parents):
        if (run / "run.json").is_file() and not (in_run and run == folder):
            raise UsageError(
                f"{given} would be among the files of the run {run}; give {option} another place"
            )


def write_output(option: str, given: str, content: str) -> None:
    """Write a file that `check_output` has let pass, and say so. Raises UsageError."""
    from textgen.files.durable import write_atomic

    try:
        write_atomic(Path(given), content.encode("utf-8", "replace"))
    except OSError as error:
        raise UsageError(
            f"{option} {given} cannot be written: {error.strerror or error}"
        ) from error
    click.echo(f"textgen: wrote {given}", err=True)


def check_state_output(option: str, given: str) -> None:
    """Raise UsageError where a saved state cannot be written, or would replace another file."""
    check_output(option, given, "saved state", _is_state, in_run=True)


def _is_state(beginning: bytes) -> bool:
    """Whether a file begins with a safetensors header that has the two arrays of a saved state."""
    header = beginning[8 : 8 + int.from_bytes(beginning[:8], "little")]
    return header.startswith(b"{") and b'"checksum":' in header and b'"values":' in header


def _beginning(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_BEGINNING)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error


def check_pipeline(given: str) -> None:
    """Raise UsageError, saying what was meant, for a text or a run directory where a pipeline file is wanted."""
    path, typed = Path(given), quoted(given)
    if (path / "pipeline.toml").is_file():
        raise UsageError(
            f"{given} is a run directory, and a pipeline file is wanted; that of this run is {path / 'pipeline.toml'}; "
            f"for more text: textgen generate {typed}"
        )
    writes = f"textgen init {typed} writes a pipeline for it"
    if path.is_dir():
        raise UsageError(
            f"{given}: cannot be read: it is a folder; if there are texts in it, {writes}"
        )
    if path.is_file() and path.suffix.lower() in _TEXT_SUFFIXES:
        raise UsageError(f"{given} is a text, and a pipeline file is wanted; {writes}")
    if not path.exists() and Path(f"{given}.toml").is_file():
        raise UsageError(f"{given} does not exist; did you mean {given}.toml?")
    if not path.exists() and (hint := nearest(str(path), map(str, path.parent.glob("*.toml")))):
        raise UsageError(f"{given} does not exist; {hint}")


def check_run(given: str, command: str) -> None:
    """Raise UsageError, saying what was meant, for anything but a folder where a run directory is wanted."""
    path = Path(given)
    if path.is_dir():
        is_run = any((path / place / "run.json").exists() for place in ("", ".next-run"))
        if not is_run and (inside := _runs_in(path)):
            raise UsageError(f"{given} is not a run directory; those in it are {', '.join(inside)}")
        return
    made = Path("runs", path.stem)
    there = (made / "run.json").is_file()
    meant = f"did you mean textgen {command} {quoted(str(made))}?"
    if not path.exists():
        near = (
            ""
            if there
            else nearest(str(path), _runs_in(path.parent))
            or nearest(str(made), _runs_in(made.parent))
        )
        raise UsageError(
            f"there is no run directory {given}; {meant if there else near or 'textgen run makes one'}"
        )
    if path.suffix.lower() == ".toml" and not there:
        meant = f"textgen run {quoted(given)} trains its model, and says where it is"
    elif not there:
        meant = f"textgen {command} --help shows how"
    raise UsageError(
        f"{given} is a file, and the directory of a run is wanted, such as runs/my; {meant}"
    )


def _runs_in(folder: Path) -> list[str]:
    return sorted(str(found.parent) for found in folder.glob("*/run.json"))
