"""Tokenizers: one that keeps the contract, and some that break one statement of it each."""

from __future__ import annotations

import random
import time
from typing import Any, ClassVar

import attrs
import numpy as np

from broken_components.cases import Case, offered
from textgen import DOCUMENT_END, PromptError


class GoodTokenizer:
    """One token per character seen, 0 for others."""

    unknown_id: Any = 0

    def __init__(self, context: Any = None) -> None:
        self.characters: str | None = None

    @property
    def vocab_size(self) -> Any:
        if self.characters is None:
            raise ValueError("not fitted")
        return len(self.characters) + 1

    def fit(self, pieces: Any) -> None:
        self.characters = "".join(sorted(set("".join(pieces))))

    def encode(self, text: str) -> Any:
        assert self.characters is not None
        return np.array([self.characters.find(c) + 1 for c in text], np.int64)

    def encode_pieces(self, pieces: Any) -> Any:
        return map(self.encode, pieces)

    def decode(self, ids: Any) -> Any:
        return "".join(("?" + str(self.characters))[i] for i in ids)

    def incremental_decoder(self) -> Any:
        return Stream(self)

    def to_dict(self) -> Any:
        return {"characters": self.characters}

    def from_dict(self, state: Any) -> Any:
        made = type(self)()
        made.characters = state["characters"]
        return made


@attrs.define
class Stream:
    tokenizer: Any

    def decode(self, ids: Any, final: bool = False) -> str:
        return str(self.tokenizer.decode(ids))


class HashOrderedTokenizer(GoodTokenizer):
    """Numbers a set, in an order that holds as long as the process."""

    def fit(self, pieces: Any) -> None:
        self.characters = "".join(sorted(set("".join(pieces)), key=hash))


class NothingReadTokenizer(GoodTokenizer):
    def fit(self, pieces: Any) -> None:
        self.characters = "abc"


class CutTokenizer(GoodTokenizer):
    """Learns the first character of each piece."""

    def fit(self, pieces: Any) -> None:
        self.characters = "".join(sorted({piece[0] for piece in pieces if piece}))


class FloatSizeTokenizer(GoodTokenizer):
    @property
    def vocab_size(self) -> Any:
        return float(super().vocab_size)


class FloatIdsTokenizer(GoodTokenizer):
    def encode(self, text: str) -> Any:
        return super().encode(text).astype(float)


class MatrixTokenizer(GoodTokenizer):
    def encode(self, text: str) -> Any:
        return super().encode(text)[None]


class OutOfRangeTokenizer(GoodTokenizer):
    def encode(self, text: str) -> Any:
        return super().encode(text) + self.vocab_size


class UnsortedTokenizer(GoodTokenizer):
    def fit(self, pieces: Any) -> None:
        shuffled = sorted(set("".join(pieces)))
        random.Random(next(self.seeds)).shuffle(shuffled)
        self.characters = "".join(shuffled)

    seeds: ClassVar[Any] = iter(range(10**6))


class StumblingTokenizer(GoodTokenizer):
    def encode(self, text: str) -> Any:
        if any(c not in str(self.characters) for c in text):
            raise KeyError(text)
        return super().encode(text)


class RefusingTokenizer(GoodTokenizer):
    """Keeps the contract: it says what it cannot encode."""

    unknown_id = None

    def encode(self, text: str) -> Any:
        if lacking := [c for c in text if c not in str(self.characters)]:
            raise PromptError(lacking)
        return super().encode(text)


class RewordingTokenizer(GoodTokenizer):
    def decode(self, ids: Any) -> Any:
        return super().decode(ids).replace("e", "i")


class PieceMarkTokenizer(GoodTokenizer):
    """Puts a mark at the beginning of every text, and so of every piece."""

    def encode(self, text: str) -> Any:
        return np.concatenate([[1], super().encode(text)])

    def decode(self, ids: Any) -> Any:
        return super().decode(ids[1:])


class LosingStream(Stream):
    def decode(self, ids: Any, final: bool = False) -> str:
        return "" if final else super().decode(ids)


class LosingTokenizer(GoodTokenizer):
    def incremental_decoder(self) -> Any:
        return LosingStream(self)


class UnsavedTokenizer(GoodTokenizer):
    def to_dict(self) -> Any:
        return {"characters": "".join(reversed(str(self.characters)))}


class ObjectTokenizer(GoodTokenizer):
    def to_dict(self) -> Any:
        return {"characters": {self.characters}}


class WritingTokenizer(GoodTokenizer):
    def decode(self, ids: Any) -> Any:
        ids[ids < 0] = 0
        return super().decode(ids)


class SeedingTokenizer(GoodTokenizer):
    def fit(self, pieces: Any) -> None:
        np.random.seed(0)
        super().fit(pieces)


class ForgetfulTokenizer(GoodTokenizer):
    def from_dict(self, state: Any) -> Any:
        super().from_dict(state)


class DroppingTokenizer(GoodTokenizer):
    unknown_id = None

    def encode(self, text: str) -> Any:
        return super().encode("".join(c for c in text if c in str(self.characters)))


class MergingTokenizer(GoodTokenizer):
    """Has a token for the unknown, and does not say so."""

    unknown_id = None


class ClassTokenizer(GoodTokenizer):
    """All of them share one vocabulary."""

    shared: ClassVar[str] = ""

    @property
    def characters(self) -> Any:
        return self.shared or None

    @characters.setter
    def characters(self, value: Any) -> None:
        if value is not None:
            type(self).shared = value


class RacingTokenizer(GoodTokenizer):
    """Works on an attribute, and lets other threads run half-way."""

    def encode(self, text: str) -> Any:
        self.ids: Any = []
        for place, character in enumerate(text):
            if place == len(text) // 2:
                time.sleep(0.0002)
            self.ids.append(str(self.characters).find(character) + 1)
        return np.array(self.ids, np.int64)


class EndTokenizer(GoodTokenizer):
    """Keeps the contract: its last id stands for the end of a document."""

    end_id: Any = None

    @property
    def vocab_size(self) -> Any:
        return super().vocab_size + (self.end_id is not None)

    def fit(self, pieces: Any) -> None:
        read = list(pieces)
        super().fit(piece for piece in read if piece is not DOCUMENT_END)
        if DOCUMENT_END in read:
            self.end_id = super().vocab_size

    def decode(self, ids: Any) -> Any:
        return super().decode([i for i in ids if i != self.end_id])

    def to_dict(self) -> Any:
        return {**super().to_dict(), "end_id": self.end_id}

    def from_dict(self, state: Any) -> Any:
        made = super().from_dict(state)
        made.end_id = state["end_id"]
        return made


class ShownEndTokenizer(EndTokenizer):
    def decode(self, ids: Any) -> Any:
        return "".join(
            "<end>" if i == self.end_id else GoodTokenizer.decode(self, [i]) for i in ids
        )


class LostEndTokenizer(EndTokenizer):
    def from_dict(self, state: Any) -> Any:
        return GoodTokenizer.from_dict(self, state)


class SharedEndTokenizer(EndTokenizer):
    """Has taken the id of unknown characters for the end."""

    end_id = 0

    @property
    def vocab_size(self) -> Any:
        return len(str(self.characters)) + 1 if self.characters else super().vocab_size

    def fit(self, pieces: Any) -> None:
        GoodTokenizer.fit(self, (piece for piece in pieces if piece is not DOCUMENT_END))

    def decode(self, ids: Any) -> Any:
        return GoodTokenizer.decode(self, ids)


TOKENIZERS = [
    Case("tokenizer", "tokenizer-unknown", "gave nothing for '漢'", offered(DroppingTokenizer)),
    Case(
        "tokenizer",
        "tokenizer-unknown",
        "None, and '字' is encoded as '漢' is",
        offered(MergingTokenizer),
    ),
    Case(
        "tokenizer",
        "tokenizer-apart",
        "changed when a second tokenizer was fitted",
        offered(ClassTokenizer),
    ),
    Case(
        "tokenizer",
        "tokenizer-threads",
        "while other threads encoded too",
        offered(RacingTokenizer),
    ),
    Case("tokenizer", "tokenizer-end", "decode() gave '<end>'", offered(ShownEndTokenizer)),
    Case("tokenizer", "tokenizer-end", "came back as None", offered(LostEndTokenizer)),
    Case("tokenizer", "tokenizer-end", "end_id is 0", offered(SharedEndTokenizer)),
    Case(
        "tokenizer",
        "component-calls",
        "it changed the random state of NumPy",
        offered(SeedingTokenizer),
    ),
    Case(
        "tokenizer", "tokenizer-saved", "what from_dict() gave is None", offered(ForgetfulTokenizer)
    ),
    Case("tokenizer", "tokenizer-fit", "left pieces unread", offered(NothingReadTokenizer)),
    Case("tokenizer", "tokenizer-fit", "in pieces of 7 characters", offered(CutTokenizer, "cut")),
    Case("tokenizer", "tokenizer-vocabulary", "after fit()", offered(FloatSizeTokenizer)),
    Case("tokenizer", "tokenizer-ids", "gave float64", offered(FloatIdsTokenizer)),
    Case("tokenizer", "tokenizer-ids", "gave int64 (1, ", offered(MatrixTokenizer)),
    Case("tokenizer", "tokenizer-ids", "gave ids from", offered(OutOfRangeTokenizer)),
    Case("tokenizer", "tokenizer-deterministic", "a second time", offered(UnsortedTokenizer)),
    Case("tokenizer", "tokenizer-any-text", "raised KeyError", offered(StumblingTokenizer)),
    Case("tokenizer", "tokenizer-decode", "read-only", offered(WritingTokenizer)),
    Case("tokenizer", "tokenizer-round-trip", "which decodes to", offered(RewordingTokenizer)),
    Case("tokenizer", "tokenizer-pieces", "joined", offered(PieceMarkTokenizer)),
    Case("tokenizer", "tokenizer-stream", "at once", offered(LosingTokenizer)),
    Case("tokenizer", "tokenizer-saved", "encodes or decodes otherwise", offered(UnsavedTokenizer)),
    Case("tokenizer", "tokenizer-saved", "what JSON cannot", offered(ObjectTokenizer)),
]


class RaisingTokenizer(GoodTokenizer):
    def encode(self, text: str) -> Any:
        return np.full(len(text), 1 / 0)
