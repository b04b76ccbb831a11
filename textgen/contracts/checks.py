"""Checks of what components are and give. A ContractError names component and plugin."""

from __future__ import annotations

import inspect
import itertools
import json
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, Final

from textgen.documents import DOCUMENT_END, CorpusPiece, end_id, split_documents
from textgen.errors import BrokenContract, ContractError, PluginWarning
from textgen.plugin.component import RegisteredComponent
from textgen.protocols import (
    Array,
    Corpus,
    Decoder,
    Ids,
    Metric,
    Model,
    Objective,
    Observer,
    Sampler,
    Strategy,
    Tokenizer,
    Trainer,
)
from textgen.tokenizers import encode_pieces, unknown_id

# Exceptions that are attributed to a component: sys.exit() in one would end a run without a
# message.
FAILURES: Final = (Exception, SystemExit)

_SAMPLE_CHARACTERS: Final = 2000
_SHOWN_LETTERS: Final = 20
_GATHERED_IDS: Final = 1 << 16  # ids of short documents that are handed on together

_CONTRACTS: Final[Mapping[str, type]] = {
    "corpus": Corpus,
    "tokenizer": Tokenizer,
    "model": Model,
    "decoder": Decoder,
    "trainer": Trainer,
    "objective": Objective,
    "sampler": Sampler,
    "strategy": Strategy,
    "observer": Observer,
    "metric": Metric,
}


@cache
def _methods(kind: str) -> dict[str, list[str]]:
    """The methods that an object of a kind must have, each with its arguments."""
    return {
        name: [*inspect.signature(method).parameters][1:]  # without self
        for name, method in vars(_CONTRACTS.get(kind, object)).items()
        if inspect.isfunction(method) and (name[0] != "_" or name == "__call__")
    }


def kind_of(method: str) -> str:
    """The kind of component that has a method, by which a traceback tells what is at fault; "" for
    any other.
    """
    kind = next((kind for kind in _CONTRACTS if method in _methods(kind)), "")
    return "model" if kind == "decoder" else kind


def unfit(made: Any, kind: str) -> str:
    """The fault of an object built for a kind of component, or a "decoder"; "" if it has all that
    it must have.
    """
    for name in _methods(kind):
        if isinstance(made, type):
            return f"is the class {made.__name__} itself, and must be an instance"
        if not callable(getattr(made, name, None)):
            return f"is of type {type(made).__name__}, which has no method {name!r}"
    if kind == "strategy" and not hasattr(made, "lanes"):
        return f"is of type {type(made).__name__}, which has no attribute 'lanes'"
    return ""


def misdeclared(made: Any, kind: str) -> str:
    """The fault in the signatures of an object that has every method; "" if it can be called."""
    for name, arguments in _methods(kind).items():
        method = made if name == "__call__" else getattr(made, name)
        try:
            inspect.signature(method, follow_wrapped=False).bind(*arguments)
        except TypeError as error:
            given = ", ".join(arguments)
            return f"has a method {name!r} that cannot be called with ({given}): {error}"
        except ValueError:  # a function in C has no signature
            continue
    return ""


def check_ids(ids: Ids, tokenizer: object, size: int) -> Ids:
    """The ids of a tokenizer with `size` tokens: integers (T,), each within the vocabulary, of a
    dtype that can hold all of it.
    """
    if fault := _ids_fault(ids, 1, size):
        raise BrokenContract(tokenizer, f"encodes to {fault}")
    return ids


def _ids_fault(ids: Any, axes: int, size: int) -> str:
    """The fault of ids, or ""."""
    if getattr(ids, "ndim", None) != axes or (ids.size and ids.dtype.kind not in "iu"):
        return f"{_described(ids)}, and must give an array of integers with {axes} axes"
    if ids.size and (int(ids.min()) < 0 or int(ids.max()) >= size):
        return f"ids from {ids.min()} to {ids.max()}, outside 0 to {size - 1}"
    if ids.size and _largest(ids.dtype) < size - 1:  # larger ids have become other ones
        return f"{ids.dtype}, which cannot hold the ids of a vocabulary of {size}"
    return ""


@cache
def _largest(dtype: Any) -> int:
    """The largest number of an integer dtype of NumPy."""
    import numpy as np

    return int(np.iinfo(dtype).max)


def read_pieces(corpus: Corpus, offer: RegisteredComponent) -> Iterator[CorpusPiece]:
    """The pieces of a corpus, checked."""
    pieces: Any = corpus.read()
    if pieces is None:
        raise ContractError(offer, "gave None from read; is a `yield` missing?")
    for piece in pieces:
        if not isinstance(piece, str) and piece is not DOCUMENT_END:
            what = type(piece).__name__
            raise ContractError(
                offer, f"yielded {what} from read, and must yield pieces of str, or DOCUMENT_END"
            )
        yield piece


def encode_documents(tokenizer: Tokenizer, pieces: Iterable[CorpusPiece]) -> Iterator[Ids]:
    """The ids of a corpus, (T,) at a time.

    With an end id: one before the first document, and one after each.
    """
    import numpy as np

    end, size = end_id(tokenizer), tokenizer.vocab_size
    marks = [] if end is None else [check_ids(np.array([end]), tokenizer, size)]
    parts, count = [*marks], 0
    for document in split_documents(pieces):
        for ids in itertools.chain(encode_pieces(tokenizer, document), marks):
            parts.append(check_ids(ids, tokenizer, size))
            count += len(ids)
            if count >= _GATHERED_IDS:
                yield np.concatenate(parts) if len(parts) > 1 else parts[0]
                parts, count = [], 0
    if parts:
        yield np.concatenate(parts)


def check_tokenizer(tokenizer: Tokenizer, offer: RegisteredComponent, text: str) -> Tokenizer:
    """Check on the beginning of the corpus that the tokenizer, saved and loaded, encodes what ids
    decode to to the same ids, with the ids of unknown text or without them. Warn if the text has
    come back with other letters.

    Returns the tokenizer saved and loaded, which may be another object. Called in a block that
    blames `offer` for whatever else is raised.
    """
    import numpy as np

    unknown, saved = unknown_id(tokenizer), json.dumps(tokenizer.to_dict())
    sample = text[:_SAMPLE_CHARACTERS]
    ids = check_ids(tokenizer.encode(sample), tokenizer, tokenizer.vocab_size)
    known = ids if unknown is None else ids[ids != unknown]
    loaded, decoded = tokenizer.from_dict(json.loads(saved)), tokenizer.decode(known)
    is_same = np.array_equal(loaded.encode(decoded), known)
    if not is_same and len(known) < len(ids):  # what was unknown may have kept others apart
        is_same = np.array_equal(loaded.encode(tokenizer.decode(ids)), ids)
    if not is_same:
        cause = "fails its round trip: saved and loaded, it encodes what ids decode to to other ids"
        raise ContractError(offer, f"{cause}; `textgen plugins check` shows where")
    if other := other_letters(sample, decoded):
        cause = "the ids of the corpus decode to letters that it does not have there"
        warnings.warn(f"{offer}: {cause}: {other!r}", PluginWarning, stacklevel=2)
    return loaded


def other_letters(text: str, decoded: str) -> str:
    """The first letters of a decoded text that are not those of the text, in this order; "" if
    there are none.

    A tokenizer may change white space, case, accents and marks, and leave letters out.
    """
    letters, rest = _letters(decoded), iter(_letters(text))
    for position, letter in enumerate(letters):
        if letter not in rest:  # which takes all up to this letter
            return letters[position : position + _SHOWN_LETTERS]
    return ""


def _letters(text: str) -> str:
    """The letters of a text, in lower case and without accents."""
    return "".join(filter(str.isalpha, unicodedata.normalize("NFKD", text.casefold())))


def check_logits(logits: Array, shape: tuple[int, ...], offer: RegisteredComponent) -> None:
    """Check shape, (B, V) or (B, T, V), and dtype of a model's logits."""
    is_array = tuple(getattr(logits, "shape", ())) == shape
    if not is_array or _name(logits.dtype) not in ("float32", "float64"):
        expected = f"logits of shape {shape} in float32 or float64"
        raise ContractError(offer, f"gave {_described(logits)}, and must give {expected}")


def _described(value: Any) -> str:
    """What a component gave for an array."""
    is_array = hasattr(value, "dtype")
    return f"{value.dtype} of shape {tuple(value.shape)}" if is_array else type(value).__name__


@cache
def _name(dtype: Any) -> str:
    """The name of a dtype of NumPy or torch. NumPy takes longer to say it than to make a token."""
    return str(dtype).removeprefix("torch.")
