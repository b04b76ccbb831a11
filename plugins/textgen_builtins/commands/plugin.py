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


@hookimpl
def textgen_commands() -> list[Component]:
    """Offer `sweep`, `runs` and `compare`."""
    return [
        Component("sweep", SweepOptions, build_sweep),
        Component("runs", RunsOptions, build_runs),
        Component("compare", CompareOptions, build_compare),
    ]
