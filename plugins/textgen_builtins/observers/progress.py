"""Progress on the console: a bar on a terminal or in a notebook, lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any, Final, TextIO

import attrs

from textgen.events import Evaluation, Event, RunFinished, RunStarted, StepDone

_SECONDS_BETWEEN_LINES: Final = 5.0
# tqdm's format without steps per second: with them, 80 columns leave no room for the bar.
_BAR: Final = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"


@attrs.define
class Progress:
    """textgen.protocols.Observer that writes to `console`."""

    console: TextIO | None
    _bar: Any = None
    _start: int = 0
    _begun: float = 0.0
    _line_at: float = float("-inf")
    _latest: StepDone | None = None
    _measured: str = ""

    def observe(self, event: Event) -> None:
        """Show an event."""
        if self.console is None:
            return
        if isinstance(event, RunStarted):
            self._start, self._begun = event.step, time.monotonic()
            self._say(
                f"training on {event.device}: {event.parameters:,} parameters, {event.vocab_size} tokens in the "
                f"vocabulary, {event.training_tokens:,} to train on, {event.validation_tokens:,} held out"
            )
        elif isinstance(event, StepDone):
            self._step(event)
        elif isinstance(event, Evaluation):
            self._evaluation(event)
        elif isinstance(event, RunFinished) and self._bar is not None:
            self._bar.close()

    def _step(self, event: StepDone) -> None:
        self._latest = event
        if not self._has_bar():
            return
        if self._bar is None:
            from tqdm.auto import tqdm

            self._bar = tqdm(
                total=event.steps, initial=self._start, file=self.console, bar_format=_BAR, dynamic_ncols=True
            )
        self._bar.total = event.steps
        self._bar.set_postfix_str(f"loss {event.loss:.3f}{self._measured}", refresh=False)
        self._bar.update(event.step - self._bar.n)

    def _evaluation(self, event: Evaluation) -> None:
        val = "" if event.validation_loss is None else f", val {event.validation_loss:.3f}"
        self._measured = f"{val}, {_short(event.characters_per_second)} char/s"
        if self._has_bar() or self._latest is None:
            return
        now, last = time.monotonic(), self._latest.step == self._latest.steps
        if now - self._line_at < _SECONDS_BETWEEN_LINES and not last:
            return
        self._line_at = now
        done = self._latest.step - self._start
        left = (now - self._begun) / done * (self._latest.steps - self._latest.step)
        held_out = "" if event.validation_loss is None else f", validation loss {event.validation_loss:.3f}"
        self._say(
            f"epoch {event.epoch}, step {event.step}/{self._latest.steps}: loss {event.training_loss:.3f}{held_out}, "
            f"{event.characters_per_second:,.0f} characters/s, {left:.0f} s left"
        )

    def _has_bar(self) -> bool:
        return self.console is not None and (self.console.isatty() or _in_notebook())

    def _say(self, line: str) -> None:
        print(line, file=self.console, flush=True)  # writing to the console is this observer's purpose


def _in_notebook() -> bool:
    """Whether this is a kernel of IPython: its streams are not terminals, and tqdm has a bar for notebooks."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in shell.config


def _short(number: float) -> str:
    """A number in at most four characters: 87, 12k, 3.4M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.{1 if number < 10 * size else 0}f}{letter}"
    return f"{number:.0f}"
