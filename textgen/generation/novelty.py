"""What a generated text shares with the corpus that its model was trained on.

The corpus is searched block by block: from each place of the text, the places of the corpus that have the same next 8
bytes of tokens are followed for as long as they agree with the text.
"""

from __future__ import annotations

from typing import Final

import attrs
import numpy as np
import numpy.typing as npt

from textgen.generation.prompts import end_id
from textgen.protocols import Ids, Tokenizer

NGRAMS: Final = (8, 16, 32)
LONGEST: Final = 1000  # tokens for which a run is followed
_SEED: Final = 8  # bytes
_BLOCK: Final = 1 << 20  # tokens of the corpus that are looked at together
_CONTEXT: Final = 30
_HASH: Final = np.uint64(0x9E3779B97F4A7C15)


@attrs.frozen
class CopyReport:
    """What a text shares with the training corpus.

    tokens        tokens of the text
    longest       tokens of the longest run that both hold, and `longest_text` itself. Runs shorter
                  than 8 tokens (4 with a vocabulary above 256, 2 above 65,536) are not looked for, and
                  none is followed for more than 1,000
    place         the token of the corpus at which it first stands, and `excerpt`, the text around it
    ngram_shares  for each n, the share of the text's n-grams that the corpus holds; None where the
                  text is shorter than n
    """

    tokens: int
    longest: int
    longest_text: str
    place: int | None
    excerpt: str
    ngram_shares: dict[int, float | None]

    def describe(self) -> str:
        """The report in a few lines."""
        shares = ", ".join(
            f"{n}-grams {share:.0%}" for n, share in self.ngram_shares.items() if share is not None
        )
        found = f"the longest run found in the training corpus is {self.longest} of {self.tokens} tokens"
        lines = [f"novelty: {found}: {self.longest_text!r}"]
        if self.place is not None:
            lines.append(f"  at token {self.place:,}: …{self.excerpt}…")
        return "\n".join([*lines, f"  found in the corpus: {shares or 'nothing to count'}"])


@attrs.frozen
class CopyFinder:
    """Compares texts with the tokens (N,) of a training corpus. Any thread may use it."""

    tokenizer: Tokenizer
    tokens: Ids

    def report(self, text: str) -> CopyReport:
        """What `text` shares with the training corpus, which is read once from end to end."""
        ids = np.asarray(self.tokenizer.encode(text)).astype(self.tokens.dtype)
        lengths, places = _longest_runs(ids, self.tokens)
        longest = int(lengths.max(initial=0))
        start = int(lengths.argmax()) if longest else 0
        place = int(places[start]) if longest else None
        return CopyReport(
            tokens=len(ids),
            longest=longest,
            longest_text=self._decode(ids[start : start + longest]),
            place=place,
            excerpt="" if place is None else self._excerpt(place, longest),
            ngram_shares={
                n: float((lengths[: len(ids) - n + 1] >= n).mean()) if len(ids) >= n else None
                for n in NGRAMS
            },
        )

    def _excerpt(self, place: int, length: int) -> str:
        ids = self.tokens[max(0, place - _CONTEXT) : place + min(length, 200) + _CONTEXT]
        documents = np.split(ids, np.flatnonzero(ids == end_id(self.tokenizer)))
        return " / ".join(" ".join(self._decode(each).split()) for each in documents)

    def _decode(self, ids: Ids) -> str:
        return self.tokenizer.decode(ids.astype(np.int64))


def _longest_runs(text: Ids, corpus: Ids) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """For each place of `text` (T,), the length of the longest run from there in `corpus` (N,), and where.

    Both are of one dtype. Runs shorter than _SEED bytes have the length 0, and runs longer than LONGEST that one.
    """
    lengths, places = np.zeros((2, len(text)), np.int64)
    seed = _SEED // text.itemsize
    if len(text) < seed:
        return lengths, places
    windows = _windows(text, seed)
    hashed = np.zeros(1 << 16, bool)  # the hashes of the windows: few places of the corpus have one
    hashed[_hash(windows)] = True
    for begin in range(0, len(corpus) - seed + 1, _BLOCK):
        block = _windows(corpus[begin : begin + _BLOCK + seed - 1], seed)
        hits = np.flatnonzero(hashed[_hash(block)])
        hits = hits[np.argsort(block[hits], kind="stable")]
        first, last = (np.searchsorted(block[hits], windows, side) for side in ("left", "right"))
        for start in np.flatnonzero(first < last).tolist():
            found, length = begin + hits[first[start] : last[start]], seed
            while len(found):
                if length > lengths[start]:
                    lengths[start], places[start] = length, found[0]
                if length == min(LONGEST, len(text) - start):
                    break
                found = found[found + length < len(corpus)]
                found = found[corpus[found + length] == text[start + length]]
                length += 1
    return lengths, places


def _windows(tokens: Ids, size: int) -> npt.NDArray[np.uint64]:
    """The `size` tokens from each place of `tokens` (T,) as one number, (T - size + 1,)."""
    return np.lib.stride_tricks.sliding_window_view(tokens, size).copy().view(np.uint64)[:, 0]


def _hash(windows: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    return (windows * _HASH) >> np.uint64(48)
