"""Checks TOML values against the typed fields of config classes, and collects every fault with its dotted path.

TOML has types, so a value is accepted as it is or refused: `"12"`, `12.7` and `true` are not integers. Two
conversions lose nothing and are made: an integer where a number is expected, and a string where a path is. An option
may itself be a component, whose table is then checked against the config of the component that its `type` names.
"""

from __future__ import annotations

import contextlib
import json
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import attrs

from textgen.errors import Fault
from textgen.plugin.component import Address, ComponentSource, Offer
from textgen.suggest import nearest

_INTEGER_LIMIT = 2**64  # beyond any option's range, and short enough to print
_SHOWN = 100  # characters of a string that an error quotes
_LIST = 8  # numbers of a list that an error quotes
_FAILED = object()  # stands for a refused value, so that a fault is reported once
_PHRASES: dict[Any, str] = {
    int: "an integer",
    float: "a finite number",
    str: "a string",
    bool: "true or false",
    Path: "a path",
    Address: "a web address",
    type(None): "nothing",
}


@attrs.frozen
class Choice:
    """A component that a pipeline uses, under the name given there, with its checked options."""

    name: str
    offer: Offer
    options: Any

    def table(self) -> dict[str, Any]:
        """The TOML table of this choice, with defaults filled in."""
        return {"type": self.name, **plain(self.options)}

    def parts(self) -> dict[str, Choice]:
        """The components among its options, by key."""
        values = ((name, getattr(self.options, name)) for name in self.offer.component.options())
        return {name: value for name, value in values if isinstance(value, Choice)}

    def flattened(self) -> Iterator[Choice]:
        """This choice, and all that it is made of."""
        yield self
        for part in self.parts().values():
            yield from part.flattened()


@attrs.frozen
class Reader:
    """Reads TOML values as typed ones, and collects what is wrong with them.

    folder   what relative paths are resolved against
    plugins  where components are looked up; only tables that contain none can be read without
    origins  the distributions of components by kind and name, for names that are to mean these
    """

    folder: Path = Path()
    plugins: ComponentSource | None = None
    origins: Mapping[tuple[str, str], str] = attrs.field(factory=dict)
    faults: list[Fault] = attrs.field(factory=list)

    def table(self, cls: type, table: Any, path: str) -> Any:
        """An instance of the attrs class `cls` from a TOML table, or None with the reasons added to `faults`."""
        if not isinstance(table, Mapping):
            self.faults.append(Fault(path, "expected a table", show(table)))
            return None
        before = len(self.faults)
        attrs.resolve_types(cls)
        fields = attrs.fields_dict(cls)
        for key in (str(key) for key in table if key not in fields):
            hint = self._within(key, fields, table, path) or nearest(key, fields)
            hint = hint or f"its keys are {', '.join(fields) or 'none'}"
            self.faults.append(Fault(_join(path, key), "unknown key", "", hint))
        values = {}
        for name, field in fields.items():
            if kind := field.metadata.get("kind"):
                values[name] = self.choice(
                    kind, table.get(name, _default(field)), _join(path, name)
                )
            elif name in table:
                values[name] = self.field(field, table[name], _join(path, name))
            elif field.default is attrs.NOTHING:
                self.faults.append(
                    Fault(_join(path, name), f"required: {phrase(field.type)}", "nothing")
                )
        if len(self.faults) > before:
            return None
        try:
            return cls(**values)
        except (ValueError, TypeError) as error:  # a validator that compares fields
            self.faults.append(Fault(path, _reason(error)))
            return None

    def field(self, field: attrs.Attribute[Any], value: Any, path: str) -> Any:
        """The value of a key, or a marker that it was refused.

        Its validator is run here, so that the faults of other keys are reported too.
        """
        made = self.value(field.type, value, path)
        if made is not _FAILED:
            with contextlib.suppress(
                AttributeError
            ):  # it compares fields, which only the constructor can do
                if reason := _refusal(field.validator, field, made):
                    self.faults.append(Fault(path, reason, show(made, kind=False)))
        elif type(value) in (int, float) and str in (field.type, *get_args(field.type)):
            reason = _refusal(
                field.validator, field, str(value)
            )  # such as that it must be a size, with a unit
            self.faults[-1] = attrs.evolve(
                self.faults[-1], expected=reason or self.faults[-1].expected
            )
        return made

    def _within(
        self,
        key: str,
        fields: Mapping[str, attrs.Attribute[Any]],
        table: Mapping[str, Any],
        path: str,
    ) -> str:
        """Where a component within this one has the key, or ""."""
        for name, field in fields.items():
            if kind := field.metadata.get("kind"):
                part = attrs.evolve(self, faults=[]).choice(
                    kind, table.get(name, _default(field)), name
                )
                if part is not None and key in attrs.fields_dict(type(part.options)):
                    return f"did you mean {_join(_join(path, name), key)!r}?"
        return ""

    def choice(self, kind: str, table: Any, path: str) -> Any:
        """A component of a kind from its table, or None with the reasons in `faults`."""
        assert self.plugins is not None
        if isinstance(table, Choice):
            return table
        if not isinstance(table, Mapping) or not isinstance(table.get("type"), str):
            names = ", ".join(sorted({offer.name for offer in self.plugins.offers(kind)}))
            given = "nothing" if table is None else show(table)
            if isinstance(table, Mapping):
                path, given = f"{path}.type", show(table["type"]) if "type" in table else "nothing"
            self.faults.append(Fault(path, f"expected a table with type = one of {names}", given))
            return None
        package, _, name = table["type"].rpartition(":")
        origin = package or self.origins.get((kind, name))
        name = f"{origin}:{name}" if origin else table["type"]
        offer = self.plugins.find(kind, name)
        if isinstance(offer, Fault):
            self.faults.append(attrs.evolve(offer, path=f"{path}.type"))
            return None
        options = {key: value for key, value in table.items() if key != "type"}
        made = self.table(offer.component.config, options, path)
        return None if made is None else Choice(name, offer, made)

    def value(self, wanted: Any, value: Any, path: str) -> Any:
        """`value` as the type `wanted`."""
        origin, arguments = get_origin(wanted), get_args(wanted)
        if wanted is Any:
            return value
        if attrs.has(wanted):
            made = self.table(wanted, value, path)
            return _FAILED if made is None else made
        if origin in (Union, types.UnionType):
            return self._union(wanted, arguments, value, path)
        if origin in (list, tuple) and isinstance(value, list | tuple):
            items = [
                self.value(arguments[0], item, _join(path, str(i))) for i, item in enumerate(value)
            ]
            return _FAILED if any(item is _FAILED for item in items) else origin(items)
        if origin in (dict, Mapping) and isinstance(value, Mapping):
            made = {k: self.value(arguments[1], v, _join(path, k)) for k, v in value.items()}
            return _FAILED if any(item is _FAILED for item in made.values()) else made
        if origin is Literal:
            if any(value == choice and type(value) is type(choice) for choice in arguments):
                return value
            hint = (
                nearest(value, [a for a in arguments if isinstance(a, str)])
                if isinstance(value, str)
                else ""
            )
            self.faults.append(Fault(path, f"expected {phrase(wanted)}", show(value), hint))
            return _FAILED
        return self._scalar(wanted, value, path)

    def _union(self, wanted: Any, members: tuple[Any, ...], value: Any, path: str) -> Any:
        if value is None and type(None) in members:
            return None
        trials: list[list[Fault]] = []
        for member in members:
            if member is type(None):
                continue
            trial: list[Fault] = []
            made = attrs.evolve(self, faults=trial).value(member, value, path)
            if made is not _FAILED:
                return made
            trials.append(trial)
        # For X | None, report the faults of X; for several members, report what was expected.
        self.faults.extend(
            trials[0]
            if len(trials) == 1
            else [Fault(path, f"expected {phrase(wanted)}", show(value))]
        )
        return _FAILED

    def _scalar(self, wanted: Any, value: Any, path: str) -> Any:
        expected, made = "", _FAILED
        if wanted is float:
            if (
                type(value) in (int, float) and abs(value) <= sys.float_info.max
            ):  # neither infinite nor NaN
                made = float(value)
        elif wanted is Path:
            made = _path(value, self.folder)
        elif wanted is Address:
            made = Address(value) if Address.matches(value) else _FAILED
        elif (
            type(value) is wanted
            if wanted in _PHRASES
            else isinstance(wanted, type) and isinstance(value, wanted)
        ):
            made = value
        if type(made) is int and abs(made) >= _INTEGER_LIMIT:
            expected, made = "an integer of at most 64 bits", _FAILED
        if isinstance(made, str) and not _is_unicode(made):
            expected, made = "text that UTF-8 can hold: no lone surrogates", _FAILED
        if made is _FAILED:
            self.faults.append(Fault(path, f"expected {expected or phrase(wanted)}", show(value)))
        return made


def phrase(wanted: Any) -> str:
    """A type in words: "an integer", "a list, each a string"."""
    origin, arguments = get_origin(wanted), get_args(wanted)
    if origin in (Union, types.UnionType):
        alone = sorted(
            arguments, key=lambda a: phrase(a).startswith("a list")
        )  # "a list, each …" reads on to the end
        return " or ".join(phrase(a) for a in alone if a is not type(None))
    if origin is Literal:
        return "one of " + ", ".join(show(a, kind=False) for a in arguments)
    if origin in (list, tuple):
        return f"a list, each {phrase(arguments[0])}"
    if origin in (dict, Mapping) or attrs.has(wanted):
        return "a table"
    return _PHRASES.get(wanted, getattr(wanted, "__name__", str(wanted)))


def show(value: Any, *, kind: bool = True) -> str:
    """A value in TOML, with its type where the type may be the fault."""
    if isinstance(value, bool):
        return ("true" if value else "false") + (" (a boolean)" if kind else "")
    if isinstance(value, str):
        return json.dumps(shorten(value), ensure_ascii=False) + (" (a string)" if kind else "")
    if isinstance(value, int) and abs(value) >= _INTEGER_LIMIT**2:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, list | tuple):
        numbers = len(value) <= _LIST and all(type(item) in (int, float) for item in value)
        return str(list(value)) if numbers and not kind else "a list"
    if isinstance(value, Mapping):
        return "a table"
    return str(value)


def shorten(text: str) -> str:
    """A text, cut if it is too long to quote in an error."""
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def listed(items: Sequence[object], most: int) -> str:
    """The first of some items in a line, and how many more there are."""
    more = [f"and {len(items) - most} more"] if len(items) > most else []
    return "; ".join([*map(str, items[:most]), *more])


def plain(value: Any) -> Any:
    """A config instance or value as TOML and JSON values. Keys without a value (None) are left out."""
    if isinstance(value, Choice):
        return value.table()
    if attrs.has(type(value)):
        value = attrs.asdict(value, recurse=False)
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _default(field: attrs.Attribute[Any]) -> Any:
    return None if field.default is attrs.NOTHING else field.default


def _path(value: Any, folder: Path) -> Any:
    if (
        not isinstance(value, str | Path)
        or not str(value)
        or "\0" in str(value)
        or not _is_unicode(str(value))
    ):
        return _FAILED
    try:
        path = folder / (
            Path(value).expanduser() if str(value).startswith("~") else value
        )  # not of ./~name
        return path.resolve() if ".." in path.parts else path
    except (RuntimeError, OSError):  # the user of ~user does not exist, or links go round
        return _FAILED


def _refusal(validator: Any, field: attrs.Attribute[Any], value: Any) -> str:
    """Why a validator refuses a value, or ""."""
    if validator is None:
        return ""
    try:
        validator(None, field, value)
    except (ValueError, TypeError) as error:
        # A validator of attrs puts the name of the field before its reason, and the value after it.
        return _reason(error).removeprefix(f"'{field.name}' ").removesuffix(f": {value}")
    return ""


def _reason(error: Exception) -> str:
    """What a validator said: its first argument, which attrs follows with the field, its type and the value."""
    return str(error.args[0]) if error.args else type(error).__name__


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of nested tables by their dotted keys."""
    values: dict[str, Any] = {}
    for key, value in table.items():
        values |= (
            flat(value, f"{prefix}{key}.")
            if isinstance(value, Mapping)
            else {f"{prefix}{key}": value}
        )
    return values


def merged(own: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a component, and of those that it is made of, with those that are given in their place."""
    if given.get("type", own.get("type")) != own.get("type"):
        return dict(given)
    made = dict(own)
    for key, value in given.items():
        both = isinstance(value, Mapping) and isinstance(own.get(key), Mapping)
        made[key] = merged(own[key], value) if both else value
    return made


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
