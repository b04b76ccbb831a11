"""PluginSet: finds plugins, quarantines what is broken, and knows whose every component is."""

from __future__ import annotations

import inspect
import logging
import os
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

import attrs
import pluggy

from textgen.errors import Fault, PluginError, PluginWarning
from textgen.plugin import discovery, hookspecs
from textgen.plugin.component import KINDS, Component
from textgen.plugin.discovery import Found, Plugin
from textgen.suggest import nearest

logger = logging.getLogger("textgen")
OWN_DISTRIBUTION: Final = "textgen-engine"
HOOKS: Final[Mapping[str, str]] = MappingProxyType(
    {f"textgen_{'corpora' if kind == 'corpus' else kind + 's'}": kind for kind in KINDS}
)
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@attrs.frozen
class Offer:
    """A component, what kind it is, and whose."""

    kind: str
    component: Component
    plugin: Plugin

    @property
    def qualified_name(self) -> str:
        """`package:name`, which always means this one."""
        return f"{self.plugin.distribution}:{self.component.name}"


@attrs.frozen
class Quarantined:
    """A plugin that is left out, and why."""

    plugin: Plugin
    cause: str
    error: BaseException | None = attrs.field(default=None, repr=False, eq=False)

    def __str__(self) -> str:
        return (
            f"plugin {self.plugin.name!r} ({self.plugin.distribution} {self.plugin.version}) is left out: {self.cause}"
        )


class PluginSet:
    """The plugins of one engine. Nothing here is shared with another set, and any thread may use it.

    Which plugins are installed is known from their metadata; one is imported when something needs it: a component of
    its package, a name that no built-in has, or a list of all there is.

    disable   plugins to leave alone: names of entry points, of distributions, or `distribution:entry-point`
    strict    raise PluginError where a plugin would be quarantined; import all at once. `TEXTGEN_STRICT_PLUGINS=1` in
              the environment is the same
    patience  seconds that a list of all there is may wait for imports; what takes longer is named and left out of it
    """

    def __init__(
        self, *, disable: Iterable[str] = (), strict: bool | None = None, patience: float | None = None
    ) -> None:
        self.disabled = frozenset(disable)
        self.quarantined: list[Quarantined] = []
        self._patience = patience
        self._offers: list[Offer] = []
        self._waiting: list[Found] = []
        self._lock = threading.RLock()
        self._strict = os.environ.get("TEXTGEN_STRICT_PLUGINS") == "1" if strict is None else strict
        self._manager = pluggy.PluginManager("textgen")
        self._manager.add_hookspecs(hookspecs)

    @classmethod
    def discover(
        cls, *, disable: Iterable[str] = (), strict: bool | None = None, patience: float | None = None
    ) -> PluginSet:
        """Every installed plugin, each loaded apart from the others when it is needed.

        With `TEXTGEN_DISABLE_PLUGIN_AUTOLOAD=1` in the environment, the built-in set alone.
        """
        plugins = cls(disable=disable, strict=strict, patience=patience)
        only_own = os.environ.get("TEXTGEN_DISABLE_PLUGIN_AUTOLOAD") == "1"
        plugins._waiting = [
            found
            for found in discovery.installed()
            if not discovery.is_among(found.plugin, plugins.disabled)
            and not (only_own and found.plugin.distribution != OWN_DISTRIBUTION)
        ]
        if plugins._strict:
            plugins._load_all()
        return plugins

    def register(self, module: object, name: str, *, distribution: str = "unpackaged", version: str = "0") -> None:
        """Add a plugin that is not an installed package: a module or any object with hook implementations."""
        plugin = Plugin(name, distribution, version)
        with self._lock:
            try:
                self._offers += self._collect(plugin, module)
            except (Exception, SystemExit) as error:
                self._quarantine(plugin, cause_of(error, plugin), error)

    def offers(self, kind: str | None = None) -> list[Offer]:
        """What is on offer, of one kind or of all, sorted by kind and name."""
        with self._lock:
            self._load_all(self._patience)
            return self._loaded(kind)

    def defaults(self, kind: str) -> list[Offer]:
        """The components of a kind that are used when none is named: the built-in ones, if there are any."""
        with self._lock:
            self._load(lambda plugin: plugin.distribution == OWN_DISTRIBUTION)
            own = [offer for offer in self._loaded(kind) if offer.component.default]
            return own or [offer for offer in self.offers(kind) if offer.component.default]

    def find(self, kind: str, name: str) -> Offer | Fault:
        """The component that `name` (or `package:name`) means, or what is wrong with the name.

        Where several plugins offer one name, the built-in one keeps it; among others neither wins.
        """
        package, _, bare = name.rpartition(":")
        distribution = discovery.normalized(package) if package else OWN_DISTRIBUTION
        with self._lock:
            self._load(lambda plugin: plugin.distribution == distribution)
            same = [offer for offer in self._loaded(kind) if offer.component.name == bare]
            named = [offer for offer in same if offer.plugin.distribution == distribution]
            if len(named) == 1:
                return named[0]
            self._load_all()
            return self._find_anywhere(kind, name, bare, distribution if package else None)

    def _find_anywhere(self, kind: str, name: str, bare: str, distribution: str | None) -> Offer | Fault:
        same = [
            offer
            for offer in self._loaded(kind)
            if offer.component.name == bare and distribution in (None, offer.plugin.distribution)
        ]
        if len(same) == 1:
            return same[0]
        if same:
            names = " or ".join(repr(offer.qualified_name) for offer in same)
            return Fault("", f"{len(same)} plugins offer a {kind} called {bare!r}", "", f"write {names}")
        known = [offer.component.name for offer in self._loaded(kind)]
        hint = nearest(bare, known) or f"there are {', '.join(sorted(set(known))) or 'none'}"
        installed = [found.plugin for found in discovery.installed()]
        here = {offer.plugin.distribution for offer in self._offers} | {plugin.distribution for plugin in installed}
        missing = discovery.unmarked(distribution or f"textgen-{bare}")
        if missing or (distribution is not None and distribution not in here):
            hint = missing or f"{distribution} is not installed"
        meant = {distribution, bare, f"textgen-{bare}"}
        left_out = [q for q in self.quarantined if q.plugin.distribution in meant or q.plugin.name == bare]
        if left_out:  # a name like it would only mislead
            hint = "; ".join(f"{q.plugin.distribution} is left out: {q.cause}" for q in left_out)
        if disabled := sorted({plugin.name for plugin in installed if discovery.is_among(plugin, self.disabled)}):
            hint += "; disabled: " + ", ".join(disabled)
        if others := sorted({q.plugin.distribution for q in self.quarantined if q not in left_out}):
            hint += "; left out: " + ", ".join(others)
        return Fault("", f"no {kind} is called {name!r}", "", hint)

    def clashes(self) -> list[tuple[Offer, ...]]:
        """The groups of components that share a kind and a name."""
        groups: dict[tuple[str, str], list[Offer]] = {}
        for offer in self.offers():
            groups.setdefault((offer.kind, offer.component.name), []).append(offer)
        return [tuple(group) for group in groups.values() if len(group) > 1]

    def _loaded(self, kind: str | None) -> list[Offer]:
        chosen = [offer for offer in self._offers if kind in (None, offer.kind)]
        return sorted(chosen, key=lambda o: (KINDS.index(o.kind), o.component.name, o.plugin.distribution))

    def _load_all(self, patience: float | None = None) -> None:
        self._load(lambda plugin: plugin.distribution == OWN_DISTRIBUTION)
        self._load(lambda _: True, patience)

    def _load(self, wanted: Callable[[Plugin], bool], patience: float | None = None) -> None:
        """Import the plugins that are wanted and not imported yet, and collect what they offer."""
        found = [each for each in self._waiting if wanted(each.plugin)]
        self._waiting = [each for each in self._waiting if not wanted(each.plugin)]
        for each, result in zip(found, discovery.imported(found, patience), strict=True):
            plugin, place = each.plugin, each.entry_point.value
            module = each.entry_point.module
            if not result.done:
                cause = f"importing {place} takes longer than {patience:g} s; --patience waits longer"
                self._quarantine(plugin, cause, TimeoutError(cause))
            elif result.error is not None:
                cause = f"importing {place} failed: {cause_of(result.error, plugin, module)}"
                self._quarantine(plugin, cause, result.error)
            else:
                self.register(result.module, plugin.name, distribution=plugin.distribution, version=plugin.version)

    def _collect(self, plugin: Plugin, module: object) -> list[Offer]:
        """What one plugin offers; raises if anything about it is wrong, leaving nothing behind."""
        wanted = getattr(module, "TEXTGEN_PLUGIN_API", 1)
        if not isinstance(wanted, int):
            raise _UnfitError(f"its TEXTGEN_PLUGIN_API is {wanted!r}, and must be an integer such as 1")
        if wanted > hookspecs.PLUGIN_API_VERSION:
            raise _UnfitError(
                f"it needs plugin API {wanted}, and this textgen has {hookspecs.PLUGIN_API_VERSION}; "
                f"upgrade {OWN_DISTRIBUTION}"
            )
        if (other := self._manager.get_name(module)) is not None:
            raise _UnfitError(f"it is the module of {other} too; one of the two entry points is enough")
        key = f"{plugin.distribution}:{plugin.name}"
        _check_hooks(module)
        try:
            self._manager.register(module, key)
            offers = []
            callers = self._manager.get_hookcallers(module)
            if not callers:
                raise _UnfitError("it offers nothing: there is no hook in it, marked with @textgen.hookimpl")
            for caller in callers:
                for implementation in caller.get_hookimpls():
                    if implementation.plugin is module:
                        offers += _components(plugin, caller.name, implementation.function())
            self._check_apart(offers)
            return offers
        except BaseException:
            if self._manager.has_plugin(key):
                self._manager.unregister(name=key)
            raise

    def _check_apart(self, offers: Iterable[Offer]) -> None:
        """Refuse a name that its own package has already: neither the name nor `package:name` would mean one."""
        for offer in offers:
            for other in self._offers:
                if (other.kind, other.qualified_name) == (offer.kind, offer.qualified_name):
                    raise _UnfitError(
                        f"{offer.plugin.distribution} offers the {offer.kind} {offer.component.name!r} already, by its "
                        f"plugin {other.plugin.name!r}; one of the two needs another name"
                    )

    def _quarantine(self, plugin: Plugin, cause: str, error: BaseException) -> None:
        if self._strict:
            raise PluginError(
                cause, plugin=plugin.name, distribution=plugin.distribution, version=plugin.version
            ) from error
        quarantined = Quarantined(plugin, cause, error)
        self.quarantined.append(quarantined)
        logger.warning("%s", quarantined)
        warnings.warn(str(quarantined), PluginWarning, stacklevel=3)


class _UnfitError(Exception):
    """A plugin does not meet the contract; the text says how."""


def _check_hooks(module: object) -> None:
    """Refuse misspelt hooks, and hooks whose marker was forgotten: pluggy would pass over both."""
    for name in dir(module):
        value = getattr(module, name, None)
        if not callable(value):
            continue
        if hasattr(value, "textgen_impl"):
            if name not in HOOKS:
                raise _UnfitError(f"there is no hook {name!r}; {nearest(name, HOOKS) or 'see docs/hooks.md'}")
            if asked := _arguments(value):
                raise _UnfitError(f"{name} asks for {', '.join(asked)}, and hooks take no arguments; `build` gets them")
        elif name in HOOKS and not hasattr(value, "textgen_spec"):
            raise _UnfitError(f"{name} is not marked with @textgen.hookimpl")


def _arguments(hook: Callable[..., Any]) -> list[str]:
    """The names of the arguments that a hook cannot be called without."""
    try:
        parameters = inspect.signature(hook).parameters.values()
    except (TypeError, ValueError):  # it is called all the same
        return []
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [each.name for each in parameters if each.default is each.empty and each.kind not in optional]


def _components(plugin: Plugin, hook: str, result: Any) -> list[Offer]:
    if not isinstance(result, list | tuple):
        raise _UnfitError(f"{hook} must return a list of Component records, and returned {type(result).__name__}")
    for component in result:
        if not isinstance(component, Component):
            raise _UnfitError(f"{hook} must return Component records, and one is of type {type(component).__name__}")
        _check_component(hook, component)
    names = [component.name for component in result]
    if len(set(names)) < len(names):
        raise _UnfitError(f"{hook} returned two components of one name: {', '.join(names)}")
    return [Offer(HOOKS[hook], component, plugin) for component in result]


def _check_component(hook: str, component: Component) -> None:
    label = f"{hook}: component {component.name!r}"
    if not isinstance(component.name, str) or not NAME.fullmatch(component.name):
        raise _UnfitError(f"{label}: a name is lower-case words joined by hyphens")
    config = component.config
    if not isinstance(config, type) or not attrs.has(config):
        raise _UnfitError(f"{label}: config must be an attrs class, and is {config!r}")
    if not component.summary and sys.flags.optimize < 2:  # python -OO leaves docstrings out
        raise _UnfitError(f"{label}: its config class {config.__name__} has no docstring")
    if not callable(component.build):
        raise _UnfitError(f"{label}: build must be callable, and is {type(component.build).__name__}")
    try:
        attrs.resolve_types(config)
    except Exception as error:
        raise _UnfitError(f"{label}: the types of {config.__name__} cannot be read: {error}") from error
    reserved = {"type"} & set(component.options())
    if reserved:
        raise _UnfitError(f"{label}: an option cannot be called 'type', which chooses the component")
    if HOOKS.get(hook) == "command":
        _check_defaults(label, component)


def _check_defaults(label: str, component: Component) -> None:
    """Refuse a command that its defaults cannot make: no table sets its options, and --help builds every command."""
    for name, field in component.options().items():
        if field.default is attrs.NOTHING:
            raise _UnfitError(f"{label}: its option {name!r} has no default, and nothing sets a command's; give it one")
    try:
        component.config()
    except Exception as error:
        raise _UnfitError(f"{label}: {component.config.__name__} refuses its own defaults: {error}") from error


def cause_of(error: BaseException, plugin: Plugin, entry: str = "") -> str:
    """What went wrong in a plugin, in a phrase. `entry` is the module that was being imported for its entry point."""
    if isinstance(error, _UnfitError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"it needs the module {error.name!r}, which is not installed ({_advice(error.name, plugin, entry)})"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _advice(module: str, plugin: Plugin, entry: str) -> str:
    """What to do about a module that is missing. A name is only suggested where the package itself declares it."""
    if entry == module or entry.startswith(f"{module}."):
        return "its entry point names a module that the package does not contain"
    name = discovery.normalized(module.partition(".")[0])
    if name == plugin.distribution:
        return f"{plugin.distribution} does not contain it"
    if name in discovery.requirements(plugin.distribution):
        return f"pip install {name}"
    return f"{plugin.distribution} does not declare which package has it; ask its author"
