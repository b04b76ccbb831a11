"""Tokenizers of the tokenizers library that give every text back, and streams that split no
character.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import numpy as np

from textgen import DOCUMENT_END, Fault, PipelineError, UsageError
from textgen.documents import CorpusPiece, segments
from textgen.protocols import Ids, IncrementalDecoder, Table, Tokenizer
from textgen_huggingface import tokenizer_files

_PLAIN_TEMPLATE: Final = [{"Sequence": {"id": "A", "type_id": 0}}]
_SPACE: Final = "\N{LOWER ONE EIGHTH BLOCK}"  # what stands for a space in tokens of SentencePiece
_UNKNOWN: Final = "\N{REPLACEMENT CHARACTER}".encode()
_PROBES: Final = ("a b", " a", "a  b", "A\n")
# The bytes of UTF-8; those that it never uses need no token.
_UTF_8: Final = [bytes([byte]) for byte in (*range(0xC0), *range(0xC2, 0xF5))]


@attrs.define(eq=False)
class FolderTokenizer:
    """textgen.protocols.Tokenizer around a tokenizers.Tokenizer whose tokens are bytes.

    file        the tokenizer.json or GGUF file that is read when it is fitted
    end         its token for the end of a document, if the corpus marks documents and there is one
    unknown_id  the id of what no tokens spell; None if every text can be spelt, or if the tokenizer
                has no such token
    """

    file: Path
    tokenizer: Any = None
    end: str = ""
    unknown_id: int | None = None
    _bytes: list[bytes] = attrs.field(factory=list, repr=False)
    _singles: dict[bytes, int] = attrs.field(factory=dict, repr=False)

    @property
    def vocab_size(self) -> int:
        """The tokens, added ones included."""
        self._fitted()
        return len(self._bytes)

    @property
    def end_id(self) -> int | None:
        """The id of the token for the end of a document, if the corpus marks documents and there is
        such a token.
        """
        end: int | None = self.tokenizer.token_to_id(self.end) if self.end else None
        return end

    @property
    def begin_id(self) -> int | None:
        """The id that the library puts before each text; None if it puts none there."""
        ids = self.tokenizer.encode("", add_special_tokens=True).ids
        return ids[0] if ids and not self._bytes[ids[0]] else None

    @property
    def silent_ids(self) -> list[int]:
        """The ids that stand for no text, which a model must not draw."""
        return [i for i, text in enumerate(self._bytes) if not text and i != self.end_id]

    def fit(self, pieces: Iterable[CorpusPiece]) -> None:
        """Read the file, and all of the corpus, to find out whether it marks documents.

        Raises PipelineError if the file cannot be used.
        """
        import tokenizers

        read, ends = tokenizer_files.read(self.file), False
        for piece in pieces:
            ends = ends or piece is DOCUMENT_END
        end = read.end if ends else ""
        tokenizer = tokenizers.Tokenizer.from_str(json.dumps(read.exact(end)))
        if end or _noted_end(read.state):
            _note_end(tokenizer, end)
        self._take(tokenizer, end)
        for probe in _PROBES:
            try:
                given = self.decode(np.array(self._library_ids(probe), int))
            except UsageError as error:
                raise PipelineError([Fault("tokenizer.path", str(error))]) from error
            if given != probe:
                cause = f"cannot be used: it gives {given!r} back for {probe!r}"
                raise PipelineError([Fault("tokenizer.path", f"{self.file} {cause}")])

    def encode(self, text: str) -> Ids:
        """(T,) int32. Lone surrogates, which no bytes of UTF-8 stand for, become U+FFFD.

        Raises UsageError for characters that no tokens spell, if there is no unknown_id.
        """
        return np.concatenate([np.empty(0, np.int32), *self.encode_pieces([text])])

    def encode_pieces(self, pieces: Iterable[str]) -> Iterator[Ids]:
        """(T,) int32 for each segment of at most 65,536 characters."""
        self._fitted()
        for segment in segments(pieces):
            yield np.array(self._encode(segment), np.int32)

    def decode(self, ids: Ids) -> str:
        """The text; bytes that are no UTF-8 are shown as U+FFFD.

        Raises ValueError for ids outside the vocabulary.
        """
        return self._joined(ids).decode("utf-8", "replace")

    def incremental_decoder(self) -> IncrementalDecoder:
        """Holds back the first bytes of a character until its last one comes."""
        return _Stream(self)

    def to_dict(self) -> dict[str, Any]:
        """The tokenizer.json that transformers reads."""
        state: dict[str, Any] = json.loads(self._fitted().to_str())
        return state

    def from_dict(self, state: Table) -> FolderTokenizer:
        """A tokenizer of what `to_dict` gave. Raises ValueError for anything else."""
        import tokenizers

        try:
            tokenizer = tokenizers.Tokenizer.from_str(json.dumps(state))
        except Exception as error:  # the library raises Exception itself
            raise ValueError(str(error)) from error
        tokenizer_files.check_ids(tokenizer)
        made = FolderTokenizer(self.file)
        made._take(tokenizer, _noted_end(state))
        return made

    def _joined(self, ids: Ids) -> bytes:
        ids = np.asarray(ids)
        if ids.size and (ids.min() < 0 or ids.max() >= self.vocab_size):
            raise ValueError(f"ids must be from 0 to {self.vocab_size - 1}")
        return b"".join([self._bytes[token] for token in ids.tolist()])

    def _encode(self, text: str) -> list[int]:
        """The ids of the library, wherever their bytes are those of the text."""
        ids = self._library_ids(text)
        if self._spell(ids, text):
            return ids
        if len(text) == 1:
            return self._spelt(text)
        odd = [each for each in set(text) if not self._spell(self._library_ids(each), each)]
        half = len(text) // 2
        parts = (
            re.split(f"([{re.escape(''.join(odd))}])", text) if odd else [text[:half], text[half:]]
        )
        return [token for part in parts if part for token in self._encode(part)]

    def _library_ids(self, text: str) -> list[int]:
        try:
            ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        except Exception as error:  # the library raises Exception itself
            raise UsageError(f"the tokenizer of {self.file} cannot be used: {error}") from error
        return ids

    def _spell(self, ids: Sequence[int], text: str) -> bool:
        joined = b"".join([self._bytes[token] for token in ids])
        return joined == text.encode() and self.unknown_id not in ids

    def _spelt(self, character: str) -> list[int]:
        """A token for each byte of a character, or the unknown one."""
        singles = [self._singles.get(bytes([byte])) for byte in character.encode()]
        ids = [token for token in singles if token is not None]
        if len(ids) == len(singles):
            return ids
        if self.unknown_id is None:
            raise UsageError(
                f"the tokenizer of {self.file} has no tokens for {character!r} "
                f"(U+{ord(character):04X}); leave it out of the text"
            )
        return [self.unknown_id]

    def _take(self, tokenizer: Any, end: str) -> None:
        """Take a tokenizer of the library, and find out which bytes each token stands for."""
        state = json.loads(tokenizer.to_str())
        special = {token["content"] for token in state["added_tokens"] if token["special"]}
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        spell = _token_bytes if '"ByteLevel"' in json.dumps(state["decoder"]) else _piece_bytes
        self._bytes = [b""] * (max(vocabulary.values(), default=-1) + 1)
        for token, index in vocabulary.items():
            self._bytes[index] = b"" if token in special else spell(token)
        self._singles = {}
        for index, value in enumerate(self._bytes):
            if len(value) == 1:
                self._singles.setdefault(value, index)
        model = state["model"]
        unknown = vocabulary.get(model.get("unk_token"), model.get("unk_id"))
        if unknown is not None and not self._singles.keys() >= {*_UTF_8}:
            self.unknown_id, self._bytes[unknown] = unknown, _UNKNOWN
        self.tokenizer, self.end = tokenizer, end
        tokenizer.encode_special_tokens = True  # where the name of one stands in a text, it is text

    def _fitted(self) -> Any:
        if self.tokenizer is None:
            raise ValueError("the tokenizer is not fitted yet")
        return self.tokenizer


class _Stream:
    def __init__(self, tokenizer: FolderTokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def decode(self, ids: Ids, final: bool = False) -> str:
        """The characters that `ids` complete."""
        return self._decoder.decode(self._tokenizer._joined(ids), final)


def as_library(tokenizer: Tokenizer) -> Any:
    """The tokenizers.Tokenizer of what `to_dict` gives; None if that is no tokenizer.json."""
    import tokenizers

    state = json.dumps(tokenizer.to_dict())
    try:
        return tokenizers.Tokenizer.from_str(state)
    except Exception:  # the library raises Exception itself
        return None


def _note_end(tokenizer: Any, end: str) -> None:
    """Note which token ends documents, if one does, where it changes nothing: in a template that
    adds no token to a text.
    """
    from tokenizers import processors

    note = processors.TemplateProcessing(
        single="$A",
        pair="$A $B:1",
        special_tokens=[(end, tokenizer.token_to_id(end))] if end else [],
    )
    own = [] if tokenizer.post_processor is None else [tokenizer.post_processor]
    tokenizer.post_processor = processors.Sequence([*own, note])


def _noted_end(state: Table) -> str:
    """The token that was noted, or ""."""
    steps = (state.get("post_processor") or {}).get("processors") or [{}]
    ends = list(steps[-1].get("special_tokens") or ())
    return ends[0] if steps[-1].get("single") == _PLAIN_TEMPLATE and len(ends) == 1 else ""


def _byte_values() -> dict[str, int]:
    """The byte that each character of a byte-level token stands for: printable ones for themselves
    (GPT-2).
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(256 + i): byte for i, byte in enumerate(others)
    }


_BYTES: Final = _byte_values()


def _token_bytes(token: str) -> bytes:
    """The bytes of a token; one that was added stands for its own text."""
    values = [_BYTES.get(character) for character in token]
    return (
        token.encode() if None in values else bytes(value for value in values if value is not None)
    )


def _piece_bytes(token: str) -> bytes:
    """The bytes of a token of SentencePiece, in which `<0x0A>` is one byte."""
    if byte := re.fullmatch("<0x([0-9A-F]{2})>", token):
        return bytes.fromhex(byte[1])
    return token.replace(_SPACE, " ").encode()
