"""The observers of a run: tells them of events, and hears which of them ends it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import attrs

from textgen.contracts.guards import FAILURES, shown_where
from textgen.errors import PluginWarning, TextgenError
from textgen.events import Event, Stop
from textgen.plugin.component import Offer
from textgen.protocols import Observer
from textgen.runs.formats import Stopped


@attrs.frozen
class ObserverEntry:
    """An observer, and whose it is; None for one of the caller's."""

    observer: Observer
    offer: Offer | None

    @property
    def name(self) -> str:
        """What the run record calls it: the component, or the class of the caller's object."""
        return type(self.observer).__name__ if self.offer is None else self.offer.name


class Observers:
    """Tells observers of events, in order.

    One of the pipeline's that fails is left out with a warning, for it must not cost hours of training. What one of the
    caller's raises ends the run. `stopped` is the first that asked for the end of the run.
    """

    def __init__(self, entries: Iterable[ObserverEntry]) -> None:
        self._entries = list(entries)
        self.stopped: Stopped | None = None

    def tell(self, event: Event) -> None:
        """Tell all of them."""
        for entry in tuple(self._entries):
            try:
                answer: object = entry.observer.observe(event)
                if answer is not None and not isinstance(answer, Stop):
                    raise TypeError(f"observe must return None or a textgen.events.Stop, and returned {answer!r}")
            except FAILURES as error:
                if entry.offer is None or isinstance(error, TextgenError):
                    raise
                self._entries.remove(entry)
                cause = f"{type(error).__name__}: {error} {shown_where(error, entry.offer)}"
                warnings.warn(f"{entry.offer} failed and is left out: {cause}", PluginWarning, stacklevel=2)
            else:
                if answer is not None and self.stopped is None:
                    self.stopped = Stopped(entry.name, str(answer.reason))
