"""What identifies a component, and what the cache knows of a text and of its tokens by."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

import attrs

from textgen.contracts.guards import watched
from textgen.files.opening import stamp
from textgen.files.reading import json_checksum
from textgen.plugin.component import OBJECT, UNPACKAGED
from textgen.plugin.structure import Choice
from textgen.protocols import Corpus, Tokenizer

_FORMAT: Final = 1  # of what the engine makes of a text; counted up when that changes
_RECENT: Final = 2.0  # seconds in which a file may change once more without its time showing it


def identity(choice: Choice) -> dict[str, Any]:
    """What of a component determines what it makes.

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
    """What a text is known by without reading it: its corpus, and what the system says of the files it is read from.

    value     the key
    size      bytes of these files
    recent    whether one of them has only just been written, so that another change may not show
    """

    value: str
    size: int
    recent: bool

    @classmethod
    def of(cls, corpus: Corpus, choice: Choice) -> TextKey | None:
        """The key; None for a corpus without `sources`, or with others than files (textgen.protocols.Corpus)."""
        parts = _origin(corpus, choice)
        if parts is None or not hasattr(corpus, "sources"):
            return None
        files, size, latest = [], 0, 0
        for path in watched(choice.offer, "sources", lambda: corpus.sources()):
            facts = stamp(path)
            if facts is None:
                return None
            files.append([os.path.abspath(path), *facts])
            size, latest = size + facts[0], max(latest, facts[1])
        if not files:
            return None
        value = json_checksum(
            [_FORMAT, "text", {**choice.table(), "type": choice.offer.canonical_name}, parts, files]
        )
        return cls(value, size, abs(time.time() - latest / 1e9) < _RECENT)


def tokens_key(
    text: Mapping[str, Any], tokenizer: Tokenizer, choice: Choice, vocabulary: str | None = None
) -> str:
    """What the tokens of a text are known by; "" where a tokenizer has no identity.

    That of a plugin which a program has registered has none: the same class may be there with other values in it.

    text        what identifies it
    vocabulary  the checksum of the vocabulary, unless the tokenizer is fitted to this text
    """
    plugin = choice.offer.plugin
    is_registered = plugin.distribution == UNPACKAGED and not plugin.path
    parts = None if is_registered else _origin(tokenizer, choice)
    return (
        ""
        if parts is None
        else json_checksum([_FORMAT, "tokens", dict(text), identity(choice), parts, vocabulary])
    )


def _origin(made: Any, choice: Choice) -> list[Any] | None:
    """Where the code of a component is from, and in which version; None for an object of a program."""
    offers = [part.offer for part in choice.flattened()]
    if any(offer.distribution == OBJECT for offer in offers):
        return None
    # A version stays while someone works on a plugin. `__class__` sees through a watch, as type() does not.
    file = getattr(sys.modules.get(made.__class__.__module__), "__file__", None)
    code = None if file is None else stamp(file)
    return None if code is None else [*(offer.plugin.facts() for offer in offers), *code[:2]]
