"""Progress while a corpus is read: a bar on a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, TextIO

import attrs

from textgen.errors import Interrupted

_MOMENT: Final = 1.0  # seconds in which nothing is shown or asked
_PASSES: Final = 2  # to fit the tokenizer, and to encode


@attrs.define
class ReadingProgress:
    """Shows on `console` how far a corpus is read, and raises Interrupted once `cancelled()` is
    true.

    total   bytes of the corpus, roughly; 0 if that is not known
    """

    console: TextIO | None = None
    cancelled: Callable[[], bool] = lambda: False
    total: int = 0
    _read: int = 0
    _begun: float = 0.0
    _bar: Any = None

    def read(self, size: int) -> None:
        """Note that `size` more bytes are read."""
        now = time.monotonic()
        self._begun, self._read = self._begun or now, self._read + size
        if now - self._begun < _MOMENT:
            return
        if self.cancelled():
            self.close()
            raise Interrupted("stopped before training, while the corpus was read")
        if self.console is None or not self.console.isatty():
            return
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(
                desc="encoding the corpus",
                total=self.total or None,
                unit="B",
                unit_scale=True,
                dynamic_ncols=True,
                leave=False,
                file=self.console,
            )
        self._bar.update(self._read // _PASSES - self._bar.n)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
