"""Types and values in the words of an error."""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import attrs

from textgen.plugin.component import Address

_SHOWN_CHARACTERS = 100  # characters of a string that an error quotes
_PHRASES: dict[Any, str] = {
    int: "an integer",
    float: "a finite number",
    str: "a string",
    bool: "true or false",
    Path: "a path",
    Address: "a web address",
    type(None): "nothing",
}


def phrase(wanted: Any) -> str:
    """A type in words: "an integer", "a list, each a string"."""
    origin, arguments = get_origin(wanted), get_args(wanted)
    if origin in (Union, types.UnionType):
        return " or ".join(phrase(each) for each in arguments if each is not type(None))
    if origin is Literal:
        return "one of " + ", ".join(map(show, arguments))
    if origin in (list, tuple):
        return f"a list, each {phrase(arguments[0])}"
    if origin in (dict, Mapping) or attrs.has(wanted):
        return "a table"
    return _PHRASES.get(wanted, getattr(wanted, "__name__", str(wanted)))


def show(value: Any) -> str:
    """A value as JSON has it, in short."""
    if value is None or value is attrs.NOTHING:
        return "nothing"
    try:
        return shorten(json.dumps(value, ensure_ascii=False, default=str))
    except (TypeError, ValueError):  # an integer of thousands of digits
        return "what is too long to show"


def shorten(text: str) -> str:
    """A text, cut if it is too long to quote in an error."""
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
