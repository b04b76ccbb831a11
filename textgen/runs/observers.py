"""The observers of a run: tells them of events, and hears which of them ends it."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

from textgen.contracts.checks import FAILURES
from textgen.contracts.components import Components, described
from textgen.errors import DeviceError, PluginError, PluginWarning, TextgenError
from textgen.events import Event, Stop
from textgen.plugin.component import RegisteredComponent
from textgen.protocols import Observer, StatefulObserver, Table
from textgen.runs.formats import Stopped

AnyObserver: TypeAlias = Observer | Callable[[Event], Stop | None]
"""An observer of a program: a function of events is one too."""


class Observers:
    """Tells observers of events, in order: each comes with its offer, or None for one of the
    caller's.

    One of the pipeline's that fails, or whose sample does, is left out with a warning, for it must
    not cost hours of training. What one of the caller's raises ends the run. `stopped` is the first
    that asked for the end of the run. `components` are those of the run.
    """

    def __init__(
        self,
        entries: Iterable[tuple[AnyObserver, RegisteredComponent | None]],
        components: Components,
    ) -> None:
        self._entries, self._components = list(entries), components
        self.stopped: Stopped | None = None

    def state(self) -> dict[str, Any]:
        """The states of those of the pipeline that have one, JSON values by their names."""
        return {name: observer.state() for name, observer in self._stateful()}

    def load_state(self, states: Table) -> None:
        """Give them the states of a checkpoint."""
        for name, observer in self._stateful():
            if name in states:
                observer.load_state(states[name])

    def _stateful(self) -> Iterator[tuple[str, StatefulObserver]]:
        names = Counter[str]()
        for observer, offer in self._entries:
            if offer is not None and isinstance(observer, StatefulObserver):
                yield f"{offer.name}-{names[offer.name]}", observer
                names[offer.name] += 1

    def tell(self, event: Event) -> None:
        """Tell all of them."""
        for observer, offer in tuple(self._entries):
            try:
                observe: Any = getattr(observer, "observe", observer)
                answer: object = observe(event)
                if answer is not None and not isinstance(answer, Stop):
                    raise TypeError(
                        f"observe must return None or a textgen.events.Stop, and returned "
                        f"{answer!r}"
                    )
            except FAILURES as error:
                if offer is None:
                    self._components.spared = error
                is_of_sample = isinstance(error, PluginError | DeviceError)
                if offer is None or (isinstance(error, TextgenError) and not is_of_sample):
                    raise
                self._entries.remove((observer, offer))
                said = f"{offer} failed and is left out: {described(error, offer)}"
                if is_of_sample:
                    said = f"{offer} is left out, since no sample can be made: {error}"
                warnings.warn(said, PluginWarning, stacklevel=2)
            else:
                if answer is not None and self.stopped is None:
                    name = getattr(observer, "__name__", type(observer).__name__)
                    self.stopped = Stopped(
                        name if offer is None else offer.name, str(answer.reason)
                    )
