"""PluginSet: the plugins of an engine and their components."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint
from pathlib import Path

from textgen.errors import Fault, PluginError, PluginWarning, UsageError
from textgen.messages import known_names, nearest
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
from textgen.plugin.validation import UnfitError, cause_of, offers_of


class PluginSet:
    """The plugins of an engine. Sets share nothing.

    quarantined   the errors of plugins that are left out
    """

    def __init__(self) -> None:
        self.quarantined: list[PluginError] = []
        self._offers: list[RegisteredComponent] = []

    @classmethod
    def discover(cls, *, disable: Iterable[str] = ()) -> PluginSet:
        """Load all installed plugins. Broken ones are left out, with a PluginWarning each.

        disable   plugins to leave out without importing them: names of entry points, of
                  distributions, or `distribution:entry-point`

        Raises UsageError if a plugin to disable is not installed.
        """
        plugins, installed = cls(), discovery.installed()
        disabled = set[Plugin]()
        for name in disable:
            called_so = {plugin for plugin in installed if plugin.is_called(name)}
            if not called_so:
                known = [known for each in installed for known in (each.name, each.distribution)]
                cause = f"no installed plugin or package is called {name!r}"
                raise UsageError(cause, suggestion=nearest(name, known))
            disabled |= called_so
        for plugin, entry_point in installed.items():
            if plugin not in disabled:
                try:
                    plugins._add_installed(plugin, entry_point)
                except PluginError as error:
                    plugins.quarantined.append(error)
                    warnings.warn(f"left out: {error}", PluginWarning, stacklevel=2)
        return plugins

    def register(
        self,
        module: object,
        name: str,
        *,
        distribution: str = UNPACKAGED,
        version: str = "",
    ) -> None:
        """Add a module, or another object with hook implementations, as a plugin.

        Raises PluginError for a fault of the plugin, or if another plugin of the same distribution
        offers a component of the same name.
        """
        plugin = Plugin(name, normalized(distribution), version)
        self._add(plugin, lambda: module, getattr(module, "__name__", ""))

    def register_file(self, path: str | Path) -> None:
        """Add a Python file as a plugin, named after the file without `.py`.

        Raises PluginError as `register` does, and UsageError for a file that cannot be read.
        """
        plugin = file_plugin(path)
        self._add(plugin, lambda: import_file(plugin), module_name(plugin))

    def offers(self, kind: str | None = None) -> list[RegisteredComponent]:
        """The components of a kind, or of all kinds, sorted by kind and name."""

        def order(offer: RegisteredComponent) -> tuple[object, ...]:
            kinds = (*KINDS, offer.kind)  # those of packages come after the engine's
            return kinds.index(offer.kind), offer.kind, offer.name, offer.distribution

        return sorted((o for o in self._offers if kind in (None, o.kind)), key=order)

    def find(self, kind: str, name: str) -> RegisteredComponent | Fault:
        """Find a component by `name` or `package:name`; a Fault if there is none, or several.

        A bare name means the built-in component, unless a file or a registered plugin offers one of
        the same name. A bare name that several other plugins offer is ambiguous.
        """
        package, _, bare = name.rpartition(":")
        same_name = [offer for offer in self.offers(kind) if offer.name == bare]
        if package:
            found = [o for o in same_name if o.distribution == normalized(package)]
        else:
            preferred = (OWN_DISTRIBUTION, UNPACKAGED)
            found = [o for o in same_name if o.distribution in preferred] or same_name
        if len(found) == 1:
            return found[0]
        if found:
            names = " or ".join(repr(offer.qualified_name) for offer in found)
            cause = f"{len(found)} plugins offer a {kind} called {bare!r}"
            return Fault("", cause, hint=f"write {names}")
        return Fault("", f"no {kind} is called {name!r}", hint=self._missing(kind, package, bare))

    def _missing(self, kind: str, package: str, name: str) -> str:
        """Why there may be no such component, or a name that there is."""
        if package == OBJECT:
            return f"it was an object of a program: give it again, as `{kind}`"
        if package == UNPACKAGED:
            return "it was a plugin of a program or a file: give it again, a file by --plugin FILE"
        loaded = {offer.distribution for offer in self._offers}
        distribution = normalized(package)
        if package and distribution not in loaded:
            for error in self.quarantined:
                if error.plugin.distribution == distribution:
                    return f"it is left out: {error}"
            return f"no plugin of {package} is loaded: is it installed, or its file given?"
        return known_names(name, {offer.name for offer in self.offers(kind)})

    def sampling_options(self) -> dict[str, list[RegisteredComponent]]:
        """The samplers and strategies of each option of requests, the built-in one first."""
        offers = [*self.offers("sampler"), *self.offers("strategy")]
        offers.sort(key=lambda offer: (not offer.is_built_in, offer.component.order or 0))
        found: dict[str, list[RegisteredComponent]] = {}
        for offer in offers:
            for name in offer.component.arguments():
                found.setdefault(name, []).append(offer)
        return found

    def sampling_option(self, name: str) -> RegisteredComponent | Fault:
        """Find the sampler or strategy of an option of requests; a Fault if there is none, or if
        there are several and none is built in.
        """
        options = self.sampling_options()
        takers = options.get(name, [])
        if name in ("n", "distinct", "batch_size", "prompts"):
            return Fault(name, "it is an option of generate_many alone")
        if not takers:
            hint = known_names(name, {*options, *REQUEST_OPTIONS} - {name})
            return Fault(name, "no sampler takes this option", hint=hint)
        if len(takers) > 1 and not takers[0].is_built_in:
            names = " and ".join(offer.qualified_name for offer in takers)
            return Fault(name, f"several plugins take this option: {names}")
        return takers[0]

    def _add_installed(self, plugin: Plugin, entry_point: EntryPoint) -> None:
        """Add what an installed package offers, if it is for this version of textgen."""
        distribution = plugin.distribution

        def load() -> object:
            if distribution != OWN_DISTRIBUTION and (needed := discovery.unmet(distribution)):
                raise UnfitError(f"it needs {needed}; upgrade one of the two")
            return entry_point.load()

        self._add(plugin, load, re.split("[.:]", entry_point.value)[0])

    def _add(self, plugin: Plugin, load: Callable[[], object], package: str) -> None:
        """Add what a plugin offers, or nothing of it.

        Raises PluginError where a name is taken, and for any fault of the plugin, with the last
        line of `package` that raised it.
        """
        try:
            offers = offers_of(plugin, load())
        except (Exception, SystemExit) as error:
            raise PluginError(plugin, cause_of(error, {package})) from error
        known = {(offer.kind, offer.qualified_name): offer.plugin for offer in self._offers}
        for offer in offers:
            key = offer.kind, offer.qualified_name
            if key in known:  # `package:name` would mean neither
                cause = f"{known[key]} offers the {offer.kind} {offer.name!r} already"
                raise PluginError(plugin, f"{cause}; one of the two needs another name")
            known[key] = plugin
        self._offers += offers
