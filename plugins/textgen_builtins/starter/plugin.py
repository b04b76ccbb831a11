"""Offers the command `init`."""

from __future__ import annotations

from typing import Any

from textgen import BuildContext, Component, NoOptions, hookimpl


class InitOptions(NoOptions):
    """Write a commented pipeline for your own text, to edit and run."""


def build(config: NoOptions, context: BuildContext) -> Any:
    """The command."""
    from textgen_builtins.starter.command import init

    return init


@hookimpl
def textgen_commands() -> list[Component]:
    """Offer `init`."""
    return [Component("init", InitOptions, build)]
