"""The keyword arguments of Generator.generate and its kin, checked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, TypedDict

import attrs
import numpy as np

from textgen.errors import Fault, UsageError
from textgen.generation.continuing import Continuation
from textgen.generation.decoding import Limits
from textgen.generation.detokenise import StopText
from textgen.generation.sampling import Chain
from textgen.pipeline.pipeline import DecodingOptions, UnknownCharacters
from textgen.pipeline.structure import structure_table
from textgen.suggest import nearest

_MAY_BE_NONE: Final = ("max_new_tokens", "seed", "stop", "stop_tokens", "time_limit")
_ELSEWHERE: Final = ("index", "logprobs", "state", "keep_state", "n", "batch_size")


class Event(Protocol):
    """What threading.Event, asyncio.Event and those of multiprocessing have in common."""

    def is_set(self) -> bool:
        """Whether it has happened."""


class GenerateArguments(TypedDict, total=False):
    """Keyword arguments of Generator.generate and its kin.

    The first group is that of the `[generate]` table (DecodingOptions). What is not given, or None, is
    as the run's own pipeline has it there, but for `echo`; only `max_new_tokens` None makes it endless, and `seed`,
    `stop`, `stop_tokens` and `time_limit` None leave those out. `cancelled` is a function, or an event such as
    threading.Event, that another thread may use to end the text. The second group goes to the standard sampler, which
    then stands in place of the run's own chain.
    """

    max_new_tokens: int | None
    min_new_tokens: int
    stop: str | Iterable[str] | None
    stop_tokens: Iterable[int] | None
    time_limit: float | None
    seed: int | None
    echo: bool
    unknown_characters: UnknownCharacters
    cancelled: Callable[[], bool] | Event | None

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    typical_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    no_repeat_ngram: int
    logit_bias: Mapping[str, float]


@attrs.frozen
class Settings:
    """Checked arguments of one call. `sampling` are those that `chain` was made of, if it is not the run's own."""

    options: DecodingOptions
    chain: Chain
    seed: int
    cancelled: Callable[[], bool] | None
    sampling: Mapping[str, Any]

    def limits(self) -> Limits:
        """Limits whose clock starts now."""
        options = self.options
        return Limits(
            max_new_tokens=options.max_new_tokens,
            min_new_tokens=options.min_new_tokens,
            stop_tokens=options.stop_tokens,
            deadline=None if options.time_limit is None else time.monotonic() + options.time_limit,
            cancelled=self.cancelled,
        )

    def watcher(self, continuation: Continuation, open_end: str = "") -> StopText:
        """What decodes a text as it comes, up to a stop, which may begin in the `open_end` of what was shown before."""
        return StopText(continuation.incremental_decoder(), self.options.stops, self.options.min_new_tokens, open_end)

    def also_ended_by(self, switch: Event) -> Settings:
        """The same for a text that `switch` ends too."""
        here, theirs = switch.is_set, self.cancelled
        return attrs.evolve(self, cancelled=here if theirs is None else lambda: here() or theirs())

    def must_end(self) -> None:
        """Raise UsageError when nothing would ever end the text."""
        options = self.options
        ends = options.stops or options.stop_tokens or options.time_limit is not None or self.cancelled
        if options.max_new_tokens is None and not ends:
            raise UsageError(
                "None never ends",
                argument="max_new_tokens",
                suggestion="use stream, or give stop, time_limit or cancelled",
            )

    @classmethod
    def of(
        cls,
        arguments: Mapping[str, Any],
        defaults: Mapping[str, Any],
        vocab_size: int,
        chain: Chain,
        make_chain: Callable[[Mapping[str, Any]], Chain],
        seed: int,
        kept: Mapping[str, Any] | None = None,
    ) -> Settings:
        """Check keyword arguments. `kept` sampling is gone on with where none is given. Raises UsageError."""
        names = attrs.fields_dict(DecodingOptions)
        arguments = {key: _plain(v) for key, v in arguments.items() if v is not None or key in _MAY_BE_NONE}
        given = {key: value for key, value in {**defaults, **arguments}.items() if key in names}
        for key in ("stop", "stop_tokens"):
            if key in given and given[key] is None:
                given[key] = ()
            elif isinstance(given.get(key), Iterable) and not isinstance(given[key], str):
                given[key] = tuple(map(_plain, given[key]))
        faults: list[Fault] = []
        options = structure_table(DecodingOptions, given, "", Path(), faults)
        if faults:
            raise UsageError(faults=faults)
        check_decoding(options, vocab_size)
        sampling = {k: v for k, v in arguments.items() if k not in names and k != "cancelled"} or dict(kept or {})
        cancelled = arguments.get("cancelled")
        cancelled = getattr(cancelled, "is_set", cancelled)
        if cancelled is not None and not callable(cancelled):
            raise UsageError("expected a function or an event", argument="cancelled", value=cancelled)
        return cls(
            options,
            _sampler(sampling, make_chain) if sampling else chain,
            seed if options.seed is None else options.seed,
            cancelled,
            {k: dict(v) if isinstance(v, Mapping) else v for k, v in sampling.items()},
        )


def check_decoding(options: DecodingOptions, vocab_size: int) -> None:
    """Check what depends on the vocabulary, or on more than one option. Raises UsageError."""
    if any(token >= vocab_size or token < 0 for token in options.stop_tokens):
        raise UsageError(f"expected ids from 0 to {vocab_size - 1}", argument="stop_tokens")
    if options.min_new_tokens and len(set(options.stop_tokens)) == vocab_size:
        raise UsageError("all tokens stop the text, so min_new_tokens leaves none to draw", argument="stop_tokens")


def _sampler(sampling: Mapping[str, Any], make_chain: Callable[[Mapping[str, Any]], Chain]) -> Chain:
    """The chain for what no other argument takes, and may be misspelt instead."""
    try:
        return make_chain(sampling)
    except UsageError:
        known = GenerateArguments.__annotations__
        for key in sampling:
            if key in _ELSEWHERE:
                raise UsageError("an argument of other methods, and not of this one", argument=key) from None
            if key not in known:
                hint = nearest(key, known) or f"there are {', '.join(known)}"
                raise UsageError("unknown argument", argument=key, suggestion=hint) from None
        raise


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays as Python's: ids and seeds often come as such."""
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value
