"""Runs that plugins offer by name, to start from or to generate with."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

from textgen.contracts.components import Components
from textgen.errors import ContractError, Fault, RunError, UsageError
from textgen.plugin.component import BuildContext, ComponentSource, RegisteredComponent
from textgen.plugin.structure import ConfigReader, ConfiguredComponent, Run
from textgen.protocols import Table
from textgen.runs.directory import RunDirectory, finished_record

Offered: TypeAlias = Path | Table
"""A run directory; or the tables of a pipeline, whose tokenizer and model load what they need
themselves.
"""
_NAME: Final = re.compile(r"([\w.-]{2,}:)?[a-z0-9]+(-[a-z0-9]+)*")  # a drive has one letter


def located(run: Run, plugins: ComponentSource | None = None) -> RunDirectory | Table:
    """Where the run is that is an option of a component, or the tables that are offered in its
    place. Raises RunError unless it is finished.
    """
    found = Path(run.name) if run.offer is None else run_of(run.offer, plugins)
    if isinstance(found, Mapping):
        return found
    directory = RunDirectory(found).current()
    finished_record(directory)
    return directory


@contextlib.contextmanager
def naming(run: Run) -> Iterator[None]:
    """Say which option a run is that cannot be used. Raises RunError."""
    try:
        yield
    except (RunError, UsageError) as error:
        raise RunError(f"{run.place}: {error}", Path(run.name)) from error


def offered_run(name: Any, plugins: ComponentSource) -> Offered | Fault | None:
    """The run that a plugin offers under a name, as `english` or `package:english`.

    None for what is not such a name, but a path; a Fault if no plugin offers it, or several do.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return None
    offer = plugins.find("run", name)
    return offer if isinstance(offer, Fault) else run_of(offer, plugins)


def run_of(
    offer: RegisteredComponent, plugins: ComponentSource | None, options: Table | None = None
) -> Offered:
    """The run that a plugin offers, with options as of a table.

    Raises PipelineError for wrong ones, and ContractError where it gives no run.
    """
    reader = ConfigReader(Path.cwd(), plugins)
    config = reader.table(offer.component.config, options or {}, "run")
    reader.check(offer.name)
    with Components() as components:
        context = BuildContext(folder=reader.folder, training=False, plugins=plugins)
        made = components.build(ConfiguredComponent(offer.name, offer, config), context)
    if isinstance(made, Path):
        return made.absolute()
    if isinstance(made, Mapping) and {"tokenizer", "model"} <= made.keys():
        return made
    cause = f"gave {type(made).__name__} from build, and must give the Path of a run directory"
    raise ContractError(offer, f"{cause}, or tables with tokenizer and model")
