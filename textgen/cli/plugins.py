"""textgen plugins."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Mapping
from typing import Any

import attrs
import click

from textgen.cli.options import json_option
from textgen.errors import UsageError
from textgen.plugin.configured import plain
from textgen.plugin.registry import PluginSet
from textgen.plugin.wording import phrase


@click.group("plugins", invoke_without_command=True)
@click.option("--kind", metavar="KIND", help="Only components of this kind.")
@click.option(
    "--options/--no-options",
    "with_options",
    default=False,
    help="Show the options of each component.",
)
@json_option
@click.pass_context
def command(ctx: click.Context, kind: str | None, with_options: bool, as_json: bool) -> None:
    """List components: kind, name, summary, package and version; then the plugins that are left
    out, and why.
    """
    if ctx.invoked_subcommand is not None:
        return
    described = describe(ctx.obj.plugins, kind)
    if not described["components"]:
        raise UsageError(f"no plugin offers a component of the kind {kind}")
    if as_json:
        click.echo(json.dumps(described, indent=2, ensure_ascii=False))
        return
    rows = described["components"]
    kinds, names = (max(len(row[key]) for row in rows) for key in ("kind", "name"))
    for row in rows:
        click.echo(
            f"{row['kind']:{kinds}}  {row['name']:{names}}  {row['summary']}  [{_origin(row)}]"
        )
        for option in row["options"] if with_options else ():
            default = f"default {json.dumps(option['default'], ensure_ascii=False)}"
            needed = "required" if option["required"] else default
            argument = f" ({option['argument']})" if option["argument"] else ""
            click.echo(
                f"{'':{kinds}}    {option['name']}{argument}: {option['type']}, {needed}. "
                f"{option['help']}"
            )
    for row in described["quarantined"]:
        click.echo(f"left out: {row['plugin']} [{_origin(row)}]: {row['cause']}")


def _origin(row: Mapping[str, Any]) -> str:
    """The package that a component came with, or the file."""
    return str(row.get("path") or f"{row['distribution']} {row['version']}")


@command.command("check")
@click.argument("name")
@click.option(
    "--set", "values", multiple=True, metavar="NAME.KEY=VALUE", help="An option of a component."
)
@click.option("--tokenizer", metavar="TYPE", help="Tokenizer for the checks: a name or a table.")
@click.option("--corpus", metavar="TYPE", help="Corpus for the checks: a name or a table.")
@click.option("--start", metavar="RUN", help="Run whose vocabulary and model the checks use.")
@click.option(
    "--time-limit",
    type=click.FloatRange(min=0, min_open=True),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="Time limit of each check. A busy machine needs more.",
)
@click.pass_context
def check(ctx: click.Context, /, name: str, values: tuple[str, ...], **given: Any) -> None:
    """Check the components of a plugin against their contracts; exit code 1 if one fails.

    NAME is an entry point, a distribution, or one component as package:component.
    """
    from textgen.errors import PluginWarning
    from textgen.testing.command_line import check_named

    # What is left out is the first line of what is printed, or not what was asked.
    warnings.simplefilter("ignore", PluginWarning)
    warnings.simplefilter("default", DeprecationWarning)
    counts = dict.fromkeys(("ok", "failed", "skipped"), 0)
    for status, line in check_named(name, ctx.obj.plugins, values, **given):
        if status in counts:
            counts[status] += 1
        click.echo(line)
    click.echo(", ".join(f"{count} {status}" for status, count in counts.items()), err=True)
    if counts["failed"]:
        sys.exit(1)  # click would hand a code of its own to a caller that does not ask for it


def describe(plugins: PluginSet, kind: str | None = None) -> dict[str, Any]:
    """Components with their options, and quarantined plugins."""
    return {
        "components": [
            {
                "kind": offer.kind,
                "name": offer.name,
                "qualified_name": offer.qualified_name,
                "summary": offer.component.summary,
                **offer.plugin.facts(),
                "options": [describe_option(field) for field in offer.component.options().values()],
            }
            for offer in plugins.offers(kind)
        ],
        "quarantined": [
            {**each.plugin.facts(), "cause": each.cause} for each in plugins.quarantined
        ],
    }


def describe_option(field: attrs.Attribute[Any]) -> dict[str, Any]:
    """One key of a component's table. `default` is null where there is none or no value,
    `argument` where no option of requests sets it.
    """
    default = field.default
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # attrs types Factory as a function
        default = default.factory()  # type: ignore[union-attr]
    required = default is attrs.NOTHING
    kind = field.metadata.get("kind")
    if kind == "run":
        type_phrase = "a finished run"
    elif kind:
        type_phrase = f"a component, {kind}"
    else:
        type_phrase = phrase(field.type)
    return {
        "name": field.name,
        "type": type_phrase,
        "required": required,
        "default": None if required else plain(default),
        "help": field.metadata.get("help", ""),
        "argument": field.metadata.get("argument"),
    }
