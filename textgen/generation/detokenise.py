"""From token ids to text: what tokens add to the text before them, up to a stop text."""

from __future__ import annotations

from typing import Final, TypeVar

import attrs
import numpy as np

from textgen.generation.prompts import NO_IDS
from textgen.protocols import Ids, Tokenizer

TAIL: Final = (
    32  # tokens before a continuation that tokenizers get to see; they look at the last one or few
)
_T = TypeVar("_T")


@attrs.frozen(eq=False)
class Tail:
    """The last tokens before a continuation, and how many characters of their text were shown.

    Tokens may stand for another text alone than after others: a tokenizer of words puts a space between two. So the
    tail is decoded with the continuation, and its text is left out.
    """

    ids: Ids
    shown: int

    @classmethod
    def of(cls, tokenizer: Tokenizer, before: Ids, *, mid_character: bool = False) -> Tail:
        """Of the ids `before` (T,). With `mid_character`, a character that they begin belongs to the continuation."""
        ids = before[-TAIL:]
        if not len(ids):
            return cls(ids, 0)
        return cls(
            ids,
            len(
                tokenizer.incremental_decoder().decode(ids)
                if mid_character
                else tokenizer.decode(ids)
            ),
        )


class Detokeniser:
    """Decodes the tokens that follow a tail, and holds back what may be the beginning of a stop text.

    A stop text counts once `min_tokens` tokens have come; it is searched in what came after them, and in `open_end`:
    the text before, already shown, that may be the beginning of one.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        tail: Tail,
        *,
        stops: tuple[str, ...] = (),
        min_tokens: int = 0,
        open_end: str = "",
    ) -> None:
        self._decode_more = tokenizer.incremental_decoder().decode
        self._tail, self._skip = tail.ids, tail.shown
        self._stops, self._min_tokens, self._tokens = stops, min_tokens, 0
        self.open_end = open_end
        self._before = len(open_end)  # characters of what is held back that were shown already
        self._held = open_end
        self._ready: list[
            str
        ] = []  # with stops appended to by the thread that draws, emptied by the reader's
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
        return "".join(drain(self._ready))

    def finish(self, ids: Ids, *, hold_back: bool = False) -> None:
        """No more tokens come after `ids`: release what was held back, but no unfinished character if `hold_back`."""
        if self.stopped:
            return
        shown = self._search(self._decode(ids, final=not hold_back))
        self.open_end, self._held = self._held, ""
        self._ready.append(shown if self.stopped else shown + self.open_end[self._before :])

    def _decode(self, ids: Ids, *, final: bool = False) -> str:
        if len(self._tail):
            ids, self._tail = np.concatenate([self._tail, ids]), NO_IDS
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


def drain(items: list[_T]) -> list[_T]:
    """Empty a list to which another thread may be appending."""
    taken = items[:]
    del items[: len(taken)]
    return taken


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that `stop` begins with."""
    return next(
        (k for k in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:k])), 0
    )
