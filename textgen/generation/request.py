"""The options of a request for a text, and what they come to in a run."""

from __future__ import annotations

import copy
import json
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from types import NoneType
from typing import Any, Final, Literal, Protocol, TypeAlias, TypedDict, TypeVar

import attrs
import numpy as np
import numpy.typing as npt

from textgen.errors import UsageError
from textgen.generation.chain import Chain
from textgen.generation.prompts import NO_IDS, check_prompt, document_start, end_id
from textgen.generation.results import GenerationState
from textgen.pipeline.options import (
    MAX_N,
    MAX_SEED,
    MAX_STOPS,
    DecodingOptions,
    TextOptions,
    UnknownCharacters,
)
from textgen.plugin.structure import Reader
from textgen.protocols import Ids, Tokenizer

Prompt: TypeAlias = str | Sequence[int] | npt.NDArray[np.integer[Any]]
"""What to continue: text, or token ids (T,)."""
_DECODING: Final = frozenset(attrs.fields_dict(DecodingOptions))
_OTHER: Final = frozenset(("index", "cancelled", "logprobs", "state", "keep_state"))
_OF_MANY: Final = frozenset(("n", "prompts", "batch_size"))
_MAY_BE_NONE: Final = frozenset(("max_new_tokens", "stop", "stop_tokens", "time_limit"))
_PLAIN: Final = frozenset({str, int, float, bool, NoneType})
_REMEMBERED: Final = 256
_K = TypeVar("_K")
_V = TypeVar("_V")


class Event(Protocol):
    """What threading.Event, asyncio.Event and those of multiprocessing have in common."""

    def is_set(self) -> bool:
        """Whether it has happened."""


class RequestOptions(TypedDict, total=False):
    """The options of a request. Each that is not given is as the run's pipeline has it.

    From `max_new_tokens` to `unknown_characters` they are keys of the table `[generate]`, but `echo`,
    which is off if not given. `seed` may also be "random", which draws one that the result reports, and
    None stands for no limit and for no stop.

    index       tells the texts of one seed apart: the draws depend on seed and index together.
                If not given: 0; among many prompts, its place
    cancelled   a function, or an event such as threading.Event: once true, the text ends
    logprobs    also give log-probabilities, and those of so many likeliest tokens
    state       a saved state to resume from, as if the text had never stopped; the prompt is then
                added to it. It keeps seed and index, and sampling options if none are given
    keep_state  keep the state at the end in the result. A character that is not complete there
                belongs to the text that resumes from it

    The others are options of samplers. Each changes the option of the sampler of the run's chain
    that has it, or adds that sampler at its standard place. Options of plugins' samplers are given
    in the same way.
    """

    max_new_tokens: int | None
    min_new_tokens: int | None
    stop: str | Iterable[str] | None
    stop_tokens: Iterable[int] | None
    ignore_end: bool | None
    time_limit: float | None
    seed: int | Literal["random"] | None
    echo: bool | None
    unknown_characters: UnknownCharacters | None
    index: int | None
    cancelled: Callable[[], bool] | Event | None
    logprobs: int | None
    state: GenerationState | None
    keep_state: bool
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    typical_p: float | None
    repetition_penalty: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    no_repeat_ngram: int | None
    logit_bias: Mapping[Any, float] | None
    dry_multiplier: float | None
    dry_base: float | None
    dry_allowed_length: int | None
    dry_penalty_last_n: int | None
    dry_sequence_breakers: Sequence[str] | None
    regex: str | None
    json_schema: str | Mapping[str, Any] | None
    xtc_probability: float | None
    xtc_threshold: float | None
    mirostat_tau: float | None
    mirostat_eta: float | None


@attrs.frozen(eq=False)
class Settings:
    """The options of requests, resolved against the run's. Requests with the same options share them.

    chain     the samplers; rows of one chain are sampled together
    sampling  the options that `chain` was changed by, as JSON values
    top       number of log-probabilities to note; None: none
    end_id    the token by which the model ends the text
    """

    options: DecodingOptions
    chain: Chain
    sampling: Mapping[str, Any]
    top: int | None
    end_id: int | None


@attrs.frozen(eq=False)
class Request:
    """A checked request.

    prompt  its text; None if it was given as ids
    ids     (T,) of the prompt; none if its time was over before it was encoded
    before  ids to feed before them if there is no `state` (see document_start)
    index   None: its place among many
    """

    prompt: str | None
    ids: Ids
    before: Ids
    settings: Settings
    seed: int
    index: int | None
    cancelled: Callable[[], bool] | None
    state: GenerationState | None
    keep_state: bool


@attrs.frozen
class Deadlines:
    """The ends of the time limits of many texts. Texts with the same limit share it, from the first of them on."""

    _ends: dict[float, float] = attrs.field(factory=dict, init=False)

    def of(self, options: DecodingOptions) -> float | None:
        """A time of time.monotonic; None without a limit."""
        limit = options.time_limit
        return None if limit is None else self._ends.setdefault(limit, time.monotonic() + limit)


@attrs.frozen(eq=False)
class Requests:
    """Checks the requests for one run. Whatever is wrong with one is a UsageError.

    seed        the run's
    table       its `[generate]` table: the options that are not given
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
    _chains: dict[str, Chain | UsageError] = attrs.field(factory=dict, init=False)

    def check(
        self,
        prompt: Any,
        options: Mapping[str, Any],
        *,
        must_end: bool,
        deadlines: Deadlines | None = None,
    ) -> Request:
        """The request for one text; with `must_end`, something has to end it."""
        if name := next(iter(_OF_MANY & options.keys()), None):
            raise UsageError("unknown option; generate_many takes it", argument=name)
        state = self._values_of(options.get("state"))
        settings = self._settings_of(options, state.get("sampling") or {})
        cancelled = is_cancelled(options.get("cancelled"))
        if must_end:
            _check_end(settings, cancelled)
        keep_state = options.get("keep_state", False)
        if not isinstance(keep_state, bool):
            raise UsageError("expected True or False", argument="keep_state", value=keep_state)
        index = options.get("index")
        if index is not None:
            index = check_integer("index", index, 0, MAX_SEED - 1)
        own = state.get("index", index)
        if index not in (None, 0, own):
            cause = f"the saved state has its own index, {own}; give another seed instead"
            raise UsageError(cause, argument="state")
        default = self.seed if settings.options.seed is None else settings.options.seed
        request = Request(
            None,
            NO_IDS,
            NO_IDS,
            settings,
            _seed(options.get("seed"), state.get("seed", default)),
            own,
            cancelled,
            options.get("state"),
            keep_state,
        )
        return self._with_prompt(request, prompt, deadlines)

    def check_many(
        self, prompts: Any, options: Mapping[str, Any], deadlines: Deadlines
    ) -> tuple[Iterable[Request], int]:
        """The requests for prompts, and the first index.

        Those of a list or tuple are checked at once, unless all have a time limit: this may take longer.
        """
        if isinstance(prompts, (str, Mapping)):
            cause = "expected a list; for one prompt, write [prompt], or use generate"
            raise UsageError(cause, argument="prompts")
        if not isinstance(prompts, Iterable):
            cause = "expected a list or another iterable of prompts"
            raise UsageError(cause, argument="prompts", value=prompts)
        if options.get("state") is not None:
            raise UsageError("give it beside a prompt, {'prompt': …, 'state': …}", argument="state")
        shared = self.check("", options, must_end=False)
        first, shared = shared.index or 0, attrs.evolve(shared, index=None)
        options = {name: value for name, value in options.items() if name != "index"}
        at_once = isinstance(prompts, (list, tuple)) and shared.settings.options.time_limit is None
        clock = None if at_once else deadlines
        made = (self._among(i, item, shared, options, clock) for i, item in enumerate(prompts))
        return (list(made) if at_once else made), first

    def _among(
        self,
        place: int,
        item: Any,
        shared: Request,
        options: Mapping[str, Any],
        deadlines: Deadlines | None,
    ) -> Request:
        """One of many. Whatever is wrong with it is an error that says which it is."""
        try:
            if isinstance(item, Mapping):
                own = {**options, **item}
                prompt = own.pop("prompt", "")
                return self.check(prompt, own, must_end=True, deadlines=deadlines)
            _check_end(shared.settings, shared.cancelled)
            return self._with_prompt(shared, item, deadlines)
        except UsageError as error:
            error.source = f"prompts[{place}]"
            raise

    def _with_prompt(self, request: Request, prompt: Any, deadlines: Deadlines | None) -> Request:
        """A request with its prompt, which is not encoded if its time is over."""
        options, text = request.settings.options, prompt if isinstance(prompt, str) else None
        end = None if deadlines is None else deadlines.of(options)
        needs_ids = text is None or request.keep_state or request.state is not None
        if end is not None and not needs_ids and time.monotonic() >= end:
            return attrs.evolve(request, prompt=text)
        ids = check_prompt(self.tokenizer, prompt, options.unknown_characters)
        before = document_start(self.tokenizer, prompt)
        return attrs.evolve(request, prompt=text, ids=ids, before=before)

    def _values_of(self, state: Any) -> Mapping[str, Any]:
        """The values of a saved state, once it is known to be of this run."""
        if state is None:
            return {}
        if not isinstance(state, GenerationState):
            raise UsageError("expected a GenerationState", argument="state", value=state)
        values = state.values
        if values["model"] != self.model_id:
            cause = "the saved state belongs to another model; it resumes only with its own run"
            raise UsageError(cause, argument="state")
        if max([*values["pending"], *values["tail"]], default=0) >= self.tokenizer.vocab_size:
            raise UsageError("the saved state has ids outside the vocabulary", argument="state")
        return values

    def knows(self, options: Mapping[str, Any]) -> bool:
        """Whether settings and chain for these options are remembered, so that checking is cheap."""
        key = _key(options)
        return key is not None and key in self._settings and options.get("state") is None

    def _settings_of(self, options: Mapping[str, Any], kept: Mapping[str, Any]) -> Settings:
        """The resolved options. The sampling options `kept` in a state are used if none are given."""
        key = None if kept else _key(options)
        if key is None:
            return self._make_settings(options, kept)
        return self._settings.get(key) or _remember(
            self._settings, key, self._make_settings(options, kept)
        )

    def _make_settings(self, options: Mapping[str, Any], kept: Mapping[str, Any]) -> Settings:
        given = {
            name: _plain(value)
            for name, value in options.items()
            if name not in _OTHER and (value is not None or name in _MAY_BE_NONE)
        }
        given.pop("seed", None)  # checked by itself: it may be "random"
        size = self.tokenizer.vocab_size
        decoding = {name: value for name, value in given.items() if name in _DECODING}
        sampling = {name: value for name, value in given.items() if name not in _DECODING}
        sampling = sampling or _unpacked(kept)
        packed = {
            name: {"pairs": [*value.items()]} if isinstance(value, Mapping) else value
            for name, value in sampling.items()
        }
        top = options.get("logprobs")
        made = _decoding({**self.table, **decoding}, size)
        return Settings(
            made,
            self._chain(sampling, packed) if sampling else self.chain,
            packed,
            None if top is None else check_integer("logprobs", top, 0, size),
            None if made.ignore_end else end_id(self.tokenizer),
        )

    def _chain(self, sampling: Mapping[str, Any], packed: Mapping[str, Any]) -> Chain:
        """The run's chain changed by options; the same object for the same options, so that rows share it.

        Raises UsageError. What was refused once is refused from memory: an expression may take long to compile.
        """
        try:
            key = json.dumps(packed, sort_keys=True)
        except (TypeError, ValueError):
            return self.make_chain(sampling)
        made = self._chains.get(key)
        if made is None:
            try:
                made = self.make_chain(sampling)
            except UsageError as error:
                made = copy.copy(error)  # without its traceback
            made = _remember(self._chains, key, made)
        if isinstance(made, UsageError):
            raise copy.copy(made)
        return made


def is_cancelled(given: Callable[[], bool] | Event | None) -> Callable[[], bool] | None:
    """A function that says whether work is cancelled: the one given, or an event's. Raises UsageError."""
    cancelled = getattr(given, "is_set", given)
    if cancelled is not None and not callable(cancelled):
        raise UsageError("expected a function or an event", argument="cancelled", value=given)
    return cancelled


def check_integer(name: str, value: Any, low: int, high: int) -> int:
    """The value as an int. Raises UsageError for what is not an integer, or out of range."""
    is_integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not is_integer or not low <= value <= high:
        raise UsageError(f"expected an integer from {low} to {high:,}", argument=name, value=value)
    return int(value)


def check_number(name: str, value: Any) -> int:
    """A number of texts, from 1 on. Raises UsageError."""
    return check_integer(name, value, 1, MAX_N)


def check_decoding(options: TextOptions, vocab_size: int) -> None:
    """Check what depends on the vocabulary, or on more than one option. Raises UsageError."""
    if any(token >= vocab_size or token < 0 for token in options.stop_tokens):
        raise UsageError(f"expected ids from 0 to {vocab_size - 1}", argument="stop_tokens")
    if options.min_new_tokens and len(set(options.stop_tokens)) == vocab_size:
        cause = "all tokens stop the text, so min_new_tokens leaves none to draw"
        raise UsageError(cause, argument="stop_tokens")


def _decoding(table: Mapping[str, Any], vocab_size: int) -> DecodingOptions:
    given = {name: value for name, value in table.items() if name in _DECODING}
    for name in ("stop", "stop_tokens"):
        value = given.get(name)
        if name in given and value is None:
            given[name] = ()
        elif isinstance(value, Iterable) and not isinstance(value, str):
            given[name] = tuple(map(_plain, islice(value, MAX_STOPS + 1)))
    reader = Reader()
    options: DecodingOptions = reader.table(DecodingOptions, given, "")
    if reader.faults:
        faults = (attrs.evolve(f, path=f.path.partition(".")[0]) for f in reader.faults)
        raise UsageError(faults=tuple(faults))
    check_decoding(options, vocab_size)
    return options


def _check_end(settings: Settings, cancelled: Callable[[], bool] | None) -> None:
    """Raise UsageError if nothing would ever end the text."""
    options = settings.options
    ends = options.stops or options.stop_tokens or cancelled
    timed = options.time_limit is not None or settings.end_id is not None
    if options.max_new_tokens is None and not ends and not timed:
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


def _key(options: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """A key of the options that settings depend on, if all are plain values."""
    known = [
        (name, value, type(value))  # True is not 1 here
        for name, value in options.items()
        if name == "logprobs" or (name not in _OTHER and name != "seed")
    ]
    return tuple(known) if _PLAIN.issuperset(kind for _, _, kind in known) else None


def _unpacked(kept: Mapping[str, Any]) -> dict[str, Any]:
    """The sampling options of a saved state, whose mappings are pairs, since JSON keys are strings."""
    try:
        return {
            name: dict(value["pairs"]) if isinstance(value, Mapping) else value
            for name, value in kept.items()
        }
    except (KeyError, TypeError, ValueError) as error:
        cause = "the saved state has sampling options that cannot be read"
        raise UsageError(cause, argument="state") from error


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays as Python's: ids and seeds often come as such."""
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value


def _remember(known: dict[_K, _V], key: _K, value: _V) -> _V:
    """Keep what was made for later requests; of two made at once, the first."""
    if len(known) >= _REMEMBERED:
        known.clear()
    return known.setdefault(key, value)
