"""The options of a request, made of the tables of the engine and the samplers: for `textgen generate` and sessions."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, get_args, get_origin

import attrs
import click
from click.core import ParameterSource

from textgen.cli.prompts import as_text, check_utf8
from textgen.errors import Fault, UsageError
from textgen.pipeline.document import toml_value
from textgen.pipeline.options import DecodingOptions
from textgen.plugin.registry import PluginSet

_DECODING: Final = attrs.fields_dict(attrs.resolve_types(DecodingOptions))
_MORE_HELP: Final = {
    "max_new_tokens": "'none' continues until it is stopped.",
    "stop": r"\n is a line break, \t a tab, \\ a backslash.",
    "time_limit": "All texts share it.",
    "seed": "'random' draws one, and reports it on stderr or in the JSON lines.",
    "logit_bias": r"As in e=-2; a line break is written $'\n=-2'.",
}
_METAVARS: Final[Mapping[Any, str]] = {int: "INTEGER", float: "FLOAT"}


def request_options(plugins: PluginSet, *, of_plugins: bool) -> dict[str, attrs.Attribute[Any]]:
    """The options by name: those of decoding, then those that samplers take.

    of_plugins  those of plugins' samplers too, which imports all plugins
    """
    fields = dict(_DECODING)
    takers = [(name, offer, key) for name, (offer, key) in plugins.sampling_options().items()]
    for offer in plugins.offers("sampler") if of_plugins else ():
        takers += [(name, offer, key) for name, key in offer.component.arguments().items()]
    for name, offer, key in takers:
        fields.setdefault(name, attrs.fields_dict(attrs.resolve_types(offer.component.config))[key])
    return fields


def parse_value(name: str, wanted: Any, text: str) -> Any:
    """An option's value as it was typed. What is not of the type `wanted` is for the engine to refuse."""
    kinds = get_args(wanted) or (wanted,)
    if text == "none" and type(None) in kinds:
        return None
    if _is_text(wanted) and text[:1] not in ('"', "'"):
        return text
    for number in (int, float):
        if number in kinds:
            with contextlib.suppress(ValueError):
                return number(text)
    if _is_token_table(wanted) and not text.startswith("{"):
        return token_table(name, [text])
    value = toml_value(text)
    if isinstance(value, Fault):
        raise UsageError(f"{name}: {value}" + "; write {e = -5}" * _is_token_table(wanted))
    return value


def token_table(option: str, items: Iterable[str]) -> dict[str, float]:
    """Repeated TOKEN=VALUE as a table. Raises UsageError, naming the option."""
    table: dict[str, float] = {}
    for item in items:
        token, equals, number = item.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            equals = ""
        if not equals:
            raise UsageError(f"{option} expects TOKEN=VALUE, as in e=-2, given {item!r}")
        if not math.isfinite(value):
            raise UsageError(f"{option} {item!r}: expected a finite number; -100 forbids a token")
        if token in table:
            raise UsageError(f"{option} gives the token {token!r} more than once; leave one out")
        table[token] = value
    return table


class RequestCommand(click.Command):
    """A command that also takes the options of a request, and gets those given as `options`.

    Plugins are imported for the options of their samplers only for --help and for an option not known otherwise.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Decide whether the options of plugins are needed, then parse."""
        known = {
            name
            for parameter in self.get_params(ctx)
            for name in (*parameter.opts, *parameter.secondary_opts)
        }
        given = {arg.partition("=")[0] for arg in args if arg.startswith("--")} | {
            "-h"
        }.intersection(args)
        ctx.obj.with_plugin_options = bool(given - known | given & {"-h", "--help"})
        return super().parse_args(ctx, args)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's own options, then those of requests, then --help."""
        own = super().get_params(ctx)
        return [*own[:-1], *self._options(ctx), own[-1]]

    def invoke(self, ctx: click.Context) -> Any:
        """Gather the options of the request into one argument."""
        given = {
            name: ctx.params.pop(name) for option in self._options(ctx) if (name := option.name)
        }
        default = ParameterSource.DEFAULT
        ctx.params["options"] = {
            n: v for n, v in given.items() if ctx.get_parameter_source(n) is not default
        }
        return super().invoke(ctx)

    def _options(self, ctx: click.Context) -> list[click.Option]:
        context = ctx.find_root().obj
        own = {name for parameter in super().get_params(ctx) for name in parameter.opts}
        table = request_options(context.plugins(), of_plugins=context.with_plugin_options)
        options = [_option(name, field) for name, field in table.items()]
        return [option for option in options if not own.intersection(option.opts)]


def _option(name: str, field: attrs.Attribute[Any]) -> click.Option:
    """An option of the command. A list or table is given by repeating it."""
    flag, wanted, phrase = "--" + name.replace("_", "-"), field.type, field.metadata["help"]
    text = (
        f"{phrase[:1].upper()}{phrase[1:]}."
        if name in _DECODING
        else f"Changes the run's samplers: {phrase}."
    )
    text += f" {_MORE_HELP[name]}" if name in _MORE_HELP else ""
    if wanted is bool:
        return click.Option([f"{flag}/--no-{flag[2:]}"], default=None, help=text)
    if get_origin(wanted) is Literal:
        return click.Option([flag], type=click.Choice(get_args(wanted)), help=text)
    kinds = (wanted, *get_args(wanted))
    item = next((get_args(kind)[0] for kind in kinds if get_origin(kind) in (list, tuple)), None)

    def convert(_ctx: click.Context, _parameter: click.Parameter, given: Any) -> Any:
        given = as_text(given) if isinstance(given, str) else given and tuple(map(as_text, given))
        for text in [given] if isinstance(given, str) else given or ():
            check_utf8(text, f"the value of {flag}")
        if not given or _is_text(wanted):
            return given
        if _is_token_table(wanted):
            return token_table(flag, given)
        if item is None:
            return given if wanted is str else parse_value(flag, wanted, given)
        return tuple(
            _unescaped(text) if item is str else parse_value(flag, item, text) for text in given
        )

    kind = next((_METAVARS[kind] for kind in (item, *kinds) if kind in _METAVARS), "TEXT")
    metavar = "TOKEN=VALUE" if _is_token_table(wanted) else kind
    repeated = item is not None or _is_token_table(wanted)
    text += " May be given several times." * repeated
    return click.Option([flag], multiple=repeated, metavar=metavar, callback=convert, help=text)


def _is_text(wanted: Any) -> bool:
    """Whether what is typed is the value itself: a text, or a table written in it as JSON."""
    return set(get_args(wanted) or [wanted]) <= {str, dict[str, Any], type(None)}


def _is_token_table(wanted: Any) -> bool:
    return get_args(wanted) == (str, float)


def _unescaped(text: str) -> str:
    return re.sub(r"\\([nt\\])", lambda escape: {"n": "\n", "t": "\t"}.get(escape[1], "\\"), text)
