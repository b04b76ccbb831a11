"""The lifetime of built components: each is closed once, whatever happens."""

from __future__ import annotations

import warnings
from typing import Any, Self

import attrs

from textgen.contracts import checks
from textgen.contracts.guards import FAILURES, Watched, shown_where
from textgen.errors import PluginWarning
from textgen.pipeline.structure import Choice
from textgen.plugin.component import OBJECT, BuildContext, Offer


class Components:
    """Builds components, and closes those that have a method `close`, the last one first."""

    def __init__(self) -> None:
        self._open: list[tuple[Any, Offer]] = []

    def build(self, choice: Choice, context: BuildContext) -> Any:
        """Build the object of a component, and those that it is made of; see `checks.build`."""
        made = checks.build(choice, attrs.evolve(context, builder=self.build))
        self.add(made, choice.offer)
        return made

    def add(self, made: Any, offer: Offer) -> None:
        """Close this one too, unless it is an object that the program gave."""
        if offer.distribution != OBJECT and callable(getattr(made, "close", None)):
            self._open.append((made, offer))

    def close(self) -> None:
        """Close all of them. What fails is a warning: the work of a run is done, or has failed for another reason."""
        closed: list[Any] = []
        while self._open:
            made, offer = self._open.pop()
            made = made.inner if isinstance(made, Watched) else made  # one tokenizer may be watched twice
            if any(made is other for other in closed):
                continue
            closed.append(made)
            try:
                made.close()
            except FAILURES as error:
                cause = f"{type(error).__name__}: {error} {shown_where(error, offer)}"
                warnings.warn(f"{offer} failed in close: {cause}", PluginWarning, stacklevel=2)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
