"""The trials of a sweep: the settings of each, its name, and its pipeline checked."""

from __future__ import annotations

import hashlib
import itertools
import math
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs

from textgen import Fault, PipelineError, UsageError
from textgen.pipeline.document import toml_value
from textgen.tools.commented import inline_toml

if TYPE_CHECKING:
    from textgen import Engine, Pipeline

MAX_TRIALS: Final = 1000
_MAX_NAME: Final = 150
_SHOWN_TRIALS: Final = 2
_OF_THE_SWEEP: Final = ("name", "output")
_STRING: Final = re.compile(r'"(?:\\.|[^"\\])*"?' r"|'[^']*'?", re.DOTALL)
_DEPTH: Final = {"[": 1, "{": 1, "]": -1, "}": -1}


@attrs.frozen
class Setting:
    """A key of the pipeline, and the values that it is to have."""

    key: str
    values: tuple[Any, ...]


@attrs.frozen
class Trial:
    """A run of a sweep. `settings` has the value of each key, and `name` is that of its run directory."""

    name: str
    settings: dict[str, Any]

    @property
    def overrides(self) -> list[str]:
        """As `textgen run --set` takes them."""
        return [f"{key}={inline_toml(value)}" for key, value in self.settings.items()]


def parse_settings(given: Iterable[str]) -> list[Setting]:
    """The settings in `KEY=VALUE,VALUE`. Raises UsageError with every fault."""
    settings: dict[str, Setting] = {}
    faults: list[Fault] = []
    for override in given:
        key, equals, text = override.partition("=")
        key = ".".join(part.strip() for part in key.split("."))
        if not equals or not all(key.split(".")):
            faults.append(
                Fault(
                    "",
                    "expected KEY=VALUE,VALUE as in trainer.learning_rate=1e-3,3e-3",
                    repr(override),
                )
            )
            continue
        values = [toml_value(piece.strip()) for piece in _split(text)]
        faults += [attrs.evolve(value, path=key) for value in values if isinstance(value, Fault)]
        faults += _faults_of(key, values, text, key in settings)
        settings[key] = Setting(key, tuple(values))
    if faults:
        raise UsageError(faults=faults)
    return list(settings.values())


def choose_trials(settings: Sequence[Setting], number: int | None, seed: int) -> list[Trial]:
    """The grid of all settings, or `number` trials drawn from it. More of them with the same seed have these first."""
    sizes = [len(setting.values) for setting in settings]
    total = math.prod(sizes)
    if number is None and total > MAX_TRIALS:
        advice = f"take a part of it with --trials N, for N up to {MAX_TRIALS:,}"
        raise UsageError(
            f"the grid has {total:,} trials, of which {MAX_TRIALS:,} at most are run; {advice}"
        )
    places = range(total) if number is None or number >= total else _drawn(total, number, seed)
    names = _short_names([setting.key for setting in settings])
    trials = []
    for place in places:
        chosen = {}
        for setting, size in zip(reversed(settings), reversed(sizes), strict=True):
            place, index = divmod(place, size)
            chosen[setting.key] = setting.values[index]
        chosen = {setting.key: chosen[setting.key] for setting in settings}
        trials.append(
            Trial(_trial_name({names[key]: value for key, value in chosen.items()}), chosen)
        )
    return trials


def check_trials(engine: Engine, pipeline: str, trials: Sequence[Trial]) -> Pipeline:
    """Check the pipeline of every trial; return that of the first. Raises PipelineError with the faults of all."""
    found: defaultdict[Fault, list[str]] = defaultdict(list)
    checked = None
    for trial in trials:
        try:
            made = engine.pipeline(pipeline, trial.overrides)
        except PipelineError as error:
            for fault in error.faults:
                found[fault].append(trial.name)
            source = error.source
        else:
            checked = checked or made
    if found:
        faults = [_in_trials(fault, names, len(trials)) for fault, names in found.items()]
        raise PipelineError(faults, source)
    assert checked is not None
    return checked


def short_names(trials: Sequence[Trial]) -> dict[str, str]:
    """What each key is called in names and tables: its last part, if only one key ends so."""
    return _short_names(list(trials[0].settings))


def shown_value(value: Any) -> str:
    """A value in a table: a string without quotes."""
    return value if isinstance(value, str) else inline_toml(value)


def _faults_of(key: str, values: Sequence[Any], text: str, is_given: bool) -> Iterator[Fault]:
    """The first thing that is wrong with a key and its values."""
    shown = [inline_toml(value) for value in values if not isinstance(value, Fault)]
    if key in _OF_THE_SWEEP:
        yield Fault(key, "each trial has its own", "", "--output is the folder of them all")
    elif "" in values and len(values) > 1:
        yield Fault(key, "expected a value before and after each comma", text.strip())
    elif twice := next((value for value in shown if shown.count(value) > 1), None):
        yield Fault(key, f"the value {twice} is given twice")
    elif is_given:
        yield Fault(key, "given twice", "", "put all values into one --set, with commas between")


def _split(text: str) -> Iterator[str]:
    """The parts between commas that are not in brackets or strings."""
    part, depth, place = "", 0, 0
    while place < len(text):
        may_be_string = depth or not part.strip()  # else an apostrophe, as in don't
        string = _STRING.match(text, place) if may_be_string else None
        piece = string.group() if string else text[place]
        place += len(piece)
        if piece == "," and not depth:
            yield part
            part = ""
            continue
        part += piece
        if piece in _DEPTH:
            depth = max(0, depth + _DEPTH[piece])
    yield part


def _drawn(total: int, number: int, seed: int) -> list[int]:
    """Different numbers below `total`, in the order in which they are drawn."""
    if number > MAX_TRIALS:
        raise UsageError(f"--trials is at most {MAX_TRIALS:,}", argument="trials", value=number)
    draw = random.Random(seed)  # noqa: S311 - for no secret
    drawn: dict[int, None] = {}
    while len(drawn) < number:
        drawn[draw.randrange(total)] = None
    return list(drawn)


def _short_names(keys: Sequence[str]) -> dict[str, str]:
    def ending(key: str, parts: int) -> str:
        return ".".join(key.split(".")[-parts:])

    names = {}
    for key in keys:
        lengths = range(1 + (key.rpartition(".")[2] == "type"), key.count(".") + 2)
        alone = (
            n for n in lengths if [ending(other, n) for other in keys].count(ending(key, n)) == 1
        )
        names[key] = ending(key, next(alone, key.count(".") + 1))
    return names


def _trial_name(settings: dict[str, Any]) -> str:
    """A folder name on every system, the same for the same settings in any order."""
    name = ",".join(f"{_safe(key)}={_name_of(value)}" for key, value in sorted(settings.items()))
    return name if len(name) <= _MAX_NAME else f"{name[:_MAX_NAME]}~{_hash(name)}"


def _name_of(value: Any) -> str:
    """The value, and what tells it from others where a folder name cannot hold it."""
    whole = inline_toml(value)
    plain = isinstance(value, str) and toml_value(value) == value
    safe = _safe(value if plain else whole)
    is_whole = safe == (value if plain else whole) and len(safe) <= _MAX_NAME // 3
    return safe if is_whole else f"{safe[: _MAX_NAME // 3].strip('-')}~{_hash(whole)}"


def _safe(text: str) -> str:
    return re.sub(r"[^\w.+-]+", "-", text, flags=re.ASCII)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:6]


def _in_trials(fault: Fault, names: list[str], total: int) -> Fault:
    """The fault, and in which trials it is, if not in all."""
    if len(names) == total:
        return fault
    more = len(names) - _SHOWN_TRIALS
    where = (
        " and ".join(itertools.islice(names, _SHOWN_TRIALS))
        if more <= 0
        else f"{names[0]} and {len(names) - 1} more"
    )
    hint = f"in the trial {where}" if len(names) == 1 else f"in the trials {where}"
    return attrs.evolve(fault, hint=f"{fault.hint}; {hint}" if fault.hint else hint)
