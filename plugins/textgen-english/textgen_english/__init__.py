"""A run to start from: a recurrent network that has read English novels and stories."""

from __future__ import annotations

from pathlib import Path

from textgen import BuildContext, Component, NoOptions, hookimpl


class English(NoOptions):
    """An LSTM that has read 276 books of English prose and verse, for texts in English."""


def build(config: English, context: BuildContext) -> Path:
    """The run directory."""
    return Path(__file__).with_name("run")


@hookimpl
def textgen_runs() -> list[Component]:
    """Offer `english`."""
    return [Component("english", English, build)]
