"""Byte-level tokenizers of the tokenizers library, whose streams split no character."""

from __future__ import annotations

import codecs
import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import numpy as np

from textgen import DOCUMENT_END, Fault, PipelineError
from textgen.documents import CorpusPiece, segments
from textgen.protocols import Ids, IncrementalDecoder, Tokenizer

_ENDS: Final = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>")
_AS_IT_IS: Final = [{"Sequence": {"id": "A", "type_id": 0}}]


@attrs.define(eq=False)
class FolderTokenizer:
    """textgen.protocols.Tokenizer around a tokenizers.Tokenizer whose tokens are bytes.

    file        the tokenizer.json that is read when it is fitted
    end         its token for the end of a document, if the corpus marks documents and there is one
    """

    file: Path
    tokenizer: Any = None
    end: str = ""
    _bytes: list[bytes] = attrs.field(factory=list, repr=False)

    @property
    def vocab_size(self) -> int:
        """The tokens, added ones included."""
        self._fitted()
        return len(self._bytes)

    @property
    def unknown_id(self) -> None:
        """None: every byte is a token."""
        return

    @property
    def end_id(self) -> int | None:
        """The id of the token for the end of a document, if the corpus marks documents and there is
        such a token.
        """
        end: int | None = self.tokenizer.token_to_id(self.end) if self.end else None
        return end

    def fit(self, pieces: Iterable[CorpusPiece]) -> None:
        """Read the file, and all of the corpus, to find out whether it marks documents.

        Raises PipelineError if the file cannot be used.
        """
        tokenizer, ends = _read(self.file), False
        for piece in pieces:
            ends = ends or piece is DOCUMENT_END
        end = _own_end(tokenizer, self.file) if ends else ""
        if end:
            _note_end(tokenizer, end)
        self._take(tokenizer, end)

    def encode(self, text: str) -> Ids:
        """(T,) int32. Lone surrogates, which no bytes of UTF-8 stand for, become U+FFFD."""
        return np.concatenate([np.empty(0, np.int32), *self.encode_pieces([text])])

    def encode_pieces(self, pieces: Iterable[str]) -> Iterator[Ids]:
        """(T,) int32 for each segment of at most 65,536 characters."""
        tokenizer = self._fitted()
        for segment in segments(pieces):
            yield np.array(tokenizer.encode(segment, add_special_tokens=False).ids, np.int32)

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

    def from_dict(self, state: Mapping[str, Any]) -> FolderTokenizer:
        """A tokenizer of what `to_dict` gave."""
        import tokenizers

        made = FolderTokenizer(self.file)
        made._take(tokenizers.Tokenizer.from_str(json.dumps(state)), _noted_end(state))
        return made

    def _joined(self, ids: Ids) -> bytes:
        ids = np.asarray(ids)
        if ids.size and (ids.min() < 0 or ids.max() >= self.vocab_size):
            raise ValueError(f"ids must be from 0 to {self.vocab_size - 1}")
        return b"".join([self._bytes[token] for token in ids.tolist()])

    def _take(self, tokenizer: Any, end: str) -> None:
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        self._bytes = [b""] * (max(vocabulary.values(), default=-1) + 1)
        for token, index in vocabulary.items():
            self._bytes[index] = _token_bytes(token)
        self.tokenizer, self.end = tokenizer, end
        if end:
            self._bytes[vocabulary[end]] = b""
            tokenizer.encode_special_tokens = True  # where its name stands in a text, it is text

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


def _own_end(tokenizer: Any, file: Path) -> str:
    """The special token that ends a text: what tokenizer_config.json says, else one of the usual
    names; "" if none.
    """
    special = {
        token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special
    }
    with contextlib.suppress(OSError, ValueError, AttributeError):
        named = json.loads(file.with_name("tokenizer_config.json").read_bytes()).get("eos_token")
        named = named.get("content") if isinstance(named, dict) else named
        if isinstance(named, str) and named in special:
            return named
    return next((name for name in _ENDS if name in special), "")


def _note_end(tokenizer: Any, end: str) -> None:
    """Note which token ends documents, where it changes nothing: in a template that adds no token
    to a text.
    """
    from tokenizers import processors

    note = processors.TemplateProcessing(
        single="$A", pair="$A $B:1", special_tokens=[(end, tokenizer.token_to_id(end))]
    )
    own = [] if tokenizer.post_processor is None else [tokenizer.post_processor]
    tokenizer.post_processor = processors.Sequence([*own, note])


def _noted_end(state: Mapping[str, Any]) -> str:
    """The token that was noted, or ""."""
    steps = (state.get("post_processor") or {}).get("processors") or [{}]
    ends = list(steps[-1].get("special_tokens") or ())
    return ends[0] if steps[-1].get("single") == _AS_IT_IS and len(ends) == 1 else ""


def _read(file: Path) -> Any:
    """The tokenizer in `file`, which must be byte-level: others need the text before to decode a
    token.
    """
    import tokenizers
    from tokenizers import pre_tokenizers

    try:
        tokenizer: Any = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises Exception itself
        raise PipelineError([Fault("tokenizer.path", f"{file} cannot be read: {error}")]) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    vocabulary = tokenizer.get_vocab()
    if '"ByteLevel"' not in json.dumps(json.loads(tokenizer.to_str())["decoder"]) or any(
        byte not in vocabulary for byte in pre_tokenizers.ByteLevel.alphabet()
    ):
        cause = "it is not byte-level (as those of GPT-2, Llama 3 and Qwen are)"
    elif encode("a b") != encode("a") + encode(" b") or encode(" a") == encode("a"):
        cause = "it puts a space before a text, so that a text cannot be encoded in pieces"
    else:
        return tokenizer
    raise PipelineError([Fault("tokenizer.path", f"{file} cannot be used: {cause}")])


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
