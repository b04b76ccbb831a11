"""Reads a pipeline from TOML or a mapping and applies overrides; it is not checked yet."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import attrs
import tomli_w

from textgen.errors import Fault, PipelineError, UsageError
from textgen.files.paths import path_of
from textgen.messages import nearest_file, quoted
from textgen.plugin.config_reader import Faults
from textgen.plugin.nested_tables import flat
from textgen.plugin.wording import shorten, show
from textgen.protocols import Table

MAX_BYTES: Final = 1_000_000
_MAX_KEY_PARTS: Final = 64
_DOTTED: Final = re.compile(
    r"""(?<![\w"'-])(?:(?:"[^"\n]*+"|'[^'\n]*+'|[\w-]++)[ \t]*+\.[ \t]*+){64}"""
)

Overrides: TypeAlias = Iterable[str] | Table
"""Keys of a pipeline and their new values: `trainer.batch_size=8` in TOML, or a mapping of dotted
keys or tables.
"""


@attrs.frozen
class RawPipeline:
    """An unchecked pipeline: its tables, where they come from, and the folder that its paths are
    relative to.

    name     of the run directory, unless the tables give one
    sha256   of the file
    """

    tables: Table
    source: str
    folder: Path
    name: str
    sha256: str = ""


def read_raw_pipeline(source: str | Path | Table, overrides: Overrides = ()) -> RawPipeline:
    """Read a pipeline from a TOML file or a mapping of the same shape, and apply overrides."""
    if isinstance(overrides, str) or not isinstance(overrides, Iterable):
        raise UsageError(
            "expected a mapping, or a list of KEY=VALUE", argument="overrides", value=overrides
        )
    if isinstance(source, Mapping):
        raw = RawPipeline(source, "pipeline", Path.cwd(), "pipeline")
    else:
        path = path_of(source, "source")
        raw = raw_pipeline_of(_read(path), path)
    tables, faults = raw.tables, Faults()
    given = flat(overrides) if isinstance(overrides, Mapping) else _parsed(overrides, faults)
    # What names a component comes first, since that drops the options of another.
    split = [([part.strip() for part in key.split(".")], key, given[key]) for key in given]
    for parts, key, value in sorted(split, key=lambda item: item[0][-1] != "type"):
        try:
            tables = _changed(tables, parts, value)
        except LookupError as error:
            faults.append(Fault(key, "the pipeline has no such key", "", *error.args))
    faults.check("overrides")
    return attrs.evolve(raw, tables=tables)


def raw_pipeline_of(data: bytes, path: Path) -> RawPipeline:
    """The pipeline in the bytes of the TOML file at `path`. Raises PipelineError."""
    tables, sha256 = _parsed_toml(data, path), hashlib.sha256(data).hexdigest()
    return RawPipeline(tables, str(path), path.absolute().parent, _run_name(path.stem), sha256)


def _run_name(stem: str) -> str:
    """A name that needs no quotes in a shell, from that of a pipeline file."""
    return re.sub(r"[^\w.]+", "-", stem).strip("-_.")[:100] or "pipeline"


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:  # a pipe too: `textgen run <(…)`
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        is_run = (path / "pipeline.toml").is_file()
        hint = "its pipeline is pipeline.toml in it" if is_run else nearest_file(path, "*.toml")
        cause = f"cannot be read: {error.strerror or error}"
        raise PipelineError([Fault("", cause, hint=hint)], str(path)) from error


def _parsed_toml(data: bytes, path: Path) -> dict[str, Any]:
    try:
        text = data.decode("utf-8-sig")
        if len(data) > MAX_BYTES:
            cause = f"it has more than {MAX_BYTES:,} bytes"
        elif _DOTTED.search(text):  # the time that parsing takes grows with the square
            cause = f"a key has more than {_MAX_KEY_PARTS} parts"
        else:
            return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        cause = f"not valid TOML: {error}"
    hint = ""
    if path.suffix != ".toml":
        hint = f"`textgen init {quoted(str(path))}` writes a pipeline for a text"
    raise PipelineError([Fault("", cause, hint=hint)], str(path))


def _parsed(overrides: Iterable[str], faults: Faults) -> dict[str, Any]:
    """The values of each `KEY=VALUE` by their keys."""
    values = {}
    for override in overrides:
        key, equals, text = str(override).partition("=")
        if not equals or not all(part.strip() for part in key.split(".")):
            expected = "expected KEY=VALUE, as in trainer.batch_size=8"
            faults.append(Fault("", expected, show(override)))
            continue
        with faults.collected():
            values[key] = toml_value(text.strip(), key)
    return values


def _changed(table: Any, parts: Sequence[str], value: Any) -> Any:
    """A table or list with one dotted key set.

    Numbers index arrays of tables. Raises LookupError with a hint.
    """
    part, *rest = parts
    if isinstance(table, Mapping):
        if part == "type" and not rest and table.get(part, value) != value:
            return {part: value}  # the other keys are options of the component of before
        return {**table, part: _changed(table.get(part, {}), rest, value) if rest else value}
    if not isinstance(table, list | tuple):
        raise LookupError("")
    if not part.isdecimal() or int(part) >= len(table):
        raise LookupError(f"a list takes numbers, here 0 to {len(table) - 1}")
    items = list(table)
    items[int(part)] = _changed(items[int(part)], rest, value) if rest else value
    return items


def toml_value(text: str, key: str = "") -> Any:
    """`text` as a TOML value, or else as a string.

    Raises PipelineError, about `key`, for what looks like an invalid list, table or string.
    """
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError) as error:
        if text[:1] in ("[", "{", '"', "'"):
            fault = Fault(key, f"not a TOML value: {error}", shorten(text))
            raise PipelineError([fault], "overrides") from error
        return text
    return parsed["value"] if len(parsed) == 1 else text


def inline_toml(value: Any) -> str:
    """A value as TOML on the right of `=`, in one line.

    Tables too: the header of one would take over the keys that follow.
    """
    if isinstance(value, dict):
        pairs = ", ".join(f"{_key(key)} = {inline_toml(item)}" for key, item in value.items())
        return f"{{ {pairs} }}" if value else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(inline_toml, value))}]"
    return tomli_w.dumps({"value": value}).removeprefix("value = ").rstrip("\n")


def _key(name: str) -> str:
    return tomli_w.dumps({name: 0}).removesuffix(" = 0\n")
