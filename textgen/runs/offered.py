"""Runs that plugins offer by name, to start from or to generate with."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from textgen.contracts.checks import blame
from textgen.contracts.components import Components
from textgen.errors import Fault
from textgen.plugin.component import BuildContext, ComponentSource, Offer
from textgen.plugin.structure import Choice

_NAME: Final = re.compile(r"([\w.-]{2,}:)?[a-z0-9]+(-[a-z0-9]+)*")  # a drive has one letter


def offered_run(name: Any, plugins: ComponentSource) -> Path | Fault | None:
    """The directory of the run that a plugin offers under a name, as `english` or
    `package:english`.

    None for what is not such a name, but a path; a Fault if no plugin offers it, or several do.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return None
    offer = plugins.find("run", name)
    return offer if isinstance(offer, Fault) else run_of(offer, plugins)


def run_of(offer: Offer, plugins: ComponentSource) -> Path:
    """The directory of a run that a plugin offers. Raises ContractError where it gives none."""
    with Components() as components:
        choice = Choice(offer.name, offer, offer.component.config())
        context = BuildContext(folder=Path.cwd(), training=False, plugins=plugins)
        made = components.build(choice, context)
    if not isinstance(made, Path):
        cause = f"gave {type(made).__name__} from build, and must give the Path of a run directory"
        raise blame(offer, cause)
    return made.absolute()
