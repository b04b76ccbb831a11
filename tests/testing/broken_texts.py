"""Corpora and tokenizers that break one statement of their contract each."""

import itertools
import os
import signal
import socket
import threading
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import attrs
import numpy as np
import torch
from checking import NOISE, NUMBERS, Case, broken, doing, then
from good import Corpus, EndTokenizer, Tokenizer

from textgen import Component, option

HIDDEN = Path(__file__).parents[2] / "LICENSE"


def reading(read):
    return {"read": lambda self: iter([read()])}


def building(act):
    return {"__init__": doing(lambda self, context: act())}


def one_reader(self):
    """Reads well, if one reader is done before the next begins."""
    self.place = 0
    while self.place < 200:
        self.place += 1
        yield f"line {self.place}"


def change_process():
    os.environ["CHANGED"] = str(next(NUMBERS))
    warnings.simplefilter("once")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def change_torch():
    torch.set_num_threads(torch.get_num_threads() + 1)
    torch.set_default_dtype(torch.float64)


def linger(*_):
    """Outlive the check, though not the test."""
    threading.Thread(target=time.sleep, args=[1.5]).start()


CORPORA = [
    broken("corpus-pieces", "a str", Corpus, read=lambda self: "all of it"),
    broken("corpus-pieces", "no text", Corpus, **reading(str)),
    broken("corpus-pieces", "too long", Corpus, **reading(lambda: "x" * 16_000_001)),
    broken("corpus-pieces", "a surrogate", Corpus, **reading(lambda: "half: \ud83d")),
    broken("corpus-again", "used up", Corpus, pieces=iter(["the text"]),
           read=lambda self: self.pieces),
    broken("corpus-again", "shuffled anew", Corpus,
           read=lambda self: map(str, NOISE.permutation(50))),
    broken("corpus-again", "the sixth time", Corpus, times=itertools.count(),
           read=lambda self: iter(["Enough." if next(self.times) > 5 else "Again, please."])),
    broken("corpus-sources", "a file that is not named", Corpus, sources=lambda self: [__file__],
           **reading(HIDDEN.read_text)),
    broken("corpus-sources", "no file", Corpus, sources=lambda self: ["x.txt"]),
    broken("corpus-sources", "the seed", Corpus, sources=lambda self: [__file__],
           __init__=lambda self, context: setattr(self, "seed", context.seed),
           read=lambda self: iter([f"seed {self.seed}"])),
    broken("corpus-build", "a file", Corpus, **building(lambda: Path("mark").write_text("built"))),
    broken("corpus-build", "the network", Corpus,
           **building(lambda: socket.getaddrinfo("localhost", 9))),
    broken("corpus-readers", "one place", Corpus, read=one_reader),
    broken("component-globals", "the folder", Corpus, **building(lambda: os.chdir("/"))),
    broken("component-globals", "NumPy's seed", Corpus, **building(lambda: np.random.seed(1))),
    broken("component-globals", "environment, warnings, signals", Corpus,
           **building(change_process)),
    broken("component-globals", "torch's threads, dtype", Corpus, **building(change_torch)),
    broken("component-globals", "a thread", Corpus, **building(linger)),
]  # fmt: skip


def encoding(change):
    return {"encode": lambda self, text: Tokenizer.encode(self, change(text))}


def learn_first(self, pieces):
    self.characters = "".join(sorted({piece[0] for piece in pieces if piece}))


def learn_for_all(self, pieces):
    type(self).characters = "".join(sorted(set("".join(pieces))))


def load_less(self, state):
    return Tokenizer.from_dict(self, {"characters": state["characters"][:-1]})


class MarkTokenizer(Tokenizer):
    """Puts a mark at the beginning of every text, and so of every piece."""

    def encode(self, text):
        return np.concatenate([[1], super().encode(text)])

    def encode_pieces(self, pieces):
        return map(self.encode, pieces)

    def decode(self, ids):
        return super().decode(ids[1:])


def late_stream(self):
    """Its streams have no spaces after 300 tokens."""
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


def end_with_first(self, pieces):
    EndTokenizer.fit(self, pieces)
    self.end_id = self.end_id and 1


def show_end(self, ids):
    return "".join("<end>" if i == self.end_id else Tokenizer.decode(self, [i]) for i in ids)


def collect_on_self(self, text):
    """Collects the ids on the object."""
    self.ids = []
    for character in text:
        self.ids.append(self.characters.find(character) + 1)
    return np.array(self.ids, np.int64)


def cached(self, text):
    """Keeps the ids of every text."""
    cache = self.__dict__.setdefault("cache", {})
    if text not in cache:
        cache[text] = Tokenizer.encode(self, text)
    return cache[text]


TOKENIZERS = [
    broken("tokenizer-memory", "a cache that grows", Tokenizer, encode=cached),
    broken("tokenizer-threads", "ids on the object", Tokenizer, encode=collect_on_self),
    broken("tokenizer-fit", "borders of pieces", Tokenizer, fit=learn_first),
    broken("tokenizer-fit", "pieces left", Tokenizer,
           fit=lambda self, pieces: setattr(self, "characters", "abc")),
    broken("tokenizer-fit", "vocab_size", Tokenizer, vocab_size=3.0),
    broken("tokenizer-fit", "unknown_id", Tokenizer, unknown_id=99),
    broken("tokenizer-deterministic", "one vocabulary for all", Tokenizer, fit=learn_for_all),
    broken("tokenizer-any-text", "ids too large", Tokenizer,
           encode=lambda self, text: Tokenizer.encode(self, text) + self.vocab_size),
    broken("tokenizer-any-text", "ids in a byte", Tokenizer,
           encode=then(Tokenizer.encode, lambda ids: ids.astype(np.uint8))),
    broken("tokenizer-round-trip", "ids that were in a byte", Tokenizer,
           encode=then(Tokenizer.encode, lambda ids: ids.astype(np.uint8).astype(int))),
    broken("tokenizer-unknown", "all are one", Tokenizer, unknown_id=None),
    broken("tokenizer-unknown", "— is dropped", Tokenizer,
           **encoding(lambda text: text.replace("—", ""))),
    broken("tokenizer-unknown", "zz is z", Tokenizer,
           **encoding(lambda text: text.replace("zz", "z"))),
    broken("tokenizer-decode", "bytes", Tokenizer, decode=then(Tokenizer.decode, str.encode)),
    broken("tokenizer-decode", "small ids", Tokenizer,
           decode=lambda self, ids: Tokenizer.decode(self, ids[ids.dtype != np.int64 :])),
    broken("tokenizer-decode", "streams lose spaces late", Tokenizer,
           incremental_decoder=late_stream),
    broken("tokenizer-round-trip", "e is i", Tokenizer,
           decode=then(Tokenizer.decode, lambda text: text.replace("e", "i"))),
    broken("tokenizer-round-trip", "the end of a book", Tokenizer,
           **encoding(lambda text: text[:100_000])),
    broken("tokenizer-pieces", "a mark in each", MarkTokenizer),
    broken("tokenizer-end", "not saved", EndTokenizer, from_dict=Tokenizer.from_dict),
    broken("tokenizer-end", "that of a letter", EndTokenizer, fit=end_with_first),
    broken("tokenizer-end", "shown", EndTokenizer, decode=show_end),
    broken("tokenizer-saved", "no JSON", Tokenizer,
           to_dict=lambda self: {"characters": {self.characters}}),
    broken("tokenizer-saved", "a letter is lost", Tokenizer, from_dict=load_less),
    broken("tokenizer-saved", "another order", Tokenizer,
           to_dict=lambda self: {"characters": str(self.characters)[::-1]}),
    Case("tokenizer-saved", "an option is lost", "tokenizer",
         Component("odd", Lower, lambda config, context: LowerTokenizer(config.lower))),
]  # fmt: skip
