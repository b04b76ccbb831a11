"""Offers the commands."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from textgen import BuildContext, Component, NoOptions, hookimpl


class RunsOptions(NoOptions):
    """List the runs of a folder: status, progress, loss, size and age."""


class EvaluateOptions(NoOptions):
    """Measure how well the model of a run predicts a text file."""


class CompareOptions(NoOptions):
    """Compare runs: settings that differ, losses, speed, size and curves."""


class ShowOptions(NoOptions):
    """Print a pipeline with every default, and what each key does."""


class DoctorOptions(NoOptions):
    """Show versions, devices, cache and the plugins that are left out; or check the files of a
    run.
    """


class NewPluginOptions(NoOptions):
    """Write a plugin package to a new folder NAME: it installs, passes its tests and runs at
    once.
    """


def _builder(name: str) -> Any:
    """A `build` that imports a command from the module of its name only then."""

    def build(config: NoOptions, context: BuildContext) -> Any:
        return getattr(import_module(f"textgen_builtins.commands.{name}"), name)

    return build


@hookimpl
def textgen_commands() -> list[Component]:
    """Offer the commands."""
    return [
        Component("runs", RunsOptions, _builder("runs")),
        Component("evaluate", EvaluateOptions, _builder("evaluate")),
        Component("compare", CompareOptions, _builder("compare")),
        Component("show", ShowOptions, _builder("show")),
        Component("doctor", DoctorOptions, _builder("doctor")),
        Component("new-plugin", NewPluginOptions, _builder("new_plugin")),
    ]
