"""textgen cache."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from textgen import BuildContext, Component, CorruptFileError, NoOptions, UsageError, hookimpl
from textgen.files.cache import Cache, EntryInfo
from textgen.files.reading import cache_directory, read_json
from textgen.visible import byte_count, visible

_SECONDS: Final = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_NAMES: Final = {"w": "week", "d": "day", "h": "hour", "m": "minute"}
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class CacheOptions(NoOptions):
    """List what is cached for later runs: encoded texts and downloads; or clear it."""


@click.group("cache", invoke_without_command=True)
@_json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """List what is cached for later runs: encoded texts and downloads.

    A run takes the tokens of its text from here if another one has encoded it. Above TEXTGEN_CACHE_SIZE (10 GB if it
    is not set; 0 for no cache) the texts that were used longest ago are removed. TEXTGEN_CACHE_DIR is the folder.
    """
    if ctx.invoked_subcommand is not None:
        return
    cache = Cache.of_user()
    entries, downloads = cache.entries(), _downloads(cache)
    if as_json:
        click.echo(
            json.dumps(
                {"folder": str(cache.folder), "limit": cache.limit, **_facts(entries, downloads)}
            )
        )
        return
    total = sum(entry.size for entry in entries)
    count = f"{len(entries)} encoded text{'' if len(entries) == 1 else 's'}"
    click.echo(f"{cache.folder}: {count}, {byte_count(total)} of {byte_count(cache.limit)}")
    for entry in entries:
        click.echo(
            f"{byte_count(entry.size):>9}  {_age(entry.used):14}  {_title(entry)}{', in use' * entry.in_use}"
        )
    for path in downloads:
        name = visible(_address(path) or str(path))
        click.echo(
            f"{byte_count(_size(path)):>9}  {_age(path.stat().st_mtime):14}  download {name}"
        )


@command.command("clear")
@click.option(
    "--older-than",
    metavar="TIME",
    help="Only what was not used for so long, such as 12h, 30d or 8w.",
)
@click.option("--downloads", "of_downloads", is_flag=True, help="Downloads instead.")
@_json_option
def clear(older_than: str | None, of_downloads: bool, as_json: bool) -> None:
    """Remove encoded texts that no run uses at the moment, or with --downloads, what was fetched from the network.

    Both are made, or fetched, again when they are needed.
    """
    cache = Cache.of_user()
    before = None if older_than is None else time.time() - _duration(older_than)
    try:
        gone = [] if of_downloads else cache.clear(before)
    except OSError as error:
        cause = f"{error.filename or cache.folder} cannot be removed: {error.strerror or error}"
        raise UsageError(cause) from error
    downloads = _downloads(cache) if of_downloads else []
    paths = [path for path in downloads if before is None or path.stat().st_mtime < before]
    sizes = {path: _size(path) for path in paths}
    facts = _facts(gone, paths)
    for path in paths:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if as_json:
        click.echo(json.dumps(facts))
        return
    freed = sum(entry.size for entry in gone) + sum(sizes.values())
    removed, kind = len(gone) + len(paths), "download" if of_downloads else "encoded text"
    click.echo(
        f"removed {removed} {kind}{'' if removed == 1 else 's'}, {byte_count(freed)}"
        if removed
        else "removed nothing"
    )
    for entry in cache.entries() if before is None and not of_downloads else ():
        click.echo(f"kept {_title(entry)}: a run uses it", err=True)


def _facts(entries: list[EntryInfo], downloads: list[Path]) -> dict[str, Any]:
    listed = [
        {
            **{key: entry.facts.get(key) for key in ("text", "tokenizer", "characters")},
            "path": str(entry.path),
            "bytes": entry.size,
            "used": entry.used,
            "in_use": entry.in_use,
        }
        for entry in entries
    ]
    files = [
        {
            "address": _address(path),
            "path": str(path),
            "bytes": _size(path),
            "written": path.stat().st_mtime,
        }
        for path in downloads
    ]
    return {"texts": listed, "downloads": files}


def _downloads(cache: Cache) -> list[Path]:
    """What else is in the user's cache: single files, and the folders of downloads."""
    root = cache_directory()
    found = [*root.glob("*"), *root.glob("downloads/*")]
    own = (cache.folder, root / "downloads")
    return sorted(path for path in found if path not in own and not path.name.startswith(".lock-"))


def _address(path: Path) -> str | None:
    """Where a download is from, if a record beside it says so."""
    try:
        return str(read_json(path / "download.json")["address"])
    except (CorruptFileError, KeyError):
        return None


def _title(entry: EntryInfo) -> str:
    """Which text, and which tokenizer, on one line."""
    text, tokenizer = entry.facts.get("text"), entry.facts.get("tokenizer")
    text = text if isinstance(text, Mapping) else {}
    name = " ".join(
        str(value) for value in (text.get("type"), text.get("path") or text.get("url")) if value
    )
    kind = tokenizer.get("type") if isinstance(tokenizer, Mapping) else None
    return visible(f"{name or '?'}, {kind or '?'}")


def _duration(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([mhdw])", text)
    if match is None:
        raise UsageError(
            "expected a time such as 12h, 30d or 8w", argument="--older-than", value=text
        )
    return float(match[1]) * _SECONDS[match[2]]


def _age(when: float) -> str:
    seconds = max(0.0, time.time() - when)
    for unit, name in _NAMES.items():
        if count := int(seconds // _SECONDS[unit]):
            return f"{count} {name}{'' if count == 1 else 's'} ago"
    return "just now"


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def build(config: NoOptions, context: BuildContext) -> Any:
    """The command."""
    return command


@hookimpl
def textgen_commands() -> list[Component]:
    """Offer `cache`."""
    return [Component("cache", CacheOptions, build)]
