"""Phrases that are never written: a text goes back to where one began."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np

from textgen import BuildContext
from textgen.protocols import Ids, Lanes, Moves, Ranking, Tensors, Tokenizer
from textgen_builtins.strategies.config import BannedPhrasesConfig


class BannedPhrases:
    """Lane 0 is the text. The others wait where a phrase may have begun, the first ones first.

    State: `banned` (L, V), the tokens that are not to follow a lane.
    """

    lanes = 64

    def __init__(self, phrases: Sequence[str], tokenizer: Tokenizer) -> None:
        self._tokenizer, self._phrases = tokenizer, sorted(text.lower() for text in phrases)
        self._longest = max(map(len, self._phrases))

    def start(self) -> Tensors:
        """Nothing banned."""
        return {"banned": np.zeros(self._tokenizer.vocab_size, np.bool_)}

    def step(self, lanes: Lanes) -> Moves | Ranking:
        """A token, or the way back from a phrase."""
        if lanes.ended[0]:
            return Ranking([0])
        banned, ids = lanes.state["banned"], lanes.tokens[0]
        logits = np.where(banned, -np.inf, lanes.logits)
        is_open = np.isfinite(logits[0].max())  # or each token would lead to a phrase
        token = int(lanes.draw(logits)[0]) if is_open else -1
        if token < 0:
            return Moves([0], [(-1,)], {"banned": banned[:1]}, final=len(ids))
        places = [len(before) for before in lanes.tokens[1:]]  # where the others wait
        begin = min(places, default=len(ids))
        found, open_places = self._search(np.append(ids[begin:], token))
        if found is not None:
            return self._back(lanes, begin + found, token)
        kept = [begin + place for place in open_places][: self.lanes - 1]
        parents = [1 + places.index(place) if place in places else 0 for place in kept]
        state = np.concatenate([np.zeros_like(banned[:1]), banned[parents]])
        final = min([*kept, len(ids) + 1])
        return Moves([0, *parents], [(token,), *[()] * len(kept)], {"banned": state}, final)

    def _back(self, lanes: Lanes, place: int, token: int) -> Moves:
        """Go back to the last lane that waits before the token at a place; it must not follow."""
        ids = [*lanes.tokens[0], token]
        at = [len(before) for before in lanes.tokens]
        back = max((i for i in range(len(at)) if at[i] <= place), key=lambda i: (at[i], -i))
        kept = [back, *(i for i in range(1, len(at)) if at[i] < at[back])]
        banned = lanes.state["banned"][kept]
        banned[0, ids[at[back]]] = True
        return Moves(kept, [()] * len(kept), {"banned": banned}, min(at[i] for i in kept))

    def _search(self, ids: Ids) -> tuple[int | None, list[int]]:
        """The place of the token in which a phrase begins; the places of those in which one may."""
        text = self._tokenizer.decode(ids).lower()
        first = min((i for i in map(text.find, self._phrases) if i >= 0), default=None)
        if first is not None:
            return self._places(ids, [first])[0], []
        starts = [
            i for i in range(max(0, len(text) - self._longest), len(text)) if self._may(text[i:])
        ]
        return None, sorted({*self._places(ids, starts)})

    def _may(self, text: str) -> bool:
        """Whether a text, maybe cut within a character, is the beginning of a phrase."""
        text = text.rstrip("\ufffd")
        place = bisect_left(self._phrases, text)
        return place < len(self._phrases) and self._phrases[place].startswith(text)

    def _places(self, ids: Ids, starts: Sequence[int]) -> list[int]:
        """The places of the tokens that hold the characters `starts` of their text."""
        if not starts:
            return []
        ends = [len(self._tokenizer.decode(ids[:place])) for place in range(1, len(ids))]
        return [sum(end <= start for end in ends) for start in starts]


def build(config: BannedPhrasesConfig, context: BuildContext) -> BannedPhrases:
    """The strategy."""
    assert context.tokenizer is not None
    return BannedPhrases(config.phrases, context.tokenizer)
