"""Documents: how a corpus marks their ends, and how a text is cut into segments."""

from __future__ import annotations

import enum
import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias, cast


class DocumentEnd(enum.Enum):
    """The type of DOCUMENT_END."""

    DOCUMENT_END = "the end of a document"

    def __repr__(self) -> str:
        return self.name


DOCUMENT_END: Final = DocumentEnd.DOCUMENT_END
"""The end of a document. A corpus yields it after the text of each document."""
CorpusPiece: TypeAlias = str | DocumentEnd
"""What a corpus yields: a string, or DOCUMENT_END."""
# Characters encoded at once, and the longest stretch without a space that stays whole.
_SEGMENT: Final = 1 << 16
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def end_id(tokenizer: object) -> int | None:
    """A tokenizer's id for the end of a document, or None.

    See textgen.protocols.DocumentTokenizer.
    """
    return getattr(tokenizer, "end_id", None)


def split_documents(pieces: Iterable[CorpusPiece]) -> Iterator[Iterator[str]]:
    """Yield the documents of a corpus as iterators of strings; one document if none are marked.

    Documents without text are left out. No text is kept: as with itertools.groupby, taking the next
    document skips the rest of the one before.
    """
    for is_end, group in itertools.groupby(
        filter(None, pieces), lambda piece: piece is DOCUMENT_END
    ):
        if not is_end:
            yield cast("Iterator[str]", group)


def segments(pieces: Iterable[str]) -> Iterator[str]:
    """Cut a text into segments of at most 65,536 characters, which are encoded separately.

    Cuts are before a space that follows another character. Most tokenizers of words and subwords
    begin a token there, so the cuts do not change the tokens. A longer stretch without such a space
    is cut inside. The cuts depend on the text only, not on its pieces. Lone surrogates become
    U+FFFD.
    """
    held, start = "", 0
    for piece in pieces:
        held, start = held[start:] + _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", piece), 0
        while len(held) - start > _SEGMENT:
            cut = _cut(held, start)
            yield held[start:cut]
            start = cut
    if start < len(held):
        yield held[start:]


def _cut(text: str, start: int) -> int:
    """The end of the segment that begins at `start`.

    In the patterns of GPT-2, Llama 3, Qwen and GPT-4o no match extends over such a position, and no
    normalisation form joins what stands on its two sides.
    """
    end = start + _SEGMENT
    while (position := text.rfind(" ", start + 1, end + 1)) > 0:
        if not text[position - 1].isspace():
            return position
        end = position - 1
    return start + _SEGMENT
