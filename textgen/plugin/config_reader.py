"""Checks TOML values against the typed fields of config classes; every fault has its dotted path.

TOML has types, so a value is accepted as it is or refused: `"12"`, `12.7` and `true` are not
integers. Two conversions lose nothing and are made: an integer where a number is expected, and a
string where a path is. An option may itself be a component, whose table is then checked against the
config of the component that its `type` names.
"""

from __future__ import annotations

import contextlib
import re
import sys
import types
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import attrs

from textgen.errors import Fault, PipelineError, UsageError
from textgen.messages import known_names
from textgen.plugin.component import ComponentSource, RegisteredComponent
from textgen.plugin.configured import BaseRun, ConfiguredComponent, RunOption
from textgen.plugin.wording import phrase, show

_INTEGER_LIMIT = 2**64  # beyond any option's range, and short enough to print
_DECIMAL_COMMA = re.compile(r"-?\d+,\d+")


class Faults(list[Fault]):
    """The faults that were found so far."""

    @contextlib.contextmanager
    def collected(self) -> Iterator[None]:
        """Add the faults of a UsageError of the block."""
        try:
            yield
        except UsageError as error:
            self.extend(error.faults)

    def check(self, source: str) -> None:
        """Raise PipelineError, of `source`, if there are any."""
        if self:
            raise PipelineError(self, source)


@attrs.frozen
class ConfigReader:
    """Reads TOML values as typed ones. Its methods raise PipelineError with every fault.

    folder   what relative paths are resolved against
    plugins  where components are looked up; without, those of a table are left out
    source   the file, for errors
    key      the dotted key of the value
    """

    folder: Path = Path()
    plugins: ComponentSource | None = None
    source: str = "pipeline"
    key: str = ""

    def at(self, key: object) -> ConfigReader:
        """A reader of the value that a table has by a key, or a list at an index."""
        return attrs.evolve(self, key=f"{self.key}.{key}" if self.key else str(key))

    def table(self, cls: type, table: Any) -> Any:
        """An instance of the attrs class `cls`, the config of a component or a table of the
        engine's, from a TOML table; None if it requires components and they are left out.
        """
        if not isinstance(table, Mapping):
            raise self._refused("expected a table", table)
        attrs.resolve_types(cls)
        fields = attrs.fields_dict(cls)
        values, faults = dict[str, Any](), Faults()
        is_whole = True
        for name, field in fields.items():
            own, kind = self.at(name), field.metadata.get("kind")
            given, is_required = table.get(name, field.default), field.default is attrs.NOTHING
            with faults.collected():
                if kind and self.plugins is None:
                    is_whole = is_whole and not is_required
                elif kind and get_origin(field.type) is tuple:
                    values[name] = own.chain(kind, given)
                elif kind and given is not None:
                    values[name] = own.choice(kind, given)
                elif name in table:
                    values[name] = own.field(field, given)
                elif is_required:
                    raise own._refused(f"required: {phrase(field.type)}", None)
        faults += [self._unknown(str(key), fields) for key in table if key not in fields]
        faults.check(self.source)
        try:
            return cls(**values) if is_whole else None
        except (ValueError, TypeError) as error:  # a validator that compares fields
            raise PipelineError([Fault(self.key, _reason(error))], self.source) from error

    def _unknown(self, key: str, known: Collection[str]) -> Fault:
        """The fault of an unknown key, with the nearest that is known, or the sampler that takes it
        in requests.
        """
        hint = known_names(key, known)
        taker = None if self.plugins is None else self.plugins.sampling_option(key)
        if isinstance(taker, RegisteredComponent):
            hint = f"it is an option of the {taker.kind} {taker.name!r}"
        return Fault(self.at(key).key, "unknown key", "", hint)

    def field(self, field: attrs.Attribute[Any], value: Any) -> Any:
        """The value of a key.

        Its validator is run here, so that the faults of other keys are reported too.
        """
        made = self.value(field.type, value)
        try:
            if field.validator is not None:
                field.validator(None, field, made)
        except AttributeError:  # it compares fields, which only the constructor can do
            pass
        except (ValueError, TypeError) as error:
            # A validator of attrs puts the name of the field before its reason, and the value
            # after it.
            reason = _reason(error).removeprefix(f"'{field.name}' ").removesuffix(f": {made}")
            raise self._refused(reason, made) from error
        return made

    def choice(self, kind: str, table: Any) -> Any:
        """A component of a kind from its table; a run from its name or path, and a strategy from
        its name too.
        """
        assert self.plugins is not None
        if kind == "run":
            return self._run(table, self.plugins)
        if isinstance(table, ConfiguredComponent):
            return table
        if kind == "strategy" and isinstance(table, str):
            table = {"type": table}
        options = dict(table) if isinstance(table, Mapping) else {}
        given = options.pop("type", None)
        start = options.pop("start") if isinstance(options.get("start"), BaseRun) else None
        if not isinstance(given, str):
            names = ", ".join(sorted({offer.name for offer in self.plugins.offers(kind)}))
            raise self._refused(f"expected a table with type = one of {names}", table)
        offer = self.plugins.find(kind, given)
        if isinstance(offer, Fault):
            fault = attrs.evolve(offer, path=self.at("type").key)
            raise PipelineError([fault], self.source)
        made = self.table(offer.component.config, options)
        name = given if ":" in given else offer.canonical_name
        return ConfiguredComponent(name, offer, made, start)

    def chain(self, kind: str, tables: Any) -> tuple[Any, ...]:
        """The components of an array of tables."""
        if not isinstance(tables, list | tuple):
            raise self._refused(f"expected an array of tables, [[{kind}]]", tables)
        made = self._each(lambda reader, each: reader.choice(kind, each), dict(enumerate(tables)))
        return tuple(made.values())

    def _run(self, given: Any, plugins: ComponentSource) -> RunOption:
        """The run that a plugin offers under a name, or else the one at a path, which need not be
        there.
        """
        offer = plugins.find("run", given) if isinstance(given, str) else None
        if isinstance(offer, RegisteredComponent):
            return RunOption(given, self.key, offer)
        return RunOption(str(self.value(Path, given).absolute()), self.key)

    def value(self, wanted: Any, value: Any) -> Any:
        """`value` as the type `wanted`."""
        origin, arguments = get_origin(wanted), get_args(wanted)
        if wanted is Any:
            return value
        if attrs.has(wanted):
            return self.table(wanted, value)
        if origin in (Union, types.UnionType):
            return self._union(wanted, arguments, value)
        if origin in (list, tuple) and isinstance(value, list | tuple):
            items = dict(enumerate(value))
            made = self._each(lambda reader, each: reader.value(arguments[0], each), items)
            return origin(made.values())
        if origin in (dict, Mapping) and isinstance(value, Mapping):
            return self._each(lambda reader, each: reader.value(arguments[1], each), value)
        return self._scalar(wanted, value)

    def _scalar(self, wanted: Any, value: Any) -> Any:
        """`value`, which has no parts, as the type `wanted`."""
        if isinstance(value, str) and value.encode(errors="ignore").decode() != value:
            raise self._refused("expected text without lone surrogates", value)
        if wanted is int and type(value) is int and abs(value) >= _INTEGER_LIMIT:
            raise self._refused("expected an integer of at most 64 bits", value)
        if wanted is not float and type(value) is wanted:
            return value
        if wanted is float and type(value) in (int, float) and abs(value) <= sys.float_info.max:
            return float(value)  # neither infinite nor NaN
        if wanted is Path and isinstance(value, str | Path) and (path := self._path(value)):
            return path
        if hasattr(wanted, "of_option") and (made := wanted.of_option(value, self.folder)):
            return made
        if get_origin(wanted) is Literal and isinstance(value, str) and value in get_args(wanted):
            return value
        if wanted is float and isinstance(value, str) and _DECIMAL_COMMA.fullmatch(value):
            hint = f"write {value.replace(',', '.')}"
            fault = Fault(self.key, f"expected {phrase(wanted)}", show(value), hint)
            raise PipelineError([fault], self.source)
        raise self._refused(f"expected {phrase(wanted)}", value)

    def _each(
        self, read: Callable[[ConfigReader, Any], Any], values: Mapping[Any, Any]
    ) -> dict[Any, Any]:
        """The results of `read` for each value, by its key."""
        made, faults = dict[Any, Any](), Faults()
        for key, value in values.items():
            with faults.collected():
                made[key] = read(self.at(key), value)
        faults.check(self.source)
        return made

    def _union(self, wanted: Any, members: tuple[Any, ...], value: Any) -> Any:
        if value is None and type(None) in members:
            return None
        others = [member for member in members if member is not type(None)]
        if len(others) == 1:
            return self.value(others[0], value)
        for member in others:
            with contextlib.suppress(PipelineError):
                return self.value(member, value)
        raise self._refused(f"expected {phrase(wanted)}", value)

    def _path(self, value: str | Path) -> Path | None:
        if not str(value) or "\0" in str(value):
            return None
        try:
            path = self.folder / Path(value).expanduser()
            return path.resolve() if ".." in path.parts else path
        except (RuntimeError, OSError):  # the user of ~user does not exist, or links go round
            return None

    def _refused(self, expected: str, value: Any) -> PipelineError:
        return PipelineError([Fault(self.key, expected, show(value))], self.source)


def _reason(error: Exception) -> str:
    """The message of a validator: attrs puts the field, its type and the value after it."""
    return str(error.args[0]) if error.args else type(error).__name__
