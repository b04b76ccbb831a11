"""textgen cache."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import click

from textgen import BuildContext, Component, NoOptions, hookimpl
from textgen.files import Cache, CacheEntry, converted_models, downloads, encoded_texts
from textgen.messages import byte_count, visible


class CacheOptions(NoOptions):
    """List or clear what is cached for later runs: encoded texts, downloads and models."""


@click.command("cache")
@click.option("--clear", "clears", is_flag=True, help="Remove the encoded texts.")
@click.option("--downloads", "of_downloads", is_flag=True, help="List or remove downloads only.")
@click.option("--models", "of_models", is_flag=True, help="List or remove models only.")
def command(clears: bool, of_downloads: bool, of_models: bool) -> None:
    """List or clear what is cached for later runs: encoded texts, downloads, and models.

    A run reuses the tokens of a text that another run encoded, and the converted weights of a GGUF
    file. Above 10 GB of either, the least recently used are removed. TEXTGEN_CACHE_DIR sets the
    folder. Only files that textgen wrote are removed.
    """
    texts = "encoded text", encoded_texts()
    others = ("download", downloads(), of_downloads), ("model", converted_models(), of_models)
    named = [(what, cache) for what, cache, is_named in others if is_named]
    every = [texts] if clears else [texts, *(other[:2] for other in others)]
    for what, cache in named or every:
        if clears:
            _clear(cache, what)
            continue
        entries = list(cache.entries())
        click.echo(f"{cache.folder}: {_summary(entries, what)}")
        for entry in entries:
            used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
            click.echo(f"{byte_count(entry.size):>9}  {used}  {_title(entry)}")


def _clear(cache: Cache, what: str) -> None:
    removed = []
    for entry in cache.entries():
        if entry.remove():
            removed.append(entry)
        else:
            click.echo(f"kept {_title(entry)}: {entry.path} cannot be removed", err=True)
    cache.sweep()
    click.echo(f"removed {_summary(removed, what)}")


def _summary(entries: list[CacheEntry], what: str) -> str:
    size = byte_count(sum(entry.size for entry in entries))
    plural = "" if len(entries) == 1 else "s"
    return f"{len(entries)} {what}{plural}, {size}"


def _title(entry: CacheEntry) -> str:
    """The address of a download, the file of a model; the corpus and the tokenizer of an encoded
    text.
    """
    tables = [entry.facts.get(kind) for kind in ("text", "tokenizer")]
    text, tokenizer = (table if isinstance(table, Mapping) else {} for table in tables)
    names = (text.get("type"), text.get("path"), tokenizer.get("type"))
    title = (
        entry.facts.get("address")
        or entry.facts.get("file")
        or " ".join(str(name) for name in names if name)
    )
    return visible(str(title))


def build(config: NoOptions, context: BuildContext) -> Any:
    """The command."""
    return command


@hookimpl
def textgen_commands() -> list[Component]:
    """Offer `cache`."""
    return [Component("cache", CacheOptions, build)]
