"""What a pipeline may start from: a new model, or a run whose model knows the language of the text,
each with the loss to expect of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Final

import attrs

from textgen import Engine, TextgenError, UsageError
from textgen.plugin.component import ComponentSource
from textgen.runs.offered import offered_run
from textgen_builtins.starter import settings
from textgen_builtins.starter.settings import Pretrained

NONE: Final = "none"
_PIECES, _LENGTH = 12, 500  # characters of the sample, from so many places
_UNTRAINED: Final = {"type": "adamw", "length": "1 step", "batch_size": 1, "learning_rate": 1e-12}


@attrs.frozen
class Candidate:
    """A start, with the loss of held-out text to expect, in nats per character, and the seconds
    that training needs at least to come to it.
    """

    name: str
    loss: float
    seconds: float = 0.0
    pretrained: Pretrained | None = None

    def __str__(self) -> str:
        return (
            f"{self.loss:.2f} from {self.name}" if self.pretrained else f"{self.loss:.2f} without"
        )


def candidates(
    text: str,
    start: str | None,
    plugins: ComponentSource,
    say: Callable[[str], None],
) -> list[Candidate]:
    """A new model, and the runs that plugins offer; or `start` alone.

    text   the text, or its beginning
    start  the name of an offered run, the path of a run directory, or "none"
    say    told which runs are tried, and which cannot be started from

    Raises UsageError if `start` cannot be used.
    """
    offers = plugins.offers("run") if start is None else []
    names = [o.name if plugins.find("run", o.name) == o else o.qualified_name for o in offers]
    without = settings.expected_loss(text)
    found = [Candidate(NONE, without)] if start in (None, NONE) else []
    for name in [start] if start not in (None, NONE) else names:
        try:
            if start is None and not isinstance(offered_run(name, plugins), Path):
                continue  # tables of a model that init has no recipe for
            say(f"trying {name} on a sample of the text")
            run = _tried(name, text, plugins)
        except TextgenError as error:
            if start is not None:
                raise UsageError(str(error), argument="start") from error
            say(f"textgen: warning: {name} cannot be started from: {error}")
        else:
            found.append(Candidate(name, settings.tuned_loss(run.loss, without), pretrained=run))
    return found


def best(found: list[Candidate], seconds: float) -> Candidate:
    """The one with the lowest loss of those that there is time for, or of all."""
    timely = [each for each in found if each.seconds <= seconds]
    return min(timely or found, key=lambda each: each.loss)


def _tried(name: str, text: str, plugins: ComponentSource) -> Pretrained:
    """The run, with the loss of a sample under the model as it is when training begins: with its
    vocabulary for this text.
    """
    step = max(1, len(text) // _PIECES)
    places = range(0, len(text), step)
    sample = "".join(text[place : place + min(step, _LENGTH)] for place in places)
    engine = Engine(plugins)
    with engine.load(name, device="cpu") as run:
        model, reads_all = run.tables["model"], run.tokenizer.unknown_id is None
        known, size = run.path, run.tokenizer.vocab_size
    if model["type"] != "rnn":
        raise UsageError(f"its model is of the type {model['type']}, and init tunes type rnn")
    tokenizer = None if reads_all else {"type": "char"}
    begun = engine.train(
        corpus=sample,
        tokenizer=tokenizer,
        model={"start": str(known)},
        trainer=_UNTRAINED,
        data={"validation": 0},
        device="cpu",
    )
    with begun.generator as generator:
        score = generator.score(sample)
    loss, length = score.bits_per_character * math.log(2), score.characters / score.tokens
    return Pretrained(name, model["hidden_size"], size, loss, length, reads_all)
