"""Components that a program gives as objects, in place of tables that name those of plugins."""

from __future__ import annotations

import copy
import os
import re
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import attrs

from textgen.contracts.checks import unfit
from textgen.documents import DOCUMENT_END, CorpusPiece
from textgen.errors import Fault, UsageError
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
from textgen.protocols import Tokenizer

_CHAINS: Final = ("sampler", "observer")
_KINDS: Final = ("corpus", "tokenizer", "model", "trainer", *_CHAINS)
_PLAIN: Final = (
    Mapping,
    str,
    bytes,
    int,
    float,
    list,
    tuple,
    type(None),
)  # never an object of a component

_ALLOWED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "corpus": "a text, a list of texts, an object with read(), or a table",
        "tokenizer": "a name, a table, or an object with the methods of textgen.protocols.Tokenizer",
        "model": "a name, a table, a torch module, a function that makes one, or an object with the methods of "
        "textgen.protocols.Model",
        "trainer": "a name, a table, or an object with the methods of textgen.protocols.Trainer",
        "sampler": "a name, a table, or a function (logits, history) -> logits",
    }
)

_HINTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "corpus": "give a text, a list of texts or a table",
        "model": "give a module, or a function that makes one from a BuildContext",
        "trainer": "textgen.gradient.GradientTrainer makes a trainer of a torch optimizer",
    }
)

_LONGEST_PATH: Final = 4096  # no text of this many characters is taken for the path of a file


def tables_by_name(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Parts of a pipeline in which the name of a component stands for its table, and one sampler for a list of it.

    Raises UsageError for a value that is neither a name, nor a table, nor an object.
    """

    def table(kind: str, value: Any, path: str) -> Any:
        if kind == "corpus" and isinstance(value, str):
            return value  # a text; with_objects tells it from a name
        if isinstance(value, str):
            return {"type": value}
        texts = (
            kind == "corpus"
            and isinstance(value, list | tuple)
            and all(isinstance(text, str) for text in value)
        )
        if isinstance(value, _PLAIN) and not isinstance(value, Mapping) and not texts:
            raise _unexpected(path, _ALLOWED[kind], value)
        return value

    def chain(kind: str, value: Any) -> list[Any]:
        if isinstance(value, str | Mapping) or callable(value):
            return [table(kind, value, kind)]
        if not isinstance(value, list | tuple):
            raise _unexpected(kind, f"{_ALLOWED[kind]}, or a list of them", value)
        return [table(kind, each, f"{kind}.{place}") for place, each in enumerate(value)]

    return {
        kind: chain(kind, each) if kind in _CHAINS else table(kind, each, kind)
        for kind, each in parts.items()
    }


def _unexpected(path: str, allowed: str, value: Any) -> UsageError:
    return UsageError(faults=[Fault(path, f"expected {allowed}", reprlib.repr(value))], value=value)


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


@attrs.frozen
class ModelFactory:
    """A function that makes the model, once the vocabulary is known."""

    make: Callable[[BuildContext], Any]


def with_objects(
    tables: Mapping[str, Any], plugins: ComponentSource
) -> tuple[dict[str, Any], ComponentSource]:
    """The tables of a pipeline with a table in place of each object, and the plugins with offers of these objects.

    Where a corpus is expected, a text is an object too, and so is a list of documents; where a model is, a torch module
    with `forward(tokens, state)`, and a function that makes one from a BuildContext. Raises UsageError for an object
    that does not have the methods of its kind.
    """
    offers: list[Offer] = []

    def table_of(kind: str, value: Any) -> Any:
        made = _object(kind, value, plugins)
        if made is None:
            return value
        offers.append(
            _offer(kind, made, value, [offer.name for offer in offers if offer.kind == kind])
        )
        return {"type": offers[-1].qualified_name}

    changed = dict(tables)
    for kind in _KINDS:
        value: Any = tables.get(kind)
        if kind in _CHAINS and isinstance(value, list | tuple):
            changed[kind] = [table_of(kind, each) for each in value]
        elif kind in tables:
            changed[kind] = table_of(kind, value)
    return changed, plugins.with_offers(offers) if offers else plugins


def _object(kind: str, value: Any, plugins: ComponentSource) -> Any:
    """The component that a value of a pipeline is itself; None where it is to be read as a table."""
    if kind == "corpus" and isinstance(value, str | os.PathLike):
        if isinstance(value, os.PathLike) or (len(value) < _LONGEST_PATH and os.path.isfile(value)):
            advice = f'give {{"type": "file", "path": {os.fspath(value)!r}}}'
            raise UsageError(
                "a text is expected, and this names a file", argument=kind, suggestion=advice
            )
        is_name = NAME.fullmatch(value) and isinstance(plugins.find(kind, value), Offer)
        return None if is_name else Text(value)
    if (
        kind == "corpus"
        and isinstance(value, list | tuple)
        and all(isinstance(text, str) for text in value)
    ):
        return Documents(tuple(value))
    if isinstance(value, _PLAIN):
        return None
    if kind == "model" and not isinstance(value, type):
        if callable(value) and not hasattr(value, "forward") and unfit(value, kind):
            return ModelFactory(value)
        value = _model(value)
    if fault := unfit(value, kind):
        raise UsageError(
            f"the object that is given {fault}", argument=kind, suggestion=_HINTS.get(kind, "")
        )
    return Fitted(value) if kind == "tokenizer" and _is_fitted(value) else value


def _is_fitted(tokenizer: Any) -> bool:
    try:
        return bool(tokenizer.vocab_size)
    except Exception:  # as before `fit`
        return False


def _model(value: Any) -> Any:
    """A torch module of any origin as a model; whatever else, as it is."""
    if not unfit(value, "model") or not hasattr(value, "forward"):
        return value
    from textgen.gradient import GradientModel

    return GradientModel.of(value)


def _offer(kind: str, made: Any, given: Any, taken: Sequence[str]) -> Offer:
    """The offer of an object, called as its class or function is."""
    shown = made if kind == "corpus" else given
    title = str(getattr(shown, "__name__", type(shown).__name__))
    name = (
        re.sub(r"[^a-z0-9]+", "-", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", title).lower()).strip("-")
        or kind
    )
    number = next(
        n for n in range(1, len(taken) + 2) if (name if n == 1 else f"{name}-{n}") not in taken
    )
    used = False

    def build(config: NoOptions, context: BuildContext) -> Any:
        """The object itself to train; a copy of a torch module for any other use, which training must not change."""
        nonlocal used
        if isinstance(made, ModelFactory):
            built = _model(made.make(context))
        elif kind == "model" and hasattr(made, "parameters"):
            built = copy.deepcopy(made) if used or not context.training else made
            used = used or context.training
        else:
            return made
        return built.to(context.device) if hasattr(built, "parameters") else built

    build.__module__ = (
        getattr(given, "__module__", None) or type(given).__module__
    )  # where its errors come from
    component = Component(name if number == 1 else f"{name}-{number}", NoOptions, build)
    return Offer(kind, component, Plugin(title, OBJECT, ""))
