"""The options of a request for text, each declared once."""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from typing import Any, Concatenate, Final, Literal, ParamSpec, Protocol, TypeAlias, TypeVar

import attrs
import numpy as np
import numpy.typing as npt

from textgen.errors import UsageError
from textgen.generation.results import GenerationState
from textgen.pipeline.options import UnknownCharacters
from textgen.suggest import nearest

BATCH_SIZE: Final = 256
_P = ParamSpec("_P")
_R = TypeVar("_R")
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
Prompt: TypeAlias = str | Sequence[int] | npt.NDArray[np.integer[Any]]
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
        missing = [
            field.name
            for field in attrs.fields(Options)
            if getattr(self, field.name) is field.default
        ]
        return attrs.evolve(self, **{name: getattr(shared, name) for name in missing})


@attrs.frozen
class ManyRequest(Options):
    """Several prompts, with the options of all of them (see Options).

    prompts     texts, token ids, or each a textgen.Request with options of its own
    n           continuations of each
    index       of the first; continuation j of prompt i has index + i * n + j
    batch_size  how many texts to work on at once
    """

    prompts: Iterable[Prompt | Request]
    n: int = attrs.field(default=1, kw_only=True)
    index: int = attrs.field(default=0, kw_only=True)
    batch_size: int = attrs.field(default=BATCH_SIZE, kw_only=True)


_NAMES: Final = tuple(attrs.fields_dict(Options))
SAMPLING: Final = _NAMES[_NAMES.index("temperature") : -1]
"""The standard names of sampling options."""


def is_cancelled(given: Callable[[], bool] | Event | None) -> Callable[[], bool] | None:
    """What says whether a work is cancelled: the function given, or that of an event. Raises UsageError."""
    cancelled = getattr(given, "is_set", given)
    if cancelled is not None and not callable(cancelled):
        raise UsageError("expected a function or an event", argument="cancelled", value=given)
    return cancelled


def takes(
    request: Callable[_P, _R],
) -> Callable[[Callable[[_S, _R], _T]], Callable[Concatenate[_S, _P], _T]]:
    """Let a method that takes a `request` be called with the fields of its class instead.

    So each option is declared, typed and described once; `help` and editors show all of them.
    """
    known = attrs.fields_dict(request)  # type: ignore[arg-type]  # it is an attrs class

    def decorate(method: Callable[[_S, _R], _T]) -> Callable[Concatenate[_S, _P], _T]:
        @wraps(method)
        def call(self: _S, /, *arguments: _P.args, **named: _P.kwargs) -> _T:
            for name in named:
                if name not in known:
                    hint = nearest(name, known) or f"there are {', '.join(known)}"
                    hint = (
                        "generate_many and its like take it"
                        if name in attrs.fields_dict(ManyRequest)
                        else hint
                    )
                    raise UsageError("unknown argument", argument=name, suggestion=hint)
            return method(self, request(*arguments, **named))

        own, fields = inspect.signature(method), inspect.signature(request)
        this = own.parameters["self"].replace(kind=inspect.Parameter.POSITIONAL_ONLY)
        call.__signature__ = own.replace(parameters=[this, *fields.parameters.values()])  # type: ignore[attr-defined]
        texts = [method.__doc__, Options.__doc__, getattr(request, "__doc__", None)]
        call.__doc__ = "\n\n".join(map(inspect.cleandoc, filter(None, texts)))
        return call

    return decorate
