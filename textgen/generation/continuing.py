"""The text that tokens add to what stood before them."""

from __future__ import annotations

import attrs
import numpy as np

from textgen.protocols import Ids, IncrementalDecoder, Tokenizer

TAIL = 32  # tokens before, of which tokenizers look at the last one or few


@attrs.frozen(eq=False)
class Continuation:
    """Decodes tokens that follow others, and leaves out the text of those.

    Tokens alone may stand for another text than after others: a tokenizer of words puts a space between two, one of
    SentencePiece leaves out the space at the beginning.
    """

    tokenizer: Tokenizer
    tail: Ids
    before: str

    @classmethod
    def of(cls, tokenizer: Tokenizer, ids: Ids, *, held_back: bool = False) -> Continuation:
        """A continuation of `ids` (T,). With `held_back` it begins with what the last of these left unfinished."""
        tail = ids[-TAIL:]
        if not len(tail):
            return cls(tokenizer, tail, "")
        shown = tokenizer.incremental_decoder().decode(tail) if held_back else tokenizer.decode(tail)
        return cls(tokenizer, tail, shown)

    def decode(self, ids: Ids, *, hold_back: bool = False) -> str:
        """The text that all of `ids` (T,) add. With `hold_back`, without a last character that is not finished."""
        if hold_back:
            return self.incremental_decoder().decode(ids)
        if not len(self.tail):
            return self.tokenizer.decode(ids)
        return self.tokenizer.decode(np.concatenate([self.tail, ids]))[len(self.before) :]

    def incremental_decoder(self) -> IncrementalDecoder:
        """For the same text in pieces."""
        decoder = self.tokenizer.incremental_decoder()
        held_back = len(self.before) - len(decoder.decode(self.tail)) if len(self.tail) else 0
        return _Later(decoder, held_back) if held_back else decoder


@attrs.define(eq=False)
class _Later:
    """A decoder that held back `skip` characters of what stood before."""

    decoder: IncrementalDecoder
    skip: int

    def decode(self, ids: Ids, final: bool = False) -> str:
        """The text that `ids` complete."""
        text = self.decoder.decode(ids, final)
        shown, self.skip = text[self.skip :], max(0, self.skip - len(text))
        return shown
