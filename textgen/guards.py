"""Calls into components, watched: what fails in one is blamed on its plugin, not on whoever called."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, NoReturn

import attrs

from textgen.errors import ContractError, DeviceError, TextgenError
from textgen.plugins import OWN_DISTRIBUTION, Offer
from textgen.protocols import Array, Decoder, Ids, IncrementalDecoder, Model, Tensors, Tokenizer

# What a run calls, of each kind of object. An incremental decoder is only needed to stop at a text, and `score` to
# evaluate: who lacks one is blamed there.
_METHODS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "corpus": ("read",),
        "tokenizer": ("fit", "encode", "encode_pieces", "decode", "to_dict", "from_dict"),
        "model": ("decoder", "tensors", "load_tensors"),
        "decoder": ("extend", "read_state", "write_state"),
        "trainer": ("train", "state", "load_state"),
        "sampler": ("__call__",),
        "observer": ("observe",),
    }
)


def blame(offer: Offer, cause: str) -> ContractError:
    """The error that says which component of which package did what."""
    return ContractError(
        cause,
        kind=offer.kind,
        component=offer.component.name,
        plugin=offer.plugin.name,
        distribution=offer.plugin.distribution,
        version=offer.plugin.version,
    )


def lacking(made: Any, kind: str) -> str:
    """The first method of its contract that a component, or a "decoder", does not have; "" where it has all."""
    return next((name for name in _METHODS.get(kind, ()) if not callable(getattr(made, name, None))), "")


def check_ids(ids: Ids, offer: Offer, size: int) -> None:
    """Check ids that a tokenizer of `size` tokens gave: integers (T,), each within the vocabulary."""
    import numpy as np

    ids = np.asarray(ids)
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
        raise blame(offer, f"encodes to {ids.dtype} of shape {ids.shape}, and must give integers (T,)")
    if ids.size and (int(ids.min()) < 0 or int(ids.max()) >= size):
        raise blame(offer, f"encodes to ids from {ids.min()} to {ids.max()}, outside 0 to {size - 1}")


def raise_failure(offer: Offer, doing: str, error: Exception) -> NoReturn:
    """Raise what there is to say of an error that came out of a component while it was `doing` something."""
    made = failure(offer, doing, error)
    raise made from made.__cause__


def failure(offer: Offer, doing: str, error: Exception) -> Exception:
    """What to raise for an error that came out of a component while it was `doing` something.

    An expected error goes on as it is. So does a bug of the built-in set, which is ours and keeps its traceback; it is
    noted where it happened. Anything else is a ContractError that names component and package.
    """
    if isinstance(error, TextgenError):
        return error
    if (explained := out_of_memory(error, f"in {offer.kind} {offer.component.name!r}, {doing}")) is not None:
        explained.__cause__ = error
        return explained
    if offer.plugin.distribution == OWN_DISTRIBUTION:
        error.add_note(f"in {offer.kind} {offer.component.name!r}, {doing}")
        return error
    made = blame(offer, f"failed in {doing}: {type(error).__name__}: {error} (textgen --debug shows where)")
    made.__cause__ = error
    return made


def out_of_memory(error: Exception, where: str) -> DeviceError | None:
    """Running out of memory, on a GPU or here, said in terms of the pipeline; None for any other error."""
    # torch has a class of its own for GPUs, and a plain RuntimeError for the CPU.
    on_cpu = isinstance(error, RuntimeError) and ("alloc_cpu" in str(error) or "not enough memory" in str(error))
    if not (on_cpu or isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"):
        return None
    explained = DeviceError(
        f"out of memory {where}; lower trainer.batch_size, data.window_length or the model's size", "memory"
    )
    explained.exit_code = 1  # the pipeline is well-formed; the run failed
    return explained


def watched(offer: Offer, doing: str, items: Iterable[Any]) -> Iterator[Any]:
    """The items of an iterator that a component makes."""
    iterator = iter(items)
    while True:
        try:
            item = next(iterator)
        except StopIteration:
            return
        except Exception as error:
            raise_failure(offer, doing, error)
        yield item


def begin_decoding(model: Model, batch_size: int, offer: Offer) -> Decoder:
    """A decoder of the model whose every call but `extend` is watched; loops that call it for each token watch that."""
    try:
        inner = model.decoder(batch_size)
        if name := lacking(inner, "decoder"):  # said now, and not by the first text that needs it
            what = "made None in place of a decoder" if inner is None else f"made a decoder without the method {name!r}"
            raise blame(offer, f"{what}, which its contract asks for")
        return WatchedDecoder(inner, offer, inner.extend)
    except Exception as error:
        raise_failure(offer, "decoding", error)


@attrs.define(eq=False)
class WatchedDecoder:
    """A decoder, and whose it is. What it has beyond the contract is reached through it."""

    inner: Decoder
    offer: Offer
    extend: Callable[[Ids], Array]

    @property
    def batch_size(self) -> int:
        """B."""
        size: int = self._call("batch_size", lambda: self.inner.batch_size)
        return size

    def score(self, tokens: Ids) -> Array:
        """Logits (B, T, V)."""
        return self._call("scoring", lambda: self.inner.score(tokens))

    def read_state(self) -> Tensors:
        """A copy of the carried state."""
        state: Tensors = self._call("read_state", lambda: self.inner.read_state())
        return state

    def write_state(self, state: Tensors) -> None:
        """Replace the carried state."""
        self._call("write_state", lambda: self.inner.write_state(state))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def _call(self, doing: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:
            raise_failure(self.offer, doing, error)


@attrs.frozen(eq=False)
class WatchedTokenizer:
    """A tokenizer whose every call is watched. What it has beyond the contract is reached through it."""

    inner: Tokenizer
    offer: Offer

    @property
    def vocab_size(self) -> int:
        """V."""
        size: int = self._call("vocab_size", lambda: self.inner.vocab_size)
        return size

    @property
    def unknown_id(self) -> int | None:
        """The id of what the vocabulary lacks."""
        unknown: int | None = self._call("unknown_id", lambda: self.inner.unknown_id)
        return unknown

    def fit(self, pieces: Iterable[str]) -> None:
        """Learn the vocabulary."""
        self._call("fit", lambda: self.inner.fit(pieces))

    def encode(self, text: str) -> Ids:
        """(T,) ids."""
        ids: Ids = self._call("encode", lambda: self.inner.encode(text))
        return ids

    def encode_pieces(self, pieces: Iterable[str]) -> Iterator[Ids]:
        """Ids piece by piece, checked: a corpus is kept in a dtype that turns ids beyond the vocabulary into others."""
        size = self.vocab_size
        made = self._call("encode_pieces", lambda: self.inner.encode_pieces(pieces))
        for ids in watched(self.offer, "encode_pieces", made):
            check_ids(ids, self.offer, size)
            yield ids

    def decode(self, ids: Ids) -> str:
        """The text."""
        text: str = self._call("decode", lambda: self.inner.decode(ids))
        return text

    def incremental_decoder(self) -> IncrementalDecoder:
        """A decoder for one stream."""
        decoder = self._call("incremental_decoder", lambda: self.inner.incremental_decoder())
        return _WatchedDecoder(decoder, self)

    def to_dict(self) -> dict[str, Any]:
        """The vocabulary as JSON values."""
        state: dict[str, Any] = self._call("to_dict", lambda: self.inner.to_dict())
        return state

    def from_dict(self, state: Mapping[str, Any]) -> WatchedTokenizer:
        """A fitted tokenizer, watched too."""
        return WatchedTokenizer(self._call("from_dict", lambda: self.inner.from_dict(state)), self.offer)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """The tokenizer's own, so that `isinstance` sees through the watch."""
        return type(self.inner)

    def _call(self, doing: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:
            raise_failure(self.offer, doing, error)


@attrs.frozen(eq=False)
class _WatchedDecoder:
    inner: IncrementalDecoder
    tokenizer: WatchedTokenizer

    def decode(self, ids: Ids, final: bool = False) -> str:
        """The text that `ids` complete."""
        text: str = self.tokenizer._call("incremental decoding", lambda: self.inner.decode(ids, final))
        return text
