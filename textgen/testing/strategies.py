"""The contract of strategies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Unpack

import attrs

from textgen.engine import Engine
from textgen.errors import ContractError
from textgen.generation.chain import Chain
from textgen.generation.generator import Generator
from textgen.generation.results import Generation
from textgen.plugin.component import Component
from textgen.testing.environment import TEXT
from textgen.testing.outcomes import Outcome, Skip, Violation
from textgen.testing.suite import Given, Suite, check

__tracebackhide__ = True  # pytest shows the test and the code of the component

_REQUESTS: list[dict[str, Any]] = [
    {"prompt": "The ", "max_new_tokens": 12, "index": 0},
    {"prompt": "", "max_new_tokens": 30, "index": 3},
    {"prompt": "the river", "max_new_tokens": 20, "stop": ["e ", "on"], "index": 5},
    {"prompt": "The ", "max_new_tokens": 24, "index": 1, "temperature": 2.0},
    {"prompt": "a", "max_new_tokens": 16, "index": 2, "top_k": 3, "repetition_penalty": 1.3},
    {"prompt": "a", "max_new_tokens": 1, "index": 4},
]
"""Texts of different lengths, chains and ends."""


def check_strategy(component: Component, **given: Unpack[Given]) -> tuple[Outcome, ...]:
    """Hold a strategy to its contract. Raises ContractFailure."""
    return check(StrategySuite, component, given)


@attrs.frozen
class StrategySuite(Suite):
    """The checks of a strategy."""

    kind: ClassVar[str] = "strategy"

    @cached_property
    def _plain(self) -> Generator:
        """A generator of a small network that draws a token at each step."""
        run = Engine(self.subject.plugins).train(
            corpus=TEXT * 2,
            tokenizer=self.subject.tokenizer,
            model={"type": "rnn", "hidden_size": 16},
            trainer={"type": "sgd", "length": "1 epoch"},
            device="cpu",
        )
        return run.generator

    def _generator(self) -> Generator:
        """The same with the strategy, newly built."""
        plain, own = self._plain, (self.new(training=False), self.subject.offer)

        def chain(options: Mapping[str, Any]) -> Chain:
            return attrs.evolve(plain.make_chain(options), strategy=own)

        return attrs.evolve(plain, chain=chain({}), make_chain=chain)

    def lanes(self) -> None:
        lanes = getattr(self.new(training=False), "lanes", None)
        if type(lanes) is not int or lanes < 1:
            raise Violation(f"its attribute lanes is {lanes!r}")

    def moves(self) -> None:
        try:
            _each(self._generator())
        except ContractError as error:
            raise Violation(error.cause) from error

    def deterministic(self) -> None:
        generator = self._generator()
        first = _tokens(_each(generator))
        _compare("a second time", first, _tokens(_each(generator)))
        _compare("by another object", first, _tokens(_each(self._generator())))

    def rows(self) -> None:
        generator = self._generator()
        alone = _tokens(_each(generator))
        _compare("in a batch", alone, _tokens(generator.generate_many(_REQUESTS)))
        backwards = _tokens(generator.generate_many(_REQUESTS[::-1]))
        _compare("in another order", alone, backwards[::-1])

    def streams(self) -> None:
        """Compare whole texts with streams that are read in turn."""
        whole = [text.text for text in _each(self._generator())]
        generator = self._generator()
        streams = [generator.stream(**request) for request in _REQUESTS]
        texts = ["" for _ in streams]
        while any(stream.finish_reason is None for stream in streams):
            texts = [text + next(stream, "") for text, stream in zip(texts, streams, strict=True)]
        _compare("as a stream beside others", whole, texts)

    def sampling(self) -> None:
        if not getattr(self.new(training=False), "draws_only", False):
            raise Skip("it does not promise to draw only")
        generator = self._generator()  # asks the strategy, unlike the engine
        _compare("by sampling", _tokens(_each(generator)), _tokens(_each(self._plain)))


def _each(generator: Generator) -> list[Generation]:
    return [generator.generate(**request) for request in _REQUESTS]


def _tokens(texts: Iterable[Generation]) -> list[tuple[int, ...]]:
    return [text.tokens for text in texts]


def _compare(what: str, first: Sequence[object], again: Sequence[object]) -> None:
    """Raise a Violation where texts differ."""
    for request, one, other in zip(_REQUESTS, first, again, strict=True):
        if one != other:
            raise Violation(f"{one!r}, and {what} {other!r}, for {request}")
