"""Reads a pipeline from TOML or a mapping and applies overrides; it is not checked yet."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import attrs

from textgen.errors import Fault, PipelineError, UsageError
from textgen.files.reading import path_of
from textgen.plugin.structure import flat, shorten, show

NAME = re.compile(r"[^\W_][\w. +-]*")
"""A valid name of a run: a plain folder name."""

CHAINS: Final = ("sampler", "observer")
_BYTES: Final = 1_000_000
_PARTS: Final = 64
_DOTTED: Final = re.compile(
    r"""(?<![\w"'-])(?:(?:"[^"\n]*+"|'[^'\n]*+'|[\w-]++)[ \t]*+\.[ \t]*+){64}"""
)

Overrides: TypeAlias = Iterable[str] | Mapping[str, Any]
"""Keys of a pipeline and their new values: `trainer.batch_size=8` in TOML, or a mapping of dotted keys or tables."""


@attrs.frozen
class Document:
    """An unchecked pipeline: its tables, where they come from, and the folder that its paths are relative to.

    sampling   options of samplers by the names that requests have for them: they change the chain, or join it
    """

    tables: Mapping[str, Any]
    source: str
    folder: Path
    default_name: str
    sampling: Mapping[str, Any] = attrs.field(factory=dict)


def read_document(source: str | Path | Mapping[str, Any], overrides: Overrides = ()) -> Document:
    """Read a pipeline from a TOML file or a mapping of the same shape, and apply overrides."""
    if isinstance(overrides, str) or not isinstance(overrides, Iterable):
        raise UsageError(
            "expected a mapping, or a list of KEY=VALUE", argument="overrides", value=overrides
        )
    if isinstance(source, Mapping):
        document = _document(lambda: _copy(source), "pipeline", Path.cwd(), "pipeline")
    else:
        path = path_of(
            source, "source", "expected the path of a TOML file, a mapping or a Pipeline"
        )
        document = document_of(_read(path), path)
    tables, sampling, faults = dict(document.tables), dict[str, Any](), list[Fault]()
    given = (
        flat(_copy(overrides)).items()
        if isinstance(overrides, Mapping)
        else _parsed(overrides, faults)
    )
    # What names a component comes first, since that drops the options of another.
    for key, value in sorted(given, key=lambda item: item[0].rpartition(".")[2].strip() != "type"):
        name = _of_chain(tables, key)
        if name:
            sampling[name] = value
        else:
            _override(tables, key, value, faults)
    if faults:
        raise PipelineError(faults, "overrides")
    return attrs.evolve(document, tables=tables, sampling=sampling)


def document_of(data: bytes, path: Path) -> Document:
    """The pipeline in the bytes of the TOML file at `path`. Raises PipelineError."""
    return _document(
        lambda: _parsed_toml(data, path), str(path), path.absolute().parent, _run_name(path.stem)
    )


def _document(
    tables: Callable[[], dict[str, Any]], source: str, folder: Path, default_name: str
) -> Document:
    try:
        return Document(tables(), source, folder, default_name)
    except RecursionError:
        raise PipelineError([Fault("", "tables or arrays are nested too deeply")], source) from None


def _run_name(stem: str) -> str:
    """A valid run name from the name of a pipeline file."""
    plain = re.sub(r"[^\w]+", "-", stem).strip("-_")
    return stem if NAME.fullmatch(stem) and ".." not in stem else plain[:100] or "pipeline"


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:  # a pipe too: `textgen run <(…)`
            return file.read(_BYTES + 1)
    except OSError as error:
        raise PipelineError(
            [Fault("", f"cannot be read: {error.strerror or error}")], str(path)
        ) from error


def _parsed_toml(data: bytes, path: Path) -> dict[str, Any]:
    try:
        text = data.decode("utf-8-sig")
        _check_size(data, text)
        return tomllib.loads(text)
    except ValueError as error:
        if isinstance(error, UnicodeDecodeError):
            fault = Fault("", f"not UTF-8 at byte {error.start}; TOML files are UTF-8")
            raise PipelineError([fault], str(path)) from error
        text = str(error)
        place = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", text)
        where = ""
        if place:
            text = text.removesuffix(place[0])
            lines = data.decode("utf-8-sig").split(
                "\n"
            )  # whose end is just past the last character
            where = f":{place[1] or len(lines)}:{place[2] or len(lines[-1]) + 1}"
        raise PipelineError([Fault("", f"not valid TOML: {text}")], f"{path}{where}") from error


def _check_size(data: bytes, text: str) -> None:
    """Raise ValueError for what takes long to parse: the time grows with the square of a dotted key's parts."""
    if len(data) > _BYTES:
        raise ValueError(f"it has more than {_BYTES:,} bytes")
    if _DOTTED.search(text):
        raise ValueError(f"a key has more than {_PARTS} parts")


def _parsed(overrides: Iterable[str], faults: list[Fault]) -> Iterator[tuple[str, Any]]:
    """Key and value of each `KEY=VALUE`."""
    for override in overrides:
        key, equals, text = override.partition("=") if isinstance(override, str) else ("", "", "")
        value = toml_value(text.strip())
        if not equals or not all(part.strip() for part in key.split(".")):
            given = show(override, kind=not isinstance(override, str))
            faults.append(Fault("", "expected KEY=VALUE, as in trainer.batch_size=8", given))
        elif isinstance(value, Fault):
            faults.append(attrs.evolve(value, path=key))
        else:
            yield key, value


def _of_chain(tables: Mapping[str, Any], key: str) -> str:
    """The name in requests of an option of the chain as a whole, "temperature" of sampler.temperature; else ""."""
    kind, *parts = (part.strip() for part in key.split("."))
    is_option = kind == "sampler" and len(parts) == 1 and not parts[0].isdecimal()
    return (
        parts[0].replace("-", "_")
        if is_option and not isinstance(tables.get(kind), Mapping)
        else ""
    )


def _override(tables: dict[str, Any], key: str, value: Any, faults: list[Fault]) -> None:
    """Set one dotted key in place. Numbers in the path index arrays of tables."""
    place: Any = tables
    *parents, last = (part.strip() for part in key.split("."))
    try:
        if parents and parents[0] in CHAINS and not tables.get(parents[0]):
            raise LookupError(f'it has no [[{parents[0]}]]: write {parents[0]}=[{{type="…"}}]')
        for part in parents:
            place = (
                place.setdefault(part, {})
                if isinstance(place, dict)
                else place[_index(part, place, parents)]
            )
        if not isinstance(place, dict):
            place[_index(last, place, parents)] = value
            return
        if last == "type" and place.get("type", value) != value:
            place.clear()  # the other keys are options of the component of before
        place[last] = value
    except LookupError as error:
        faults.append(Fault(key, "there is no such place in the pipeline", "", error.args[0]))


def _index(part: str, place: Any, parents: list[str]) -> int:
    """The index of a list that `part` says. Raises LookupError, which says how to name one if there is a list."""
    if not isinstance(place, list) or not place:
        raise LookupError("")
    if part.isdecimal() and int(part) < len(place):
        return int(part)
    before = ".".join(parents[: parents.index(part)] if part in parents else parents)
    more = f" to {before}.{len(place) - 1}" if len(place) > 1 else ""
    raise LookupError(f"{before} is a list: write {before}.0{more}")


def toml_value(text: str) -> Any:
    """`text` as a TOML value, or else as a string, unless it looks like an invalid list, table or string."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError) as error:
        if text[:1] in ("[", "{", '"', "'"):
            return Fault("", f"not a TOML value: {error}", shorten(text))
        return text
    return parsed["value"] if len(parsed) == 1 else text


def _copy(value: Any) -> Any:
    """A deep copy of tables and lists, so that overrides do not change the caller's mapping."""
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return (
        [_copy(item) for item in value]
        if isinstance(value, Sequence) and not isinstance(value, str)
        else value
    )
