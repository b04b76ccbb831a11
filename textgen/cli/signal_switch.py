"""Signals that ask for an end in good order."""

from __future__ import annotations

import contextlib
import os
import signal
from types import FrameType
from typing import Any, Final

import attrs

_NAMES: Final = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
_SIGNALS: Final = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))


@attrs.define
class SignalSwitch:
    """Turned on by the first of `signals`; a second ends the process at once.

    Within `with`, or as told.

    `message` is written to stderr at the first one.
    """

    signals: tuple[int, ...] = _SIGNALS
    message: str = ""
    signal_number: int | None = None
    _previous: dict[int, Any] = attrs.field(factory=dict)

    def is_on(self) -> bool:
        """Whether a signal has come."""
        return self.signal_number is not None

    def take_over(self) -> None:
        """Listen to all signals but those that the process ignores, such as SIGHUP after nohup."""
        for number in self.signals:
            if signal.getsignal(number) != signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._handle)

    def give_back(self) -> None:
        """Let signals do again what they did before."""
        while self._previous:
            signal.signal(*self._previous.popitem())

    def __enter__(self) -> SignalSwitch:
        self.take_over()
        return self

    def __exit__(self, *_: object) -> None:
        self.give_back()

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self.signal_number = number
        self.give_back()
        with contextlib.suppress(OSError):  # no print, which the signal may have interrupted
            os.write(2, self.message.encode())
