"""Reads the parameters of POST /v1/completions: ours, the names of other servers, and unknown
ones.
"""

from __future__ import annotations

import difflib
import json
import math
import secrets
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

import attrs

from textgen import RequestOptions
from textgen.protocols import Table
from textgen_serve.errors import ApiError
from textgen_serve.limits import Limits

Prompt = str | list[int]
_SEEDS: Final = 2**64
_CANDIDATES: Final = frozenset(("beams", "candidates"))  # texts that are made for one
_INDICES: Final = 2**53
_FED_AT_ONCE: Final = frozenset(("negative_prompt", "suffix"))  # texts, in one step of their lanes
_MOST_AT_ONCE: Final = 4000  # characters of one
_SEED_BITS: Final = 48  # bits: JavaScript reads them exactly
_ID_DIGITS: Final = 9
_MAX_PARAMETERS: Final = 256  # parameters of a request
_NAME_CHARACTERS: Final = 64  # characters of the name of one
_ITEMS: Final = 1000  # of a list or an object, but for `prompt`
_SERVER: Final = frozenset(
    (
        *("model", "prompt", "n", "best_of", "stream", "stream_options", "echo", "seed", "index"),
        *("logprobs", "prompt_logprobs", "max_tokens", "return_token_ids"),
    )
)
_NOT_FOR_CLIENTS: Final = frozenset(("keep_state", "index", "max_new_tokens", "echo", "logprobs"))
_ENGINE: Final = frozenset(attrs.fields_dict(RequestOptions)) - _NOT_FOR_CLIENTS
ALIASES: Final[Mapping[str, str]] = {
    "max_new_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "min_tokens": "min_new_tokens",
    "ignore_eos": "ignore_end",
    "ban_eos_token": "ignore_end",
    "stop_token_ids": "stop_tokens",
    "guided_regex": "regex",
    "guided_json": "json_schema",
}
"""Names that documented clients send, and ours."""
_ANY_VALUE: Final = object()
NEUTRAL: Final[Mapping[str, tuple[Any, ...]]] = {
    "user": (_ANY_VALUE,),
    "cache_prompt": (_ANY_VALUE,),
    "skip_special_tokens": (_ANY_VALUE,),
    "spaces_between_special_tokens": (_ANY_VALUE,),
    "suffix": ("",),
    "use_beam_search": (False,),
    "early_stopping": (False,),
    "length_penalty": (1,),
    "include_stop_str_in_output": (False,),
    "dry_base": (1.75,),
    "dry_sequence_breakers": (_ANY_VALUE,),  # clients send their default
    "typical_p": (1,),
    "tfs": (1,),
    "mirostat_mode": (0,),
    "dynamic_temperature": (False,),
    "guidance_scale": (1,),
    "negative_prompt": ("",),
    "repetition_penalty_range": (0, -1),
    "penalize_nl": (True,),
    "banned_tokens": ([], ""),
    "grammar_string": ("",),
    "guided_grammar": ("",),
    "response_format": ({"type": "text"},),
}
"""Names that documented clients send, and the values at which they change nothing."""


def _no_repetition_penalty(body: Table) -> bool:
    return bool(body.get("repetition_penalty", 1) == 1)


def _no_dynamic_temperature(body: Table) -> bool:
    return not body.get("dynamic_temperature")


_IDLE: Final[Mapping[str, Callable[[Table], bool]]] = {
    "repetition_penalty_range": _no_repetition_penalty,
    "penalize_nl": _no_repetition_penalty,
    "dynatemp_low": _no_dynamic_temperature,
    "dynatemp_high": _no_dynamic_temperature,
    "dynatemp_exponent": _no_dynamic_temperature,
}
"""Names of other servers, and whether a request turns off what they would change."""


@attrs.frozen(kw_only=True)
class Completion:
    """A checked request.

    texts    that each prompt gets, of which the `n` best are sent
    index    of the first: choice j depends on `seed` and `index + j`
    options  for the engine
    ignored  parameters that nobody knows
    """

    prompts: list[Prompt]
    n: int = 1
    texts: int = 1
    stream: bool = False
    include_usage: bool = False
    echo: bool = False
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    return_token_ids: bool = False
    seed: int = 0
    index: int = 0
    options: dict[str, Any] = attrs.field(factory=dict)
    ignored: tuple[str, ...] = ()

    @property
    def noted(self) -> int | None:
        """`logprobs` for the engine: the best of several texts is chosen by those of its tokens."""
        return self.logprobs or 0 if self.texts > self.n else self.logprobs

    @property
    def rows(self) -> int:
        """Texts of all prompts."""
        return len(self.prompts) * self.texts


def read_completion(
    body: Table,
    sampling: Collection[str],
    limits: Limits,
    defaults: Table,
    *,
    ignore_unknown: bool = False,
) -> Completion:
    """The request in a body; what is omitted or null is as the run has it in `defaults`.

    `sampling` are the names that samplers take. Raises ApiError.
    """
    given, ignored = _known(body, sampling, ignore_unknown=ignore_unknown)
    number = _Numbers(given)
    n = number("n", 1, 1, limits.texts_per_request)
    best_of = number("best_of", n, n, limits.texts_per_request)
    stream, include_usage = number.flag("stream"), _includes_usage(given)
    if stream and best_of > n:
        raise ApiError(400, "best_of above n cannot be streamed", param="best_of")
    prompt_logprobs = number("prompt_logprobs", None, 0, limits.logprobs)
    if stream and prompt_logprobs is not None:
        raise ApiError(400, "prompt_logprobs cannot be streamed", param="prompt_logprobs")
    prompts = read_prompts(given.get("prompt", ""))
    if len(prompts) * best_of > limits.texts_per_request:
        message = f"a request may have {limits.texts_per_request} texts, prompts times n"
        raise ApiError(400, message, param="prompt" if best_of == 1 else "n")
    for name in _CANDIDATES & given.keys():
        number(name, 1, 1, limits.texts_per_request // (len(prompts) * best_of))
    seed = number("seed", -1, -1, _SEEDS - 1)
    options = {name: value for name, value in given.items() if name not in _SERVER}
    options["max_new_tokens"] = _max_tokens(number, limits, defaults)
    options.setdefault("time_limit", min(defaults.get("time_limit") or math.inf, limits.seconds))
    if type(limit := options["time_limit"]) in (int, float) and limit > limits.seconds:
        message = f"time_limit may be {limits.seconds:g} seconds at most"
        raise ApiError(400, message, param="time_limit")
    if not isinstance(options.get("strategy", ""), str):  # a table might name a file
        raise ApiError(400, "strategy must be the name of one", param="strategy")
    for name in _FED_AT_ONCE & options.keys():
        if len(str(options[name])) > _MOST_AT_ONCE:
            message = f"{name} may have {_MOST_AT_ONCE:,} characters at most"
            raise ApiError(400, message, param=name)
    if "logit_bias" in options:
        options["logit_bias"] = _bias(options["logit_bias"])
    return Completion(
        prompts=prompts,
        n=n,
        texts=best_of,
        stream=stream,
        include_usage=include_usage,
        echo=number.flag("echo"),
        logprobs=_logprobs(number, limits),
        prompt_logprobs=prompt_logprobs,
        return_token_ids=number.flag("return_token_ids"),
        seed=secrets.randbits(_SEED_BITS) if seed == -1 else seed,
        index=number("index", 0, 0, _INDICES),
        options=options,
        ignored=tuple(ignored),
    )


def read_prompts(value: Any) -> list[Prompt]:
    """The prompts in any of the four shapes: a text, texts, ids, lists of ids. Raises ApiError."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        if _are_ids(value):
            return [value]
        if all(isinstance(item, str) for item in value) or all(map(_are_ids, value)):
            return value
    expected = "prompt must be a string, a list of strings, a list of token ids, or a list of these"
    raise ApiError(400, expected, param="prompt")


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int for item in value)


def _known(
    body: Table, options: Collection[str], *, ignore_unknown: bool
) -> tuple[dict[str, Any], list[str]]:
    """Our parameters by our names, and the names of those that have no equal here.

    Raises ApiError.
    """
    if len(body) > _MAX_PARAMETERS:
        raise ApiError(400, f"a request may have {_MAX_PARAMETERS} parameters")
    body = {name: value for name, value in body.items() if value is not None}
    given: dict[str, Any] = {}
    ignored: list[str] = []
    for name, value in body.items():
        own = ALIASES.get(name, name)
        if name in _IDLE and _IDLE[name](body):
            continue
        if len(name) > _NAME_CHARACTERS:
            raise ApiError(
                400, f"the name of a parameter is longer than {_NAME_CHARACTERS} characters"
            )
        if name == "top_k" and value == -1:  # off, in vLLM and clients of it
            value = 0
        if isinstance(value, (list, dict)) and len(value) > _ITEMS and name != "prompt":
            raise ApiError(400, f"{name} may have {_ITEMS:,} items", param=name)
        if any(each is _ANY_VALUE or value == each for each in NEUTRAL.get(name, ())):
            continue
        if own in _SERVER or own in _ENGINE or own in options:
            if given.get(own, value) != value:
                message = f"{name} is {own}, which is given already with another value"
                raise ApiError(400, message, param=name)
            given[own] = value
        elif ignore_unknown:
            ignored.append(name)
        else:
            raise _unknown(name, options)
    return given, ignored


def _unknown(name: str, options: Collection[str]) -> ApiError:
    if name in NEUTRAL:
        values = " or ".join(json.dumps(each) for each in NEUTRAL[name])
        return ApiError(400, f"{name} is not supported; it may be {values}", param=name)
    names = {*_SERVER, *_ENGINE, *ALIASES, *NEUTRAL, *options}
    near = difflib.get_close_matches(name, names, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return ApiError(400, f"unknown parameter {name!r}{hint}", param=name)


@attrs.frozen
class _Numbers:
    """Reads the server's own parameters."""

    given: Table

    def __call__(self, name: str, default: Any, least: int, most: int) -> Any:
        """An integer within bounds; `default` where it is not given."""
        value = self.given.get(name, default)
        if value is default:
            return value
        if type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is not int or not least <= value <= most:
            message = f"{name} must be an integer from {least:,} to {most:,}"
            raise ApiError(400, message, param=name)
        return value

    def flag(self, name: str) -> bool:
        """A truth value, false where it is not given."""
        value = self.given.get(name, False)
        if not isinstance(value, bool):
            raise ApiError(400, f"{name} must be true or false", param=name)
        return value


def _includes_usage(given: Table) -> bool:
    """Whether a stream ends with the usage, by `stream_options`. Raises ApiError."""
    name, options = "stream_options", given.get("stream_options")
    if options is None:
        return False
    if given.get("stream") is not True:
        raise ApiError(400, f"{name} needs stream", param=name)
    if not isinstance(options, dict):
        raise ApiError(400, f"{name} must be an object", param=name)
    for key in sorted(options.keys() - {"include_usage", "include_obfuscation"}):
        if options[key]:
            raise ApiError(400, f"{name} has no option {key[:_NAME_CHARACTERS]!r}", param=name)
    return bool(options.get("include_usage"))


def _logprobs(number: _Numbers, limits: Limits) -> int | None:
    """`logprobs`; as a truth value, which some clients send, 0 or none."""
    given = number.given.get("logprobs")
    if isinstance(given, bool):
        return 0 if given else None
    made: int | None = number("logprobs", None, 0, limits.logprobs)
    return made


def _max_tokens(number: _Numbers, limits: Limits, defaults: Table) -> int:
    own = defaults.get("max_new_tokens", limits.new_tokens)
    default = limits.new_tokens if own is None else min(own, limits.new_tokens)
    made: int = number("max_tokens", default, 0, limits.new_tokens)
    return made


def _bias(given: Any) -> Any:
    """`logit_bias` with ids as integers, which JSON writes as strings; other names are texts of
    tokens.
    """
    if not isinstance(given, dict):
        return given
    return {_id(key): value for key, value in given.items()}


def _id(key: str) -> int | str:
    return int(key) if key.isascii() and key.isdigit() and len(key) <= _ID_DIGITS else key
