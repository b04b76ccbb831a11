"""PluginSet: finds plugins, quarantines broken ones, and knows which plugin offers each
component.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint
from pathlib import Path

import attrs

from textgen.errors import Fault, PluginError, PluginWarning, UsageError
from textgen.messages import nearest
from textgen.plugin import discovery
from textgen.plugin.component import (
    KINDS,
    OBJECT,
    OWN_DISTRIBUTION,
    REQUEST_OPTIONS,
    UNPACKAGED,
    Plugin,
    RegisteredComponent,
    normalized,
)
from textgen.plugin.single_file import file_plugin, import_file, module_name
from textgen.plugin.validation import cause_of, offers_of


@attrs.frozen
class Quarantined:
    """A plugin that is left out, and the reason."""

    plugin: Plugin
    cause: str

    def __str__(self) -> str:
        return f"{self.plugin} is left out: {self.cause}"


class PluginSet:
    """The plugins of one engine. It shares nothing with other sets, and any thread may use it.

    Which plugins are installed is read from metadata. A plugin is imported when something needs it:
    a component of its package, a name that no built-in component has, or a list of all components.
    """

    def __init__(self) -> None:
        self.quarantined: list[Quarantined] = []
        self._disabled: list[Quarantined] = []
        self._offers: list[RegisteredComponent] = []
        self._waiting: dict[Plugin, EntryPoint] = {}
        self._lock = threading.RLock()

    @classmethod
    def discover(cls, *, disable: Iterable[str] = ()) -> PluginSet:
        """All installed plugins, each loaded separately when it is needed.

        disable   plugins to leave out: names of entry points, of distributions, or
                  `distribution:entry-point`
        """
        plugins, disable = cls(), tuple(disable)
        for plugin, entry_point in discovery.installed().items():
            if plugin.is_among(disable):
                plugins._disabled.append(Quarantined(plugin, "it is disabled"))
            else:
                plugins._waiting[plugin] = entry_point
        return plugins

    def register(
        self,
        module: object,
        name: str,
        *,
        distribution: str = UNPACKAGED,
        version: str = "",
    ) -> None:
        """Add a plugin that is not an installed package: a module or any object with hook
        implementations.

        Raises UsageError if another plugin of the distribution offers a component of the same name,
        PluginError for any fault of the plugin.
        """
        plugin, package = Plugin(name, distribution, version), getattr(module, "__name__", "")
        self._add(plugin, lambda: module, package)

    def register_file(self, path: str | Path) -> None:
        """Add a plugin in a single Python file. Its name is that of the file without `.py`.

        Raises UsageError as `register` does and for a file that cannot be read, PluginError for any
        fault of the plugin.
        """
        plugin = file_plugin(path)
        self._add(plugin, lambda: import_file(plugin), module_name(plugin))

    def offers(self, kind: str | None = None) -> list[RegisteredComponent]:
        """All components, of one kind or of all, sorted by kind and name."""
        with self._lock:
            self._load()
            return self._loaded(kind)

    def defaults(self, kind: str) -> list[RegisteredComponent]:
        """The built-in components of a kind that are used if none is named."""
        with self._lock:
            self._load(_is_own)
            return [
                offer
                for offer in self._loaded(kind)
                if offer.component.default and _is_own(offer.plugin)
            ]

    def find(self, kind: str, name: str) -> RegisteredComponent | Fault:
        """The component that `name` (or `package:name`) means, or what is wrong with the name.

        A bare name means the built-in component, unless a file or a registered plugin has one of
        the same name. A name that several other plugins offer is ambiguous.
        """
        package, _, bare = name.rpartition(":")
        distribution = normalized(package) if package else OWN_DISTRIBUTION

        def matching() -> list[RegisteredComponent]:
            same = [offer for offer in self._loaded(kind) if offer.name == bare]
            named = [offer for offer in same if offer.distribution == distribution]
            by_file = [offer for offer in same if offer.distribution == UNPACKAGED]
            return named if package else named + by_file if named else same

        with self._lock:
            self._load(lambda plugin: plugin.distribution == distribution)
            if len(matching()) != 1:
                self._load()
            found = matching()
            if len(found) == 1:
                return found[0]
            if found:
                names = " or ".join(repr(offer.qualified_name) for offer in found)
                cause = f"{len(found)} plugins offer a {kind} called {bare!r}"
                return Fault("", cause, "", f"write {names}")
            hint = self._hint(bare, distribution if package else "", self._loaded(kind))
            return Fault("", f"no {kind} is called {name!r}", "", hint)

    def _hint(self, bare: str, distribution: str, offers: list[RegisteredComponent]) -> str:
        """A suggestion for a name that no component has, or the reason why it is missing."""
        meant = {distribution, bare, f"textgen-{bare}"}
        left_out = [
            str(each)
            for each in (*self.quarantined, *self._disabled)
            if meant & {each.plugin.distribution, each.plugin.name}
        ]
        if left_out:  # a similar name would only mislead
            return "; ".join(left_out)
        if distribution in (OBJECT, UNPACKAGED):
            again = "give it again, a file by --plugin FILE"
            return f"it was an object, or a plugin of a program or a file: {again}"
        if distribution and distribution not in {offer.distribution for offer in self._offers}:
            return f"no plugin of {distribution} is loaded: is it installed, or its file given?"
        names = sorted({offer.name for offer in offers})
        return nearest(bare, names) or f"there are {', '.join(names) or 'none'}"

    def sampling_options(self) -> dict[str, RegisteredComponent]:
        """The built-in sampling options of requests: the sampler or strategy that has each."""
        with self._lock:
            self._load(_is_own)
            offers = [*self._loaded("sampler"), *self._loaded("strategy")]
            own = [offer for offer in offers if _is_own(offer.plugin)]
        own.sort(key=lambda offer: offer.component.place or 0)
        return {name: offer for offer in own for name in offer.component.arguments()}

    def sampling_option(self, name: str) -> RegisteredComponent | Fault:
        """The sampler that has an option of requests, or what is wrong with the name.

        The built-in sampler is preferred.
        """
        own = self.sampling_options()
        if name in own:
            return own[name]
        offers = [*self.offers("sampler"), *self.offers("strategy")]
        takers = [offer for offer in offers if name in offer.component.arguments()]
        if len(takers) == 1:
            return takers[0]
        if takers:
            names = " and ".join(offer.qualified_name for offer in takers)
            return Fault(name, f"several plugins take this option: {names}")
        known = [argument for offer in offers for argument in offer.component.arguments()]
        hint = (
            nearest(name, [each for each in (*known, *REQUEST_OPTIONS) if each != name])
            or f"there are {', '.join(known)}"
        )
        return Fault(name, "no sampler takes this option", "", hint)

    def _loaded(self, kind: str | None) -> list[RegisteredComponent]:
        chosen = [offer for offer in self._offers if kind in (None, offer.kind)]
        return sorted(
            chosen, key=lambda o: ((*KINDS, o.kind).index(o.kind), o.kind, o.name, o.distribution)
        )

    def _load(self, wanted: Callable[[Plugin], bool] = lambda _: True) -> None:
        """Import the wanted plugins that are not imported yet, and collect their components."""
        for plugin in [plugin for plugin in self._waiting if wanted(plugin)]:
            entry_point = self._waiting.pop(plugin)
            try:
                if not _is_own(plugin) and (needed := discovery.unmet(plugin.distribution)):
                    raise PluginError(plugin, f"it needs {needed}; upgrade one of the two")
                self._add(plugin, entry_point.load, entry_point.module.partition(".")[0])
            except (PluginError, UsageError) as error:
                self.quarantined.append(Quarantined(plugin, getattr(error, "cause", str(error))))
                warnings.warn(str(self.quarantined[-1]), PluginWarning, stacklevel=3)

    def _add(self, plugin: Plugin, load: Callable[[], object], package: str) -> None:
        """Add what a plugin offers, or nothing of it.

        Raises UsageError where a name is taken, PluginError for any fault of the plugin, with the
        last line of `package` that raised it.
        """
        try:
            offers = offers_of(plugin, load())
        except (Exception, SystemExit) as error:
            raise PluginError(plugin, cause_of(error, plugin, {package})) from error
        with self._lock:
            known = {(offer.kind, offer.qualified_name): offer.plugin for offer in self._offers}
            for offer in offers:
                key = offer.kind, offer.qualified_name
                if key in known:  # `package:name` would mean neither
                    raise UsageError(
                        f"{known[key]} offers the {offer.kind} {offer.name!r} already; one of the "
                        "two needs another name"
                    )
                known[key] = plugin
            self._offers += offers


def _is_own(plugin: Plugin) -> bool:
    return plugin.distribution == OWN_DISTRIBUTION
