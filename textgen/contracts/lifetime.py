"""The lifetime of built components: each is closed once, whatever happens."""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

import attrs

from textgen.contracts import checks
from textgen.contracts.guards import FAILURES, Watched, shown_where
from textgen.errors import PluginWarning
from textgen.plugin.component import OBJECT, BuildContext, Offer
from textgen.plugin.structure import Choice


class Components(contextlib.ExitStack):
    """Builds components, and closes those that have a method `close`, the last one first."""

    def __init__(self) -> None:
        super().__init__()
        self._known: list[Any] = []

    def build(self, choice: Choice, context: BuildContext) -> Any:
        """Build the object of a component, and those that it is made of; see `checks.build`."""
        made = checks.build(choice, attrs.evolve(context, builder=self.build))
        self.add(made, choice.offer)
        return made

    def add(self, made: Any, offer: Offer) -> None:
        """Close this one too, unless it is an object that the program gave."""
        made = (
            made.inner if isinstance(made, Watched) else made
        )  # one tokenizer may be watched twice
        if offer.distribution != OBJECT and not any(made is other for other in self._known):
            self._known.append(made)
            if callable(getattr(made, "close", None)):
                self.callback(_close, made, offer)


def _close(made: Any, offer: Offer) -> None:
    """What fails is a warning: the work of a run is done, or has failed for another reason."""
    try:
        made.close()
    except FAILURES as error:
        cause = f"{type(error).__name__}: {error} {shown_where(error, offer)}"
        warnings.warn(f"{offer} failed in close: {cause}", PluginWarning, stacklevel=2)
