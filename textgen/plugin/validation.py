"""Checks a plugin's module: gives its components, or says what is wrong with it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Mapping
from typing import Any, Final

import attrs
import pluggy

from textgen.errors import PluginWarning, TextgenError
from textgen.plugin import hookspecs
from textgen.plugin.component import (
    HOOKS,
    KINDS,
    KINDS_HOOK,
    NAME,
    REQUEST_OPTIONS,
    Component,
    Plugin,
    RegisteredComponent,
)
from textgen.plugin.config_reader import ConfigReader, Faults
from textgen.plugin.configured import plain
from textgen.plugin.tracebacks import shown_line

_ARGUMENT: Final = re.compile(r"[a-z][a-z0-9_]*")


class UnfitError(Exception):
    """A plugin does not meet the contract; the text says how."""


def offers_of(plugin: Plugin, module: object) -> list[RegisteredComponent]:
    """The components of one plugin.

    Raises if anything is wrong with it; `cause_of` gives the reason as text.

    Each plugin has its own pluggy manager, so that a hook call reaches only this plugin.
    """
    manager = pluggy.PluginManager("textgen")
    manager.add_hookspecs(hookspecs)
    manager.register(module, plugin.name)
    callers = manager.get_hookcallers(module)
    if not callers:
        raise UnfitError("it offers nothing: there is no hook in it, marked with @textgen.hookimpl")
    offers = []
    for caller in callers:
        if not caller.has_spec():
            known = ", ".join([*HOOKS, KINDS_HOOK])
            cause = f"there is no hook {caller.name!r}; there are {known}"
            if all(each.optionalhook for each in caller.get_hookimpls()):
                continue
            if not any(each.has_spec() for each in callers):
                raise UnfitError(cause)
            warnings.warn(f"{plugin} is used without one: {cause}", PluginWarning, stacklevel=2)
            continue
        for result in caller() or [None]:  # pluggy omits the result of a hook that returns None
            if caller.name != KINDS_HOOK:
                offers += _offers(plugin, caller.name, HOOKS[caller.name], result)
                continue
            if not isinstance(result, Mapping) or not set(KINDS).isdisjoint(result):
                raise UnfitError(f"{caller.name} must return lists by kinds that have no hook")
            for kind, components in result.items():
                offers += _offers(plugin, caller.name, kind, components)
    return offers


def _offers(plugin: Plugin, hook: str, kind: str, components: Any) -> list[RegisteredComponent]:
    given = components if isinstance(components, list | tuple) else [components]
    for component in given:
        if not isinstance(component, Component):
            what = type(component).__name__
            raise UnfitError(f"{hook} must return a list of Component records, and returned {what}")
        try:
            _check(component)
            if kind in ("command", "run"):  # no table sets its options
                component.config()
        except Exception as error:
            raise UnfitError(f"{hook}: component {component.name!r}: {error}") from error
    return [RegisteredComponent(kind, component, plugin) for component in given]


def _check(component: Component) -> None:
    """Raise for what a run would blame on the pipeline, or on textgen."""
    if not NAME.fullmatch(component.name):
        raise UnfitError("a name is lower-case words joined by hyphens")
    if not attrs.has(component.config):
        raise UnfitError(f"config must be an attrs class, and is {component.config!r}")
    attrs.resolve_types(component.config)
    taken, faults = list(REQUEST_OPTIONS), Faults()
    for name, field in component.options().items():
        if name == "type" or field.type is None:
            cause = "has no type" if field.type is None else "cannot be set: a table's type is that"
            raise UnfitError(f"its option {name!r} {cause}")
        is_made = isinstance(field.default, attrs.Factory)  # type: ignore[arg-type]
        if not (is_made or field.default in (attrs.NOTHING, None) or field.metadata.get("kind")):
            with faults.collected():
                ConfigReader().at(name).field(field, plain(field.default))
        if argument := field.metadata.get("argument"):
            if argument in taken or not _ARGUMENT.fullmatch(argument):
                cause = "is taken, or is not lower-case words joined by underscores"
                raise UnfitError(f"the argument {argument!r} of its option {name!r} {cause}")
            taken.append(argument)
    if faults:
        raise UnfitError(f"its defaults are refused: {'; '.join(map(str, faults))}")


def cause_of(error: BaseException, packages: Collection[str]) -> str:
    """The fault of a plugin as a phrase, with the last line of these packages that raised it."""
    if isinstance(error, UnfitError | TextgenError):
        return str(error)
    text = "; ".join(str(error).splitlines())
    kind = type(error).__name__
    return (f"{kind}: {text}" if text else kind) + shown_line(error, packages)
