"""The built-in observers: progress on the terminal, files that record training, and early
stopping.
"""

from __future__ import annotations

from pathlib import Path

from textgen import BuildContext, Component, hookimpl
from textgen.protocols import Observer
from textgen_builtins.observers.config import (
    EarlyStoppingConfig,
    LossPlotConfig,
    MetricsConfig,
    ProgressConfig,
    SamplesConfig,
)


def build_progress(config: ProgressConfig, context: BuildContext) -> Observer:
    """Writes to the context's console; does nothing without one."""
    from textgen_builtins.observers.progress import Progress

    return Progress(context.console)


def build_metrics(config: MetricsConfig, context: BuildContext) -> Observer:
    """Writes into the run directory."""
    from textgen_builtins.observers.run_files import MetricsFile

    return MetricsFile(_directory(context) / "metrics.jsonl")


def build_loss_plot(config: LossPlotConfig, context: BuildContext) -> Observer:
    """Writes into the run directory, when training ends or pauses."""
    from textgen_builtins.observers.run_files import LossPlot

    return LossPlot(_directory(context) / "loss.svg")


def build_samples(config: SamplesConfig, context: BuildContext) -> Observer:
    """Writes into the run directory and to the console."""
    from textgen_builtins.observers.run_files import Samples

    return Samples(config, _directory(context) / "samples.txt", context.console)


def build_early_stopping(config: EarlyStoppingConfig, context: BuildContext) -> Observer:
    """Keeps nothing of its own, so a resumed run ends where it would have."""
    from textgen_builtins.observers.early_stopping import EarlyStopping

    return EarlyStopping(config.patience)


@hookimpl
def textgen_observers() -> list[Component]:
    """Offer the default observers `progress`, `metrics`, `loss-plot` and `samples`; and
    `early-stopping`.
    """
    return [
        Component("progress", ProgressConfig, build_progress, default=True),
        Component("metrics", MetricsConfig, build_metrics, default=True),
        Component("loss-plot", LossPlotConfig, build_loss_plot, default=True),
        Component("samples", SamplesConfig, build_samples, default=True),
        Component("early-stopping", EarlyStoppingConfig, build_early_stopping),
    ]


def _directory(context: BuildContext) -> Path:
    if context.directory is None:
        raise ValueError("there is no run directory to write to")
    return context.directory
