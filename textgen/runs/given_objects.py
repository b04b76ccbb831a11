"""Components that a program gives as objects, in place of tables that name those of plugins."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import attrs

from textgen.contracts.checks import unfit
from textgen.documents import DOCUMENT_END, CorpusPiece
from textgen.errors import UsageError
from textgen.pipeline.pipeline import CHAINS, CHOICES
from textgen.plugin.component import (
    OBJECT,
    BuildContext,
    Component,
    NoOptions,
    Plugin,
    RegisteredComponent,
)
from textgen.plugin.configured import ConfiguredComponent
from textgen.protocols import Table

# Types of values that are never an object of a component.
_PLAIN: Final = (Mapping, str, bytes, int, float, list, tuple, type(None), ConfiguredComponent)


@attrs.frozen
class Text:
    """textgen.protocols.Corpus: a text in memory."""

    pieces: tuple[CorpusPiece, ...]

    def read(self) -> Iterator[CorpusPiece]:
        """Yield its pieces."""
        return iter(self.pieces)


def with_choices(tables: Table) -> dict[str, Any]:
    """The tables of a pipeline, with a table in place of each name, and a ConfiguredComponent in
    place of each object.

    Where a corpus is expected, a text is an object too, and so is a list of documents; where a
    model is, a torch module with `forward(tokens, state)`, and a function that makes one from a
    BuildContext. One sampler needs no list. Raises UsageError for an object that does not have the
    methods of its kind.
    """
    made = dict(tables)
    for kind in [kind for kind in (*CHOICES, *CHAINS) if kind in tables]:
        value = tables[kind]
        if kind in CHAINS:
            items = value if isinstance(value, list | tuple) else [value]
            made[kind] = [_part(kind, each) for each in items]
        else:
            made[kind] = _part(kind, value)
    return made


def _part(kind: str, given: Any) -> Any:
    """The table of a name, the ConfiguredComponent of an object, or any other value as it is."""
    value = _corpus(given) if kind == "corpus" else given
    if isinstance(value, str):
        return {"type": value}
    if isinstance(value, _PLAIN):
        return value
    build = _model_builder(value) if kind == "model" else None
    if build is None:
        if fault := unfit(value, kind):
            raise UsageError(f"the object that is given {fault}", argument=kind)

        def build(config: NoOptions, context: BuildContext) -> Any:
            return value

    # By the module of the object, a traceback tells that the object is to blame.
    build.__module__ = getattr(given, "__module__", None) or type(given).__module__
    title = str(getattr(value, "__name__", type(value).__name__))
    name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or kind
    offer = RegisteredComponent(kind, Component(name, NoOptions, build), Plugin(title, OBJECT, ""))
    return ConfiguredComponent(offer.qualified_name, offer, NoOptions())


def _corpus(value: Any) -> Any:
    """A text as a corpus; a list of texts as documents; any other value as it is."""
    if isinstance(value, str | os.PathLike) and os.path.isfile(value):
        advice = f"give Path({os.fspath(value)!r}).read_text(), or the table of a corpus"
        cause = "a text is expected, and this names a file"
        raise UsageError(cause, argument="corpus", suggestion=advice)
    if isinstance(value, str):
        return Text((value,))
    if isinstance(value, list | tuple) and all(isinstance(text, str) for text in value):
        return Text(tuple(piece for text in value for piece in (text, DOCUMENT_END)))
    return value


def _model_builder(value: Any) -> Callable[[Any, BuildContext], Any] | None:
    """Builds a model that is a torch module, or from a function that makes one; None for any other
    object.
    """
    if isinstance(value, type):
        return None
    if callable(value) and not hasattr(value, "forward") and unfit(value, "model"):
        return lambda config, context: _placed(_adapted(value(context)), context)
    model, used = _adapted(value), False
    if not hasattr(model, "parameters") or unfit(model, "model"):
        return None

    def build(config: NoOptions, context: BuildContext) -> Any:
        """The module itself to train; a copy for any other use, which training must not change."""
        nonlocal used
        made = copy.deepcopy(model) if used or not context.training else model
        used = used or context.training
        return _placed(made, context)

    return build


def _adapted(value: Any) -> Any:
    """A torch module of any origin as a model; any other object as it is."""
    if not unfit(value, "model") or not hasattr(value, "forward"):
        return value
    from textgen.gradient import GradientModel

    return GradientModel.of(value)


def _placed(made: Any, context: BuildContext) -> Any:
    return made.to(context.device) if hasattr(made, "parameters") else made
