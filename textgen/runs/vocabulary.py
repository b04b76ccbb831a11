"""Fits the weights of a model to another vocabulary: what a token has learnt goes with its text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import zip_longest
from typing import Any, Final, TypeAlias

import attrs
import numpy as np

from textgen.characters import plain_forms
from textgen.protocols import Ids, Tensors, Tokenizer

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
_NONE: Final = -1


@attrs.frozen
class _Larger:
    """A tokenizer with one more token than it has."""

    inner: Any

    @property
    def vocab_size(self) -> int:
        size: int = self.inner.vocab_size
        return size + 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def are_different(first: Tokenizer, second: Tokenizer) -> bool:
    """Whether an id is of another text in the one than in the other."""
    return first.to_dict() != second.to_dict() and _texts(first) != _texts(second)


def for_vocabulary(
    tensors: Tensors,
    before: Tokenizer,
    now: Tokenizer,
    own: Tensors,
    shapes_of: Callable[[Any], Shapes],
) -> Tensors:
    """The weights of a model with the vocabulary of `before`, for that of `now`.

    A token that `before` lacks gets the weights of the most similar one: the letter without its
    accent or in the other case, the plain quotation mark or dash, the line break for the end of a
    document. One without any gets their mean (Hewitt, "Initializing new word embeddings for
    pretrained language models", 2021). Integers, such as counts of tokens by their ids, stay as
    they are in `own`.

    own        the weights that this model begins with: their shapes tell which axes have an entry
               for each token
    shapes_of  the shapes of the same model for another vocabulary
    """
    if before.to_dict() == now.to_dict():
        return tensors
    if before.vocab_size == now.vocab_size:  # shapes tell nothing: of a larger vocabulary they do
        others = shapes_of(_Larger(now))
    else:
        others = {name: array.shape for name, array in tensors.items()}
    ids = _ids_before(before, now)
    fitted = {name: array for name, array in own.items() if array.dtype.kind in "iu"}
    for name, array in tensors.items():
        if array.dtype.kind in "iu":
            continue
        own_shape = own[name].shape if name in own else ()
        other_shape = others.get(name, ())
        if len(own_shape) == array.ndim and len(other_shape) == array.ndim:
            axes = enumerate(zip(own_shape, other_shape, array.shape, strict=True))
            for axis, (own_size, other_size, size) in axes:
                has_tokens = own_size == now.vocab_size and size == before.vocab_size
                if has_tokens and own_size != other_size:
                    mean = array.mean(axis, dtype=np.float64, keepdims=True).astype(array.dtype)
                    array = np.concatenate([array, mean], axis).take(ids, axis)
        fitted[name] = array
    return fitted


def _ids_before(before: Tokenizer, now: Tokenizer) -> Ids:
    """(V,) for each token of `now` the id that `before` has for it or a similar one; -1 where there
    is none.
    """
    texts, olds = _texts(now), _texts(before)
    known = {text: index for index, text in enumerate(olds) if text}
    ids = np.full(len(texts), _NONE)
    for index, (text, old) in enumerate(zip_longest(texts, olds[: len(texts)])):
        found = (known[each] for each in _similar(text) if each in known)
        ids[index] = index if text == old else next(found, _NONE)
    for name, similar in (("unknown_id", _NONE), ("end_id", known.get("\n", _NONE))):
        special, was = getattr(now, name, None), getattr(before, name, None)
        if special is not None:
            ids[special] = similar if was is None else was
    return ids


def _texts(tokenizer: Tokenizer) -> list[str]:
    """(V,) the text of each token."""
    return [tokenizer.decode(np.array([index])) for index in range(tokenizer.vocab_size)]


def _similar(text: str) -> Iterator[str]:
    """The text, and others that are read much the same, the most similar first."""
    plain = [*plain_forms(text)]
    yield from (text, *plain, text.swapcase(), *map(str.swapcase, plain), plain[-1][:1])
