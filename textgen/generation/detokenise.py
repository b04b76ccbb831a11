"""Text as it comes, up to a stop text that may lie across token borders."""

from __future__ import annotations

import numpy as np

from textgen.protocols import IncrementalDecoder


class StopText:
    """Decodes one token after the other and holds back what may be the beginning of a stop text.

    A stop text counts once `min_tokens` tokens have come; it is searched in what came after them, and in `open_end`:
    the text before, already shown, that may be the beginning of one.
    """

    def __init__(
        self, decoder: IncrementalDecoder, stops: tuple[str, ...], min_tokens: int = 0, open_end: str = ""
    ) -> None:
        self._decoder, self._stops, self._min_tokens = decoder, stops, min_tokens
        self.open_end = open_end
        self._before = len(open_end)  # characters of what is held back that were shown already
        self._held = open_end
        self._shown: list[str] = []
        self._tokens = 0
        self.stopped = False

    def feed(self, token: int) -> str:
        """The text that can be shown now that `token` has come."""
        self._tokens += 1
        return self._advance(self._decoder.decode(np.array([token])))

    def rest(self, *, hold_back: bool = False) -> str:
        """What was held back, once no more tokens come; but for an unfinished character, with `hold_back`."""
        if self.stopped:
            return ""
        shown = self._advance(self._decoder.decode(np.empty(0, np.int64), final=not hold_back))
        self.open_end, self._held = self._held, ""
        return shown if self.stopped else shown + self.open_end[self._before :]

    def watch(self, token: int) -> bool:
        """`feed` for a text that is wanted as a whole: keeps what can be shown, and says whether to stop."""
        self._shown.append(self.feed(token))
        return self.stopped

    def text(self, *, hold_back: bool = False) -> str:
        """All that `watch` kept, and the rest."""
        return "".join([*self._shown, self.rest(hold_back=hold_back)])

    def _advance(self, piece: str) -> str:
        if not self._stops or self._tokens <= self._min_tokens:
            if self._tokens:  # too early to count, and so is what stands before it
                self._held, self._before = "", 0
            return piece
        text = self._held + piece
        places = [place for place in (text.find(stop) for stop in self._stops) if place >= 0]
        before = self._before
        if places:
            self.stopped, self._held, self._before = True, "", 0
            return text[before : min(places)]
        keep = max(_overlap(text, stop) for stop in self._stops)
        self._held, self._before = text[len(text) - keep :], max(0, before - (len(text) - keep))
        return text[before : len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that `stop` begins with."""
    return next((k for k in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:k])), 0)
