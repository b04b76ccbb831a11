"""textgen doctor."""

from __future__ import annotations

import json
import os
import platform
import warnings
from collections.abc import Iterator
from typing import Any, Final

import click

from textgen import TextgenError, verify
from textgen.cli import json_option
from textgen.plugin import requirements, version

_TEXTGEN: Final = "textgen-engine"
_EXTRAS: Final = ("format", "zst")


@click.command("doctor")
@click.argument("run", required=False, type=click.Path())
@json_option
@click.pass_obj
def doctor(context: Any, run: str | None, as_json: bool) -> None:
    """Show versions, devices, cache and the plugins that are left out; or check the files of a run.

    With RUN, a run directory such as runs/my, every file of it is compared with its checksum, and
    the run is loaded. Nothing is changed. Exits with 1 if something is missing or left out, a file
    is damaged, or whole files cannot be loaded.
    """
    report = _of_installation(context) if run is None else _of_run(context, run)
    lines = _installation_lines(report) if run is None else _run_lines(report)
    text = json.dumps(report, indent=2, ensure_ascii=False) if as_json else "\n".join(lines)
    click.echo(text)
    if report["faults"] if run is None else report["cause"] or not report["whole"]:
        raise SystemExit(1)  # click's own exit keeps its code to itself


def _of_installation(context: Any) -> dict[str, Any]:
    from textgen.files import cache_directory

    required = [_TEXTGEN, *requirements(_TEXTGEN)]
    extras = [name for extra in _EXTRAS for name in requirements(_TEXTGEN, extra)]
    versions = {name: version(name) for name in dict.fromkeys([*required, *extras])}
    devices, faults = _devices()
    faults += [f"{name} is not installed" for name in required if versions[name] is None]
    return {
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "versions": {name: version for name, version in versions.items() if version is not None},
        "devices": devices,
        "cache": str(cache_directory()),
        "faults": [*faults, *map(str, context.plugins.quarantined)],
    }


def _devices() -> tuple[list[str], list[str]]:
    """The devices that torch can use, and why it cannot be imported."""
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a library that it needs is not there
        return ["cpu"], [f"torch cannot be imported: {error}"]
    cuda = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    found = ["cpu", *(f"cuda:{n} ({torch.cuda.get_device_name(n)})" for n in cuda)]
    return [*found, *(["mps"] if torch.backends.mps.is_available() else [])], []


def _installation_lines(report: dict[str, Any]) -> Iterator[str]:
    yield f"Python {report['python']} on {report['platform']}"
    yield from (f"{name} {version}" for name, version in report["versions"].items())
    yield f"devices: {', '.join(report['devices'])}"
    yield f"cache: {report['cache']}"
    yield from report["faults"]


def _of_run(context: Any, run: str) -> dict[str, Any]:
    from textgen import Engine

    files, cause = verify(run), ""
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always")
        try:
            Engine(context.plugins).load(run).close()
        except TextgenError as error:
            cause = str(error)
    return {
        "path": os.path.abspath(run),
        "files": files,
        "whole": not any(files.values()),
        "remarks": [str(each.message) for each in remarks],
        "cause": cause,
    }


def _run_lines(report: dict[str, Any]) -> Iterator[str]:
    files = report["files"]
    width = max(map(len, files))
    for name, wrong in files.items():
        cause = wrong.removeprefix(os.path.join(report["path"], name)).lstrip(f": {os.sep}")
        yield f"{name:{width}}  {cause or 'whole'}"
    yield from report["remarks"]
    bad = sum(map(bool, files.values()))
    damage = f"{bad} of {len(files)} files are damaged" if bad else "no file is damaged"
    cause = f": {report['cause']}" if report["cause"] and not bad else ""
    yield f"{damage}; the run can{'not' if report['cause'] else ''} be used{cause}"
