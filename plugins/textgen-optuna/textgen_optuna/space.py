"""A search space in TOML: tables as those of a pipeline, with a range or a list in place of a
value.

[trainer]
learning_rate = { low = 1e-4, high = 1e-2, log = true }
[model]
hidden_size = { low = 64, high = 256, step = 64 }
cell = ["gru", "lstm"]
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs

from textgen import Fault, UsageError

if TYPE_CHECKING:
    import optuna

_RANGE_KEYS: Final = ("low", "high", "step", "log")


@attrs.frozen
class Range:
    """Numbers from `low` to `high`, both included: integers if both are, else floats."""

    key: str
    low: float
    high: float
    step: float | None = None
    log: bool = False

    @property
    def corners(self) -> list[Any]:
        """Values that a pipeline has to accept for the others to be accepted."""
        return [self.low, self.high]

    def suggest(self, trial: optuna.Trial) -> Any:
        """A value for a trial."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(
                self.key, self.low, self.high, step=int(self.step or 1), log=self.log
            )
        return trial.suggest_float(self.key, self.low, self.high, step=self.step, log=self.log)


@attrs.frozen
class Choices:
    """Some values."""

    key: str
    values: tuple[Any, ...]

    @property
    def corners(self) -> list[Any]:
        """Values that a pipeline has to accept."""
        return list(self.values)

    def suggest(self, trial: optuna.Trial) -> Any:
        """A value for a trial. In the study, lists are text."""
        names = [toml(value) if isinstance(value, list) else value for value in self.values]
        return self.values[names.index(trial.suggest_categorical(self.key, names))]


Dimension: TypeAlias = Range | Choices


def read_space(path: str) -> list[Dimension]:
    """The dimensions of a space. Raises UsageError with every fault."""
    try:
        tables = tomllib.loads(Path(path).read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror or error}", argument="space"
        ) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}", argument="space") from error
    faults: list[Fault] = []
    dimensions = [
        made
        for key, value in _leaves(tables)
        if (made := _dimension(key, value, faults)) is not None
    ]
    if not tables:
        faults.append(
            Fault(
                "",
                "the search space is empty; it names keys of the pipeline, each with a "
                "range or a list",
            )
        )
    if faults:
        refused = UsageError(faults=faults)
        refused.source = path
        raise refused
    return dimensions


def toml(value: Any) -> str:
    """A number, a string, true, false, or a list of such, in TOML."""
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool) else repr(value)


def _leaves(tables: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys, and the range or list at each."""
    for name, value in tables.items():
        if isinstance(value, dict) and (
            not value.keys() & set(_RANGE_KEYS)  # else a range, or options of such names
            or any(isinstance(each, list | dict) for each in value.values())
        ):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _dimension(key: str, value: Any, faults: list[Fault]) -> Dimension | None:
    if isinstance(value, list):
        reason = _wrong_choices(value)
        made: Dimension = Choices(key, tuple(value))
    elif isinstance(value, dict):
        reason = _wrong_range(value)
        made = Range(key, **value) if not reason else Choices(key, ())
    else:
        reason = "expected a range, as in { low = 1, high = 8 }, or a list of values"
        made = Choices(key, ())
    if reason:
        faults.append(Fault(key, reason))
        return None
    return made


def _wrong_choices(values: list[Any]) -> str:
    if not values or any(values.count(value) > 1 for value in values):
        return "expected a list of different values"
    parts = [part for value in values for part in (value if isinstance(value, list) else [value])]
    if not all(isinstance(part, str | bool | int | float) for part in parts):
        return "expected numbers, strings, true and false, or lists of these"
    return ""


def _wrong_range(table: dict[str, Any]) -> str:
    if unknown := [name for name in table if name not in _RANGE_KEYS]:
        return f"a range has the keys low, high, step and log, not {', '.join(unknown)}"
    low, high, step, log = (table.get(name) for name in _RANGE_KEYS)
    if not (isinstance(low, int | float) and isinstance(high, int | float)) or not math.isfinite(
        low - high
    ):
        return "low and high must be numbers"
    if low >= high:
        return "low must be below high"
    if log not in (None, True, False):
        return "log must be true or false"
    whole = type(low) is int and type(high) is int
    if step is not None and (type(step) not in ((int,) if whole else (int, float)) or step <= 0):
        return "step must be a positive number, and an integer where low and high are"
    if log and (low <= 0 or step is not None):
        return "with log = true, low must be positive, and there is no step"
    return ""
