"""Progress on the console: a bar on a terminal or in a notebook, lines elsewhere."""

from __future__ import annotations

import io
import math
import sys
import time
from typing import Any, Final, TextIO

import attrs

from textgen.events import Evaluation, Event, RunFinished, RunStarted, StepDone

_FIRST_LINE: Final = 3.0  # seconds after the first step, when the pace is known
_BETWEEN_LINES: Final = 30.0  # seconds without an evaluation
_BETWEEN_EVALUATIONS: Final = 5.0
# tqdm's format without steps per second: with them, 80 columns leave no room for the bar.
_BAR: Final = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"


@attrs.define
class Progress:
    """textgen.protocols.Observer that writes to `console`."""

    console: TextIO | None
    _bar: Any = None
    _first: int = 0
    _tokens: int = 0
    _begun: float = 0.0
    _line_at: float = float("-inf")
    _read_at: float = float("-inf")  # a loss, for the bar
    _latest: StepDone | None = None
    _latest_at: float = 0.0
    _losses: str = ""
    _best: float = math.inf

    def observe(self, event: Event) -> None:
        """Show an event."""
        if self.console is None:
            return
        if isinstance(event, RunStarted):
            parameters = "" if event.parameters is None else f"{event.parameters:,} parameters, "
            self._say(
                f"training on {event.device}: {parameters}{event.vocab_size} tokens in the "
                f"vocabulary, "
                f"{event.training_tokens:,} to train on, {event.validation_tokens:,} held out"
            )
        elif isinstance(event, StepDone):
            self._step(event)
        elif isinstance(event, Evaluation):
            self._evaluation(event)
        elif isinstance(event, RunFinished) and self._bar is not None:
            self._bar.close()

    def _step(self, event: StepDone) -> None:
        now = time.monotonic()
        if self._latest is None:  # the first step also takes what comes before it
            self._first, self._begun = event.step, now
        else:
            self._tokens += event.tokens
        self._latest, self._latest_at = event, now
        if self._has_bar():
            self._show_bar(event, now)
        elif now - self._begun > _FIRST_LINE and now - self._line_at > _BETWEEN_LINES:
            self._line(event, f"loss {event.loss:.3f}")

    def _show_bar(self, event: StepDone, now: float) -> None:
        if self._bar is None:
            options = {"total": event.steps, "initial": event.step - 1, "bar_format": _BAR}
            self._bar = _notebook_bar(options) if _in_notebook() else self._terminal_bar(options)
        self._bar.total = event.steps
        # A loss is read no oftener than it is drawn: a GPU is waited for.
        if now - self._read_at >= self._bar.mininterval:
            self._read_at = now
            self._bar.set_postfix_str(f"loss {event.loss:.3f}{self._losses}", refresh=False)
        self._bar.update(event.step - self._bar.n)

    def _terminal_bar(self, options: dict[str, Any]) -> Any:
        from tqdm import tqdm

        return tqdm(file=self.console, dynamic_ncols=True, **options)

    def _evaluation(self, event: Evaluation) -> None:
        loss = event.validation_loss
        if loss is not None:
            self._best = min(self._best, loss)
            self._losses = f", val {loss:.3f}, best {self._best:.3f}"
        if self._bar is not None:
            self._bar.set_postfix_str(
                f"loss {event.training_loss:.3f}{self._losses}", refresh=False
            )
        last = self._latest
        if self._has_bar() or last is None:
            return
        if time.monotonic() - self._line_at >= _BETWEEN_EVALUATIONS or last.step == last.steps:
            held_out = (
                "" if loss is None else f", validation loss {loss:.3f} (best {self._best:.3f})"
            )
            of_character = event.bits_per_character * math.log(2)
            if loss is not None and not math.isclose(loss, of_character, rel_tol=0.01):
                held_out += f", {of_character:.3f} a character"
            part = getattr(event.model, "trained_part", "")
            whose = f" of {part} alone" if part else ""
            self._line(last, f"loss {event.training_loss:.3f}{whose}{held_out}")

    def _line(self, event: StepDone, losses: str) -> None:
        """A line on where training stands, and how long it will take."""
        self._line_at = time.monotonic()
        # Without the evaluation that may have come after the step: a short run has few.
        done, seconds, pace = event.step - self._first, max(self._latest_at - self._begun, 1e-9), ""
        if done:
            left = seconds / done * (event.steps - event.step)
            pace = f", {self._tokens / seconds:,.0f} tokens/s, {left:.0f} s left"
        self._say(f"epoch {event.epoch}, step {event.step}/{event.steps}: {losses}{pace}")

    def _has_bar(self) -> bool:
        return self.console is not None and (self.console.isatty() or _in_notebook())

    def _say(self, line: str) -> None:
        if self._bar is not None:
            self._bar.write(line, file=self.console)
        else:
            print(
                line, file=self.console, flush=True
            )  # writing to the console is this observer's purpose


def _in_notebook() -> bool:
    """Whether this is a kernel of IPython, whose streams are not terminals."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in shell.config


def _notebook_bar(options: dict[str, Any]) -> Any:
    """A bar that is an output of its cell, which each step updates: a notebook that is saved has
    its last state.
    """
    from IPython.display import display
    from tqdm import tqdm

    class NotebookBar(tqdm):  # type: ignore[misc]
        _output: Any = None

        def display(self, msg: str | None = None, pos: int | None = None) -> None:
            shown = {"text/plain": str(self)}
            if self._output is None:
                self._output = display(shown, raw=True, display_id=True)
            else:
                self._output.update(shown, raw=True)

    return NotebookBar(file=io.StringIO(), ncols=100, ascii=False, **options)
