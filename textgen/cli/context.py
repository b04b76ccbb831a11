"""What every subcommand is handed by click as `ctx.obj`."""

from __future__ import annotations

from collections.abc import Iterable

import click

from textgen.errors import UsageError
from textgen.plugin import discovery
from textgen.plugin.registry import PluginSet
from textgen.suggest import nearest


class CommandContext:
    """What the options before the subcommand say, and which subcommand it is once that is known.

    with_plugin_options  whether it takes the options of plugins' samplers
    """

    def __init__(self) -> None:
        self.disable: tuple[str, ...] = ()
        self.plugin_files: tuple[str, ...] = ()
        self.debug = False
        self.command: click.Command | None = None
        self.with_plugin_options = False
        self._plugins: PluginSet | None = None

    def plugins(self) -> PluginSet:
        """The installed plugins and the files of --plugin, discovered once per command."""
        if self._plugins is None:
            self._plugins = self._discover()
        return self._plugins

    def _discover(self) -> PluginSet:
        if self.disable:
            _check_installed(self.disable)
        plugins = PluginSet.discover(disable=self.disable, strict=self.debug)
        for path in self.plugin_files:
            try:
                plugins.register_file(path)
            except UsageError as error:
                raise UsageError(f"--plugin {path}: {error.faults[0].expected}") from error
        return plugins


def _check_installed(names: Iterable[str]) -> None:
    """Raise UsageError for a name of --no-plugin that no installed plugin has."""
    plugins = discovery.installed()
    for name in names:
        if not any(plugin.is_among([name]) for plugin in plugins):
            hint = nearest(
                name, {known for plugin in plugins for known in (plugin.name, plugin.distribution)}
            )
            raise UsageError(
                f"--no-plugin: no plugin or package that is installed is called {name!r}",
                suggestion=hint,
            )
