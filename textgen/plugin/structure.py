"""Checks TOML values against the typed fields of config classes, and collects every fault with its
dotted path.

TOML has types, so a value is accepted as it is or refused: `"12"`, `12.7` and `true` are not
integers. Two conversions lose nothing and are made: an integer where a number is expected, and a
string where a path is. An option may itself be a component, whose table is then checked against the
config of the component that its `type` names.
"""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin

import attrs

from textgen.errors import Fault, PipelineError
from textgen.messages import nearest
from textgen.plugin.component import Address, ComponentSource, RegisteredComponent
from textgen.protocols import Table

_Part = TypeVar("_Part")
_INTEGER_LIMIT = 2**64  # beyond any option's range, and short enough to print
_SHOWN = 100  # characters of a string that an error quotes
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
class Start:
    """A finished run that a model or a tokenizer of another run starts from.

    name       as the key `start` has it, with an absolute path
    place      of the table with that key, dotted
    path       its run directory
    weights    the SHA-256 of its weights
    tokenizer  the SHA-256 of its vocabulary
    tables     its tables of model and tokenizer
    """

    name: str
    place: str
    path: Path
    weights: str
    tokenizer: str
    tables: Table = attrs.field(repr=False)


@attrs.frozen
class Run:
    """A finished run that is an option of a component, for BuildContext.build.

    name   as the key has it, with an absolute path
    place  the key, dotted
    offer  of the plugin that offers a run of this name; None for a path
    """

    name: str
    place: str
    offer: RegisteredComponent | None = None


@attrs.frozen
class ConfiguredComponent:
    """A component that a pipeline uses, with its checked options.

    name   by which any pipeline finds it
    start  the run whose weights a model begins with, or whose vocabulary a tokenizer keeps
    """

    name: str
    offer: RegisteredComponent
    options: Any
    start: Start | None = None

    def table(self) -> dict[str, Any]:
        """The TOML table of this choice, with defaults filled in."""
        start = {} if self.start is None else {"start": self.start.name}
        return {"type": self.name, **start, **plain(self.options)}

    def parts(self) -> dict[str, ConfiguredComponent]:
        """The components among its options, by key."""
        return self._of(ConfiguredComponent)

    def runs(self) -> dict[str, Run]:
        """The runs among its options, by key."""
        return self._of(Run)

    def _of(self, cls: type[_Part]) -> dict[str, _Part]:
        values = ((name, getattr(self.options, name)) for name in self.offer.component.options())
        return {name: value for name, value in values if isinstance(value, cls)}

    def flattened(self) -> Iterator[ConfiguredComponent]:
        """This choice and all components among its options."""
        yield self
        for part in self.parts().values():
            yield from part.flattened()


@attrs.frozen
class ConfigReader:
    """Reads TOML values as typed ones, and collects what is wrong with them.

    folder   what relative paths are resolved against
    plugins  where components are looked up; without, those of a table are left out
    """

    folder: Path = Path()
    plugins: ComponentSource | None = None
    faults: list[Fault] = attrs.field(factory=list)
    known: list[str] = attrs.field(factory=list, init=False)

    def table(self, cls: type, table: Any, path: str) -> Any:
        """An instance of the attrs class `cls`, the config of a component or a table of the
        engine's, from a TOML table, or None with the reasons added to `faults`.
        """
        if not isinstance(table, Mapping):
            return self._refuse(path, "expected a table", table)
        before = len(self.faults)
        attrs.resolve_types(cls)
        fields = attrs.fields_dict(cls)
        values, is_whole = {}, True
        for name, field in fields.items():
            place, wanted = join(path, name), cast("type", field.type)
            kind, given = field.metadata.get("kind"), table.get(name, field.default)
            if kind and self.plugins is None:
                is_whole = is_whole and field.default is not attrs.NOTHING
            elif kind and get_origin(field.type) is tuple:
                values[name] = self.chain(kind, given, place)
            elif kind and given is not None:
                values[name] = self.choice(kind, given, place)
            elif name in table:
                values[name] = self.field(field, given, place)
            elif field.default is attrs.NOTHING:
                self._refuse(place, f"required: {phrase(field.type)}", None)
            elif attrs.has(wanted):
                self.known.extend(join(place, key) for key in attrs.fields_dict(wanted))
        self.check_keys(table, fields, path)
        self.known.extend(join(path, name) for name in fields)
        if is_whole and len(self.faults) == before:
            try:
                return cls(**values)
            except (ValueError, TypeError) as error:  # a validator that compares fields
                self.faults.append(Fault(path, _reason(error)))
        return None

    def check(self, source: str) -> None:
        """Raise PipelineError, of `source`, with the faults if there are any."""
        if self.faults:
            raise PipelineError(self.faults, source)

    def check_keys(self, table: Table, known: Collection[str], path: str) -> None:
        """Report the keys that are not known, with the nearest that is, or where a table below has
        that key.
        """
        for key in (str(key) for key in table if key not in known):
            place = join(path, key)
            below = [
                each for each in self.known if each.startswith(path) and each.endswith(f".{key}")
            ]
            if self.plugins is not None and path in ("", "generate"):
                found = self.plugins.sampling_option(key)
                below += [] if isinstance(found, Fault) else [f"sampler.{key}"]
            hint = f"did you mean {below[0]!r}?" if below else nearest(key, known)
            hint = hint or f"there are {', '.join(known) or 'none'}"
            self.faults.append(Fault(place, "unknown key", "", hint))

    def field(self, field: attrs.Attribute[Any], value: Any, path: str) -> Any:
        """The value of a key, or None with the reason in `faults`.

        Its validator is run here, so that the faults of other keys are reported too.
        """
        before = len(self.faults)
        made = self.value(field.type, value, path)
        if len(self.faults) == before and field.validator is not None:
            try:
                field.validator(None, field, made)
            except AttributeError:  # it compares fields, which only the constructor can do
                pass
            except (ValueError, TypeError) as error:
                # A validator of attrs puts the name of the field before its reason, and the value
                # after it.
                reason = _reason(error).removeprefix(f"'{field.name}' ").removesuffix(f": {made}")
                self.faults.append(Fault(path, reason, show(made, kind=False)))
        return made

    def choice(self, kind: str, table: Any, path: str) -> Any:
        """A component of a kind from its table, or None with the reasons in `faults`; a run from
        its name or path, and a strategy from its name too.
        """
        assert self.plugins is not None
        if kind == "run":
            return self._run(table, path, self.plugins)
        if isinstance(table, ConfiguredComponent):
            return table
        if kind == "strategy" and isinstance(table, str):
            table = {"type": table}
        options = dict(table) if isinstance(table, Mapping) else {}
        given = options.pop("type", None)
        start = options.pop("start") if isinstance(options.get("start"), Start) else None
        if not isinstance(given, str):
            names = ", ".join(sorted({offer.name for offer in self.plugins.offers(kind)}))
            return self._refuse(path, f"expected a table with type = one of {names}", table)
        offer = self.plugins.find(kind, given)
        if isinstance(offer, Fault):
            self.faults.append(attrs.evolve(offer, path=join(path, "type")))
            return None
        made = self.table(offer.component.config, options, path)
        name = given if ":" in given else offer.canonical_name
        return None if made is None else ConfiguredComponent(name, offer, made, start)

    def chain(self, kind: str, tables: Any, path: str) -> tuple[Any, ...]:
        """The components of an array of tables; None for one that is refused, with the reasons in
        `faults`.
        """
        if not isinstance(tables, list | tuple):
            self._refuse(path, f"expected an array of tables, [[{kind}]]", tables)
            return ()
        return tuple(self.choice(kind, each, join(path, str(i))) for i, each in enumerate(tables))

    def _run(self, given: Any, path: str, plugins: ComponentSource) -> Any:
        """The run that a plugin offers under a name, or else the one at a path, which need not be
        there.
        """
        offer = plugins.find("run", given) if isinstance(given, str) else None
        if isinstance(offer, RegisteredComponent):
            return Run(given, path, offer)
        found = self.value(Path, given, path)
        return None if found is None else Run(str(found.absolute()), path)

    def value(self, wanted: Any, value: Any, path: str) -> Any:
        """`value` as the type `wanted`, or None with the reasons in `faults`."""
        origin, arguments = get_origin(wanted), get_args(wanted)
        if wanted is Any:
            return value
        if attrs.has(wanted):
            return self.table(wanted, value, path)
        if origin in (Union, types.UnionType):
            return self._union(wanted, arguments, value, path)
        if origin in (list, tuple) and isinstance(value, list | tuple):
            items = enumerate(value)
            return origin(self.value(arguments[0], v, join(path, str(i))) for i, v in items)
        if origin in (dict, Mapping) and isinstance(value, Mapping):
            return {k: self.value(arguments[1], v, join(path, k)) for k, v in value.items()}
        if isinstance(value, str) and value.encode(errors="ignore").decode() != value:
            return self._refuse(path, "expected text without lone surrogates", value)
        if wanted is int and type(value) is int and abs(value) >= _INTEGER_LIMIT:
            return self._refuse(path, "expected an integer of at most 64 bits", value)
        if type(value) is wanted is not float:
            return value
        if wanted is float and type(value) in (int, float) and abs(value) <= sys.float_info.max:
            return float(value)  # neither infinite nor NaN
        if wanted is Path and isinstance(value, str | Path) and (made := self._path(value)):
            return made
        if hasattr(wanted, "of_option") and (made := wanted.of_option(value, self.folder)):
            return made
        if origin is Literal and isinstance(value, str) and value in arguments:
            return value
        return self._refuse(path, f"expected {phrase(wanted)}", value)

    def _union(self, wanted: Any, members: tuple[Any, ...], value: Any, path: str) -> Any:
        if value is None and type(None) in members:
            return None
        others = [member for member in members if member is not type(None)]
        if len(others) == 1:
            return self.value(others[0], value, path)
        for member in others:
            trial = attrs.evolve(self, faults=[])
            made = trial.value(member, value, path)
            if not trial.faults:
                return made
        return self._refuse(path, f"expected {phrase(wanted)}", value)

    def _path(self, value: str | Path) -> Path | None:
        if not str(value) or "\0" in str(value):
            return None
        try:
            path = self.folder / Path(value).expanduser()
            return path.resolve() if ".." in path.parts else path
        except (RuntimeError, OSError):  # the user of ~user does not exist, or links go round
            return None

    def _refuse(self, path: str, expected: str, value: Any) -> None:
        self.faults.append(Fault(path, expected, show(value)))


def phrase(wanted: Any) -> str:
    """A type in words: "an integer", "a list, each a string"."""
    origin, arguments = get_origin(wanted), get_args(wanted)
    if origin in (Union, types.UnionType):
        return " or ".join(phrase(each) for each in arguments if each is not type(None))
    if origin is Literal:
        return "one of " + ", ".join(show(each, kind=False) for each in arguments)
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
        return "a list"
    if isinstance(value, Mapping):
        return "a table"
    return "nothing" if value is None or value is attrs.NOTHING else str(value)


def shorten(text: str) -> str:
    """A text, cut if it is too long to quote in an error."""
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def plain(value: Any) -> Any:
    """A config instance or value as TOML and JSON values.

    Keys without a value (None) are left out.
    """
    if isinstance(value, ConfiguredComponent):
        return value.table()
    if isinstance(value, Run):
        return value.name
    if attrs.has(type(value)):
        value = attrs.asdict(value, recurse=False)
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _reason(error: Exception) -> str:
    """The message of a validator: attrs puts the field, its type and the value after it."""
    return str(error.args[0]) if error.args else type(error).__name__


def flat(table: Table, prefix: str = "") -> dict[str, Any]:
    """The values of nested tables by their dotted keys."""
    values: dict[str, Any] = {}
    for key, value in table.items():
        place = f"{prefix}{key}"
        values |= flat(value, f"{place}.") if isinstance(value, Mapping) else {place: value}
    return values


def merged(own: Table, given: Table) -> dict[str, Any]:
    """Options of a component, and of those that it is made of, with those that are given in their
    place.
    """
    if given.get("type", own.get("type")) != own.get("type"):
        return dict(given)
    made = dict(own)
    for key, value in given.items():
        both = isinstance(value, Mapping) and isinstance(own.get(key), Mapping)
        made[key] = merged(own[key], value) if both else value
    return made


def join(path: str, key: str) -> str:
    """A dotted key."""
    return f"{path}.{key}" if path else key
