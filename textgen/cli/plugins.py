"""textgen plugins."""

from __future__ import annotations

import json
from typing import Any

import click

from textgen.cli.options import json_option


@click.command("plugins")
@click.option("--kind", help="Only components of this kind.")
@click.option("--options/--no-options", "with_options", default=False, help="Show what each component takes.")
@json_option
@click.pass_obj
def command(settings: Any, kind: str | None, with_options: bool, as_json: bool) -> None:
    """List components: kind, name, summary, package and version; then the plugins that are left out, and why."""
    from textgen.component import KINDS
    from textgen.describe import describe
    from textgen.errors import UsageError
    from textgen.suggest import nearest

    if kind is not None and kind not in KINDS:
        hint = nearest(kind, KINDS) or f"there are {', '.join(KINDS)}"
        raise UsageError(f"no kind of component is called {kind!r}; {hint}")
    described = describe(settings.plugins(), kind)
    if as_json:
        click.echo(json.dumps(described, indent=2, ensure_ascii=False))
        return
    rows = described["components"]
    kinds, names = (max((len(row[key]) for row in rows), default=0) for key in ("kind", "name"))
    for row in rows:
        click.echo(
            f"{row['kind']:{kinds}}  {row['name']:{names}}  {row['summary']}  [{row['distribution']} {row['version']}]"
        )
        for option in row["options"] if with_options else ():
            default = (
                "required" if option["required"] else f"default {json.dumps(option['default'], ensure_ascii=False)}"
            )
            click.echo(f"{'':{kinds}}    {option['name']}: {option['type']}, {default}. {option['help']}")
    for clash in described["clashes"]:
        click.echo(f"clash: {clash['kind']} {clash['name']!r} is offered by {', '.join(clash['qualified_names'])}")
    for row in described["quarantined"]:
        click.echo(f"left out: {row['plugin']} [{row['distribution']} {row['version']}]: {row['cause']}")
