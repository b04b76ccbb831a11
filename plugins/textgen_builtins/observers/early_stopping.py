"""Early stopping (Prechelt, "Early stopping - but when?", 1998)."""

from __future__ import annotations

import logging

import attrs

from textgen.events import Evaluation, Event, RunStarted, Stop


@attrs.frozen
class EarlyStopping:
    """Ends a run after `patience` evaluations in a row without a lower loss of the held-out
    text.
    """

    patience: int

    def observe(self, event: Event) -> Stop | None:
        """Ask for the end; also at the start of a run that was interrupted just before its end."""
        if isinstance(event, RunStarted) and not event.validation_tokens:
            cause = "early-stopping does nothing where no text is held out: set data.validation"
            logging.getLogger("textgen").warning(cause)
        if isinstance(event, RunStarted | Evaluation) and event.since_best >= self.patience:
            return Stop(f"no lower loss in {event.since_best} evaluations")
        return None
