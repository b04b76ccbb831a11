"""Turns token ids into text: what they add to the text before them, up to a stop text."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from textgen.protocols import Ids, Tokenizer
from textgen.tokenizers import incremental_decoder

TAIL: Final = 32  # tokens before a continuation that tokenizers see; they look at the last few


class Detokeniser:
    """Decodes tokens, and holds back the end of the text, which may begin a stop text.

    A stop text counts once `min_tokens` tokens have come, and is searched in the text after them.
    One thread may call `feed`, `stop_at` and `flush` while another calls `take`.

    tail           ids (T,) before the tokens, which may change their text: a tokenizer of words
                   puts a space between two
    mid_character  whether a character that the tail begins belongs to the text of the tokens
    open_end       the end of the text before, already shown, in which a stop text may begin
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
        self._tokenizer = tokenizer
        self._decode_more = incremental_decoder(tokenizer).decode
        self.tail = tail.tolist()  # the last ids that were decoded
        self._skip = 0  # characters of the tail that the decoder still holds back
        if len(tail):
            decoded = self._decode_more(tail)
            self._skip = 0 if mid_character else len(tokenizer.decode(tail)) - len(decoded)
        self._skip += shown
        self._stops, self._min_tokens = stops, min_tokens
        self._tokens = 0
        self._held = max(map(len, stops), default=1) - 1  # characters
        self.open_end = open_end
        self._shown = len(open_end)  # characters of it that were shown
        self._ready: list[str] = []
        self.searches = bool(stops)  # so every token has to be decoded as it comes
        self.stopped = False

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

    def flush(self, ids: Ids, *, hold_back: bool = False) -> None:
        """Decode the last tokens, and release all text, but no unfinished character if
        `hold_back`.
        """
        if not self.stopped:
            text = self._search(self._decode(ids, final=not hold_back))
            self._ready.append(text if self.stopped else text + self.open_end[self._shown :])

    def fork(self) -> Detokeniser:
        """A copy that goes its own way, and has no text to take yet."""
        made = copy.copy(self)
        made._ready = []
        made._decode_more = incremental_decoder(self._tokenizer).decode
        if self.tail:
            made._decode_more(np.array(self.tail, np.int64))
        return made

    def whole(self, ids: Sequence[int], *, hold_back: bool = False) -> str:
        """The whole text that would come of tokens and their end, which are not noted."""
        made = self.fork()
        for token in ids if self.searches else ():
            if made.stop_at(token):
                break
        made.flush(np.array([] if self.searches else ids, np.int64), hold_back=hold_back)
        return made.take()

    def _decode(self, ids: Ids, *, final: bool = False) -> str:
        self.tail = [*self.tail, *ids.tolist()][-TAIL:]
        text = self._decode_more(ids, final) if final else self._decode_more(ids)
        shown, self._skip = text[self._skip :], max(0, self._skip - len(text))
        return shown

    def _search(self, piece: str) -> str:
        """The text that can be shown, now that `piece` has come."""
        if not self._stops or 0 < self._tokens <= self._min_tokens:
            self.open_end, self._shown = "", 0
            return piece
        text = self.open_end + piece
        found = [start for start in map(text.find, self._stops) if start >= 0]
        self.stopped = bool(found)
        end = min(found, default=max(0, len(text) - self._held))
        shown = text[self._shown : end]
        self.open_end = "" if self.stopped else text[end:]
        self._shown = max(0, self._shown - end)
        return shown


def drain(items: Any) -> Any:
    """Empty a list or an array to which another thread may be appending."""
    taken = items[:]
    del items[: len(taken)]
    return taken
