"""PluginSet: finds plugins, quarantines broken ones, and knows which plugin offers each component."""

from __future__ import annotations

import logging
import re
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
    REQUEST_OPTIONS,
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
    strict    raise PluginError where a plugin would be quarantined, and import all of them now
    """

    def __init__(self, *, disable: Iterable[str] = (), strict: bool = False) -> None:
        self.disabled = frozenset(disable)
        self.quarantined: list[Quarantined] = []
        self._offers: list[Offer] = []
        self._modules: list[tuple[Plugin, object]] = []
        self._waiting: list[InstalledPlugin] = []
        self._lock = threading.RLock()
        self._strict = strict

    @classmethod
    def discover(cls, *, disable: Iterable[str] = (), strict: bool = False) -> PluginSet:
        """All installed plugins, each loaded separately when it is needed."""
        plugins = cls(disable=disable, strict=strict)
        plugins._waiting = [
            found
            for found in discovery.installed()
            if not discovery.is_among(found.plugin, plugins.disabled)
        ]
        if plugins._strict:
            plugins._load_all()
        return plugins

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
        plugin = Plugin(name, distribution, version)
        with self._lock:
            try:
                self._add(plugin, module, replace)
            except PluginError as error:
                self._quarantine(plugin, error.cause, error.__cause__ or error)

    def register_file(self, path: str | Path, *, replace: bool = False) -> None:
        """Add a plugin that is a single Python file; it is called as the file is, without `.py`.

        Raises UsageError as `register` does and where the file cannot be read, PluginError for any fault of the plugin.
        """
        plugin, module = import_file(path)
        with self._lock:
            self._add(plugin, module, replace)

    def offers(self, kind: str | None = None) -> list[Offer]:
        """All components, of one kind or of all, sorted by kind and name."""
        with self._lock:
            self._load_all()
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
        return Fault(
            "", f"no {kind} is called {name!r}", "", self._hint(bare, distribution, offers)
        )

    def _hint(self, bare: str, distribution: str | None, offers: list[Offer]) -> str:
        """What somebody may have meant with a name that no component has, or why it is not there."""
        meant = {distribution, bare, f"textgen-{bare}"}
        left_out = [
            q for q in self.quarantined if q.plugin.distribution in meant or q.plugin.name == bare
        ]
        if left_out:  # a similar name would only mislead
            return "; ".join(map(str, left_out))
        if distribution == OBJECT:
            return "it was an object of a program, which has to give it again"
        if distribution == UNPACKAGED:
            return "no plugin offers it that is a file or that the program registered"
        installed = [found.plugin for found in discovery.installed()]
        if missing := discovery.unmarked(distribution or f"textgen-{bare}"):
            return missing
        known = {plugin.distribution for plugin in installed}
        known |= {discovery.normalized(offer.plugin.name) for offer in offers}
        if distribution is not None and distribution not in known:
            return f"{distribution} is not installed"
        names = sorted({offer.name for offer in offers})
        others = sorted({quarantined.plugin.distribution for quarantined in self.quarantined})
        return "".join(
            [
                nearest(bare, names)
                or _of_summary(bare, offers)
                or f"there are {', '.join(names) or 'none'}",
                *([f"; left out: {', '.join(others)}"] if others else []),
                *([f"; disabled: {', '.join(sorted(self.disabled))}"] if self.disabled else []),
            ]
        )

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
        offers = self.offers("sampler")
        takers = [offer for offer in offers if name in offer.component.arguments()]
        if len(takers) == 1:
            return takers[0], takers[0].component.arguments()[name]
        if takers:
            return taken_twice(name, takers)
        all_names = (each for offer in offers for each in offer.component.arguments())
        known = list(dict.fromkeys([*own, *all_names]))
        hint = nearest(name, [*known, *REQUEST_OPTIONS]) or f"there are {', '.join(known)}"
        return Fault(name, "no sampler takes this option", "", hint)

    def _loaded(self, kind: str | None) -> list[Offer]:
        chosen = [offer for offer in self._offers if kind in (None, offer.kind)]
        return sorted(chosen, key=lambda o: (KINDS.index(o.kind), o.name, o.distribution))

    def _load_all(self) -> None:
        self._load(_is_own)
        self._load(lambda _: True)

    def _load(self, wanted: Callable[[Plugin], bool]) -> None:
        """Import the wanted plugins that are not imported yet, and collect their components."""
        found = [each for each in self._waiting if wanted(each.plugin)]
        self._waiting = [each for each in self._waiting if not wanted(each.plugin)]
        for each in found:
            plugin, entry = each.plugin, each.entry_point
            try:
                module = discovery.imported(each)
            except (Exception, SystemExit) as error:
                cause = cause_of(error, plugin, entry.module, placed=True)
                self._quarantine(plugin, f"importing {entry.value} failed: {cause}", error)
                continue
            try:
                self._collect(plugin, module)
            except (Exception, SystemExit) as error:
                self._quarantine(plugin, cause_of(error, plugin), error)

    def _add(self, plugin: Plugin, module: object, replace: bool) -> None:
        """Add a plugin that a program gave. Raises UsageError for a name that is taken, PluginError for a fault."""
        if not replace and any(_is_same(other, plugin) for other, _ in self._modules):
            raise UsageError(
                "a plugin of this name is registered already",
                argument="name",
                value=plugin.name,
                suggestion="replace=True puts this one in its place",
            )
        self._modules = [each for each in self._modules if not _is_same(each[0], plugin)]
        self._offers = [each for each in self._offers if not _is_same(each.plugin, plugin)]
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


def _of_summary(word: str, offers: Iterable[Offer]) -> str:
    """The component whose summary has a word, as "lstm" is a word of that of `rnn`."""
    found = (o for o in offers if re.search(rf"(?i)\b{re.escape(word)}\b", o.component.summary))
    return next((f"did you mean {o.name!r}? {o.component.summary}" for o in found), "")


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
