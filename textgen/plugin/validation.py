"""Checks a plugin's module: gives its components, or says what is wrong with it."""

from __future__ import annotations

import inspect
import keyword
import re
import sys
from collections.abc import Sequence
from typing import Any, Final

import attrs
import pluggy

from textgen.plugin import discovery, hookspecs
from textgen.plugin.component import (
    HOOKS,
    NAME,
    OWN_DISTRIBUTION,
    REQUEST_OPTIONS,
    UNPACKAGED,
    Component,
    Offer,
    Plugin,
)
from textgen.plugin.structure import Reader, plain
from textgen.plugin.tracebacks import raised_at
from textgen.suggest import nearest

_ARGUMENT: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


class UnfitError(Exception):
    """A plugin does not meet the contract; the text says how."""


class ClashError(UnfitError):
    """A plugin offers what another of the same distribution offers."""


def offers_of(plugin: Plugin, module: object) -> list[Offer]:
    """The components of one plugin. Raises if anything is wrong with it; `cause_of` gives the reason as text.

    Each plugin has its own pluggy manager, so that a hook call reaches only this plugin.
    """
    _check_api(module)
    _check_markers(module)
    manager = pluggy.PluginManager("textgen")
    manager.add_hookspecs(hookspecs)
    manager.register(module, plugin.name)
    callers = manager.get_hookcallers(module)
    if not callers:
        raise UnfitError("it offers nothing: there is no hook in it, marked with @textgen.hookimpl")
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        name = next(caller.name for caller in callers if not caller.has_spec())
        raise UnfitError(
            f"there is no hook {name!r}; {nearest(name, HOOKS) or 'see docs/hooks.md'}"
        ) from error
    offers = []
    for caller in callers:
        try:
            results = caller()
        except (Exception, SystemExit) as error:
            entry = str(getattr(module, "__module__", None) or getattr(module, "__name__", ""))
            raise UnfitError(
                f"{caller.name} failed: {cause_of(error, plugin, entry, placed=True)}"
            ) from error
        for result in results or [None]:  # pluggy omits the result of a hook that returns None
            offers += _components(plugin, caller.name, result)
    return offers


def _check_api(module: object) -> None:
    wanted = getattr(module, "TEXTGEN_PLUGIN_API", 1)
    if not isinstance(wanted, int):
        raise UnfitError(f"its TEXTGEN_PLUGIN_API is {wanted!r}, and must be an integer such as 1")
    if wanted > hookspecs.PLUGIN_API_VERSION:
        raise UnfitError(
            f"it needs plugin API {wanted}, and this textgen has {hookspecs.PLUGIN_API_VERSION}; "
            f"upgrade {OWN_DISTRIBUTION}"
        )


def _check_markers(module: object) -> None:
    """Refuse hooks without a marker: pluggy would ignore them."""
    for name in HOOKS:
        hook = getattr(module, name, None)
        if (
            callable(hook)
            and not hasattr(hook, "textgen_impl")
            and not hasattr(hook, "textgen_spec")
        ):
            raise UnfitError(f"{name} is not marked with @textgen.hookimpl")


def _components(plugin: Plugin, hook: str, result: Any) -> list[Offer]:
    if not isinstance(result, list | tuple):
        raise UnfitError(
            f"{hook} must return a list of Component records, and returned {type(result).__name__}"
        )
    for component in result:
        if not isinstance(component, Component):
            raise UnfitError(
                f"{hook} must return Component records, and one is of type {type(component).__name__}"
            )
        _check_component(hook, component)
    names = [component.name for component in result]
    if len(set(names)) < len(names):
        raise UnfitError(f"{hook} returned two components of one name: {', '.join(names)}")
    return [Offer(HOOKS[hook], component, plugin) for component in result]


def _check_component(hook: str, component: Component) -> None:
    label = f"{hook}: component {component.name!r}"
    if not isinstance(component.name, str) or not NAME.fullmatch(component.name):
        raise UnfitError(f"{label}: a name is lower-case words joined by hyphens")
    config = component.config
    if not isinstance(config, type) or not attrs.has(config):
        raise UnfitError(f"{label}: config must be an attrs class, and is {config!r}")
    if not component.summary and sys.flags.optimize < 2:  # python -OO leaves docstrings out
        raise UnfitError(f"{label}: its config class {config.__name__} has no docstring")
    if not callable(component.build):
        raise UnfitError(
            f"{label}: build must be callable, and is {type(component.build).__name__}"
        )
    if fault := miscalled(component.build, ("config", "context")):
        raise UnfitError(f"{label}: build {fault}")
    try:
        attrs.resolve_types(config)
    except Exception as error:
        raise UnfitError(
            f"{label}: the types of {config.__name__} cannot be read: {error}"
        ) from error
    if untyped := next(
        (name for name, field in component.options().items() if field.type is None), ""
    ):
        raise UnfitError(
            f"{label}: {untyped} has no type; declare it as in `{untyped}: int = option(…)`"
        )
    if "type" in component.options():
        raise UnfitError(f"{label}: an option cannot be called 'type', which chooses the component")
    _check_defaults(label, component)
    _check_arguments(label, component)
    if HOOKS.get(hook) == "command":
        _check_command(label, component)


def _check_defaults(label: str, component: Component) -> None:
    """Refuse defaults that the type or the validator refuses: a run would blame the pipeline that they end up in."""
    reader = Reader()
    for name, field in component.options().items():
        factory = isinstance(field.default, attrs.Factory)  # type: ignore[arg-type]
        made = factory or field.converter or field.metadata.get("kind")
        unset = field.default is attrs.NOTHING or (
            field.default is None and field.validator is None
        )
        if not made and not unset:
            reader.field(field, plain(field.default), name)
    if reader.faults:
        raise UnfitError(f"{label}: the default of {reader.faults[0]}")


def _check_arguments(label: str, component: Component) -> None:
    """Refuse names for options of requests that cannot be keywords and options of the command line, or are taken."""
    taken = list(REQUEST_OPTIONS)
    for name, field in component.options().items():
        argument = field.metadata.get("argument", "")
        if argument == "":
            continue
        given = f"{label}: the argument {argument!r} of its option {name!r}"
        if (
            not isinstance(argument, str)
            or not _ARGUMENT.fullmatch(argument)
            or keyword.iskeyword(argument)
        ):
            raise UnfitError(
                f"{given} must be lower-case words joined by underscores, and no keyword of Python"
            )
        if argument in taken:
            whose = (
                "a request takes itself"
                if argument in REQUEST_OPTIONS
                else "another of its options has"
            )
            raise UnfitError(f"{given} is a name that {whose}; choose another")
        taken.append(argument)


def _check_command(label: str, component: Component) -> None:
    """Refuse a command that needs options: no table sets them, and --help builds every command."""
    for name, field in component.options().items():
        if field.default is attrs.NOTHING:
            raise UnfitError(
                f"{label}: its option {name!r} has no default, and nothing sets a command's; give it one"
            )
    try:
        component.config()
    except Exception as error:
        raise UnfitError(
            f"{label}: {component.config.__name__} refuses its own defaults: {error}"
        ) from error


def miscalled(function: Any, arguments: Sequence[str]) -> str:
    """How a function is declared that cannot be called with arguments of these names; "" where it can be."""
    try:
        signature = inspect.signature(function, follow_wrapped=False)
    except (ValueError, TypeError):  # of a function in C
        return ""
    try:
        signature.bind(*arguments)
    except TypeError:
        bare = [each.replace(annotation=each.empty) for each in signature.parameters.values()]
        return f"takes {inspect.Signature(bare)}, and is called with ({', '.join(arguments)})"
    return ""


def cause_of(error: BaseException, plugin: Plugin, entry: str = "", *, placed: bool = False) -> str:
    """What went wrong in a plugin, as a phrase.

    entry    the module that its entry point names
    placed   say the line that raised it, too
    """
    if isinstance(error, UnfitError):
        return str(error)
    if isinstance(error, pluggy.PluginValidationError):
        said = "; ".join(str(error).splitlines())
        return f"{said}; a hook takes no arguments" if "declared in the hookimpl" in said else said
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"it needs the module {error.name!r}, which is not installed ({_advice(error.name, plugin, entry)})"
    place = raised_at(error, entry) if placed else ""
    return (f"{type(error).__name__}: {error}" if str(error) else type(error).__name__) + place


def _advice(module: str, plugin: Plugin, entry: str) -> str:
    """What to do about a missing module. A package is suggested only if the plugin's own package requires it."""
    if entry == module or entry.startswith(f"{module}."):
        return "its entry point names a module that the package does not contain"
    name = discovery.normalized(module.partition(".")[0])
    if plugin.distribution == UNPACKAGED:
        return "install what has it, or make a package of both if it is a file beside this one"
    if name == plugin.distribution:
        return f"{plugin.distribution} does not contain it"
    if name in discovery.requirements(plugin.distribution, extras=True):
        return f"pip install {name}"
    return f"{plugin.distribution} does not declare which package has it; ask its author"
