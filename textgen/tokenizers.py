"""Functions of every tokenizer, also one with only what textgen.protocols.Tokenizer asks for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from textgen.documents import segments
from textgen.protocols import Ids, IncrementalDecoder

_CONTEXT_TOKENS: Final = 16  # tokens that are decoded again with those that come
_REPLACEMENT: Final = "\ufffd"  # stands for bytes that are no character, or none yet
_MAX_REPLACEMENTS: Final = 4  # replacements that the beginning of a character may be decoded to


def unknown_id(tokenizer: Any) -> int | None:
    """The id for text outside the vocabulary; None if every text can be encoded."""
    return getattr(tokenizer, "unknown_id", None)


def encode_pieces(tokenizer: Any, pieces: Iterable[str]) -> Iterator[Ids]:
    """The ids of a text in pieces: by the tokenizer's own method, or those of its segments."""
    own = getattr(tokenizer, "encode_pieces", None)
    return own(pieces) if own else map(tokenizer.encode, segments(pieces))


def incremental_decoder(tokenizer: Any) -> IncrementalDecoder:
    """A decoder for one stream: the tokenizer's own, or one made of its `decode`."""
    own = getattr(tokenizer, "incremental_decoder", None)
    return own() if own else _Decoder(tokenizer)


class _Decoder:
    """Decodes each token with those before it, and holds back characters that are not complete."""

    def __init__(self, tokenizer: Any) -> None:
        self._decode = tokenizer.decode
        self._ids: list[int] = []  # the context, and the tokens that come
        self._shown = 0  # characters of their text

    def decode(self, ids: Ids, final: bool = False) -> str:
        """The text that `ids` (T,) complete.

        With `final`, also the text that is still held back.
        """
        import numpy as np

        self._ids += ids.tolist()
        text = self._decode(np.array(self._ids, np.int64))
        ready = text.rstrip(_REPLACEMENT)
        is_whole = final or ready == text or len(text) - len(ready) > _MAX_REPLACEMENTS
        ready = text if is_whole else ready
        new, self._shown = ready[self._shown :], max(len(ready), self._shown)
        if is_whole:
            self._ids = self._ids[-_CONTEXT_TOKENS:]
            self._shown = len(self._decode(np.array(self._ids, np.int64)))
        return str(new)
