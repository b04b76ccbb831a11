"""What every subcommand is handed by click as `ctx.obj`."""

from __future__ import annotations

from typing import Final

import click

from textgen.plugin.registry import PluginSet

PATIENCE_SECONDS: Final = 0.5


class CommandContext:
    """What the options before the subcommand say, and which subcommand it is once that is known.

    with_plugin_options  whether it takes the options of plugins' samplers
    """

    def __init__(self) -> None:
        self.disable: tuple[str, ...] = ()
        self.plugin_files: tuple[str, ...] = ()
        self.patience: float | None = PATIENCE_SECONDS
        self.command: click.Command | None = None
        self.with_plugin_options = False
        self._plugins: PluginSet | None = None

    def plugins(self) -> PluginSet:
        """The plugins, discovered once per command. A list of all of them leaves out those that are slow to import."""
        if self._plugins is None:
            self._plugins = self.discover(self.patience)
        return self._plugins

    def discover(self, patience: float | None = None) -> PluginSet:
        """The installed plugins and the files of --plugin, for what needs all of them, however slow they are."""
        plugins = PluginSet.discover(disable=self.disable, patience=patience)
        for path in self.plugin_files:
            plugins.register_file(path)
        return plugins
