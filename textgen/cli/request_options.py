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

from textgen.pipeline.options import GenerateOptions, RequestOptions
from textgen.pipeline.raw_pipeline import toml_value
from textgen.plugin.registry import PluginSet

_DECODING: Final = {
    field.name: field
    for field in attrs.fields(attrs.resolve_types(RequestOptions))
    if field.metadata  # the others are each command's own
}
_STRATEGY: Final = attrs.fields_dict(attrs.resolve_types(GenerateOptions))["strategy"]


def request_options(plugins: PluginSet) -> dict[str, attrs.Attribute[Any]]:
    """The options by name: those of decoding, then those that samplers take."""
    fields = {**_DECODING, "strategy": _STRATEGY}
    for name, takers in plugins.sampling_options().items():
        component = takers[0].component
        attrs.resolve_types(component.config)
        fields.setdefault(name, component.options()[component.arguments()[name]])
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
    return toml_value(text, name)


class RequestCommand(click.Command):
    """A command that also takes the options of a request, and gets those given as `options`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, and gather the options of the request into one argument."""
        ctx.params["options"] = {}
        return super().parse_args(ctx, args)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's own options, then those of requests, then --help."""
        own = super().get_params(ctx)
        flags = {flag for parameter in own for flag in parameter.opts}
        options = [_option(*each) for each in request_options(ctx.obj.plugins).items()]
        return [*own[:-1], *(o for o in options if flags.isdisjoint(o.opts)), own[-1]]


def _option(name: str, field: attrs.Attribute[Any]) -> click.Option:
    """An option of the command. A list is given by repeating it."""
    flag = "--" + name.replace("_", "-")
    wanted, phrase = field.type, field.metadata["help"]
    text = f"{phrase[:1].upper()}{phrase[1:]}."
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


def unescaped(text: str) -> str:
    """A text that was typed, with \\n as line break, \\t as tab and \\\\ as backslash."""
    escapes = {"n": "\n", "t": "\t", "\\": "\\"}
    return re.sub(r"\\([nt\\])", lambda escape: escapes[escape[1]], text)


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
        return unescaped(value) if param.multiple else value


def _is_text(wanted: Any) -> bool:
    """Whether the characters that are typed are the value: a text, or a table written in it as
    JSON.
    """
    return set(get_args(wanted) or [wanted]) <= {str, dict[str, Any], NoneType}
