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
        self.patience: float | None = PATIENCE_SECONDS
        self.command: click.Command | None = None
        self.with_plugin_options = False
        self._plugins: PluginSet | None = None

    def plugins(self) -> PluginSet:
        """The plugins, discovered once per command."""
        if self._plugins is None:
            self._plugins = PluginSet.discover(disable=self.disable, patience=self.patience)
        return self._plugins
