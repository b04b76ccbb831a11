"""Requests, checked and made into continuations that a scheduler can run."""

from __future__ import annotations

import itertools
import json
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import attrgetter
from types import MappingProxyType, NoneType
from typing import Any, Final, TypeVar

import attrs
import numpy as np

from textgen.errors import UsageError
from textgen.generation.arguments import (
    SAMPLING,
    AsRun,
    ManyRequest,
    Options,
    Prompt,
    Request,
    is_cancelled,
)
from textgen.generation.chain import Chain
from textgen.generation.continuation import Continuation
from textgen.generation.detokenise import Tail
from textgen.generation.prompts import check_prompt, document_start, end_id
from textgen.generation.results import GenerationState
from textgen.generation.row import Asked, Settings
from textgen.pipeline.options import MAX_N, MAX_SEED, DecodingOptions
from textgen.plugin.structure import Reader
from textgen.protocols import Tokenizer

_CHECKED: Final = tuple(
    name for name in attrs.fields_dict(Options) if name not in ("seed", "cancelled")
)
_values: Final[Callable[[Options], tuple[Any, ...]]] = attrgetter(*_CHECKED)
_DECODING: Final = tuple(name for name in _CHECKED if name in attrs.fields_dict(DecodingOptions))
_MAY_BE_NONE: Final = ("max_new_tokens", "stop", "stop_tokens", "time_limit")
_PLAIN: Final = frozenset({str, int, float, bool, NoneType, AsRun})
_REMEMBERED: Final = 256
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
_K = TypeVar("_K")
_V = TypeVar("_V")


@attrs.frozen(eq=False)
class Requests:
    """Makes continuations for one run. Whatever is wrong with a request is a UsageError.

    seed        the run's
    table       its `[generate]` table: what options are where they are not given
    chain       its chain of samplers
    make_chain  that chain, changed by sampling options
    """

    tokenizer: Tokenizer
    model_id: str
    seed: int
    table: Mapping[str, Any]
    chain: Chain
    make_chain: Callable[[Mapping[str, Any]], Chain]
    _settings: dict[tuple[Any, ...], Settings] = attrs.field(factory=dict, init=False)
    _chains: dict[str, Chain] = attrs.field(factory=dict, init=False)

    def one(self, request: Request, *, whole: bool = False) -> Continuation:
        """A continuation with nothing done for it yet. With `whole` it has to end."""
        asked = self._check(request, request, whole)
        return Continuation.begin(self.tokenizer, asked, asked.index or 0)

    def many(self, request: ManyRequest, *, whole: bool = False) -> Iterator[Continuation]:
        """The continuations of prompts, each made when it is asked for; prompts in a list are checked at once."""
        prompts = request.prompts
        if isinstance(prompts, (str, Request)):
            raise UsageError(
                "expected a list; for one, write [prompt], or use generate or stream",
                argument="prompts",
            )
        if not isinstance(prompts, Iterable):
            raise UsageError(
                "expected a list or another iterable of prompts", argument="prompts", value=prompts
            )
        check_integer("n", request.n, 1, MAX_N)
        check_integer("batch_size", request.batch_size, 1, MAX_N)
        first = check_integer("index", request.index, 0, MAX_SEED - 1)
        settings = self._settings_of(request, _NOTHING)
        _seed(request.seed, self.seed)
        asked = (self._among(place, item, request, whole) for place, item in enumerate(prompts))
        if isinstance(prompts, (list, tuple)):
            return self._continuations(list(asked), first, request.n)
        if whole:
            _must_end(settings, is_cancelled(request.cancelled))
        return self._continuations(asked, first, request.n)

    def _among(self, place: int, item: Prompt | Request, shared: ManyRequest, whole: bool) -> Asked:
        """One of many. What is wrong with it is an error that says which it is."""
        try:
            if isinstance(item, Request):
                request = item.over(shared)
                return self._check(request, request, whole)
            return self._check(Request(item), shared, whole)
        except UsageError as error:
            error.source = f"prompts[{place}]"
            raise

    def _check(self, request: Request, options: Options, whole: bool) -> Asked:
        """A request whose options may be those that it shares with others."""
        state = self._values_of(request.state)
        settings = self._settings_of(options, state.get("sampling", _NOTHING))
        cancelled = is_cancelled(options.cancelled)
        if whole:
            _must_end(settings, cancelled)
        decoding = settings.decoding
        seed = self.seed if decoding.seed is None else decoding.seed
        index = (
            None
            if request.index is None
            else check_integer("index", request.index, 0, MAX_SEED - 1)
        )
        own = state.get("index", index)
        if index not in (None, 0, own):
            cause = f"the saved state resumes with its own index, {own}; give another seed instead"
            raise UsageError(cause, argument="state")
        ids = check_prompt(self.tokenizer, request.prompt, decoding.unknown_characters)
        return Asked(
            prompt=request.prompt
            if isinstance(request.prompt, str)
            else self.tokenizer.decode(ids),
            ids=ids,
            before=document_start(self.tokenizer, request.prompt),
            tail=Tail.of(self.tokenizer, ids),
            settings=settings,
            seed=_seed(options.seed, state.get("seed", seed)),
            index=own,
            cancelled=cancelled,
            state=request.state,
            keep_state=request.keep_state,
        )

    def _values_of(self, state: Any) -> Mapping[str, Any]:
        """What a saved state says of its text, once it is known to be of this run."""
        if state is None:
            return _NOTHING
        if not isinstance(state, GenerationState):
            raise UsageError("expected a GenerationState", argument="state", value=state)
        if state.values["model"] != self.model_id:
            cause = "the saved state belongs to another model; it resumes only with the run that made it"
            raise UsageError(cause, argument="state")
        if (
            max([*state.values["pending"], *state.values["tail"]], default=0)
            >= self.tokenizer.vocab_size
        ):
            raise UsageError("the saved state has ids outside the vocabulary", argument="state")
        return state.values

    def _continuations(self, asked: Iterable[Asked], first: int, n: int) -> Iterator[Continuation]:
        ends: dict[float, float] = {}  # one clock for all
        indices = itertools.count(first)
        for each in asked:
            limit = each.settings.decoding.time_limit
            deadline = None if limit is None else ends.setdefault(limit, time.monotonic() + limit)
            for index in itertools.islice(indices, n):
                text = Continuation.begin(
                    self.tokenizer, each, index if each.index is None else each.index
                )
                text.row.deadline = deadline
                yield text

    def _settings_of(self, options: Options, kept: Mapping[str, Any]) -> Settings:
        """What options come to, found once for the same options. `kept` sampling is reused if none is given."""
        values = _values(options)
        types = tuple(map(type, values))
        if kept or not _PLAIN.issuperset(types):
            return self._make_settings(options, kept)
        key = values + types  # True is not 1 here
        return self._settings.get(key) or _remember(
            self._settings, key, self._make_settings(options, kept)
        )

    def _make_settings(self, options: Options, kept: Mapping[str, Any]) -> Settings:
        given = {name: _plain(getattr(options, name)) for name in _DECODING}
        given = {name: value for name, value in given.items() if not isinstance(value, AsRun)}
        given = {
            name: value
            for name, value in given.items()
            if value is not None or name in _MAY_BE_NONE
        }
        vocab_size = self.tokenizer.vocab_size
        decoding = _decoding({**self.table, **given}, vocab_size)
        sampling = {
            name: value
            for name in SAMPLING
            if (value := _plain(getattr(options, name))) is not None
        }
        sampling |= {name: _plain(value) for name, value in (options.sampling or {}).items()}
        sampling = sampling or {
            k: dict(v["pairs"]) if isinstance(v, Mapping) else v for k, v in kept.items()
        }
        packed = {
            k: {"pairs": [*v.items()]} if isinstance(v, Mapping) else v for k, v in sampling.items()
        }
        top = (
            None
            if options.logprobs is None
            else check_integer("logprobs", options.logprobs, 0, vocab_size)
        )
        chain = self._chain(sampling, packed) if sampling else self.chain
        return Settings(
            decoding, chain, packed, top, None if decoding.ignore_end else end_id(self.tokenizer)
        )

    def _chain(self, sampling: Mapping[str, Any], packed: Mapping[str, Any]) -> Chain:
        """The run's chain changed by sampling options; the same object for the same options, so that rows share it."""
        try:
            key = json.dumps(packed, sort_keys=True)
        except (TypeError, ValueError):
            return self.make_chain(sampling)
        return self._chains.get(key) or _remember(self._chains, key, self.make_chain(sampling))


def check_integer(name: str, value: Any, low: int, high: int) -> int:
    """The value as an int. Raises UsageError for what is not an integer, or out of range."""
    if (
        not isinstance(value, (int, np.integer))
        or isinstance(value, bool)
        or not low <= value <= high
    ):
        raise UsageError(f"expected an integer from {low} to {high:,}", argument=name, value=value)
    return int(value)


def check_decoding(options: DecodingOptions, vocab_size: int) -> None:
    """Check what depends on the vocabulary, or on more than one option. Raises UsageError."""
    if any(token >= vocab_size or token < 0 for token in options.stop_tokens):
        raise UsageError(f"expected ids from 0 to {vocab_size - 1}", argument="stop_tokens")
    if options.min_new_tokens and len(set(options.stop_tokens)) == vocab_size:
        raise UsageError(
            "all tokens stop the text, so min_new_tokens leaves none to draw",
            argument="stop_tokens",
        )


def _decoding(table: Mapping[str, Any], vocab_size: int) -> DecodingOptions:
    given = {
        name: value for name, value in table.items() if name in attrs.fields_dict(DecodingOptions)
    }
    for name in ("stop", "stop_tokens"):
        if name in given and given[name] is None:
            given[name] = ()
        elif isinstance(given.get(name), Iterable) and not isinstance(given[name], str):
            given[name] = tuple(map(_plain, given[name]))
    reader = Reader()
    options: DecodingOptions = reader.table(DecodingOptions, given, "")
    if reader.faults:
        raise UsageError(faults=reader.faults)
    check_decoding(options, vocab_size)
    return options


def _must_end(settings: Settings, cancelled: Callable[[], bool] | None) -> None:
    """Raise UsageError when nothing would ever end the text."""
    decoding = settings.decoding
    ends = decoding.stops or decoding.stop_tokens or cancelled
    timed = decoding.time_limit is not None or settings.end_id is not None
    if decoding.max_new_tokens is None and not ends and not timed:
        hint = "use stream, or give stop, time_limit or cancelled"
        raise UsageError("None never ends", argument="max_new_tokens", suggestion=hint)


def _seed(given: Any, default: int) -> int:
    if given is None:
        return default
    if isinstance(given, str):
        if given != "random":
            raise UsageError('expected an integer or "random"', argument="seed", value=given)
        return secrets.randbits(63)
    return check_integer("seed", given, 0, MAX_SEED - 1)


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays as Python's: ids and seeds often come as such."""
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value


def _remember(known: dict[_K, _V], key: _K, value: _V) -> _V:
    """Keep what was made for later requests; of two made at once, the first."""
    if len(known) >= _REMEMBERED:
        known.clear()
    return known.setdefault(key, value)
