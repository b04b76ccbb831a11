"""Python objects as Markdown: headings, signatures as in the source, and docstrings.

Used by docs/reference.py.
"""

from __future__ import annotations

import ast
import collections.abc
import enum
import inspect
import itertools
import json
import re
import sys
import typing
from collections.abc import Iterator
from functools import cached_property
from types import ModuleType
from typing import Any

import attrs

import textgen
from textgen import data, documents, events, protocols

_WIDTH = 100
_COLUMNS = re.compile(r"([\w.]+(?:,? [\w.]+)*) {2,}(\S.*)")
_CODE = re.compile(r"(`+[^`]*`+)")
_GENERAL = {"None", "Path", "TextIO", *dir(typing), *dir(collections.abc)}


def section(name: str, module: ModuleType, level: int = 2) -> str:
    """What a module has under a name: a class with its public members, a function, a constant or a
    type alias.
    """
    body = ast.parse(source := inspect.getsource(module)).body
    for node, after in itertools.pairwise([*body, None]):
        if name in _assigned(node):
            doc = after.value if isinstance(after, ast.Expr) else None
            written = str(doc.value) if isinstance(doc, ast.Constant) else ""
            code = ast.get_source_segment(source, node) or ""
            return _joined([f"{'#' * level} `{name}`\n", _fence(code.splitlines()), text(written)])
    return _documented(name, getattr(module, name), level)


def _documented(name: str, value: Any, level: int = 2) -> str:
    """The section of a class or a function."""
    heading = f"{'#' * level} `{name}`\n"
    if not inspect.isclass(value):
        return _joined([heading, *_function(value, name)])
    inherited = [
        text(base.__doc__) for base in _inner_bases(value) if not base.__name__.startswith("_")
    ]
    parts = [
        heading,
        _fence(_class_lines(value)),
        text(value.__doc__),
        *inherited,
        *_fields_table(value),
    ]
    for member, function in _members(value).items():
        parts += [f"{'#' * (level + 1)} `{name}.{member}`\n", *_function(function, member)]
    return _joined(parts)


def defined(module: ModuleType) -> list[str]:
    """The public classes, functions, constants and type aliases of a module, in the order of its
    source.
    """
    names: list[str] = []
    for node in ast.parse(inspect.getsource(module)).body:
        names += (
            [node.name] if isinstance(node, ast.ClassDef | ast.FunctionDef) else _assigned(node)
        )
    return [name for name in names if not name.startswith("_")]


def text(doc: str | None) -> str:
    """A docstring. Two columns, as in `name   what it is`, become a list."""
    lines: list[str] = []
    in_list = False
    for line in inspect.cleandoc(doc or "").splitlines():
        columns = _COLUMNS.fullmatch(line)
        if columns:
            if not in_list and lines and lines[-1]:
                lines.append("")
            names = ", ".join(
                name if " " in name else f"`{name}`" for name in columns[1].split(", ")
            )
            lines.append(f"- {names}: {escape(columns[2])}")
        elif in_list and line.startswith(" "):
            lines.append(f"  {escape(line.strip())}")
            continue
        else:
            if in_list and line:
                lines.append("")
            lines.append(line if line.startswith("    ") else escape(line))
        in_list = columns is not None
    return "\n".join(lines) + "\n" if lines else ""


def escape(plain: str, *, cell: bool = False) -> str:
    """Text that Markdown shows as it is, code between backticks left alone.

    `cell` is for a cell of a table.
    """
    parts = _CODE.split(plain)
    parts[::2] = [re.sub(r"(<|\[(?=[^]]*\]\())", r"\\\1", part) for part in parts[::2]]
    escaped = "".join(parts)
    return escaped.replace("|", r"\|") if cell else escaped


def anchor(heading: str) -> str:
    """What links to a heading, as GitHub and MyST make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def aliases(page: str) -> Iterator[tuple[str, ModuleType]]:
    """The public type aliases of textgen that the signatures on a page name, and their modules, by
    name.
    """
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    found: dict[str, ModuleType] = {}
    for module_name, module in sorted(sys.modules.items()):
        if not module_name.startswith("textgen.") or not getattr(module, "__file__", None):
            continue
        for node in ast.parse(inspect.getsource(module)).body:
            is_alias = (
                isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "TypeAlias"
            )
            if (
                is_alias
                and re.search(rf"\b{(name := _assigned(node)[0])}\b", code)
                and not name.startswith("_")
            ):
                found.setdefault(name, module)
    yield from sorted(found.items())


def _assigned(node: ast.stmt) -> list[str]:
    targets = (
        node.targets
        if isinstance(node, ast.Assign)
        else [node.target]
        if isinstance(node, ast.AnnAssign)
        else []
    )
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _class_lines(cls: Any) -> list[str]:
    """`class Name(Base):` with its fields; without any, `class Name(Base)`, then how it is made."""
    bases = ", ".join(
        base.__name__ for base in cls.__bases__ if base not in (object, *_inner_bases(cls))
    )
    if hasattr(cls, "__total__"):
        bases = "TypedDict" if cls.__total__ else "TypedDict, total=False"
    head = f"class {cls.__name__}({bases})" if bases else f"class {cls.__name__}"
    fields = [f"    {name}: {kind}{_default(default)}" for name, kind, default, _ in _fields(cls)]
    if fields:
        by_name = attrs.has(cls) and all(field.kw_only for field in attrs.fields(cls))
        return [f"{head}:{'  # made with keywords' * by_name}", *fields]
    init = vars(cls).get("__init__")
    if (
        not inspect.isfunction(init)
        or "Protocol" in bases
        or attrs.has(cls)
        or not _is_for_users(init)
    ):
        return [head]
    return [head, "", *_signature(init, cls.__name__, returns=False)]


def _is_for_users(init: Any) -> bool:
    """Whether a constructor takes nothing but what the public API or the standard library has."""
    kinds = " ".join(str(kind) for name, kind in init.__annotations__.items() if name != "return")
    return set(re.findall(r"\b[A-Z]\w+", kinds)) <= _GENERAL | {
        *textgen.__all__,
        *defined(protocols),
    }


def _fields(cls: Any) -> Iterator[tuple[str, str, Any, str]]:
    """(name, annotation, default, help) of the public fields of an attrs class or a TypedDict."""
    if attrs.has(cls):
        annotations = {
            name: kind for base in reversed(cls.__mro__) for name, kind in _annotations(base)
        }
        for field in attrs.fields(cls):
            if not field.name.startswith("_"):
                default = (
                    inspect.Parameter.empty if field.default is attrs.NOTHING else field.default
                )
                yield field.name, annotations[field.name], default, field.metadata.get("help", "")
    elif hasattr(cls, "__total__"):
        yield from ((name, kind, inspect.Parameter.empty, "") for name, kind in _annotations(cls))


def _annotations(cls: Any) -> Iterator[tuple[str, str]]:
    for name, kind in vars(cls).get("__annotations__", {}).items():
        yield name, _annotation(getattr(kind, "__forward_arg__", kind))


def _annotation(kind: Any) -> str:
    """As it stands in the source, where all annotations are strings."""
    return (kind if isinstance(kind, str) else inspect.formatannotation(kind)).replace("'", '"')


def _fields_table(cls: Any) -> Iterator[str]:
    """What each field of an attrs class does, if they say so."""
    rows = [
        f"| `{name}` | {escape(told, cell=True)} |" for name, _, _, told in _fields(cls) if told
    ]
    if rows:
        yield "\n".join(["| field | what it does |", "| --- | --- |", *rows]) + "\n"


def _inner_bases(cls: Any) -> list[Any]:
    """The classes of textgen that it inherits from and that are not public: what they have is told
    as its own.
    """
    modules = (protocols, documents, data, events)
    public = {*textgen.__all__, *(name for module in modules for name in defined(module))}
    return [
        base
        for base in cls.__mro__[1:]
        if base.__module__.startswith("textgen") and base.__name__ not in public
    ]


def _members(cls: Any) -> dict[str, Any]:
    """The public methods and properties of a class, and those that it has from classes that no page
    is about.
    """
    found: dict[str, Any] = {}
    for base in (*reversed(_inner_bases(cls)), cls):
        for name, value in vars(base).items():
            is_member = inspect.isfunction(value) or isinstance(
                value, property | classmethod | staticmethod
            )
            is_cached = isinstance(value, cached_property)
            is_public = not name.startswith("_") or (name == "__call__" and inspect.getdoc(value))
            if (is_member or is_cached) and is_public:
                found[name] = value
    return found


def _function(value: Any, name: str) -> Iterator[str]:
    """Signature and docstring of a function, method or property."""
    if isinstance(value, property | cached_property):
        getter = value.fget if isinstance(value, property) else value.func
        yield _fence(
            [f"{name}: {_annotation(inspect.signature(getter).return_annotation)}  # property"]
        )
        yield text(getter.__doc__)
        return
    function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
    mark = [f"@{type(value).__name__}"] if isinstance(value, classmethod | staticmethod) else []
    overloads = typing.get_overloads(function) if _takes_anything(function) else []
    lines = [line for each in overloads or [function] for line in _signature(each, name)]
    yield _fence([*mark, *lines])
    yield text(function.__doc__)


def _takes_anything(function: Any) -> bool:
    return any(
        each.kind is each.VAR_KEYWORD for each in inspect.signature(function).parameters.values()
    )


def _signature(function: Any, name: str, *, returns: bool = True) -> list[str]:
    """`name(first: int, *, second: str = "") -> str`, over several lines where it is long."""
    signature = inspect.signature(function)
    parameters = [
        each for each in signature.parameters.values() if each.name not in ("self", "cls")
    ]
    shown, last = [], None
    for each in parameters:
        if each.kind is each.KEYWORD_ONLY and last not in (each.KEYWORD_ONLY, each.VAR_POSITIONAL):
            shown.append("*")
        if last is inspect.Parameter.POSITIONAL_ONLY and each.kind is not last:
            shown.append("/")
        shown.append(_parameter(each))
        last = each.kind
    if last is inspect.Parameter.POSITIONAL_ONLY:
        shown.append("/")
    result = signature.return_annotation
    tail = f" -> {_annotation(result)}" if returns and result is not signature.empty else ""
    head = f"async {name}" if inspect.iscoroutinefunction(function) else name
    whole = f"{head}({', '.join(shown)}){tail}"
    if len(whole) <= _WIDTH:
        return [whole]
    return [f"{head}(", *(f"    {each}," for each in shown), f"){tail}"]


def _parameter(parameter: inspect.Parameter) -> str:
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    if parameter.annotation is parameter.empty:
        return f"{stars}{parameter.name}{_default(parameter.default).replace(' ', '')}"
    return (
        f"{stars}{parameter.name}: {_annotation(parameter.annotation)}{_default(parameter.default)}"
    )


def _default(default: Any) -> str:
    """` = VALUE`, or nothing where there is none. What has no short form of its own is `...`."""
    if default is inspect.Parameter.empty:
        return ""
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # attrs types Factory as a function
        default = ... if default.takes_self else default.factory()
        default = ... if attrs.has(type(default)) else default
    if default is ... or default is attrs.NOTHING:
        return " = ..."
    if isinstance(default, str):
        return f" = {json.dumps(default, ensure_ascii=False)}"
    if isinstance(default, collections.abc.Mapping):
        default = dict(default)
    is_named = inspect.isclass(default) or isinstance(default, enum.Enum)
    shown = getattr(default, "__qualname__", str(default)) if is_named else repr(default)
    return " = ..." if shown.startswith("<") or " at 0x" in shown else f" = {shown}"


def _joined(parts: list[str]) -> str:
    return "\n".join(part for part in parts if part)


def _fence(lines: list[str]) -> str:
    return "\n".join(["```python", *lines, "```", ""])
