"""From token ids to text: what tokens add to the text before them, up to a stop text."""

from __future__ import annotations

from collections import deque
from typing import Final

import numpy as np

from textgen.protocols import Ids, Tokenizer

TAIL: Final = 32  # tokens before a continuation that tokenizers get to see; they look at the last one or few
NO_IDS: Final = np.empty(0, np.int64)


class Detokeniser:
    """Decodes the tokens that follow others, and holds back what may be the beginning of a stop text.

    Tokens may stand for another text alone than after others: a tokenizer of words puts a space between two. So the
    tokens before the continuation are decoded first, and their text is left out.

    A stop text counts once `min_tokens` tokens have come; it is searched in what came after them, and in `open_end`.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        before: Ids,
        *,
        stops: tuple[str, ...] = (),
        min_tokens: int = 0,
        open_end: str = "",
        mid_character: bool = False,
    ) -> None:
        """For what follows the ids `before` (T,).

        open_end       the text before, already shown, that a stop text may begin with
        mid_character  the last of `before` may be part of a character, whose text belongs to the continuation
        """
        tail = before[-TAIL:]
        self._decode_more = tokenizer.incremental_decoder().decode
        shown = self._decode_more(tail) if len(tail) else ""
        # Characters that the decoder still holds back, although the prompt has shown them.
        self._skip = 0 if mid_character or not len(tail) else len(tokenizer.decode(tail)) - len(shown)
        self._stops, self._min_tokens, self._tokens = stops, min_tokens, 0
        self.open_end = open_end
        self._before = len(open_end)  # characters of what is held back that were shown already
        self._held = open_end
        self._ready: deque[str] = deque()  # with stops appended to by the thread that draws, emptied by the reader's
        self.stopped = False

    @property
    def searches(self) -> bool:
        """Whether there are stop texts, so that every token has to be decoded as it comes."""
        return bool(self._stops)

    def feed(self, ids: Ids) -> None:
        """Decode tokens of a text that is not searched for stops; `take` gives their text."""
        if len(ids):
            self._ready.append(self._decode(ids))

    def stop_at(self, token: int) -> bool:
        """Decode one token, and say whether the text ends with it."""
        self._tokens += 1
        self._ready.append(self._search(self._decode(np.array([token]))))
        return self.stopped

    def take(self) -> str:
        """The text that can be shown, without what was taken before."""
        return "".join([self._ready.popleft() for _ in range(len(self._ready))])

    def finish(self, ids: Ids, *, hold_back: bool = False) -> None:
        """No more tokens come after `ids`: release what was held back, but no unfinished character if `hold_back`."""
        if self.stopped:
            return
        shown = self._search(self._decode(ids, final=not hold_back))
        self.open_end, self._held = self._held, ""
        self._ready.append(shown if self.stopped else shown + self.open_end[self._before :])

    def _decode(self, ids: Ids, *, final: bool = False) -> str:
        text = self._decode_more(ids, final) if final else self._decode_more(ids)
        if not self._skip:
            return text
        shown, self._skip = text[self._skip :], max(0, self._skip - len(text))
        return shown

    def _search(self, piece: str) -> str:
        """What can be shown of the text so far, now that `piece` has come."""
        if not self._stops or self._tokens <= self._min_tokens:
            if self._tokens:  # too early to count, and so is the text before it
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
