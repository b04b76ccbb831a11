"""The options of a request, made of the tables of the engine and the samplers: for
`textgen generate` and sessions.
"""

from __future__ import annotations

import contextlib
import re
from types import NoneType
from typing import Any, Final, get_args, get_origin

import attrs
import click
from click.core import ParameterSource

from textgen.errors import Fault, UsageError
from textgen.pipeline.options import GenerateOptions, RequestOptions
from textgen.pipeline.raw_pipeline import toml_value
from textgen.plugin.registry import PluginSet

_DECODING: Final = {
    field.name: field
    for field in attrs.fields(attrs.resolve_types(RequestOptions))
    if field.metadata  # the others are each command's own
}
_STRATEGY: Final = attrs.fields_dict(attrs.resolve_types(GenerateOptions))["strategy"]


def request_options(plugins: PluginSet, *, of_plugins: bool) -> dict[str, attrs.Attribute[Any]]:
    """The options by name: those of decoding, then those that samplers take.

    of_plugins  those of plugins' samplers too, which imports all plugins
    """
    fields = {**_DECODING, "strategy": _STRATEGY}
    takers = [*plugins.sampling_options().items()]
    kinds = ("sampler", "strategy") if of_plugins else ()
    for offer in [offer for kind in kinds for offer in plugins.offers(kind)]:
        takers += [(name, offer) for name in offer.component.arguments()]
    for name, offer in takers:
        key = offer.component.arguments()[name]
        fields.setdefault(name, attrs.fields_dict(attrs.resolve_types(offer.component.config))[key])
    return fields


def parse_value(name: str, wanted: Any, text: str) -> Any:
    """An option's value as it was typed.

    A value of another type than `wanted` is for the engine to refuse.
    """
    kinds = get_args(wanted) or (wanted,)
    if text == "none" and NoneType in kinds:
        return None
    if _is_text(wanted) and text[:1] not in ('"', "'"):
        return text
    for number in (int, float):
        if number in kinds:
            with contextlib.suppress(ValueError):
                return number(text)
    value = toml_value(text)
    if isinstance(value, Fault):
        raise UsageError(f"{name}: {value}")
    return value


class RequestCommand(click.Command):
    """A command that also takes the options of a request, and gets those given as `options`.

    Plugins are imported for the options of their samplers only for --help and for an option not
    known otherwise.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, and gather the options of the request into one argument."""
        ctx.params["options"] = {}
        try:
            return super().parse_args(ctx, [*args])
        except click.NoSuchOption:
            ctx.obj.with_plugin_options = True
            return super().parse_args(ctx, args)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's own options, then those of requests, then --help."""
        own = super().get_params(ctx)
        flags = {flag for parameter in own for flag in parameter.opts}
        table = request_options(ctx.obj.plugins(), of_plugins=ctx.obj.with_plugin_options)
        options = [_option(name, field) for name, field in table.items()]
        return [*own[:-1], *(o for o in options if flags.isdisjoint(o.opts)), own[-1]]

    def get_help(self, ctx: click.Context) -> str:
        """The help, with the options of plugins' samplers."""
        ctx.obj.with_plugin_options = True
        return super().get_help(ctx)


def _option(name: str, field: attrs.Attribute[Any]) -> click.Option:
    """An option of the command. A list is given by repeating it."""
    flag, wanted, phrase = "--" + name.replace("_", "-"), field.type, field.metadata["help"]
    text = f"{phrase[:1].upper()}{phrase[1:]}."
    if name not in _DECODING and field is not _STRATEGY:
        text = f"Sampling: {phrase}."
    lists = [kind for kind in (wanted, *get_args(wanted)) if get_origin(kind) in (list, tuple)]
    kind: Any = _Value(flag, get_args(lists[0])[0] if lists else wanted)
    if wanted is bool:
        flag, kind = f"{flag}/--no-{flag[2:]}", None
    return click.Option(
        [flag],
        type=kind,
        default=None,
        multiple=bool(lists),
        help=f"{text} May be given several times." if lists else text,
        callback=_gather,
        expose_value=False,
    )


def _gather(ctx: click.Context, option: click.Parameter, value: Any) -> None:
    """Note the value of an option of the request, if it is given."""
    if ctx.get_parameter_source(str(option.name)) is not ParameterSource.DEFAULT:
        ctx.params["options"][option.name] = value


class _Value(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """Reads a value by `parse_value`, and a text as it is."""

    def __init__(self, flag: str, wanted: Any) -> None:
        kinds = {wanted, *get_args(wanted)}
        self.name = "integer" if int in kinds else "float" if float in kinds else "text"
        self.flag, self.wanted = flag, wanted

    def convert(self, value: Any, param: Any, ctx: click.Context | None) -> Any:
        """The value of one option; in a text that may be given several times, \\n is a line
        break.
        """
        if not _is_text(self.wanted):
            return parse_value(self.flag, self.wanted, value)
        return re.sub(r"\\([nt\\])", _unescaped, value) if param.multiple else value


def _unescaped(escape: re.Match[str]) -> str:
    return {"n": "\n", "t": "\t", "\\": "\\"}[escape[1]]


def _is_text(wanted: Any) -> bool:
    """Whether the characters that are typed are the value: a text, or a table written in it as
    JSON.
    """
    return set(get_args(wanted) or [wanted]) <= {str, dict[str, Any], NoneType}
