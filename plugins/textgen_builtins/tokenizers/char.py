"""Characters to ids and back, by table look-up on large blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, TypeAlias

import attrs
import numpy as np
import numpy.typing as npt

from textgen.documents import DOCUMENT_END, CorpusPiece, split_documents
from textgen.protocols import Ids, Table
from textgen_builtins.tokenizers.config import CharConfig

UNKNOWN: Final = 0
_UNKNOWN_CHARACTER: Final = "\N{REPLACEMENT CHARACTER}"
_UNKNOWN_NAME, _END_NAME = "<unk>", "<end>"
_CODE_POINTS: Final = 0x110000
# Characters processed at once: the temporary arrays take a few times 4 MB.
_BLOCK_CHARACTERS: Final = 1 << 20
_SIGMA: Final = "\N{GREEK CAPITAL LETTER SIGMA}", "\N{GREEK SMALL LETTER SIGMA}"
_COUNTED_CHARACTERS: Final = 1 << 16  # characters of short documents that are counted together
Codes: TypeAlias = npt.NDArray[np.unsignedinteger[Any]]


@attrs.define(eq=False)
class CharTokenizer:
    """textgen.protocols.DocumentTokenizer with one id per character.

    0 is `<unk>`, then come the characters in code-point order, then `<end>` if the corpus consists
    of documents.
    """

    config: CharConfig
    characters: str | None = None
    ends: bool = False
    _codes: npt.NDArray[np.uint32] = attrs.field(init=False, repr=False)
    _table: Ids = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        if self.characters is not None:
            self._index(self.characters)

    @property
    def vocab_size(self) -> int:
        """The characters of the vocabulary, `<unk>`, and `<end>` if there is one."""
        return len(self._fitted()) + 1 + self.ends

    @property
    def unknown_id(self) -> int:
        """0."""
        return UNKNOWN

    @property
    def end_id(self) -> int | None:
        """The last id if the corpus marked where documents end."""
        return self.vocab_size - 1 if self.ends else None

    def fit(self, pieces: Iterable[CorpusPiece]) -> None:
        """Use the characters that occur at least `min_frequency` times after normalisation."""
        counts = np.zeros(_CODE_POINTS, np.int64)
        self.ends = False
        documents = split_documents(noting_ends(pieces, self))
        for codes in _gathered(codes for text in documents for codes in self._normalized(text)):
            found = np.bincount(codes)
            counts[: len(found)] += found
        if self.config.letters_only:
            counts[ord(_UNKNOWN_CHARACTER)] = 0  # it is no letter
        self._index("".join(map(chr, np.flatnonzero(counts >= self.config.min_frequency))))

    def extend(self, pieces: Iterable[CorpusPiece]) -> None:
        """Add `<end>` to the vocabulary if there are documents."""
        self.ends |= any(piece is DOCUMENT_END for piece in pieces)
        self._index(self._fitted())

    def encode(self, text: str) -> Ids:
        """(T,) int32."""
        return np.concatenate([np.empty(0, np.int32), *self.encode_pieces([text])], dtype=np.int32)

    def encode_pieces(self, pieces: Iterable[str]) -> Iterator[Ids]:
        """(T,) for each block of about a million characters, of the smallest unsigned dtype for the
        vocabulary.
        """
        self._fitted()
        for codes in self._normalized(pieces):
            yield self._table.take(codes)

    def decode(self, ids: Ids) -> str:
        """The characters; `<unk>` is U+FFFD, `<end>` is nothing.

        Raises ValueError for ids outside the vocabulary.
        """
        ids = np.asarray(ids)
        # Read as unsigned, negative ids are large ones: one pass finds both.
        if ids.size and ids.view(f"u{ids.itemsize}").max() >= self.vocab_size:
            raise ValueError(f"ids must be from 0 to {self.vocab_size - 1}")
        if self.ends:
            ids = ids[ids != self.end_id]
        return self._codes[ids].tobytes().decode("utf-32-le", "surrogatepass")

    def incremental_decoder(self) -> _Stateless:
        """One character per id, so nothing is ever held back."""
        return _Stateless(self)

    def to_dict(self) -> dict[str, Any]:
        """The vocabulary, with the reserved tokens by name.

        JSON keeps lone surrogates as escapes.
        """
        return {
            "type": "char",
            "tokens": [_UNKNOWN_NAME, *self._fitted(), *[_END_NAME] * self.ends],
        }

    def from_dict(self, state: Table) -> CharTokenizer:
        """A tokenizer with the vocabulary of `to_dict`. Raises ValueError for anything else."""
        tokens = state.get("tokens")
        if state.keys() != {"type", "tokens"} or state["type"] != "char":
            raise ValueError('expected the keys type = "char" and tokens')
        if not isinstance(tokens, list) or tokens[:1] != [_UNKNOWN_NAME]:
            raise ValueError(f"tokens: expected a list that begins with {_UNKNOWN_NAME!r}")
        ends = tokens[-1] == _END_NAME
        characters = tokens[1 : len(tokens) - ends]
        single = (isinstance(each, str) and len(each) == 1 for each in characters)
        if not all(single) or sorted(set(characters)) != characters:
            raise ValueError("tokens: expected characters in order of their code points, each once")
        return CharTokenizer(self.config, "".join(characters), ends)

    def _index(self, characters: str) -> None:
        codes = np.array([ord(_UNKNOWN_CHARACTER), *map(ord, characters)], np.uint32)
        table = np.full(_CODE_POINTS, UNKNOWN, np.min_scalar_type(len(characters) + 1))
        table[codes[1:]] = np.arange(1, len(codes))
        self.characters, self._codes, self._table = characters, codes, table

    def _fitted(self) -> str:
        if self.characters is None:
            raise ValueError("the tokenizer is not fitted yet")
        return self.characters

    def _normalized(self, pieces: Iterable[str]) -> Iterator[Codes]:
        """Blocks of code points, normalised as if the pieces were one text."""
        if self.config.lower_case and not self.config.letters_only:
            # Of all letters, sigma alone has a small form that depends on what is beside it.
            pieces = (piece.replace(*_SIGMA).lower() for piece in pieces)
        after_space = False
        for piece in pieces:
            for start in range(0, len(piece), _BLOCK_CHARACTERS):
                codes = _code_points(piece[start : start + _BLOCK_CHARACTERS])
                if self.config.letters_only:
                    codes, after_space = _letters_only(codes, after_space)
                    if self.config.lower_case:
                        codes = codes | np.uint8(32)  # a space stays a space
                yield codes


def noting_ends(pieces: Iterable[CorpusPiece], tokenizer: Any) -> Iterator[CorpusPiece]:
    """The same pieces; sets `ends` of a tokenizer where one is the end of a document."""
    for piece in pieces:
        tokenizer.ends |= piece is DOCUMENT_END
        yield piece


def _code_points(text: str) -> Codes:
    """The code points (T,) of a text, in one byte each if it is ASCII, in two or four otherwise:
    less to read.
    """
    if text.isascii():
        return np.frombuffer(text.encode(), np.uint8)
    units = np.frombuffer(text.encode("utf-16-le", "surrogatepass"), "<u2")
    if len(units) == len(text):  # no character takes two
        return units
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def _gathered(blocks: Iterable[Codes]) -> Iterator[Codes]:
    """The same code points in fewer blocks: counting takes longer for many short ones."""
    held, size = [], 0
    for block in blocks:
        held.append(block)
        size += len(block)
        if size >= _COUNTED_CHARACTERS:
            yield np.concatenate(held)
            held, size = [], 0
    yield from held if len(held) < 2 else [np.concatenate(held)]


@attrs.frozen
class _Stateless:
    tokenizer: CharTokenizer

    def decode(self, ids: Ids, final: bool = False) -> str:
        """The characters of `ids`."""
        return self.tokenizer.decode(ids)


def _letters_only(codes: Codes, after_space: bool) -> tuple[Codes, bool]:
    """Every run of characters other than A-Z and a-z as one space, also across the borders of
    blocks. The character of `<unk>` stays, so that a letter outside the vocabulary stays one token.
    """
    letters = ((codes | 32) - ord("a") < 26) & (codes < 128)
    letters |= codes == ord(_UNKNOWN_CHARACTER)
    keep = letters.copy()
    keep[1:] |= letters[:-1]  # the first other character after a letter represents its run
    if len(codes):
        keep[0] |= not after_space
        after_space = not letters[-1]
    return np.where(letters, codes, codes.dtype.type(ord(" ")))[keep], after_space
