"""Offers the commands."""

from __future__ import annotations

from typing import Any

from textgen import BuildContext, Component, NoOptions, hookimpl


class SweepOptions(NoOptions):
    """Run a pipeline with many settings, each in a run directory of its own, and compare them."""


class RunsOptions(NoOptions):
    """List the runs of a folder: status, progress, loss, size and age."""


class CompareOptions(NoOptions):
    """Compare runs: settings that differ, losses, speed, size, curves and samples."""


class ShowOptions(NoOptions):
    """Print a pipeline with every default, and what each key does."""


class DoctorOptions(NoOptions):
    """Say which versions, devices and cache textgen uses, and which plugins are left out; or examine a run."""


class NewPluginOptions(NoOptions):
    """Write a plugin package to a new folder NAME: it installs, passes its tests and runs at once."""


def build_sweep(config: NoOptions, context: BuildContext) -> Any:
    """The command."""
    from textgen_builtins.commands.sweep import sweep

    return sweep


def build_runs(config: NoOptions, context: BuildContext) -> Any:
    """The command."""
    from textgen_builtins.commands.runs import runs

    return runs


def build_compare(config: NoOptions, context: BuildContext) -> Any:
    """The command."""
    from textgen_builtins.commands.compare import compare

    return compare


def build_show(config: NoOptions, context: BuildContext) -> Any:
    """The command."""
    from textgen_builtins.commands.show import show

    return show


def build_doctor(config: NoOptions, context: BuildContext) -> Any:
    """The command."""
    from textgen_builtins.commands.doctor import doctor

    return doctor


def build_new_plugin(config: NoOptions, context: BuildContext) -> Any:
    """The command."""
    from textgen_builtins.commands.new_plugin import new_plugin

    return new_plugin


@hookimpl
def textgen_commands() -> list[Component]:
    """Offer the commands."""
    return [
        Component("sweep", SweepOptions, build_sweep),
        Component("runs", RunsOptions, build_runs),
        Component("compare", CompareOptions, build_compare),
        Component("show", ShowOptions, build_show),
        Component("doctor", DoctorOptions, build_doctor),
        Component("new-plugin", NewPluginOptions, build_new_plugin),
    ]
