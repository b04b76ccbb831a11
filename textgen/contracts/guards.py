"""Guarded calls into components: an exception in one becomes a ContractError that names its plugin."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final, NoReturn

import attrs

from textgen.documents import DOCUMENT_END, CorpusPiece
from textgen.errors import ContractError, DeviceError, TextgenError
from textgen.plugin.component import OWN_DISTRIBUTION, Offer
from textgen.plugin.places import last_line, packages_of
from textgen.plugin.validation import miscalled
from textgen.protocols import (
    Array,
    Corpus,
    Decoder,
    Ids,
    IncrementalDecoder,
    Model,
    Observer,
    Sampler,
    Tokenizer,
    Trainer,
)

# Exceptions that are attributed to a component: sys.exit() in one would end a run without a message.
FAILURES: Final = (Exception, SystemExit)

# What a run calls, of each kind of object. `score` is only needed to evaluate: who lacks it is blamed there.
_METHODS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "corpus": ("read",),
        "tokenizer": (
            "fit",
            "encode",
            "encode_pieces",
            "decode",
            "incremental_decoder",
            "to_dict",
            "from_dict",
        ),
        "model": ("decoder", "tensors", "load_tensors"),
        "decoder": ("extend", "read_state", "write_state"),
        "trainer": ("train", "state", "load_state"),
        "sampler": ("__call__",),
        "observer": ("observe",),
    }
)
_PROTOCOLS: Final[Mapping[str, type]] = MappingProxyType(
    {
        "corpus": Corpus,
        "tokenizer": Tokenizer,
        "model": Model,
        "decoder": Decoder,
        "trainer": Trainer,
        "sampler": Sampler,
        "observer": Observer,
    }
)

_NEEDED: Final = (
    "vocab_size",
    "unknown_id",
    "batch_size",
    "score",
)  # attributes that are read where they are needed


def blame(offer: Offer, cause: str) -> ContractError:
    """The error that says which component of which package did what."""
    return ContractError(cause, kind=offer.kind, component=offer.name, **offer.plugin.facts())


def unfit(made: Any, kind: str) -> str:
    """What is wrong with an object built for a kind of component, or a "decoder"; "" if it has every method."""
    if made is None:
        return "is None; is a `return` missing?"
    if isinstance(made, type) and kind in _METHODS:
        return f"is the class {made.__name__} itself, and must be an instance; is `{made.__name__}(…)` meant?"
    name = next(
        (name for name in _METHODS.get(kind, ()) if not callable(getattr(made, name, None))), ""
    )
    if not name:
        return ""
    missing = f"is of type {type(made).__name__}, which has no method {name!r}"
    if kind == "model" and callable(getattr(made, "forward", None)):
        return f"{missing}; a torch module also inherits from textgen.gradient.GradientModel, which has it"
    return missing


def misdeclared(made: Any, kind: str) -> str:
    """What is wrong with how the methods of an object that has them all are declared; "" if it can be called."""
    for name in _METHODS.get(kind, ()):
        _, *arguments = inspect.signature(
            getattr(_PROTOCOLS[kind], name)
        ).parameters  # without self
        if fault := miscalled(made if name == "__call__" else getattr(made, name), arguments):
            return fault if name == "__call__" else f"has a method {name!r} that {fault}"
    return ""


def check_ids(ids: Ids, offer: Offer, size: int) -> None:
    """Check the ids of a tokenizer with `size` tokens: integers (T,), each within the vocabulary."""
    import numpy as np

    ids = np.asarray(ids)
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
        raise blame(
            offer, f"encodes to {ids.dtype} of shape {ids.shape}, and must give integers (T,)"
        )
    if ids.size and (int(ids.min()) < 0 or int(ids.max()) >= size):
        raise blame(
            offer, f"encodes to ids from {ids.min()} to {ids.max()}, outside 0 to {size - 1}"
        )


def raise_failure(offer: Offer, doing: str, error: BaseException) -> NoReturn:
    """Raise what `failure` gives."""
    made = failure(offer, doing, error)
    raise made from made.__cause__


def failure(offer: Offer, doing: str, error: BaseException) -> BaseException:
    """The error to raise for an exception in a component while it was `doing` something.

    An expected error stays as it is. A bug of the built-in set keeps its type and traceback, and gets a note on where
    it happened. Anything else becomes a ContractError that names component and package.
    """
    if isinstance(error, TextgenError):
        return error
    if (explained := out_of_memory(error, f"in {offer.kind} {offer.name!r}, {doing}")) is not None:
        explained.__cause__ = error
        return explained
    if offer.distribution == OWN_DISTRIBUTION:
        error.add_note(f"in {offer.kind} {offer.name!r}, {doing}")
        return error
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    made = blame(offer, f"failed in {doing}: {what} {shown_where(error, offer)}")
    made.__cause__ = error
    return made


def shown_where(error: BaseException, offer: Offer) -> str:
    """In parentheses, the last line of the component's own code in the traceback, and how to see all of it."""
    place = last_line(error, packages_of(offer.component))
    return (
        f"({place}; textgen --debug shows the way there)"
        if place
        else "(textgen --debug shows where)"
    )


def out_of_memory(error: BaseException, where: str) -> DeviceError | None:
    """The error for running out of memory on any device, in terms of the pipeline; None for any other error."""
    # torch raises its own class for GPUs, and a plain RuntimeError for the CPU.
    on_cpu = isinstance(error, RuntimeError) and (
        "alloc_cpu" in str(error) or "not enough memory" in str(error)
    )
    if not (on_cpu or isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"):
        return None
    explained = DeviceError(
        f"out of memory {where}; lower the trainer's batch_size, data.window_length or the model's size",
        "memory",
    )
    explained.exit_code = 1  # the pipeline is well-formed; the run failed
    return explained


def watched(offer: Offer, doing: str, make: Callable[[], Iterable[Any]]) -> Iterator[Any]:
    """The items of the iterable that `make` gets from a component; its exceptions become those of `failure`."""
    try:
        items = make()
        if items is None:
            raise blame(offer, f"gave None from {doing}; is a `yield` or `return` missing?")
        iterator = iter(items)
    except FAILURES as error:
        raise_failure(offer, doing, error)
    while True:
        try:
            item = next(iterator)
        except StopIteration:
            return
        except FAILURES as error:
            raise_failure(offer, doing, error)
        yield item


def read_pieces(corpus: Corpus, offer: Offer) -> Iterator[CorpusPiece]:
    """The pieces of a corpus, each checked to be a str or DOCUMENT_END, so that no other component is blamed."""

    def read() -> Iterable[CorpusPiece]:
        pieces = corpus.read()
        if isinstance(pieces, str | bytes):
            what = type(pieces).__name__
            raise blame(
                offer,
                f"gave a {what} from read, and must yield pieces; write `yield` in place of `return`",
            )
        return pieces

    for piece in watched(offer, "read", read):
        if not isinstance(piece, str) and piece is not DOCUMENT_END:
            cause = f"yielded {type(piece).__name__} from read, and must yield pieces of str, or DOCUMENT_END"
            raise blame(offer, cause)
        yield piece


def changed_text(offer: Offer) -> str:
    """The message for a corpus that gave another text when it was read again."""
    if offer.distribution == OWN_DISTRIBUTION:
        return "the corpus changed while it was being read; run again once it is complete"
    return (
        f"{offer} gave another text when it was read again: each call of `read` must start from the beginning, "
        "and what it draws must follow from context.seed; if the text itself is changing, run again once it is complete"
    )


def begin_decoding(model: Model, batch_size: int, offer: Offer) -> WatchedDecoder:
    """A decoder of the model with every call guarded but `extend`, which the loops over tokens guard themselves."""
    try:
        inner = model.decoder(batch_size)
        if fault := unfit(inner, "decoder"):  # reported before the first text needs the method
            raise blame(offer, f"made a decoder that {fault}")
        return WatchedDecoder(inner, offer, inner.extend)
    except FAILURES as error:
        raise_failure(offer, "decoding", error)


@attrs.define(eq=False)
class Watched:
    """An object of a component, and whose it is. What fails in an attribute or a method of it is blamed on the plugin.

    An attribute beyond the contract that the object does not have raises AttributeError, as it does without the watch.
    """

    inner: Any
    offer: Offer

    def __getattr__(self, name: str) -> Any:
        try:
            value = getattr(self.inner, name)
        except FAILURES as error:
            if (
                isinstance(error, AttributeError)
                and name not in _NEEDED
                and not hasattr(type(self.inner), name)
            ):
                raise
            raise_failure(self.offer, name, error)
        return partial(self._call, name, value) if callable(value) else value

    def _call(self, name: str, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except FAILURES as error:
            raise_failure(self.offer, name, error)


@attrs.define(eq=False)
class WatchedDecoder(Watched):
    """A decoder whose `extend` is not watched."""

    extend: Callable[[Ids], Array]


@attrs.define(eq=False)
class WatchedTokenizer(Watched):
    """A tokenizer, and what it encodes a corpus to checked."""

    def encode_pieces(self, pieces: Iterable[str]) -> Iterator[Ids]:
        """Ids piece by piece, checked: the dtype of a stored corpus would change ids beyond the vocabulary."""
        size = self.vocab_size
        for ids in watched(self.offer, "encode_pieces", lambda: self.inner.encode_pieces(pieces)):
            check_ids(ids, self.offer, size)
            yield ids

    def incremental_decoder(self) -> IncrementalDecoder:
        """A decoder for one stream."""
        return Watched(
            self._call("incremental_decoder", self.inner.incremental_decoder), self.offer
        )

    def from_dict(self, state: Mapping[str, Any]) -> WatchedTokenizer:
        """A fitted tokenizer, watched too."""
        made = self._call("from_dict", self.inner.from_dict, state)
        if fault := unfit(made, "tokenizer"):
            raise blame(self.offer, f"gave from from_dict what {fault}")
        return WatchedTokenizer(made, self.offer)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """The class of `inner`, for `isinstance`."""
        return type(self.inner)
