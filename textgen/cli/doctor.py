"""textgen doctor."""

from __future__ import annotations

import json
import os
import platform
import warnings
from collections.abc import Iterator
from typing import Any

import attrs
import click

from textgen.cli.options import check_run, json_option
from textgen.errors import PluginWarning
from textgen.plugin import discovery
from textgen.plugin.component import OWN_DISTRIBUTION


@click.command("doctor")
@click.argument("run", required=False, type=click.Path())
@json_option
@click.pass_obj
def command(context: Any, run: str | None, as_json: bool) -> None:
    """Say which versions, devices and cache textgen uses, and which plugins are left out; or examine a run.

    With RUN, a run directory such as runs/my, every file of it is compared with its checksum. Nothing is changed.
    Exits with 1 if something is missing or left out, or a file is damaged.
    """
    if run is not None:
        _examine_run(run, as_json=as_json)
        return
    report = _report(context)
    if as_json:
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(_lines(report)))
    if report["left_out"] or report["missing"]:
        raise SystemExit(1)  # click's own exit keeps its code to itself


def _report(context: Any) -> dict[str, Any]:
    from textgen.files.cache import cache_directory
    from textgen.tools.describe import describe

    required = [OWN_DISTRIBUTION, *discovery.requirements(OWN_DISTRIBUTION)]
    optional = (discovery.requirements(OWN_DISTRIBUTION, e) for e in ("fast", "format", "zst"))
    extras = {name for packages in optional for name in packages}
    versions = {name: discovery.version(name) for name in [*required, *sorted(extras)]}
    devices, missing = _devices()
    missing += [f"{name} is not installed" for name in required if versions[name] is None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PluginWarning)  # the report says it
        left_out = describe(context.plugins())["quarantined"]
    cache = cache_directory()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "versions": versions,
        "devices": devices,
        "cache": str(cache),
        "missing": missing,
        "left_out": left_out,
    }


def _devices() -> tuple[list[str], list[str]]:
    """The devices that torch can use, and why it cannot be imported."""
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a library that it needs is not there
        return ["cpu"], [f"torch cannot be imported: {error}"]
    found = ["cpu"]
    if torch.cuda.is_available():
        names = map(torch.cuda.get_device_name, range(torch.cuda.device_count()))
        found += [f"cuda:{number} ({name})" for number, name in enumerate(names)]
    return [*found, *(["mps"] if torch.backends.mps.is_available() else [])], []


def _lines(report: dict[str, Any]) -> Iterator[str]:
    yield f"Python {report['python']} on {report['platform']}"
    yield from (f"{name} {version or '-'}" for name, version in report["versions"].items())
    yield f"devices: {', '.join(report['devices'])}"
    yield f"cache: {report['cache']}"
    yield from report["missing"]
    for each in report["left_out"]:
        yield f"left out: {each['plugin']} [{each['distribution']} {each['version']}]: {each['cause']}"


def _examine_run(run: str, *, as_json: bool) -> None:
    from textgen.runs.stored import verify

    check_run(run, "doctor")
    report = verify(run)
    if as_json:
        rows = {**attrs.asdict(report), "path": str(report.path), "whole": report.whole}
        click.echo(json.dumps(rows, ensure_ascii=False))
    else:
        width = max(len(file.name) for file in report.files)
        for file in report.files:
            cause = file.cause.removeprefix(str(report.path / file.name)).lstrip(f": {os.sep}")
            click.echo(f"{file.name:{width}}  {file.state}{cause and f': {cause}'}")
        bad = sum(file.state not in ("whole", "changed") for file in report.files)
        damage = f"{bad} of {len(report.files)} files are damaged" if bad else "no file is damaged"
        click.echo(f"{damage}; the run can{'' if report.loads else 'not'} be used")
    if not report.whole:
        raise SystemExit(1)
