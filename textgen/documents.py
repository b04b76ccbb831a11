"""Documents: how a corpus marks where they end."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias, cast


class DocumentEnd(enum.Enum):
    """The type of DOCUMENT_END."""

    DOCUMENT_END = "the end of a document"

    def __repr__(self) -> str:
        return self.name


DOCUMENT_END: Final = DocumentEnd.DOCUMENT_END
"""The end of a document: a corpus yields it after the pieces of each."""
CorpusPiece: TypeAlias = str | DocumentEnd
"""What a corpus yields: text, or DOCUMENT_END."""


def split_documents(pieces: Iterable[CorpusPiece]) -> Iterator[Iterator[str]]:
    """The documents of a corpus, each as its pieces; one if none are marked.

    Those without text are left out.

    Holds no text: as with itertools.groupby, taking the next document skips what is left of the one
    before.
    """
    for is_end, group in itertools.groupby(
        filter(None, pieces), lambda piece: piece is DOCUMENT_END
    ):
        if not is_end:
            yield cast("Iterator[str]", group)
