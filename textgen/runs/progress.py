"""Progress while a corpus is read: a bar on a terminal, a line now and then on another console."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, TextIO

import attrs

from textgen.errors import Interrupted
from textgen.visible import byte_count

_MOMENT: Final = 1.0  # seconds in which nothing is said or asked
_BETWEEN_LINES: Final = 30.0


@attrs.define
class ReadingProgress:
    """Shows on `console` how far a corpus is read, and raises Interrupted once `cancelled()` is true.

    total    bytes of the corpus, roughly; 0 if that is not known
    passes   how often it will be read
    """

    console: TextIO | None = None
    cancelled: Callable[[], bool] = lambda: False
    total: int = 0
    passes: int = 2
    _done: float = 0.0
    _begun: float = 0.0
    _line_at: float = 0.0
    _bar: Any = None

    def read(self, size: int) -> None:
        """Note that so many more bytes are read."""
        now = time.monotonic()
        self._begun, self._done = self._begun or now, self._done + size / self.passes
        if now - self._begun < _MOMENT:
            return
        self._check()
        if self.console is None:
            return
        if self.console.isatty():
            self._show()
        elif now - max(self._begun, self._line_at) > _BETWEEN_LINES:
            self._line_at = now
            share = f" ({min(self._done / self.total, 1):.0%})" if self.total else ""
            self._say(f"encoding the corpus: {byte_count(round(self._done))}{share}")

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _check(self) -> None:
        if self.cancelled():
            self.close()
            raise Interrupted("stopped before training, while the corpus was read")

    def _show(self) -> None:
        if self._bar is None:
            from tqdm import tqdm

            about: dict[str, Any] = {
                "unit": "B",
                "unit_scale": True,
                "dynamic_ncols": True,
                "leave": False,
            }
            total, done = self.total or None, int(self._done)
            self._bar = tqdm(
                desc="encoding the corpus", total=total, initial=done, file=self.console, **about
            )
        self._bar.update(int(self._done) - self._bar.n)

    def _say(self, line: str) -> None:
        if self.console is not None:
            self.console.write(f"{line}\n")
            self.console.flush()
