"""From token ids to text: what tokens add to the text before them, up to a stop text."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final, TypeVar

import numpy as np

from textgen.protocols import Ids, Tokenizer

TAIL: Final = 32  # tokens before a continuation that tokenizers see; they look at the last few
_T = TypeVar("_T")


class Detokeniser:
    """Decodes tokens, and holds back text that may be the beginning of a stop text.

    A stop text counts once `min_tokens` tokens have come, and is searched in the text after them.
    One thread may call `feed`, `stop_at` and `finish` while another calls `take`.

    tail           ids (T,) before the tokens, which may change their text: a tokenizer of words
                   puts a space between two
    mid_character  whether a character that the tail begins belongs to the text of the tokens
    open_end       the end of the text before, already shown, that may begin a stop text
    shown          characters of the first token that are in the text before
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        tail: Ids,
        *,
        mid_character: bool = False,
        stops: tuple[str, ...] = (),
        min_tokens: int = 0,
        open_end: str = "",
        shown: int = 0,
    ) -> None:
        self._decode_more = tokenizer.incremental_decoder().decode
        self._skip = 0  # characters of the tail that the decoder still holds back
        if len(tail):
            decoded = self._decode_more(tail)
            self._skip = 0 if mid_character else len(tokenizer.decode(tail)) - len(decoded)
        self._skip += shown
        self._stops, self._min_tokens, self._tokens = _StopTexts(stops), min_tokens, 0
        self.open_end = open_end
        self._searched = 0  # characters of it in which no stop text ends
        self._shown = len(open_end)  # characters of it that were shown
        self._ready: list[str] = []
        self.stopped = False

    @property
    def searches(self) -> bool:
        """Whether there are stop texts, so that every token has to be decoded as it comes."""
        return bool(self._stops.texts)

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
        return "".join(drain(self._ready))

    def finish(self, ids: Ids, *, hold_back: bool = False) -> None:
        """Decode the last tokens, and release all text, but no unfinished character if
        `hold_back`.
        """
        if not self.stopped:
            text = self._search(self._decode(ids, final=not hold_back))
            self._ready.append(text if self.stopped else text + self.open_end[self._shown :])

    def _decode(self, ids: Ids, *, final: bool = False) -> str:
        text = self._decode_more(ids, final) if final else self._decode_more(ids)
        shown, self._skip = text[self._skip :], max(0, self._skip - len(text))
        return shown

    def _search(self, piece: str) -> str:
        """The text that can be shown, now that `piece` has come."""
        if not self._stops.texts or 0 < self._tokens <= self._min_tokens:
            self.open_end, self._shown = "", 0
            return piece
        text = self.open_end + piece
        self.stopped = self._stops.ends_in(text, self._searched)
        end = self._stops.find(text) if self.stopped else self._stops.begins_at_end(text)
        shown = text[self._shown : end]
        self.open_end = "" if self.stopped else text[end:]
        self._searched = len(self.open_end)
        self._shown = max(0, self._shown - end)
        return shown


def drain(items: list[_T]) -> list[_T]:
    """Empty a list to which another thread may be appending."""
    taken = items[:]
    del items[: len(taken)]
    return taken


class _StopTexts:
    """Stop texts, found by bisection: there may be a thousand, and each token is searched."""

    def __init__(self, texts: tuple[str, ...]) -> None:
        self.texts = texts
        self._longest = max(map(len, texts), default=0)
        self._sorted = sorted(texts)

    def ends_in(self, text: str, start: int) -> bool:
        """Whether one ends in the characters of a text from `start` on."""
        return any(text.endswith(self.texts, 0, end) for end in range(start + 1, len(text) + 1))

    def find(self, text: str) -> int:
        """The first place of one in a text that has one."""
        return min(place for place in map(text.find, self.texts) if place >= 0)

    def begins_at_end(self, text: str) -> int:
        """The first place from which on a text is the beginning of one; its length if there is
        none.
        """
        for start in range(max(0, len(text) - self._longest + 1), len(text)):
            last = text[start:]
            place = bisect_left(self._sorted, last)
            if place < len(self._sorted) and self._sorted[place].startswith(last):
                return start
        return len(text)
