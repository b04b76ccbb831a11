"""The contract of strategies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import attrs

from textgen.engine import Engine
from textgen.errors import ContractError
from textgen.generation.chain import Chain
from textgen.generation.generator import Generator
from textgen.generation.results import Generation
from textgen.plugin.component import Component
from textgen.plugin.registry import PluginSet
from textgen.testing.environment import TEXT, Subject, subject
from textgen.testing.general import general_checks
from textgen.testing.outcomes import Check, Outcome, Skip, Violation, raise_first, run_checks
from textgen.testing.time_limit import TIME_LIMIT

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


def check_strategy(
    component: Component,
    *,
    options: Mapping[str, Any] | None = None,
    plugin: object | str | None = None,
    plugins: PluginSet | None = None,
    time_limit: float = TIME_LIMIT,
) -> tuple[Outcome, ...]:
    """Hold a strategy to its contract. Raises ContractFailure.

    options     its TOML table; what has no default must be in it
    plugin      the module it comes from, or its name; found from the component if not given
    plugins     what its context offers; the built-in set if not given
    time_limit  seconds for each check
    """
    with subject("strategy", component, options, plugin, plugins, time_limit=time_limit) as made:
        return raise_first(run_checks(strategy_checks(made), made))


def strategy_checks(subject: Subject) -> list[Check]:
    """The suite."""
    suite = _Suite(subject)
    return [
        *general_checks(subject, suite.build),
        Check("strategy-lanes", suite.lanes),
        Check("strategy-moves", suite.moves),
        Check("strategy-deterministic", suite.deterministic),
        Check("strategy-rows", suite.rows),
        Check("strategy-streams", suite.streams),
        Check("strategy-sampling", suite.sampling),
    ]


@attrs.frozen
class _Suite:
    subject: Subject

    def build(self) -> Any:
        return self.subject.build(self.subject.fitted_context(training=False))

    @cached_property
    def plain(self) -> Generator:
        """A generator of n-grams that draws a token at each step."""
        run = Engine(self.subject.plugins).train(
            corpus=TEXT * 2,
            tokenizer=self.subject.tokenizer,
            model={"type": "ngram", "order": 3},
            trainer="count",
        )
        return run.generator

    def generator(self) -> Generator:
        """The same with the strategy, newly built."""
        plain, own = self.plain, (self.build(), self.subject.offer)

        def chain(options: Mapping[str, Any]) -> Chain:
            return attrs.evolve(plain.make_chain(options), strategy=own)

        return attrs.evolve(plain, chain=chain({}), make_chain=chain)

    def lanes(self) -> None:
        lanes = getattr(self.build(), "lanes", None)
        if type(lanes) is not int or lanes < 1:
            raise Violation(f"its attribute lanes is {lanes!r}")

    def moves(self) -> None:
        try:
            texts = _each(self.generator())
        except ContractError as error:
            raise Violation(error.cause) from error
        for request, text in zip(_REQUESTS, texts, strict=True):
            if len(text.tokens) > request["max_new_tokens"]:
                raise Violation(f"{len(text.tokens)} tokens for {request}")

    def deterministic(self) -> None:
        generator = self.generator()
        first = _tokens(_each(generator))
        _compare("a second time", first, _tokens(_each(generator)))
        _compare("by another object", first, _tokens(_each(self.generator())))

    def rows(self) -> None:
        generator = self.generator()
        alone = _tokens(_each(generator))
        _compare("in a batch", alone, _tokens(generator.generate_many(_REQUESTS)))
        backwards = _tokens(generator.generate_many(_REQUESTS[::-1]))
        _compare("in another order", alone, backwards[::-1])

    def streams(self) -> None:
        """Compare whole texts with streams that are read in turn."""
        whole = [text.text for text in _each(self.generator())]
        generator = self.generator()
        streams = [generator.stream(**request) for request in _REQUESTS]
        texts = ["" for _ in streams]
        while any(stream.finish_reason is None for stream in streams):
            texts = [text + next(stream, "") for text, stream in zip(texts, streams, strict=True)]
        _compare("as a stream beside others", whole, texts)

    def sampling(self) -> None:
        if not getattr(self.build(), "draws_only", False):
            raise Skip("it does not promise to draw only")
        generator = self.generator()  # asks the strategy, unlike the engine
        _compare("by sampling", _tokens(_each(generator)), _tokens(_each(self.plain)))


def _each(generator: Generator) -> list[Generation]:
    return [generator.generate(**request) for request in _REQUESTS]


def _tokens(texts: Iterable[Generation]) -> list[tuple[int, ...]]:
    return [text.tokens for text in texts]


def _compare(what: str, first: Sequence[object], again: Sequence[object]) -> None:
    """Raise a Violation where texts differ."""
    for request, one, other in zip(_REQUESTS, first, again, strict=True):
        if one != other:
            raise Violation(f"{one!r}, and {what} {other!r}, for {request}")
