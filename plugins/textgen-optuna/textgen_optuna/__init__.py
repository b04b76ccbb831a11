"""Hyperparameter search with Optuna, as a command of textgen.

Optuna is imported when a search begins, never by listing the plugins.
"""

from __future__ import annotations

import attrs
import click

from textgen import BuildContext, Component, hookimpl


@attrs.frozen
class OptunaConfig:
    """Searches for the settings of a pipeline that give the lowest loss, with Optuna."""


def build(config: OptunaConfig, context: BuildContext) -> click.Command:
    """The command, for the plugins of this engine."""
    from textgen_optuna.command import make_command

    return make_command(context)


@hookimpl
def textgen_commands() -> list[Component]:
    """Offer `optuna`."""
    return [Component("optuna", OptunaConfig, build)]
