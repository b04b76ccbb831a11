"""Identities of components, and the cache key of an encoded text."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

import attrs

from textgen.files.opening import file_signature
from textgen.files.reading import json_checksum
from textgen.plugin.component import OBJECT, UNPACKAGED
from textgen.plugin.structure import Choice
from textgen.protocols import Corpus, Tokenizer

_FORMAT: Final = 2  # of what the engine makes of a text; counted up when that changes
_RECENT: Final = 2.0  # seconds in which a file may change once more without its time showing it


def identity(choice: Choice) -> dict[str, Any]:
    """The options of a component that determine what it makes.

    A config class may define `fingerprint() -> dict` to choose which of its options count.
    """
    if hasattr(choice.options, "fingerprint"):
        return {"type": choice.offer.canonical_name, **choice.options.fingerprint()}
    return {
        **choice.table(),
        "type": choice.offer.canonical_name,
        **{key: identity(part) for key, part in choice.parts().items()},
    }


@attrs.frozen
class TextKey:
    """Identifies an encoded text without reading it.

    value   the key; "" for a text that cannot be cached
    size    bytes of the files of the corpus; 0 if they are not known
    """

    value: str = ""
    size: int = 0

    @classmethod
    def of(
        cls,
        corpus: Corpus,
        tokenizer: Tokenizer,
        corpus_choice: Choice,
        tokenizer_choice: Choice,
        vocabulary: Mapping[str, Any] | None,
    ) -> TextKey:
        """The key of a corpus with `sources` (textgen.protocols.CorpusOfFiles), all of them files.

        A file that was written within the last two seconds could change again unnoticed, so its
        text has no key.

        vocabulary   that of the tokenizer, unless it is to be fitted to this text
        """
        if not hasattr(corpus, "sources"):
            return cls()
        files, size, latest = [], 0, 0
        for path in corpus.sources():
            facts = file_signature(path)
            if facts is None:
                return cls()
            files.append([os.path.abspath(path), *facts])
            size, latest = size + facts[0], max(latest, facts[1])
        code = [_code(corpus, corpus_choice), _code(tokenizer, tokenizer_choice)]
        # A program may register the same class of tokenizer again with other values in it.
        plugin = tokenizer_choice.offer.plugin
        is_registered = plugin.distribution == UNPACKAGED and not plugin.path
        is_recent = abs(time.time() - latest / 1e9) < _RECENT
        if not files or None in code or is_registered or is_recent:
            return cls(size=size)
        options = [identity(corpus_choice), identity(tokenizer_choice)]
        return cls(json_checksum([_FORMAT, files, code, options, vocabulary]), size)


def _code(made: Any, choice: Choice) -> list[Any] | None:
    """Where the code of a component is from, and its version; None for an object of a program."""
    offers = [part.offer for part in choice.flattened()]
    if any(offer.distribution == OBJECT for offer in offers):
        return None
    # A version stays while someone works on a plugin, so size and time of the file count too.
    file = getattr(sys.modules.get(type(getattr(made, "inner", made)).__module__), "__file__", None)
    code = None if file is None else file_signature(file)
    return None if code is None else [*(offer.plugin.facts() for offer in offers), *code[:2]]
