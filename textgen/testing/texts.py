"""The contract of strategies, and what texts by samplers and by strategies have in common."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from itertools import count, zip_longest
from typing import Any, Final
from unittest import mock

import attrs

from textgen.engine import Engine
from textgen.errors import PipelineError
from textgen.generation.generator import Generator
from textgen.generation.sampling.chain import Chain
from textgen.plugin.configured import ConfiguredComponent
from textgen.protocols import Table
from textgen.runs.loading import check_models
from textgen.testing.environment import TEXT
from textgen.testing.outcomes import Skip, Violation
from textgen.testing.partners import DESCENT, FEW_TOKENS, FLATTER, SMALL_NETWORK
from textgen.testing.process import KEPT_BYTES, check_memory, in_threads
from textgen.testing.suite import Suite

__tracebackhide__ = True  # pytest shows the test and the code of the component

REQUESTS: Final[list[dict[str, Any]]] = [
    {"prompt": "The ", "max_new_tokens": 12, "index": 0},
    {"prompt": "", "max_new_tokens": 30, "index": 3},
    {"prompt": "the river", "max_new_tokens": 20, "stop": ["e ", "on"], "index": 5},
    {"prompt": "The ", "max_new_tokens": 24, "index": 1, **FLATTER},
    {"prompt": "a", "max_new_tokens": 16, "index": 2, **FEW_TOKENS},
    {"prompt": "a", "max_new_tokens": 1, "index": 4},
]
"""Texts of different lengths, chains and ends."""
_LONG: Final[dict[str, Any]] = {"prompt": "The ", "max_new_tokens": 600, "index": 6}
_THREADS: Final = 4
_MEMORY_TEXTS, _MEMORY_TOKENS = 100, 20  # texts that are written to measure memory
_SHOWN: Final = 30  # characters before and after the first difference of two texts


@attrs.frozen(kw_only=True)
class TextSuite(Suite):
    """A suite whose checks generate texts, by a small network."""

    def new(self, **context: Any) -> Any:
        """The component, for that network."""
        return super().new(**context, model=self._plain.model)

    @cached_property
    def _plain(self) -> Generator:
        """A generator that samples."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the vocabulary may be that of a run
            run = Engine(self.plugins).train(
                corpus=TEXT * 2,
                tokenizer=self.tokenizer,
                model={**SMALL_NETWORK, "hidden_size": 16},
                trainer={"type": DESCENT["type"], "length": "1 epoch"},
                device="cpu",
            )
        return attrs.evolve(run.generator, defaults={"unknown_characters": "skip"})

    def within(self, chain: Chain) -> Chain:
        """A chain with the component, newly built."""
        raise NotImplementedError

    def generator(self) -> Generator:
        """A generator with the component, newly built."""
        plain = self._plain

        def make(options: Mapping[str, Any]) -> Chain:
            return self.within(plain.make_chain(options))

        return attrs.evolve(plain, chain=make({}), make_chain=make)

    def check_texts(self) -> None:
        """Raise a Violation unless texts are the same however they are made."""
        generator = self.generator()
        streams = [generator.stream(**request) for request in REQUESTS]
        pieces = [[""] * len(streams), *zip_longest(*streams, fillvalue="")]
        ways = {
            "in a batch of another order": [
                text.text for text in generator.generate_many(REQUESTS[::-1])
            ][::-1],
            "as a stream beside others": map("".join, zip(*pieces, strict=True)),
            "cut off, saved and resumed": map(self._resumed, REQUESTS),
        }
        first = [self.generator().generate(**request).text for request in REQUESTS]
        for what, texts in ways.items():
            for request, one, again in zip(REQUESTS, first, texts, strict=True):
                _compare(one, what, again, request)
        long, again = self.generator().generate(**_LONG).text, "".join(generator.stream(**_LONG))
        _compare(long, "as a stream", again, _LONG)
        in_threads(partial(self._check_again, generator, first), range(_THREADS))

    def check_memory(self) -> None:
        """Raise a Violation if the memory grows by something for each token of many texts."""
        generator = self.generator()

        def call(number: int) -> None:
            generator.generate("The ", max_new_tokens=_MEMORY_TOKENS, index=number)

        check_memory(call, _MEMORY_TEXTS, KEPT_BYTES * _MEMORY_TOKENS)

    def _check_again(self, generator: Generator, first: Sequence[str], turn: int) -> None:
        """Raise a Violation unless a generator writes the texts again, beginning with another one
        in each thread.
        """
        pairs = [*zip(REQUESTS, first, strict=True)]
        for request, one in (*pairs[turn:], *pairs[:turn]):
            again = generator.generate(**request).text
            _compare(one, "with other threads at work", again, request)

    def _resumed(self, request: Table) -> str:
        """The text of a request that is cut off after some steps, and resumed by another object."""
        with mock.patch("time.perf_counter", count().__next__):  # it is asked at each step
            half = self.generator().generate(
                **request, keep_state=True, cancelled=partial(next, iter([False] * 8), True)
            )
        if half.finish_reason != "cancelled":
            return half.text
        rest = {**request, "prompt": "", "state": half.state}
        rest["max_new_tokens"] -= len(half.tokens)
        return half.text + self.generator().generate(**rest).text


def _compare(one: str, what: str, again: str, request: Table) -> None:
    """Raise a Violation unless two texts of a request are the same."""
    if one == again:
        return
    pairs = enumerate(zip(one, again, strict=False))
    first = next((i for i, (a, b) in pairs if a != b), min(len(one), len(again)))
    shown = [text[max(0, first - _SHOWN) : first + _SHOWN] for text in (one, again)]
    raise Violation(f"{shown[0]!r}, and {what} {shown[1]!r}, for {request}")


@attrs.frozen(kw_only=True)
class StrategySuite(TextSuite):
    """The checks of a strategy."""

    def new(self, **context: Any) -> Any:
        """The strategy. Raises Skip where a run among its options has another vocabulary."""
        made = super().new(**context)
        choice = ConfiguredComponent(self.component.name, self.offer, self.config())
        try:
            check_models(choice, made, self.context(tokenizer=self.tokenizer, training=False))
        except PipelineError as error:
            advice = 'give it by --start RUN, or pipeline={"model": {"start": RUN}}'
            raise Skip(f"{error.faults[0]}; {advice}") from error
        return made

    def within(self, chain: Chain) -> Chain:
        return attrs.evolve(chain, strategy=(self.new(training=False), self.offer))

    def strategy_moves(self) -> None:
        lanes = getattr(self.new(), "lanes", None)
        if type(lanes) is not int or lanes < 1:
            raise Violation(f"its attribute lanes is {lanes!r}")
        list(self.generator().generate_many(REQUESTS))

    def strategy_texts(self) -> None:
        self.check_texts()

    def strategy_memory(self) -> None:
        self.check_memory()
