"""Structures the JSON files that textgen writes as strictly as a pipeline: exact types, ranges, no
unknown keys.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, TypeVar

import attrs
from attrs.validators import and_, ge, lt, optional

from textgen.errors import CorruptFileError, PipelineError
from textgen.files.reading import read_json
from textgen.plugin.config_reader import ConfigReader

_SHOWN_FAULTS: Final = 3  # faults of a file that an error lists

_T = TypeVar("_T")

COUNT: Final = and_(ge(0), lt(2**63))
OPTIONAL_COUNT: Final = optional(COUNT)


def read_strict_json(cls: type[_T], path: Path, sha256: str = "") -> _T:
    """An instance of the attrs class `cls` from a JSON file.

    Raises CorruptFileError, which names file and key.
    """
    return checked_json(cls, read_json(path, sha256), path)


def checked_json(cls: type[_T], value: Any, path: Path) -> _T:
    """An instance of the attrs class `cls` from JSON values of the file `path`.

    Raises CorruptFileError.
    """
    try:
        return from_json(cls, value)
    except ValueError as error:
        raise CorruptFileError(path, str(error)) from error


def from_json(cls: type[_T], value: Any) -> _T:
    """An instance of the attrs class `cls` from JSON values.

    Raises ValueError, which names the keys.
    """
    try:
        made: _T = ConfigReader().table(cls, value)
    except PipelineError as error:
        raise ValueError("; ".join(map(str, error.faults[:_SHOWN_FAULTS]))) from error
    return made


def is_number(_instance: Any, _attribute: attrs.Attribute[Any], value: Any) -> None:
    """Validator of a number that may be infinite or NaN, as a loss may."""
    if value is not None and type(value) not in (int, float):
        raise ValueError("must be a number")
