"""Texts of which no two are the same, and none is a whole document of the training corpus."""

from __future__ import annotations

import warnings
from typing import Final

import attrs

from textgen.generation.novelty import CopyFinder
from textgen.generation.results import Generation

TRIES: Final = 100
STRIDE: Final = 2**32  # from the index of one try to that of the next


@attrs.define
class DistinctTexts:
    """Tells new texts from those that came before and from the documents of a corpus, if there is
    one.

    White space around a text makes no difference.
    """

    corpus: CopyFinder | None
    failed: int = attrs.field(default=0, init=False)
    """Texts in a row that were not new."""
    _seen: set[str] = attrs.field(factory=set, init=False)

    def is_new(self, generation: Generation) -> bool:
        """Whether a text is new.

        One that was ended by time or by the caller is: another would end so too.
        """
        if generation.finish_reason in ("time", "cancelled"):
            return True
        text = str(generation)
        if text.strip() not in self._seen and not (self.corpus and self.corpus.is_document(text)):
            self._seen.add(text.strip())
            self.failed = 0
            return True
        self.failed += 1
        if self.failed == TRIES:
            cause = f"none of {TRIES} more texts is distinct from the {len(self._seen):,} before"
            of_corpus = " and from the documents of the corpus" if self.corpus else ""
            remedy = "fewer come than were asked for; a higher temperature gives more"
            warnings.warn(f"{cause}{of_corpus}; {remedy}", stacklevel=3)
        return False
