"""Options that several subcommands share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import click

from textgen.errors import UsageError

set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a key of the pipeline, as in trainer.epochs=5. May be given several times.",
)
device_option = click.option(
    "--device", default="auto", show_default=True, metavar="NAME", help='"auto", "cpu", "cuda", "cuda:N" or "mps".'
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def device_override(device: str | None) -> list[str]:
    """`--device NAME` as an override of the pipeline."""
    return [] if device is None else [f"device={json.dumps(device)}"]


def check_folder(file: str | None) -> None:
    """Raise UsageError, before any work, when a file to write is in a folder that is not there."""
    if file is not None and not Path(file).absolute().parent.is_dir():
        raise UsageError(f"{file} cannot be written: there is no folder {Path(file).parent}")


class SamplingCommand(click.Command):
    """A command that also has an option for each key of the standard sampler, and gets those given as `sampling`."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's own options, then the sampler's."""
        own = super().get_params(ctx)
        return [*own[:-1], *self._sampling(ctx), own[-1]]

    def invoke(self, ctx: click.Context) -> Any:
        """Gather the sampling options into one argument."""
        names = [parameter.name for parameter in self._sampling(ctx)]
        given = {name: ctx.params.pop(name) for name in names if name is not None}
        ctx.params["sampling"] = {name: _value(value) for name, value in given.items() if value not in (None, ())}
        return super().invoke(ctx)

    def _sampling(self, ctx: click.Context) -> list[click.Parameter]:
        standard = ctx.find_root().obj.plugins().defaults("sampler")
        fields = standard[0].component.options().values() if standard else ()
        return [_option(field) for field in fields]


def _option(field: attrs.Attribute[Any]) -> click.Option:
    flag = "--" + field.name.replace("_", "-")
    text = f"Sampling: {field.metadata['help']}."
    if field.type in (int, float):
        return click.Option([flag], type=field.type, help=text)
    return click.Option([flag], multiple=True, metavar="TOKEN=VALUE", help=text)


def _value(value: Any) -> Any:
    """Repeated TOKEN=VALUE as a table; anything else as it is."""
    if not isinstance(value, tuple):
        return value
    table = {}
    for item in value:
        token, equals, number = item.rpartition("=")
        try:
            table[token] = float(number)
        except ValueError:
            equals = ""
        if not equals:
            raise click.BadParameter(f"expected TOKEN=VALUE, given {item!r}")
    return table
