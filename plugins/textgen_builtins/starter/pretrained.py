"""Which of the runs that plugins offer knows the language of a text, tried on a sample of it."""

from __future__ import annotations

import math
from typing import Any, Final

import attrs

from textgen import Engine, TextgenError
from textgen.plugin.component import ComponentSource

_PIECES, _LENGTH = 12, 500  # characters of the sample, from so many places
_KNOWN: Final = 0.9  # share of them that is in the vocabulary at least
# Nats per character, above which a text is of another language or kind. Of textgen-english, novels
# have 1.1 to 1.6, verse and plays 1.8 to 2.3, a chat 2.5, lists of names 3.0, documents and code
# 3.6, and German 4.7.
_MOST: Final = 2.4
_LONG, _MOST_OF_LONG = 300_000, 2.4


@attrs.frozen
class Pretrained:
    """A run to start from.

    units       of its network
    vocabulary  number of its tokens
    loss        of the sample, in nats per character
    length      characters of a token of the sample, on average
    reads_all   whether its tokens make up every text
    """

    name: str
    units: int
    vocabulary: int
    loss: float
    length: float
    reads_all: bool


def suited(text: str, size: int, plugins: ComponentSource) -> Pretrained | None:
    """The run of a recurrent network under which a sample of a text of so many characters has the
    lowest loss, if the text is in the language of one.
    """
    found = []
    for offer in plugins.offers("run"):
        is_plain = plugins.find("run", offer.name) == offer
        name = offer.name if is_plain else offer.qualified_name
        try:
            with Engine(plugins).load(offer.qualified_name) as generator:
                made = _tried(name, generator, text)
        except TextgenError:  # `textgen plugins check` says what is wrong with it
            continue
        if made is not None and made.loss < (_MOST if size < _LONG else _MOST_OF_LONG):
            found.append(made)
    return min(found, key=lambda each: each.loss, default=None)


def _tried(name: str, generator: Any, text: str) -> Pretrained | None:
    """The run with its loss of a sample; None where it is of another kind of model, or knows too
    few of the characters.
    """
    model, tokenizer = generator.tables["model"], generator.tokenizer
    if model["type"] != "rnn":
        return None
    step = max(1, len(text) // _PIECES)
    places = range(0, len(text), step)
    sample = "".join(text[place : place + min(step, _LENGTH)] for place in places)
    ids, unknown = tokenizer.encode(sample), tokenizer.unknown_id
    known = ids if unknown is None else ids[ids != unknown]
    if len(known) < max(2, _KNOWN * len(ids)):
        return None
    score = generator.score(tokenizer.decode(known))
    loss = score.bits_per_character * math.log(2)
    length = score.characters / score.tokens
    size, units = tokenizer.vocab_size, model["hidden_size"]
    return Pretrained(name, units, size, loss, length, reads_all=unknown is None)
