"""Corpora and tokenizers that break one statement of their contract each."""

from __future__ import annotations

import itertools
import random
import socket
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import numpy as np
from checking import NUMBERS, Case, broken, raising, then
from good import (
    Corpus,
    EndTokenizer,
    Tokenizer,
    offered,
)

from textgen import Component, CorpusError, option

HIDDEN = Path(__file__).parents[2] / "LICENSE"


class SeededCorpus(Corpus):
    """Would be taken for the text of another seed."""

    def __init__(self, context):
        self.seed = context.seed

    def sources(self):
        return [Path(__file__)]

    def read(self):
        yield f"The text of seed {self.seed}."


class OnceCorpus(Corpus):
    def __init__(self, context):
        self.pieces = iter(["the only", " text"])

    def read(self):
        return self.pieces


class OneReaderCorpus(Corpus):
    """Reads well, if one reader is done before the next begins."""

    place = 0

    def read(self):
        self.place = 0
        while self.place < 200:
            self.place += 1
            yield f"line {self.place}"


class CountingCorpus(Corpus):
    """Its text is the number of its readers."""

    readers = 0

    def read(self):
        self.readers += 1
        yield f"{self.readers}"
        self.readers -= 1


def tire(self):
    self.reads += 1
    yield "Enough." if self.reads > 5 else "Again, please."


def unreadable(seen, read):
    """A corpus that cannot be read."""
    component = offered(type("Unreadable", (Corpus,), {"read": read}))
    return Case("corpus", "corpus-errors", seen, component, {"unreadable": {}})


CORPORA = [
    unreadable("the CorpusError says nothing", raising(CorpusError(""))),
    unreadable("it raised ZeroDivisionError", lambda self: 1 / 0),
    unreadable("raised nothing", Corpus.read),
    broken("corpus-pieces", "16,000,001", Corpus, read=lambda self: iter(["x" * 16_000_001])),
    broken("corpus-sources", "other files a second time", Corpus,
           sources=lambda self: [__file__] * (next(NUMBERS) % 2 + 1)),
    broken("corpus-readers", "while a first reader was not done", CountingCorpus),
    broken("corpus-pieces", "gave None from read", Corpus, read=lambda self: None),
    broken("corpus-text", "no character", Corpus, read=lambda self: iter([""])),
    broken("corpus-sources", "'x.txt', no file", Corpus, sources=lambda self: ["x.txt"]),
    broken("corpus-text", "U+D83D", Corpus, read=lambda self: iter(["half: \ud83d"])),
    broken("corpus-again", "a second time", Corpus, read=lambda self: iter([f"{next(NUMBERS)}"])),
    broken("corpus-again", "no text a second time", OnceCorpus),
    broken("corpus-readers", "a reader got another text", OneReaderCorpus),
    broken("corpus-again", "a third time or later", Corpus, reads=0, read=tire),
    broken("corpus-again", "at another time of day", Corpus,
           read=lambda self: iter([f"At {time.localtime().tm_hour}."])),
    broken("corpus-sources", f"read() also reads {HIDDEN}", Corpus, sources=lambda self: [__file__],
           read=lambda self: iter([HIDDEN.read_text()])),
    broken("corpus-build", "it wrote ", Corpus,
           __init__=lambda self, context: Path("mark").write_text("built") and None),
    broken("corpus-build", "connected to localhost", Corpus,
           __init__=lambda self, context: socket.getaddrinfo("localhost", 9) and None),
    broken("corpus-sources", "another text for another seed", SeededCorpus),
]  # fmt: skip


def encode_known(self, text):
    return Tokenizer.encode(self, "".join(c for c in text if c in str(self.characters)))


def encoding(old, new):
    return lambda self, text: Tokenizer.encode(self, text.replace(old, new))


def stumble(self, text):
    if any(c not in str(self.characters) for c in text):
        raise KeyError(text)
    return Tokenizer.encode(self, text)


def shuffled(self, pieces):
    letters = sorted(set("".join(pieces)))
    random.Random(next(NUMBERS)).shuffle(letters)
    self.characters = "".join(letters)


def learn_first(self, pieces):
    self.characters = "".join(sorted({piece[0] for piece in pieces if piece}))


def learn_for_all(self, pieces):
    type(self).characters = "".join(sorted(set("".join(pieces))))


def write_ids(self, ids):
    ids[ids < 0] = 0
    return Tokenizer.decode(self, ids)


def load_less(self, state):
    """Loses the last character."""
    return Tokenizer.from_dict(self, {"characters": state["characters"][:-1]})


class MarkTokenizer(Tokenizer):
    """Puts a mark at the beginning of every text, and so of every piece."""

    def encode(self, text):
        return np.concatenate([[1], super().encode(text)])

    def encode_pieces(self, pieces):
        return map(self.encode, pieces)

    def decode(self, ids):
        return super().decode(ids[1:])


class LosingTokenizer(Tokenizer):
    """Holds back what comes last, for ever."""

    def incremental_decoder(self):
        return SimpleNamespace(decode=lambda ids, final=False: "" if final else self.decode(ids))


class LateTokenizer(Tokenizer):
    """Its streams have no spaces after 300 tokens."""

    def incremental_decoder(self):
        count = itertools.count()
        return SimpleNamespace(decode=lambda ids, final=False: "".join(
            text for text in self.decode(ids) if next(count) < 300 or text != " "))  # fmt: skip


@attrs.frozen
class Lower:
    """Is an option that from_dict() forgets."""

    lower: bool = option(False, help="whether letters are lower case")


class LowerTokenizer(Tokenizer):
    def __init__(self, lower=False):
        self.lower = lower

    def encode(self, text):
        return super().encode(text.lower() if self.lower else text)


class RacingTokenizer(Tokenizer):
    """Works on an attribute, and lets other threads run half-way."""

    def encode(self, text):
        self.ids: Any = []
        for place, character in enumerate(text):
            if place == len(text) // 2:
                time.sleep(0.0002)
            self.ids.append(str(self.characters).find(character) + 1)
        return np.array(self.ids, np.int64)


def end_with_first(self, pieces):
    EndTokenizer.fit(self, pieces)
    self.end_id = self.end_id and 1


class ShownEndTokenizer(EndTokenizer):
    def decode(self, ids):
        return "".join("<end>" if i == self.end_id else Tokenizer.decode(self, [i]) for i in ids)


TOKENIZERS = [
    broken("tokenizer-vocabulary", "unknown_id is 99", Tokenizer, unknown_id=99),
    broken("tokenizer-vocabulary", "vocab_size is 4 before fit()", Tokenizer,
           vocab_size=property(lambda self: len(self.characters or "abc") + 1)),
    broken("tokenizer-any-text", "it encodes to list", Tokenizer,
           encode=then(Tokenizer.encode, list)),
    broken("tokenizer-deterministic", "of a second tokenizer", Tokenizer,
           to_dict=lambda self: {"number": next(NUMBERS)}),
    broken("tokenizer-decode", "other text as uint8", Tokenizer,
           decode=lambda self, ids: Tokenizer.decode(self, ids[ids.dtype != np.int64 :])),
    broken("tokenizer-decode", "no ids decode to some text", Tokenizer,
           decode=then(Tokenizer.decode, lambda text: text or "?")),
    broken("tokenizer-saved", "what from_dict() gave", Tokenizer, from_dict=lambda self, state: 0),
    broken("tokenizer-apart", "when a second tokenizer was fitted", Tokenizer, fit=learn_for_all),
    broken("tokenizer-end", "came back as None", EndTokenizer, from_dict=Tokenizer.from_dict),
    broken("tokenizer-end", "vocab_size", EndTokenizer, vocab_size=Tokenizer.vocab_size),
    broken("tokenizer-end", "was encoded to its end_id, 1", EndTokenizer, fit=end_with_first),
    broken("tokenizer-fit", "in pieces of 7 characters", Tokenizer, fit=learn_first),
    broken("tokenizer-saved", "what JSON cannot", Tokenizer,
           to_dict=lambda self: {"characters": {self.characters}}),
    broken(
        "tokenizer-unknown", "nothing for '漢'", Tokenizer, unknown_id=None, encode=encode_known
    ),
    broken("tokenizer-unknown", "None, and '字' is encoded as '漢' is", Tokenizer, unknown_id=None),
    broken("tokenizer-unknown", "gave nothing for '—'", Tokenizer, encode=encoding("—", "")),
    broken("tokenizer-unknown", "'zz' is encoded as 'z' is", Tokenizer, encode=encoding("zz", "z")),
    broken("tokenizer-round-trip", "as long as a book, 100,000 characters", Tokenizer,
           encode=lambda self, text: Tokenizer.encode(self, text[:100_000])),
    broken("tokenizer-stream", "at once", LateTokenizer),
    Case("tokenizer", "tokenizer-saved", "with lower = True encodes otherwise",
         Component("odd", Lower, lambda config, context: LowerTokenizer(config.lower))),
    broken("tokenizer-apart", "while other threads encoded too", RacingTokenizer),
    broken("tokenizer-end", "decoded to '<end>'", ShownEndTokenizer),
    broken("tokenizer-fit", "left pieces unread", Tokenizer,
           fit=lambda self, pieces: setattr(self, "characters", "abc")),
    broken("tokenizer-vocabulary", "after fit()", Tokenizer, vocab_size=3.0),
    broken("tokenizer-any-text", "it encodes to ids from", Tokenizer,
           encode=lambda self, text: Tokenizer.encode(self, text) + self.vocab_size),
    broken("tokenizer-deterministic", "a second time", Tokenizer, fit=shuffled),
    broken("tokenizer-any-text", "raised KeyError", Tokenizer, encode=stumble),
    broken("tokenizer-decode", "decode() gave bytes", Tokenizer,
           decode=then(Tokenizer.decode, str.encode)),
    broken("component-raises", "read-only", Tokenizer, "tokenizer-decode", decode=write_ids),
    broken("tokenizer-round-trip", "which decodes to", Tokenizer,
           decode=then(Tokenizer.decode, lambda text: text.replace("e", "i"))),
    broken("tokenizer-pieces", "joined", MarkTokenizer),
    broken("tokenizer-stream", "at once", LosingTokenizer),
    broken("tokenizer-saved", "came back as", Tokenizer, from_dict=load_less),
    broken("tokenizer-saved", "encodes or decodes otherwise", Tokenizer,
           to_dict=lambda self: {"characters": "".join(reversed(str(self.characters)))}),
]  # fmt: skip
