"""Phrases that are never written: a text goes back to where one began."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from textgen import BuildContext
from textgen.protocols import Ids, Lanes, Moves, Tensors, Tokenizer
from textgen_builtins.strategies.config import BannedPhrasesConfig

_MANY = 32
"""Tokens that are banned at one position one by one. Then all that complete a phrase there are."""


class BannedPhrases:
    """Lane 0 is the text. The others wait where a phrase may have begun, the first ones first.

    State: `banned` (L, V), the tokens that are not to follow a lane; `recent` (L, N), its last
    tokens, from the one before that in which a phrase may have begun, with -1 in front of a shorter
    row. Some may be of an earlier part of the text, which was saved.
    """

    # A hundred overlapping phrases need nine. With more, texts share no positions with plain ones.
    lanes = 16

    def __init__(self, phrases: Sequence[str], tokenizer: Tokenizer) -> None:
        self._tokenizer, self._phrases = tokenizer, sorted(map(_folded, phrases))
        self._longest = max(map(len, self._phrases))

    def start(self) -> Tensors:
        """Nothing banned, and no token yet."""
        banned = np.zeros(self._tokenizer.vocab_size, np.bool_)
        return {"banned": banned, "recent": np.empty(0, np.int64)}

    def step(self, lanes: Lanes) -> Moves:
        """A token, or the way back from a phrase."""
        ids, banned = lanes.tokens[0], lanes.state["banned"]
        recent = [row[row >= 0] for row in lanes.state["recent"]]
        if lanes.ended[0]:  # a text that goes on from here cannot go back
            return Moves([0], [()], _state(banned[:1], recent[:1]), final=len(ids))
        logits = np.where(banned, -np.inf, lanes.logits)
        is_open = np.isfinite(logits[0].max())  # or each token would lead to a phrase
        token = int(lanes.draw(logits)[0]) if is_open else -1
        if token < 0:
            return Moves([0], [(-1,)], _state(banned[:1], recent[:1]), final=len(ids))

        known = recent[0]
        new = np.append(known, token)
        first = len(ids) - len(known)  # the number of tokens of the text before `new`
        lane_at = {len(before): lane for lane, before in enumerate(lanes.tokens)}
        text = self._decoded(new)
        if (found := self._find(text, len(self._decoded(known).rstrip("\ufffd")))) is not None:
            begin = first + self._positions(new, [found])[0]
            return self._back(lanes, recent, lane_at.get(begin, 0), token)

        starts = range(max(0, len(text) - self._longest), len(text))
        open_positions = self._positions(new, [i for i in starts if self._may_begin(text[i:])])
        since = max(0, min(open_positions, default=len(known) + 1) - 1)
        kept = [first + i for i in open_positions if first + i in lane_at][: self.lanes - 1]
        parents = [lane_at[position] for position in kept]
        state = _state(
            np.concatenate([np.zeros_like(banned[:1]), banned[parents]]),
            [new[since:], *(recent[lane] for lane in parents)],
        )
        final = min([*kept, len(ids) + 1])
        return Moves([0, *parents], [(token,), *[()] * len(kept)], state, final)

    def _back(self, lanes: Lanes, recent: list[Ids], back: int, token: int) -> Moves:
        """Go back to a lane, which is not to be followed by what led from there to a phrase.

        That is lane 0 for a phrase that begins in the newest token, and for one that begins where
        no lane waits: in an earlier part of the text, for example.
        """
        position = len(lanes.tokens[back])
        waiting = [lane for lane in range(1, len(lanes)) if len(lanes.tokens[lane]) < position]
        kept = [back, *waiting]
        banned = lanes.state["banned"][kept]
        banned[0, token if back == 0 else lanes.tokens[0][position]] = True
        if back == 0 and np.count_nonzero(banned[0]) % _MANY == 0:
            banned[0] |= self._completing(self._decoded(recent[0]))
        final = min(len(lanes.tokens[lane]) for lane in kept)
        state = _state(banned, [recent[lane] for lane in kept])
        return Moves(kept, [()] * len(kept), state, final)

    def _decoded(self, ids: Ids) -> str:
        """The text of ids (N,), as it is compared with the phrases."""
        return _folded(self._tokenizer.decode(ids))

    def _find(self, text: str, known: int) -> int | None:
        """Where the first phrase begins that ends after so many characters."""
        found = [text.find(phrase, max(0, known - len(phrase) + 1)) for phrase in self._phrases]
        return min((i for i in found if i >= 0), default=None)

    def _may_begin(self, text: str) -> bool:
        """Whether a text, maybe cut within a character, is the beginning of a phrase."""
        text = text.rstrip("\ufffd")
        index = bisect_left(self._phrases, text)
        return index < len(self._phrases) and self._phrases[index].startswith(text)

    def _positions(self, ids: Ids, starts: Sequence[int]) -> list[int]:
        """The positions of the tokens that hold the characters `starts` of their text, in order."""
        if not starts:
            return []
        ends = [len(self._tokenizer.decode(ids[:count])) for count in range(1, len(ids))]
        return sorted({sum(end <= start for end in ends) for start in starts})

    def _completing(self, text: str) -> npt.NDArray[np.bool_]:
        """(V,) which tokens complete a phrase after a text."""
        rests = tuple(
            phrase[size:]
            for phrase in self._phrases
            for size in range(1, len(phrase))
            if text.endswith(phrase[:size])
        )
        return np.array(
            [
                token.startswith(rests) or any(phrase in token for phrase in self._phrases)
                for token in self._texts
            ]
        )

    @cached_property
    def _texts(self) -> list[str]:
        """The text of each token by itself."""
        return [self._decoded(np.array([token])) for token in range(self._tokenizer.vocab_size)]


def _state(banned: npt.NDArray[np.bool_], recent: Sequence[Ids]) -> Tensors:
    """The arrays of lanes."""
    padded = np.full((len(recent), max(map(len, recent))), -1)
    for row, ids in zip(padded, recent, strict=True):
        row[len(row) - len(ids) :] = ids
    return {"banned": banned, "recent": padded}


def _folded(text: str) -> str:
    """A text without the difference of upper and lower case, each character in its place."""
    if text.isascii():
        return text.lower()
    return "".join(map(_folded_character, text))


def _folded_character(char: str) -> str:
    """A character for all its cases. One that would become two, such as "İ", stays as it is."""
    forms = (char.casefold(), char.lower())
    return next((form for form in forms if len(form) == 1), char)


def build(config: BannedPhrasesConfig, context: BuildContext) -> BannedPhrases:
    """The strategy."""
    assert context.tokenizer is not None
    return BannedPhrases(config.phrases, context.tokenizer)
