"""textgen doctor."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import click

from textgen.cli.options import check_run, json_option
from textgen.visible import byte_count


@click.command("doctor")
@click.argument("run", required=False, type=click.Path())
@click.option(
    "--torch",
    "import_torch",
    is_flag=True,
    help="Import torch to ask it, even where no GPU driver is found.",
)
@json_option
@click.pass_context
def command(ctx: click.Context, run: str | None, import_torch: bool, as_json: bool) -> None:
    """Examine this installation and machine, or the files of a run; say what is wrong.

    Versions, cores, memory, devices, threads, the cache, the current folder, and every plugin with the time its import
    takes. Exits with 1 if something is so wrong that work will fail.

    With RUN, a run directory such as runs/my, every file of it is compared with its checksum. Nothing is changed. Exits
    with 1 if one is damaged.
    """
    if run is not None:
        _examine_run(run, as_json=as_json)
        return
    from textgen.tools.doctor import examine

    report = examine(disable=ctx.obj.disable, import_torch=import_torch)
    if as_json:
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        for line in _lines(report):
            click.echo(line)
    if any(problem["serious"] for problem in report["problems"]):
        raise SystemExit(
            1
        )  # click's own exit keeps its code to itself where errors are ours to report


def _examine_run(run: str, *, as_json: bool) -> None:
    from textgen.runs.verifying import verify

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


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    versions, threads = dict(report["versions"]), dict(report["threads"])
    yield f"textgen   {versions.pop('textgen-engine')} for Python {versions.pop('python')} at {report['python']}"
    yield f"platform  {versions.pop('platform')}"
    yield f"packages  {_named(versions)}"
    extras = [f"{extra} ({_named(of)})" for extra, of in report["extras"].items()]
    yield from [f"extras    {', '.join(extras)}"] if extras else []
    yield from (f"setting   {name}={value}" for name, value in report["settings"].items())
    cores, memory = report["cores"], report["memory"]
    load = "" if cores["load"] is None else f", load {cores['load']:.1f}"
    yield f"cores     {cores['usable']} usable of {cores['present']}{load}"
    yield f"memory    {byte_count(memory['available'])} available of {byte_count(memory['total'])}"
    for device in report["devices"]:
        free, memory = byte_count(device["free"]), byte_count(device["memory"])
        room = "" if device["memory"] is None else f", {free} free of {memory}"
        yield f"device    {device['name']}: {device['model']}{room}"
    if not report["devices"]:
        yield f"device    cpu ({'no GPU that torch can use' if report['driver'] else 'no driver for a GPU was found'})"
    of_torch = threads.pop("torch")
    named = [
        f"{name}{' not set' if value is None else f'={value}'}" for name, value in threads.items()
    ]
    yield "threads   " + ", ".join([*named, *([] if of_torch is None else [f"torch {of_torch}"])])
    for name, more in (("cache", "size"), ("folder", "free")):
        folder = report[name]
        writable = "writable" if folder["writable"] else "not writable"
        yield f"{name:10}{folder['path']}: {writable}, {byte_count(folder[more])}{' free' * (more == 'free')}"
    for plugin in report["plugins"]:
        health = (
            f"left out: {plugin['left_out']}"
            if plugin["left_out"]
            else ", ".join(plugin["components"])
        )
        who = f"{plugin['name']} [{plugin['distribution']} {plugin['version']}]"
        yield f"plugin    {who} {plugin['milliseconds']:.0f} ms: {health}"
    yield "" if report["problems"] else "\nnothing is wrong"
    for problem in report["problems"]:
        yield f"{'SERIOUS' if problem['serious'] else 'note'}: {problem['what']}\n    {problem['advice']}"


def _named(versions: Mapping[str, str | None]) -> str:
    return ", ".join(f"{name} {version or 'missing'}" for name, version in versions.items())
