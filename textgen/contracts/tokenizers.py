"""Adds the rest of a tokenizer to one that has only the methods of
textgen.protocols.BasicTokenizer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import attrs

from textgen.documents import segments
from textgen.protocols import Ids, IncrementalDecoder, Table

_ADDED: Final = ("unknown_id", "encode_pieces", "incremental_decoder")
_CONTEXT: Final = 16  # tokens that are decoded again with those that come
_REPLACEMENT: Final = "\ufffd"  # stands for bytes that are no character, or none yet
_LONGEST: Final = 4  # replacements that the beginning of a character may be decoded to


def complete(tokenizer: Any) -> Any:
    """The tokenizer, with all that textgen.protocols.Tokenizer has."""
    kind = type(tokenizer)
    lacks_some = any(not hasattr(kind, name) for name in _ADDED) and hasattr(tokenizer, "encode")
    return Completed(tokenizer) if lacks_some and kind is not type else tokenizer


@attrs.frozen(eq=False)
class Completed:
    """textgen.protocols.Tokenizer: what a tokenizer has, and the rest made of its `encode` and
    `decode`.
    """

    inner: Any

    def __getattr__(self, name: str) -> Any:
        return (
            getattr(self.inner, name, None) if name == "unknown_id" else getattr(self.inner, name)
        )

    def from_dict(self, state: Table) -> Any:
        """A fitted tokenizer, completed too."""
        return complete(self.inner.from_dict(state))

    def encode_pieces(self, pieces: Iterable[str]) -> Iterator[Ids]:
        """The ids of the segments of the text."""
        if hasattr(self.inner, "encode_pieces"):
            yield from self.inner.encode_pieces(pieces)
        else:
            yield from map(self.inner.encode, segments(pieces))

    def incremental_decoder(self) -> IncrementalDecoder:
        """A decoder for one stream."""
        make: Any = getattr(self.inner, "incremental_decoder", lambda: _Decoder(self.inner))
        return make()  # type: ignore[no-any-return]


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
        is_whole = final or ready == text or len(text) - len(ready) > _LONGEST
        ready = text if is_whole else ready
        new, self._shown = ready[self._shown :], max(len(ready), self._shown)
        if is_whole:
            self._ids = self._ids[-_CONTEXT:]
            self._shown = len(self._decode(np.array(self._ids, np.int64)))
        return str(new)
