"""Byte-level byte-pair encoding: words to tokens by merges that were learnt from a corpus."""

from __future__ import annotations

import codecs
import heapq
import itertools
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any, Final

import attrs
import numpy as np

from textgen import BuildContext, Interrupted
from textgen.characters import MARKS, plain_forms
from textgen.documents import CorpusPiece, segments, split_documents
from textgen.protocols import Ids, Table
from textgen_builtins.tokenizers.char import noting_ends
from textgen_builtins.tokenizers.config import BPEConfig

_END: Final = "<|endoftext|>"
_MIN_PAIRS: Final = 2  # times that a pair occurs which is merged
_MERGED_BYTES: Final = (
    256  # bytes of a word that are merged together: the time grows with their square
)
_LEARNT_BYTES: Final = 32  # the same where merges are learnt
_SECONDS_TO_ASK: Final = 1.0  # seconds of learning in which nothing is asked
_CACHED_WORDS: Final = 1 << 18  # words whose tokens are kept
_LAST_RANK: Final = 1 << 62
# A text into words nearly as GPT-2 does (Radford et al., "Language models are unsupervised
# multitask learners", 2019): endings such as 's, and letters, digits or signs with a space before
# them.
_ENDINGS: Final = "['\u2019](?:[stmd]|re|ve|ll)"
_WORDS: Final = re.compile(_ENDINGS + r"| ?[^\W\d_]+| ?\d+| ?(?:[^\w\s]|_)+|\s+(?!\S)|\s+")
_SAME_WORDS: Final = (  # in the language of the library tokenizers
    _ENDINGS + r"| ?[\p{L}\p{Nl}\p{No}]+| ?\p{Nd}+| ?[^\s\x1c-\x1f\p{L}\p{N}]+"
    r"|[\s\x1c-\x1f]+(?![^\s\x1c-\x1f])|[\s\x1c-\x1f]+"
)
_PLAIN_FORMS: Final = {mark: next(plain_forms(mark)) for mark in MARKS}
_MARK: Final = re.compile(f"[{MARKS}]")
_NOT_ASCII: Final = re.compile(r"[^\x00-\x7f]")  # a character of several
_CHARACTERS: Final = 512  # the most frequent ones, which are added to a vocabulary
Pair = tuple[int, int]


@attrs.define(eq=False)
class BPETokenizer:
    """textgen.protocols.DocumentTokenizer: the 256 bytes, then a token for each merge, then `<end>`
    if the corpus consists of documents. Nothing is unknown.

    merges  pairs of ids that become one token, the first learnt first
    """

    config: BPEConfig
    merges: list[Pair] | None = None
    ends: bool = False
    context: BuildContext | None = None
    _bytes: list[bytes] = attrs.field(init=False, factory=list, repr=False)
    _ids: _Words = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        if self.merges is not None:
            self._index(self.merges)

    @property
    def vocab_size(self) -> int:
        """The bytes, the merges, and `<end>` if there is one."""
        self._fitted()
        return len(self._bytes)

    @property
    def end_id(self) -> int | None:
        """The last id if the corpus marked where documents end."""
        return self.vocab_size - 1 if self.ends else None

    def fit(self, pieces: Iterable[CorpusPiece]) -> None:
        """Learn from a corpus, in memory that grows with its different words, not its length."""
        self.ends = False
        counts = Counter[str]()
        for segment in self._segments(pieces):
            counts.update(_WORDS.findall(segment))
        words = Counter[tuple[int, ...]]()
        for word, count in counts.items():
            for part in _parts(word, _LEARNT_BYTES):
                words[part] += count
        begun, merges = time.monotonic(), list[Pair]()
        for pair in itertools.islice(_learnt(words), self.config.vocab_size - 256):
            merges.append(pair)
            is_long = time.monotonic() - begun > _SECONDS_TO_ASK
            if is_long and self.context is not None and self.context.cancelled():
                raise Interrupted("interrupted before training, while the tokenizer was learnt")
        self._index(merges)

    def extend(self, pieces: Iterable[CorpusPiece]) -> None:
        """Add `<end>` if there are documents, and a token for each character of several bytes that
        has none: a model that never saw its bytes would write some of them alone. A mark of print
        joins what its plain form does, as an apostrophe joins the t of "don't"; in place of that,
        where the text has none.
        """
        self._fitted()
        counts, marked, lacking = Counter[str](), set[str](), {*_PLAIN_FORMS.values()}
        for segment in self._segments(pieces):
            counts.update(_NOT_ASCII.findall(segment))
            marked.update(filter(_MARK.search, set(_WORDS.findall(segment))))
            lacking -= {mark for mark in lacking if mark in segment}
        made = {pair: 256 + rank for rank, pair in enumerate(self.merges or [])}
        for character, _ in counts.most_common(_CHARACTERS):
            token, *rest = (_IDS[byte] for byte in character.encode())
            if character.encode() in self._bytes:  # perhaps of other pairs
                continue
            for byte in rest:
                token = made.setdefault((token, byte), 256 + len(made))
        self._index([*made])
        replaced = lacking & {_PLAIN_FORMS[mark] for mark in _MARK.findall("".join(marked))}
        self._index(
            _without(
                self._with_marks({word.encode() for word in marked}),
                {mark.encode() for mark in replaced},
            )
        )

    def _with_marks(self, words: Set[bytes]) -> list[Pair]:
        """The merges, and those of marks of print beside those of their plain forms, where words
        have them.
        """
        texts = self._bytes[: 256 + len(self.merges or ())]
        known = {text: token for token, text in enumerate(texts)}
        printed = defaultdict[int, list[int]](list)  # by the token of the plain form
        for mark, plain in _PLAIN_FORMS.items():
            if (token := known.get(mark.encode())) is not None and plain.encode() in known:
                printed[known[plain.encode()]].append(token)
        made = {pair: 256 + rank for rank, pair in enumerate(self.merges or [])}
        for (a, b), token in [*made.items()]:
            for pair in itertools.product([a, *printed[a]], [b, *printed[b]]):
                text = b"".join(texts[each] for each in pair)
                if text not in known and any(text in word for word in words):
                    made[pair] = known[text] = 256 + len(made)
                    texts.append(text)
                    printed[token].append(made[pair])
        return [*made]

    def encode(self, text: str) -> Ids:
        """(T,) int32. Lone surrogates, which no bytes of UTF-8 stand for, become U+FFFD."""
        return np.concatenate([np.empty(0, np.int32), *self.encode_pieces([text])])

    def encode_pieces(self, pieces: Iterable[str]) -> Iterator[Ids]:
        """(T,) int32 for each segment of at most 65,536 characters."""
        ids = self._fitted()
        for segment in segments(pieces):
            words = _WORDS.findall(segment)
            yield np.fromiter(itertools.chain.from_iterable(map(ids.__getitem__, words)), np.int32)

    def decode(self, ids: Ids) -> str:
        """The text; bytes that are no UTF-8 are shown as U+FFFD, `<end>` is nothing.

        Raises ValueError for ids outside the vocabulary.
        """
        return self._joined(ids).decode("utf-8", "replace")

    def incremental_decoder(self) -> _Stream:
        """Holds back the first bytes of a character until its last one comes."""
        return _Stream(self)

    def to_dict(self) -> dict[str, Any]:
        """The tokenizer.json that the libraries tokenizers and transformers read."""
        self._fitted()
        texts = self._bytes[: 256 + len(self.merges or ())]
        names = ["".join(_NAMES[byte] for byte in text) for text in texts]
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
        split = {"type": "Split", "pattern": {"Regex": _SAME_WORDS}, "behavior": "Isolated"}
        end = {"id": len(names), "content": _END, "special": True, "normalized": False}
        sides = {"single_word": False, "lstrip": False, "rstrip": False}
        return {
            "version": "1.0",
            "added_tokens": [{**end, **sides}] if self.ends else [],
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [
                    {**split, "invert": False},
                    {**byte_level, "use_regex": False},
                ],
            },
            "decoder": {**byte_level, "use_regex": True},
            "model": {
                "type": "BPE",
                "vocab": {name: index for index, name in enumerate(names)},
                "merges": [[names[a], names[b]] for a, b in self.merges or ()],
            },
        }

    def from_dict(self, state: Table) -> BPETokenizer:
        """A tokenizer of what `to_dict` gave. Raises ValueError for anything else."""
        try:
            made = BPETokenizer(self.config, _merges(state["model"]), bool(state["added_tokens"]))
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise ValueError("expected byte-level merges, as to_dict gives them") from error
        if made.to_dict() != state:
            raise ValueError("expected byte-level merges alone, as to_dict gives them")
        return made

    def _segments(self, pieces: Iterable[CorpusPiece]) -> Iterator[str]:
        """The text, document by document; notes whether there are any."""
        for document in split_documents(noting_ends(pieces, self)):
            yield from segments(document)

    def _index(self, merges: list[Pair]) -> None:
        tokens = [bytes([byte]) for byte in _NAMES_BY_ID]
        for a, b in merges:
            tokens.append(tokens[a] + tokens[b])
        self._bytes = [*tokens, b""] if self.ends else tokens
        self._ids = _Words({pair: 256 + rank for rank, pair in enumerate(merges)})
        self.merges = merges

    def _joined(self, ids: Ids) -> bytes:
        ids = np.asarray(ids)
        if ids.size and (ids.min() < 0 or ids.max() >= self.vocab_size):
            raise ValueError(f"ids must be from 0 to {self.vocab_size - 1}")
        return b"".join([self._bytes[token] for token in ids.tolist()])

    def _fitted(self) -> _Words:
        if self.merges is None:
            raise ValueError("the tokenizer is not fitted yet")
        return self._ids


class _Words(dict[str, tuple[int, ...]]):
    """The ids of each word that came, by merging the pair that was learnt first until none is
    left.
    """

    def __init__(self, ranks: Mapping[Pair, int]) -> None:
        self._ranks = ranks

    def __missing__(self, word: str) -> tuple[int, ...]:
        parts = _parts(word)
        made = tuple(itertools.chain.from_iterable(map(self._merged, parts)))
        if len(self) >= _CACHED_WORDS:
            self.clear()
        if len(parts) == 1:
            self[word] = made
        return made

    def _merged(self, part: tuple[int, ...]) -> list[int]:
        ids = list(part)
        while len(ids) > 1:
            pair = min(itertools.pairwise(ids), key=self._rank)
            if pair not in self._ranks:
                break
            ids = _with_merge(ids, pair, self._ranks[pair])
        return ids

    def _rank(self, pair: Pair) -> int:
        return self._ranks.get(pair, _LAST_RANK)


class _Stream:
    def __init__(self, tokenizer: BPETokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def decode(self, ids: Ids, final: bool = False) -> str:
        """The characters that `ids` complete."""
        return self._decoder.decode(self._tokenizer._joined(ids), final)


def _learnt(counts: Mapping[tuple[int, ...], int]) -> Iterator[Pair]:
    """Yield merges: again and again the most frequent pair of tokens, of equals the one with the
    lower ids (Sennrich, Haddow and Birch, "Neural machine translation of rare words with subword
    units", 2016).
    """
    words = [list(word) for word in counts]
    times, where = Counter[Pair](), defaultdict[Pair, set[int]](set)

    def count(index: int, number: int) -> None:
        for pair in itertools.pairwise(words[index]):
            times[pair] += number
            if number > 0:
                where[pair].add(index)

    each = list(counts.values())
    for index, number in enumerate(each):
        count(index, number)
    queue = [(-number, pair) for pair, number in times.items()]
    heapq.heapify(queue)
    made = 256
    while queue:
        number, pair = heapq.heappop(queue)
        if times[pair] < _MIN_PAIRS:
            continue
        if times[pair] != -number:  # some of its occurrences have gone since it was queued
            heapq.heappush(queue, (-times[pair], pair))
            continue
        changed = set[Pair]()
        yield pair
        for index in where.pop(pair):
            count(index, -each[index])
            words[index] = _with_merge(words[index], pair, made)
            count(index, each[index])
            changed.update(new for new in itertools.pairwise(words[index]) if made in new)
        for new in changed:
            heapq.heappush(queue, (-times[new], new))
        made += 1


def _with_merge(ids: list[int], pair: Pair, made: int) -> list[int]:
    """A word after a merge."""
    first, second = pair
    merged, index = list[int](), 0
    while index < len(ids):
        is_pair = ids[index] == first and ids[index + 1 : index + 2] == [second]
        merged.append(made if is_pair else ids[index])
        index += 2 if is_pair else 1
    return merged


def _without(merges: Iterable[Pair], marks: Iterable[bytes]) -> list[Pair]:
    """The merges whose tokens have none of the marks."""
    texts, ids = [bytes([byte]) for byte in _NAMES_BY_ID], {i: i for i in range(256)}
    kept = list[Pair]()
    for rank, (a, b) in enumerate(merges):
        texts.append(texts[a] + texts[b])
        if not any(mark in texts[-1] for mark in marks):
            ids[256 + rank] = 256 + len(kept)
            kept.append((ids[a], ids[b]))
    return kept


def _names() -> dict[int, str]:
    """The character that stands for each byte in a tokenizer.json: printable ones for
    themselves.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(256 + i) for i, byte in enumerate(others)
    }


_NAMES: Final = _names()
_NAMES_BY_ID: Final = sorted(_NAMES, key=_NAMES.__getitem__)  # the bytes by their ids
_IDS: Final = {byte: index for index, byte in enumerate(_NAMES_BY_ID)}


def _parts(word: str, most: int = _MERGED_BYTES) -> list[tuple[int, ...]]:
    """The ids of a word's bytes, in the parts within which tokens are merged."""
    ids = tuple(_IDS[byte] for byte in word.encode())
    return [ids[i : i + most] for i in range(0, len(ids), most)]


def _merges(model: Table) -> list[Pair]:
    """The merges that a tokenizer.json names. Raises ValueError if its vocabulary is another: then
    a few of them can be more bytes than the memory holds.
    """
    vocabulary, pairs = model["vocab"], model["merges"]
    names = [*sorted(_NAMES.values()), *(a + b for a, b in pairs)]
    expected = {name: index for index, name in enumerate(names)}
    if vocabulary != expected or len(expected) != len(names):
        raise ValueError("the vocabulary is not that of the merges")
    return [(vocabulary[a], vocabulary[b]) for a, b in pairs]
