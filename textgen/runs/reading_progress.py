"""Says that a corpus is read, and stops the reading."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TextIO

import attrs

from textgen.errors import Interrupted

_MOMENT: Final = 1.0  # seconds of reading in which nothing is said or asked


@attrs.define
class ReadingProgress:
    """Says on `console` that a corpus is read, and raises Interrupted once `cancelled()` is
    true.
    """

    console: TextIO | None = None
    cancelled: Callable[[], bool] = lambda: False
    _begun: float = 0.0

    def read(self) -> None:
        """Note that more is read."""
        now = time.monotonic()
        self._begun = self._begun or now
        if now - self._begun < _MOMENT:
            return
        if self.console is not None:
            self.console.write("reading and encoding the corpus\n")
            self.console = None
        if self.cancelled():
            raise Interrupted("interrupted before training, while the corpus was read")
