"""PluginSet: finds plugins, quarantines broken ones, and knows which plugin offers each component."""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import attrs

from textgen.errors import Fault, PluginError, PluginWarning, UsageError
from textgen.plugin import discovery
from textgen.plugin.component import (
    KINDS,
    OBJECT,
    OWN_DISTRIBUTION,
    UNPACKAGED,
    Offer,
    Plugin,
    taken_twice,
)
from textgen.plugin.discovery import InstalledPlugin
from textgen.plugin.single_file import import_file
from textgen.plugin.validation import ClashError, UnfitError, cause_of, offers_of
from textgen.suggest import nearest

logger = logging.getLogger("textgen")


@attrs.frozen
class Quarantined:
    """A plugin that is left out, and the reason."""

    plugin: Plugin
    cause: str
    error: BaseException | None = attrs.field(default=None, repr=False, eq=False)

    def __str__(self) -> str:
        return f"{self.plugin} is left out: {self.cause}"


class PluginSet:
    """The plugins of one engine. It shares nothing with other sets, and any thread may use it.

    Which plugins are installed is read from metadata. A plugin is imported when something needs it: a component of its
    package, a name that no built-in component has, or a list of all components.

    disable   plugins to leave out: names of entry points, of distributions, or `distribution:entry-point`
    strict    raise PluginError where a plugin would be quarantined, and import all of them now. The environment
              variable `TEXTGEN_STRICT_PLUGINS=1` has the same effect
    patience  seconds that a list of all components may wait for imports; slower plugins are named and left out
    """

    def __init__(
        self,
        *,
        disable: Iterable[str] = (),
        strict: bool | None = None,
        patience: float | None = None,
    ) -> None:
        self.disabled = frozenset(disable)
        self.quarantined: list[Quarantined] = []
        self._patience = patience
        self._offers: list[Offer] = []
        self._modules: list[tuple[Plugin, object]] = []
        self._waiting: list[InstalledPlugin] = []
        self._lock = threading.RLock()
        self._strict = os.environ.get("TEXTGEN_STRICT_PLUGINS") == "1" if strict is None else strict

    @classmethod
    def discover(
        cls,
        *,
        disable: Iterable[str] = (),
        strict: bool | None = None,
        patience: float | None = None,
    ) -> PluginSet:
        """All installed plugins, each loaded separately when it is needed.

        With `TEXTGEN_DISABLE_PLUGIN_AUTOLOAD=1` in the environment, only the built-in set.
        """
        plugins = cls(disable=disable, strict=strict, patience=patience)
        only_own = os.environ.get("TEXTGEN_DISABLE_PLUGIN_AUTOLOAD") == "1"
        plugins._waiting = [
            found
            for found in discovery.installed()
            if not discovery.is_among(found.plugin, plugins.disabled)
            and (_is_own(found.plugin) or not only_own)
        ]
        if plugins._strict:
            plugins._load_all()
        return plugins

    def without(self, names: Iterable[str]) -> PluginSet:
        """The same plugins without those of the given names (see `disable`). Imported plugins stay imported."""
        names = frozenset(names)
        fewer = PluginSet(
            disable=self.disabled | names, strict=self._strict, patience=self._patience
        )
        with self._lock:
            fewer.quarantined = [
                each for each in self.quarantined if not discovery.is_among(each.plugin, names)
            ]
            fewer._modules = [
                each for each in self._modules if not discovery.is_among(each[0], names)
            ]
            fewer._offers = [
                each for each in self._offers if not discovery.is_among(each.plugin, names)
            ]
            fewer._waiting = [
                each for each in self._waiting if not discovery.is_among(each.plugin, names)
            ]
        return fewer

    def with_offers(self, offers: Iterable[Offer]) -> PluginSet:
        """The same plugins, and these components, which no plugin offers."""
        more = self.without(())
        more._offers += offers
        return more

    def register(
        self,
        module: object,
        name: str,
        *,
        distribution: str = UNPACKAGED,
        version: str = "",
        replace: bool = False,
    ) -> None:
        """Add a plugin that is not an installed package: a module or any object with hook implementations.

        With `replace`, it takes the place of the plugin of this name. Raises UsageError where there is one without,
        and where another registered plugin offers a component of the same name; any other fault puts it in quarantine.
        """
        with self._lock:
            try:
                self._add(Plugin(name, distribution, version), module, replace)
            except PluginError as error:
                self._quarantine(
                    Plugin(name, distribution, version), error.cause, error.__cause__ or error
                )

    def register_file(self, path: str | Path, *, replace: bool = False) -> None:
        """Add a plugin that is a single Python file; it is called as the file is, without `.py`.

        Raises UsageError as `register` does and where the file cannot be read, PluginError for any fault of the plugin.
        """
        plugin, module = import_file(path)
        with self._lock:
            self._add(plugin, module, replace)

    def unregister(self, name: str) -> None:
        """Remove the plugins that `name` means (see `disable`). Raises UsageError if there is none."""
        with self._lock:
            plugins = [plugin for plugin, _ in self._modules]
            plugins += [each.plugin for each in self.quarantined] + [
                each.plugin for each in self._waiting
            ]
            if not any(discovery.is_among(plugin, [name]) for plugin in plugins):
                hint = nearest(name, [plugin.name for plugin in plugins])
                raise UsageError(
                    "no plugin of this set is called so",
                    argument="name",
                    value=name,
                    suggestion=hint,
                )
            rest = self.without([name])
            self.quarantined, self._modules = rest.quarantined, rest._modules
            self._offers, self._waiting = rest._offers, rest._waiting

    def offers(self, kind: str | None = None) -> list[Offer]:
        """All components, of one kind or of all, sorted by kind and name."""
        with self._lock:
            self._load_all(self._patience)
            return self._loaded(kind)

    def defaults(self, kind: str) -> list[Offer]:
        """The components of a kind that are used if none is named: the built-in ones, if there are any."""
        with self._lock:
            self._load(_is_own)
            own = [offer for offer in self._loaded(kind) if offer.component.default]
            return own or [offer for offer in self.offers(kind) if offer.component.default]

    def find(self, kind: str, name: str) -> Offer | Fault:
        """The component that `name` (or `package:name`) means, or what is wrong with the name.

        If several plugins offer the same name, it means the built-in one; without a built-in one it is ambiguous. A
        plugin that is no package is found by its own name too, `my_file:name`.
        """
        package, _, bare = name.rpartition(":")
        distribution = discovery.normalized(package) if package else OWN_DISTRIBUTION
        with self._lock:
            self._load(lambda plugin: plugin.distribution == distribution)
            same = [offer for offer in self._loaded(kind) if offer.name == bare]
            named = [offer for offer in same if offer.distribution == distribution]
            unpackaged = [offer for offer in same if offer.distribution == UNPACKAGED]
            if package and not named:
                named = [offer for offer in unpackaged if offer.plugin.name == package]
            if len(named) == 1:
                if not package and unpackaged:  # whoever adds a file means to use it
                    _warn_of_hidden(named[0], unpackaged[0])
                return named[0]
            self._load_all()
            return self._find_anywhere(kind, name, bare, distribution if package else None)

    def _find_anywhere(
        self, kind: str, name: str, bare: str, distribution: str | None
    ) -> Offer | Fault:
        offers = self._loaded(kind)
        same = [
            offer
            for offer in offers
            if offer.name == bare and distribution in (None, offer.distribution)
        ]
        if len(same) == 1:
            return same[0]
        if same:
            names = " or ".join(repr(offer.qualified_name) for offer in same)
            return Fault(
                "", f"{len(same)} plugins offer a {kind} called {bare!r}", "", f"write {names}"
            )
        known = [offer.name for offer in offers]
        hint = (
            nearest(bare, known)
            or f"there are {', '.join(sorted(set(known))) or 'none'}; --plugin adds a file's"
        )
        installed = [found.plugin for found in discovery.installed()]
        here = {offer.distribution for offer in self._offers} | {
            plugin.distribution for plugin in installed
        }
        here |= {
            discovery.normalized(offer.plugin.name)
            for offer in offers
            if offer.distribution == UNPACKAGED
        }
        advice = [
            offer.component.hints[bare.lower()]
            for offer in offers
            if bare.lower() in offer.component.hints
        ]
        hint = advice[0] if advice else hint
        missing = discovery.unmarked(distribution or f"textgen-{bare}")
        if missing or (distribution is not None and distribution not in here):
            hint = missing or f"{distribution} is not installed"
        if distribution == OBJECT:
            hint = "it was an object of a program, which has to give it again"
        if distribution == UNPACKAGED:
            hint = "no plugin offers it that is a file (--plugin) or that the program registered"
        meant = {distribution, bare, f"textgen-{bare}"}
        left_out = [
            q for q in self.quarantined if q.plugin.distribution in meant or q.plugin.name == bare
        ]
        if left_out:  # a similar name would only mislead
            hint = "; ".join(f"{q.plugin.distribution} is left out: {q.cause}" for q in left_out)
        if disabled := sorted(
            {plugin.name for plugin in installed if discovery.is_among(plugin, self.disabled)}
        ):
            hint += "; disabled: " + ", ".join(disabled)
        if others := sorted({q.plugin.distribution for q in self.quarantined if q not in left_out}):
            hint += "; left out: " + ", ".join(others)
        return Fault("", f"no {kind} is called {name!r}", "", hint)

    def sampling_options(self) -> dict[str, tuple[Offer, str]]:
        """The built-in sampling options of requests: the sampler that has each, and its key."""
        with self._lock:
            self._load(_is_own)
            own = [offer for offer in self._loaded("sampler") if _is_own(offer.plugin)]
        own.sort(key=lambda offer: offer.component.place or 0)
        return {
            name: (offer, key) for offer in own for name, key in offer.component.arguments().items()
        }

    def sampling_option(self, name: str) -> tuple[Offer, str] | Fault:
        """The sampler that has an option of requests, and its key; or what is wrong with the name.

        If several have it, it is the built-in one's.
        """
        own = self.sampling_options()
        if name in own:
            return own[name]
        others = [offer for offer in self.offers("sampler") if name in offer.component.arguments()]
        if len(others) == 1:
            return others[0], others[0].component.arguments()[name]
        if others:
            return taken_twice(name, others)
        all_offers = self.offers("sampler")
        known = [
            *own,
            *(
                each
                for offer in all_offers
                for each in offer.component.arguments()
                if each not in own
            ),
        ]
        return Fault(
            name,
            "no sampler takes this option",
            "",
            nearest(name, known) or f"there are {', '.join(known)}",
        )

    def clashes(self) -> list[tuple[Offer, ...]]:
        """The groups of components that share a kind and a name."""
        groups: dict[tuple[str, str], list[Offer]] = {}
        for offer in self.offers():
            groups.setdefault((offer.kind, offer.name), []).append(offer)
        return [tuple(group) for group in groups.values() if len(group) > 1]

    def _loaded(self, kind: str | None) -> list[Offer]:
        chosen = [offer for offer in self._offers if kind in (None, offer.kind)]
        return sorted(chosen, key=lambda o: (KINDS.index(o.kind), o.name, o.distribution))

    def _load_all(self, patience: float | None = None) -> None:
        self._load(_is_own)
        self._load(lambda _: True, patience)

    def _load(self, wanted: Callable[[Plugin], bool], patience: float | None = None) -> None:
        """Import the wanted plugins that are not imported yet, and collect their components."""
        found = [each for each in self._waiting if wanted(each.plugin)]
        self._waiting = [each for each in self._waiting if not wanted(each.plugin)]
        for each, result in zip(found, discovery.imported(found, patience), strict=True):
            plugin, place = each.plugin, each.entry_point.value
            module = each.entry_point.module
            if not result.done():
                cause = (
                    f"importing {place} takes longer than {patience:g} s; --patience waits longer"
                )
                self._quarantine(plugin, cause, TimeoutError(cause))
            elif (failure := result.exception()) is not None:
                cause = (
                    f"importing {place} failed: {cause_of(failure, plugin, module, placed=True)}"
                )
                self._quarantine(plugin, cause, failure)
            else:
                try:
                    self._collect(plugin, result.result())
                except (Exception, SystemExit) as error:
                    self._quarantine(plugin, cause_of(error, plugin), error)

    def _add(self, plugin: Plugin, module: object, replace: bool) -> None:
        """Add a plugin that a program gave. Raises UsageError for a name that is taken, PluginError for a fault."""
        same = [
            f"{other.distribution}:{other.name}"
            for other, _ in self._modules
            if _is_same(other, plugin)
        ]
        if same and not replace:
            hint = "replace=True puts this one in its place, and unregister removes it"
            raise UsageError(
                "a plugin of this name is registered already",
                argument="name",
                value=plugin.name,
                suggestion=hint,
            )
        for name in same:
            self.unregister(name)
        self.quarantined = [each for each in self.quarantined if not _is_same(each.plugin, plugin)]
        try:
            self._collect(plugin, module)
        except ClashError as error:
            if (
                plugin.distribution == UNPACKAGED
            ):  # to go on with the other would be to use what was not meant
                raise UsageError(str(error), argument="name", value=plugin.name) from error
            raise PluginError(str(error), **plugin.facts()) from error
        except (Exception, SystemExit) as error:
            raise PluginError(cause_of(error, plugin), **plugin.facts()) from error

    def _collect(self, plugin: Plugin, module: object) -> None:
        """Add what one plugin offers; raises if anything about it is wrong, leaving nothing behind."""
        for other, registered in self._modules:
            if registered is module:
                whose = f"{other.distribution}:{other.name}"
                raise UnfitError(
                    f"it is the module of {whose} too; one of the two entry points is enough"
                )
        offers = offers_of(plugin, module)
        known = {(offer.kind, offer.qualified_name): offer.plugin.name for offer in self._offers}
        for offer in offers:
            if (
                by := known.get((offer.kind, offer.qualified_name))
            ) is not None:  # `package:name` would mean neither
                raise ClashError(
                    f"{offer.distribution} offers the {offer.kind} {offer.name!r} already, by its plugin {by!r}; "
                    "one of the two needs another name"
                )
        self._modules.append((plugin, module))
        self._offers += offers

    def _quarantine(self, plugin: Plugin, cause: str, error: BaseException) -> None:
        if self._strict:
            raise PluginError(cause, **plugin.facts()) from error
        quarantined = Quarantined(plugin, cause, error)
        self.quarantined.append(quarantined)
        logger.warning("%s", quarantined)
        warnings.warn(str(quarantined), PluginWarning, stacklevel=3)


def _warn_of_hidden(own: Offer, other: Offer) -> None:
    """Say that the bare name of a plugin's component means the built-in one."""
    way = f"write '{other.plugin.name}:{other.name}' for that of {other.plugin}"
    warnings.warn(
        f"{own.kind} {own.name!r} is the built-in one; {way}", PluginWarning, stacklevel=3
    )


def _is_same(one: Plugin, other: Plugin) -> bool:
    return (one.distribution, one.name) == (other.distribution, other.name)


def _is_own(plugin: Plugin) -> bool:
    return plugin.distribution == OWN_DISTRIBUTION
