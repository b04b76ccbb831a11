"""The object that click hands to every subcommand as `ctx.obj`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textgen.errors import UsageError
from textgen.messages import nearest
from textgen.plugin import discovery
from textgen.plugin.registry import PluginSet

if TYPE_CHECKING:
    from textgen.contracts.components import Components


class CommandContext:
    """The options before the subcommand.

    with_plugin_options  whether it takes the options of plugins' samplers
    components           with the subcommand, if a plugin offers it
    """

    def __init__(self) -> None:
        self.disable: tuple[str, ...] = ()
        self.plugin_files: tuple[str, ...] = ()
        self.with_plugin_options = False
        self.components: Components | None = None
        self._plugins: PluginSet | None = None

    def plugins(self) -> PluginSet:
        """The installed plugins and the files of --plugin, discovered once per command."""
        if self._plugins is None:
            self._plugins = self._discover()
        return self._plugins

    def _discover(self) -> PluginSet:
        installed = discovery.installed() if self.disable else []
        for name in self.disable:
            if not any(plugin.is_among([name]) for plugin in installed):
                hint = nearest(
                    name, {known for p in installed for known in (p.name, p.distribution)}
                )
                cause = f"--no-plugin: no plugin or package that is installed is called {name!r}"
                raise UsageError(cause, suggestion=hint)
        plugins = PluginSet.discover(disable=self.disable)
        for path in self.plugin_files:
            try:
                plugins.register_file(path)
            except UsageError as error:
                raise UsageError(f"--plugin {path}: {error.faults[0].expected}") from error
        return plugins
