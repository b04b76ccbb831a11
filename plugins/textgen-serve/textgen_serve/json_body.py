"""JSON of requests, as RFC 8259 has it and nothing that two programs read differently, and of
answers.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final, NoReturn

from textgen_serve.errors import ApiError

_DEPTH: Final = 32
_NAMES: Final = 10_000  # of an object
_DIGITS: Final = 21  # of an integer: those of 64 bits have 20


_encode: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def dump(value: Any) -> bytes:
    """JSON. A name of a file may have bytes that are no text; "?" stands for each."""
    return _encode.encode(value).encode(errors="replace")


def dump_long(value: Any) -> bytes:
    """The same for a thread: unlike the encoder in C, that in Python lets other threads in."""
    return "".join(_encode.iterencode(value)).encode(errors="replace")


def parse_object(body: bytearray, most: int) -> dict[str, Any]:
    """The object in a body.

    Refuses what Python's parser accepts beyond JSON: NaN, duplicate names, lone surrogates.

    So are more than about `most` values, which are counted by the commas and brackets before
    anything is made of them.
    """
    if sum(map(body.count, (b",", b"[", b"{"))) > most:
        raise ApiError(413, f"the body has more than {most:,} values")
    try:
        made = json.loads(
            body.decode(),
            object_pairs_hook=_unique,
            parse_constant=_constant,
            parse_float=_float,
            parse_int=_int,
        )
    except UnicodeDecodeError:
        raise ApiError(400, "the body is not UTF-8") from None
    except RecursionError:
        raise ApiError(400, f"the body is nested deeper than {_DEPTH} levels") from None
    except ValueError as error:
        raise ApiError(400, f"the body is not JSON: {error}") from None
    if not isinstance(made, dict):
        raise ApiError(400, "the body must be a JSON object")
    _check_depth(made)
    if b"\\u" in body:
        try:
            json.dumps(made, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ApiError(400, "the body has half of a surrogate pair in a string") from None
    return made


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > _NAMES:
        raise ValueError(f"an object has more than {_NAMES:,} names")
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("an object has a name twice")
    return made


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text} is too large")
    return value


def _int(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError("an integer is too large")
    return int(text)


def _check_depth(value: Any) -> None:
    """Raise ApiError for what is nested too deep for programs that walk through it."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > _DEPTH:
            raise ApiError(400, f"the body is nested deeper than {_DEPTH} levels")
        level = [
            item
            for each in level
            for item in (each.values() if isinstance(each, dict) else each)
            if isinstance(item, (dict, list))
        ]
