"""Components that a program gives as objects, in place of tables that name those of plugins."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

import attrs

from textgen.contracts.checks import unfit
from textgen.documents import DOCUMENT_END, CorpusPiece
from textgen.errors import UsageError
from textgen.plugin.component import (
    NAME,
    OBJECT,
    BuildContext,
    Component,
    ComponentSource,
    NoOptions,
    Offer,
    Plugin,
)
from textgen.plugin.structure import Choice
from textgen.protocols import Tokenizer

_CHAINS: Final = ("sampler", "observer")
_KINDS: Final = ("corpus", "tokenizer", "model", "trainer", *_CHAINS)
# Types of values that are never an object of a component.
_PLAIN: Final = (Mapping, bytes, int, float, list, tuple, type(None), Choice)
_HINTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "corpus": "give a text, a list of texts or a table",
        "model": "give a module, or a function that makes one from a BuildContext",
        "trainer": "textgen.gradient.GradientTrainer makes a trainer of a torch optimizer",
    }
)
_LONGEST_PATH: Final = 4096  # no text of this many characters is taken for the path of a file


@attrs.frozen
class Text:
    """textgen.protocols.Corpus: a text in memory."""

    text: str

    def read(self) -> Iterator[str]:
        """Yield it."""
        yield self.text


@attrs.frozen
class Documents:
    """textgen.protocols.Corpus: texts in memory, each a document."""

    texts: tuple[str, ...]

    def read(self) -> Iterator[CorpusPiece]:
        """Yield them, and the end of each."""
        for text in self.texts:
            yield from (text, DOCUMENT_END)


@attrs.frozen
class Fitted:
    """textgen.protocols.Tokenizer: one that keeps its vocabulary, whatever text it is given."""

    inner: Tokenizer

    def fit(self, pieces: Iterable[CorpusPiece]) -> None:
        """Read them, as the engine measures the text meanwhile."""
        for _ in pieces:
            pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def with_choices(tables: Mapping[str, Any], plugins: ComponentSource) -> dict[str, Any]:
    """The tables of a pipeline, with a table in place of each name, and a Choice in place of each object.

    Where a corpus is expected, a text is an object too, and so is a list of documents; where a model is, a torch module
    with `forward(tokens, state)`, and a function that makes one from a BuildContext. One sampler needs no list. Raises
    UsageError for an object that does not have the methods of its kind.
    """
    made = dict(tables)
    for kind in (kind for kind in _KINDS if kind in tables):
        value, names = tables[kind], list[str]()
        if kind not in _CHAINS:
            made[kind] = _part(kind, value, plugins, names)
        elif isinstance(value, list | tuple):
            made[kind] = [_part(kind, each, plugins, names) for each in value]
        elif isinstance(value, str | Mapping) or callable(value):
            made[kind] = [_part(kind, value, plugins, names)]
    return made


def _part(kind: str, value: Any, plugins: ComponentSource, names: list[str]) -> Any:
    """A table, or the Choice of an object. `names` are of the objects of this kind so far."""
    given = value
    if kind == "corpus":
        value = _corpus(value, plugins)
    elif isinstance(value, str):
        return {"type": value}
    if isinstance(value, (*_PLAIN, str)):
        return value
    build: Callable[[Any, BuildContext], Any] | None = None
    if kind == "model":
        value, build = _model(value)
    if build is None:
        if fault := unfit(value, kind):
            raise UsageError(
                f"the object that is given {fault}", argument=kind, suggestion=_HINTS.get(kind, "")
            )
        made = Fitted(value) if kind == "tokenizer" and _is_fitted(value) else value

        def build(config: NoOptions, context: BuildContext) -> Any:
            return made

    # By the module of the object, a traceback tells that the object is to blame.
    build.__module__ = getattr(given, "__module__", None) or type(given).__module__
    title = _title(value if kind == "corpus" else given)
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", title).lower()
    name = re.sub(r"[^a-z0-9]+", "-", name).strip("-") or kind
    names.append(name)
    name = f"{name}-{names.count(name)}" if names.count(name) > 1 else name
    offer = Offer(kind, Component(name, NoOptions, build), Plugin(title, OBJECT, ""))
    return Choice(offer.qualified_name, offer, NoOptions())


def _title(value: Any) -> str:
    return str(getattr(value, "__name__", type(value).__name__))


def _corpus(value: Any, plugins: ComponentSource) -> Any:
    """A text as a corpus, unless it is the name of one; a list of texts as documents; any other value as it is."""
    if isinstance(value, os.PathLike) or (
        isinstance(value, str) and len(value) < _LONGEST_PATH and os.path.isfile(value)
    ):
        advice = f'give {{"type": "file", "path": {os.fspath(value)!r}}}'
        cause = "a text is expected, and this names a file"
        raise UsageError(cause, argument="corpus", suggestion=advice)
    if isinstance(value, str):
        is_name = NAME.fullmatch(value) and isinstance(plugins.find("corpus", value), Offer)
        return value if is_name else Text(value)
    is_texts = isinstance(value, list | tuple) and all(isinstance(text, str) for text in value)
    return Documents(tuple(value)) if is_texts else value


def _model(value: Any) -> tuple[Any, Callable[[Any, BuildContext], Any] | None]:
    """A model, and how it is built if it is a torch module, or a function that makes one."""
    if isinstance(value, type):
        return value, None
    if callable(value) and not hasattr(value, "forward") and unfit(value, "model"):
        return value, lambda config, context: _placed(_adapted(value(context)), context)
    model, used = _adapted(value), False
    if not hasattr(model, "parameters"):
        return model, None

    def build(config: NoOptions, context: BuildContext) -> Any:
        """The module itself to train; a copy for any other use, which training must not change."""
        nonlocal used
        made = copy.deepcopy(model) if used or not context.training else model
        used = used or context.training
        return _placed(made, context)

    return model, None if unfit(model, "model") else build


def _adapted(value: Any) -> Any:
    """A torch module of any origin as a model; any other object as it is."""
    if not unfit(value, "model") or not hasattr(value, "forward"):
        return value
    from textgen.gradient import GradientModel

    return GradientModel.of(value)


def _placed(made: Any, context: BuildContext) -> Any:
    return made.to(context.device) if hasattr(made, "parameters") else made


def _is_fitted(tokenizer: Any) -> bool:
    try:
        return bool(tokenizer.vocab_size)
    except Exception:  # as before `fit`
        return False
