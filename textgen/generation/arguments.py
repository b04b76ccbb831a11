"""The options of a request for text, and what they mean for one run."""

from __future__ import annotations

import enum
import inspect
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, wraps
from typing import Any, Concatenate, Final, Literal, ParamSpec, Protocol, Self, TypeAlias, TypeVar

import attrs
import numpy as np
import numpy.typing as npt

from textgen.errors import UsageError
from textgen.generation.chain import Chain
from textgen.generation.results import GenerationState
from textgen.pipeline.options import MAX_SEED, DecodingOptions, UnknownCharacters
from textgen.pipeline.structure import Reader
from textgen.suggest import nearest

BATCH_SIZE: Final = 256
_P = ParamSpec("_P")
_A = TypeVar("_A")
_O = TypeVar("_O")
_S = TypeVar("_S")
_T = TypeVar("_T")


class Event(Protocol):
    """What threading.Event, asyncio.Event and those of multiprocessing have in common."""

    def is_set(self) -> bool:
        """Whether it has happened."""


class AsRun(enum.Enum):
    """Stands for an option that is not given, where None has a meaning of its own."""

    AS_RUN = "as the run has it"

    def __repr__(self) -> str:
        return f"<{self.value}>"


AS_RUN: Final = AsRun.AS_RUN
Prompt: TypeAlias = "str | Sequence[int] | npt.NDArray[np.integer[Any]]"
"""What to continue: text, or token ids (T,)."""


@attrs.frozen(kw_only=True)
class Options:
    """How to continue a prompt. An option that is not given is as the run's pipeline has it, except `echo`.

    max_new_tokens      how many tokens to add at most; None: no limit
    min_new_tokens      how many tokens to add before a stop counts
    stop                a text that ends the continuation, or several; not part of it. None: no stop text
    stop_tokens         ids that end it, part of it. None: none
    ignore_end          whether to go on where the model ends the text
    time_limit          seconds after which it ends. None: no limit
    seed                of the random draws; "random" draws one, which the result reports. None: the run's seed
    echo                whether to put the prompt before its continuation
    unknown_characters  about what the vocabulary lacks in a prompt: "error", "skip" it, or feed it as "unknown"
    cancelled           a function, or an event such as threading.Event: once true, the text ends
    logprobs            also give log-probabilities, and those of so many likeliest tokens
    exact               whether the text must be, to the last bit of every logit, what it would be alone. Only models
                        whose rows may differ in a batch (see RowDecoder) make a difference

    The others change the run's chain of samplers: the option of the sampler that takes it, which joins the chain at
    its standard place where the chain lacks it; the rest of the chain stays.

    temperature         what logits are divided by; 0: always the likeliest token
    top_k, top_p, min_p, typical_p      keep the likeliest tokens only
    repetition_penalty, presence_penalty, frequency_penalty, no_repeat_ngram      against repetition
    dry_multiplier, dry_base, dry_allowed_length, dry_penalty_last_n, dry_sequence_breakers     likewise
    logit_bias          what is added to the logits of tokens, each given as its text or its id
    regex, json_schema  a regular expression that the text has to match; a JSON schema, as JSON, that it has to follow
    xtc_probability, xtc_threshold      exclude the likeliest tokens now and then
    mirostat_tau, mirostat_eta          hold the surprise of the text near tau bits per token
    sampling            options that samplers of plugins take, by name
    """

    max_new_tokens: int | AsRun | None = AS_RUN
    min_new_tokens: int | None = None
    stop: str | Iterable[str] | AsRun | None = AS_RUN
    stop_tokens: Iterable[int] | AsRun | None = AS_RUN
    ignore_end: bool | None = None
    time_limit: float | AsRun | None = AS_RUN
    seed: int | Literal["random"] | None = None
    echo: bool = False
    unknown_characters: UnknownCharacters | None = None
    cancelled: Callable[[], bool] | Event | None = None
    logprobs: int | None = None
    exact: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    no_repeat_ngram: int | None = None
    logit_bias: Mapping[str | int, float] | None = None
    dry_multiplier: float | None = None
    dry_base: float | None = None
    dry_allowed_length: int | None = None
    dry_penalty_last_n: int | None = None
    dry_sequence_breakers: Sequence[str] | None = None
    regex: str | None = None
    json_schema: str | None = None
    xtc_probability: float | None = None
    xtc_threshold: float | None = None
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None
    sampling: Mapping[str, Any] | None = None


@attrs.frozen
class Request(Options):
    """A prompt, with options of its own (see Options).

    prompt      text, or token ids (T,)
    index       tells the texts of one seed apart; None: 0, or its place among many
    state       continue from a kept state, as if it had never stopped; `prompt` is then added to what was there. Its
                seed, index and sampling options are kept where none are given
    keep_state  keep the state at the end in the result. A character that is not complete there belongs to the text
                that continues it
    """

    prompt: Prompt = ""
    index: int | None = attrs.field(default=None, kw_only=True)
    state: GenerationState | None = attrs.field(default=None, kw_only=True)
    keep_state: bool = attrs.field(default=False, kw_only=True)

    def over(self, shared: Options) -> Request:
        """This request, with shared options where it has none of its own."""
        unset = Request()
        names = attrs.fields_dict(Options)
        missing = [name for name in names if getattr(self, name) == getattr(unset, name)]
        return attrs.evolve(self, **{name: getattr(shared, name) for name in missing})


@attrs.frozen(kw_only=True)
class ManyOptions(Options):
    """How to continue several prompts (see Options).

    n           continuations of each
    index       of the first; continuation j of prompt i has index + i * n + j
    batch_size  how many texts to work on at once
    """

    n: int = 1
    index: int = 0
    batch_size: int = BATCH_SIZE


_MAY_BE_NONE: Final = ("max_new_tokens", "stop", "stop_tokens", "time_limit")
SAMPLING: Final = tuple(attrs.fields_dict(Options))[tuple(attrs.fields_dict(Options)).index("temperature") : -1]
"""The standard names of sampling options."""
_DECODING: Final = tuple(attrs.fields_dict(DecodingOptions))


def takes(options: Callable[_P, _O]) -> Callable[[Callable[[_S, _O], _T]], Callable[Concatenate[_S, _P], _T]]:
    """Let a method whose argument is an `options` object be called with the fields of its class instead.

    So each option is declared, typed and described once; `help` and editors show all of them.
    """

    def decorate(method: Callable[[_S, _O], _T]) -> Callable[Concatenate[_S, _P], _T]:
        @wraps(method)
        def call(self: _S, /, *arguments: _P.args, **named: _P.kwargs) -> _T:
            return method(self, _made(options, arguments, named))

        _sign(call, method, options)
        return call

    return decorate


def takes_prompts(
    options: Callable[_P, _O],
) -> Callable[[Callable[[_S, _A, _O], _T]], Callable[Concatenate[_S, _A, _P], _T]]:
    """`takes` for a method whose first argument is something else."""

    def decorate(method: Callable[[_S, _A, _O], _T]) -> Callable[Concatenate[_S, _A, _P], _T]:
        @wraps(method)
        def call(self: _S, prompts: _A, /, *arguments: _P.args, **named: _P.kwargs) -> _T:
            return method(self, prompts, _made(options, arguments, named))

        _sign(call, method, options)
        return call

    return decorate


def _made(options: Callable[..., _O], arguments: tuple[Any, ...], named: dict[str, Any]) -> _O:
    known = attrs.fields_dict(options)  # type: ignore[arg-type]  # it is an attrs class
    for name in named:
        if name not in known:
            hint = nearest(name, known) or f"there are {', '.join(known)}"
            raise UsageError("unknown argument", argument=name, suggestion=hint)
    return options(*arguments, **named)


def _sign(call: Any, method: Callable[..., Any], options: Callable[..., Any]) -> None:
    """Give `call` the parameters of `options` in place of the method's last."""
    own = inspect.signature(method)
    first = [parameter.replace(kind=parameter.POSITIONAL_ONLY) for parameter in list(own.parameters.values())[:-1]]
    call.__signature__ = own.replace(parameters=[*first, *inspect.signature(options).parameters.values()])
    described = [kind.__doc__ for kind in reversed(getattr(options, "__mro__", ())) if issubclass(kind, Options)]
    call.__doc__ = "\n\n".join(map(inspect.cleandoc, filter(None, [method.__doc__, *described])))


@attrs.frozen(eq=False)
class Defaults:
    """What the options of a request are where they are not given: those of one run.

    table       its `[generate]` table
    end_id      of its tokenizer, for the end of a document
    make_chain  its chain of samplers, changed by sampling options; Raises UsageError
    """

    seed: int
    table: Mapping[str, Any]
    vocab_size: int
    end_id: int | None
    chain: Chain
    make_chain: Callable[[Mapping[str, Any]], Chain]


@attrs.frozen
class Settings:
    """The options of a request, checked, with the run's where it has none.

    sampling  the options that `chain` was changed by, as JSON values
    top       log-probabilities to note; None: none
    """

    decoding: DecodingOptions
    chain: Chain
    end_id: int | None
    seed: int
    cancelled: Callable[[], bool] | None
    sampling: Mapping[str, Any]
    top: int | None
    exact: bool

    def deadline(self) -> float | None:
        """The end of the time limit, if it begins now."""
        limit = self.decoding.time_limit
        return None if limit is None else time.monotonic() + limit

    def must_end(self) -> None:
        """Raise UsageError when nothing would ever end the text."""
        decoding = self.decoding
        ends = decoding.stops or decoding.stop_tokens or decoding.time_limit is not None or self.cancelled
        if self.end_id is not None and not decoding.ignore_end:
            ends = True
        if decoding.max_new_tokens is None and not ends:
            raise UsageError(
                "None never ends",
                argument="max_new_tokens",
                suggestion="use stream, or give stop, time_limit or cancelled",
            )

    @classmethod
    def of(cls, options: Options, run: Defaults, kept: Mapping[str, Any] | None = None) -> Self:
        """Check options. `kept` sampling options are reused if none are given. Raises UsageError."""
        given = {name: _plain(getattr(options, name)) for name in _DECODING if hasattr(options, name)}
        seed = given.pop("seed")
        given = {name: value for name, value in given.items() if value is not AS_RUN}
        given = {name: value for name, value in given.items() if value is not None or name in _MAY_BE_NONE}
        decoding = _decoding({**run.table, **given}, run.vocab_size)
        sampling = {name: value for name in SAMPLING if (value := _plain(getattr(options, name))) is not None}
        sampling |= {name: _plain(value) for name, value in (options.sampling or {}).items()}
        sampling = sampling or _unpacked(kept or {})
        cancelled = getattr(options.cancelled, "is_set", options.cancelled)
        if cancelled is not None and not callable(cancelled):
            raise UsageError("expected a function or an event", argument="cancelled", value=cancelled)
        if options.logprobs is not None:
            check_integer("logprobs", options.logprobs, 0, run.vocab_size)
        return cls(
            decoding,
            run.make_chain(sampling) if sampling else run.chain,
            run.end_id,
            _seed(seed, run.seed if decoding.seed is None else decoding.seed),
            cancelled,
            {name: {"pairs": [*v.items()]} if isinstance(v, Mapping) else v for name, v in sampling.items()},
            None if options.logprobs is None else int(options.logprobs),
            decoding.exact,
        )


def check_integer(name: str, value: Any, low: int, high: int) -> int:
    """The value as an int. Raises UsageError for what is not an integer, or out of range."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or not low <= value <= high:
        raise UsageError(f"expected an integer from {low} to {high:,}", argument=name, value=value)
    return int(value)


def check_decoding(options: DecodingOptions, vocab_size: int) -> None:
    """Check what depends on the vocabulary, or on more than one option. Raises UsageError."""
    if any(token >= vocab_size or token < 0 for token in options.stop_tokens):
        raise UsageError(f"expected ids from 0 to {vocab_size - 1}", argument="stop_tokens")
    if options.min_new_tokens and len(set(options.stop_tokens)) == vocab_size:
        raise UsageError("all tokens stop the text, so min_new_tokens leaves none to draw", argument="stop_tokens")


def _decoding(table: Mapping[str, Any], vocab_size: int) -> DecodingOptions:
    given = {name: value for name, value in table.items() if name in _DECODING}
    for name in ("stop", "stop_tokens"):
        if name in given and given[name] is None:
            given[name] = ()
        elif isinstance(given.get(name), Iterable) and not isinstance(given[name], str):
            given[name] = tuple(map(_plain, given[name]))
    if all(isinstance(value, str | int | float | None) or value == () for value in given.values()):
        return _checked_once(tuple((name, type(value), value) for name, value in given.items()), vocab_size)
    return _checked(given, vocab_size)


@lru_cache(256)
def _checked_once(given: tuple[tuple[str, type, Any], ...], vocab_size: int) -> DecodingOptions:
    """`_checked`, for what has been checked before. The types count: True is not 1 here."""
    return _checked({name: value for name, _, value in given}, vocab_size)


def _checked(given: Mapping[str, Any], vocab_size: int) -> DecodingOptions:
    reader = Reader()
    options: DecodingOptions = reader.table(DecodingOptions, given, "")
    if reader.faults:
        raise UsageError(faults=reader.faults)
    check_decoding(options, vocab_size)
    return options


def _seed(given: Any, default: int) -> int:
    if given is None:
        return default
    if given == "random":
        return secrets.randbits(63)
    if isinstance(given, str):
        raise UsageError('expected an integer or "random"', argument="seed", value=given)
    return check_integer("seed", given, 0, MAX_SEED - 1)


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays as Python's: ids and seeds often come as such."""
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value


def _unpacked(sampling: Mapping[str, Any]) -> dict[str, Any]:
    """Sampling options as they were given, from the JSON of a saved state."""
    return {k: dict(map(tuple, v["pairs"])) if isinstance(v, Mapping) else v for k, v in sampling.items()}
