"""What each kind of component does with a fixed input: the same in any process."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from textgen.testing.environment import TEXT, Subject, build_from_table, close

__tracebackhide__ = True  # what pytest shows is the test, and the code of the component

Value = Any
"""A str, or a NumPy array of numbers."""
_CHARACTERS: Final = 2_000_000  # of a corpus that are compared
_STEPS: Final = 3  # of a training that are compared


def exercise(subject: Subject, extra: Mapping[str, Any]) -> dict[str, Value]:
    """What comes of building and calling a component, by what it is called.

    extra   what its suite is given beside it: the `text` of a tokenizer, the `model` of a trainer, the `pipeline` of an
            observer
    """
    return dict(_EXERCISES[subject.kind](subject, extra))


def _sampler(subject: Subject, extra: Mapping[str, Any]) -> Iterator[tuple[str, Value]]:
    import numpy as np

    from textgen.generation.sampling import to_numpy
    from textgen.testing.sampler_texts import advance, chain_of

    context = subject.fitted_context(training=False)
    sampler, rng = subject.build(context), np.random.default_rng(0)
    chain = chain_of(sampler, subject)
    rows = chain.begin(
        [rng.integers(0, context.vocab_size, 8) for _ in range(3)], [(0, 0), (0, 1), (0, 2)]
    )
    for step in range(3):
        logits = rng.normal(0, 3, (3, context.vocab_size)).astype(np.float32)
        yield (
            f"the logits of step {step + 1}",
            to_numpy(sampler(logits.copy(), chain.links[0].view(rows))).copy(),
        )
        if not advance(chain, rows, logits, np.arange(context.vocab_size), rng):
            break
    close(sampler)


def _corpus(subject: Subject, extra: Mapping[str, Any]) -> Iterator[tuple[str, Value]]:
    corpus = subject.build()
    text, count = [], 0
    for piece in corpus.read():
        text.append(str(piece))
        count += len(text[-1])
        if count > _CHARACTERS:
            break
    yield "the text", "".join(text)[:_CHARACTERS]
    close(corpus)


def _tokenizer(subject: Subject, extra: Mapping[str, Any]) -> Iterator[tuple[str, Value]]:
    import numpy as np

    text = extra.get("text", TEXT)
    tokenizer = subject.build()
    tokenizer.fit(iter([text]))
    yield "to_dict()", json.dumps(tokenizer.to_dict(), sort_keys=True, default=repr)
    yield "the ids of encode()", np.asarray(tokenizer.encode(text))
    close(tokenizer)


def _model(subject: Subject, extra: Mapping[str, Any]) -> Iterator[tuple[str, Value]]:
    import numpy as np

    from textgen.generation.sampling import to_numpy

    context = subject.fitted_context()
    model = subject.build(context)
    tokens = np.random.default_rng(1).integers(0, context.vocab_size, (2, 12))
    for name, array in model.tensors().items():
        yield f"the initial {name}", np.array(array)
    yield "the logits of score()", to_numpy(model.decoder(2).score(tokens)).copy()
    close(model)


def _trainer(subject: Subject, extra: Mapping[str, Any]) -> Iterator[tuple[str, Value]]:
    import numpy as np

    from textgen.events import StepDone
    from textgen.testing.training_data import TRAINING, small_dataset

    context = subject.fitted_context()
    model = build_from_table(subject.plugins, "model", extra["model"], context)
    trainer = subject.build(context)
    events = trainer.train(model, small_dataset(context), TRAINING)
    for number, event in enumerate(itertools.islice(events, _STEPS), 1):
        if isinstance(event, StepDone):
            yield f"the loss of step {number}", np.array(float(event.loss))
    for name, array in model.tensors().items():
        yield f"the trained {name}", np.array(array)
    close(trainer)


def _observer(subject: Subject, extra: Mapping[str, Any]) -> Iterator[tuple[str, Value]]:
    from textgen.testing.observers import (
        written_files,
    )  # loads hypothesis, which the others can do without

    yield from written_files(subject, extra["pipeline"]).items()


def _command(subject: Subject, extra: Mapping[str, Any]) -> Iterator[tuple[str, Value]]:
    yield "the help", str(getattr(subject.build(), "help", ""))


_EXERCISES: Final[
    Mapping[str, Callable[[Subject, Mapping[str, Any]], Iterator[tuple[str, Value]]]]
] = MappingProxyType(
    {
        "sampler": _sampler,
        "corpus": _corpus,
        "tokenizer": _tokenizer,
        "model": _model,
        "trainer": _trainer,
        "observer": _observer,
        "command": _command,
    }
)
