"""Which of the runs that plugins offer knows the language of a text, tried on a sample of it."""

from __future__ import annotations

from typing import Any, Final

import attrs

from textgen import Engine, TextgenError
from textgen.plugin.component import ComponentSource

_PIECES, _LENGTH = 4, 500  # characters of the sample, from so many places
_KNOWN: Final = 0.9  # share of them that is in the vocabulary at least
# Nats per character, above which a text is of another language or kind. Of textgen-english, novels,
# verse, chat and forums have 1.3 to 1.7, pages of documentation 2.4, lists of names 3.2, German
# 3.9, and code 5.
_MOST: Final = 1.9


@attrs.frozen
class Pretrained:
    """A run to start from: its name, the units of its network, and its loss of the sample in nats
    per character.
    """

    name: str
    units: int
    loss: float


def suited(text: str, plugins: ComponentSource) -> Pretrained | None:
    """The run of a recurrent network under which the text has the lowest loss, if it is in the
    language of one.
    """
    found = []
    for offer in plugins.offers("run"):
        try:
            with Engine(plugins).load(offer.qualified_name) as generator:
                loss, model = _loss(generator, text), generator.tables["model"]
        except TextgenError:  # `textgen plugins check` says what is wrong with it
            continue
        if loss is not None and loss < _MOST:
            is_plain = plugins.find("run", offer.name) == offer
            name = offer.name if is_plain else offer.qualified_name
            found.append(Pretrained(name, model["hidden_size"], loss))
    return min(found, key=lambda each: each.loss, default=None)


def _loss(generator: Any, text: str) -> float | None:
    """Nats per character; None where the run is of another kind of model, or knows too few of the
    characters.
    """
    if generator.tables["model"]["type"] != "rnn":
        return None
    step = max(1, len(text) // _PIECES)
    places = range(0, len(text), step)
    sample = "".join(text[place : place + min(step, _LENGTH)] for place in places)
    tokenizer = generator.tokenizer
    ids = tokenizer.encode(sample)
    known = ids[ids != tokenizer.unknown_id]
    if len(known) < max(2, _KNOWN * len(ids)):
        return None
    loss: float = generator.score(tokenizer.decode(known)).loss
    return loss
