"""Incremental inference with keys and values kept from step to step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, Protocol, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from textgen.protocols import Array, Ids, Tensors
from textgen_huggingface.cache import State, cache_parts, make_growing_cache

# Of logits, relative to the largest; padding that is not masked changes them far more.
_TOLERANCE: Final = {torch.float32: 1e-4}
_COARSE_DIFFERENCE: Final = 0.03  # in 16 bits


class Network(Protocol):
    """The part of textgen_huggingface.model.HuggingFaceModel that a decoder uses. Attributes are
    described there.
    """

    vocab_size: int
    start_tokens: tuple[int, ...]
    begin: int | None
    context_length: int | None
    caches: bool
    training: bool

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        ...

    def run(
        self,
        tokens: Tensor,
        cache: Any = None,
        *,
        padding: Tensor | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """Logits after `tokens`."""
        ...

    def train(self, mode: bool = True) -> Self:
        """Switch between training and inference."""
        ...

    def threads(self) -> AbstractContextManager[None]:
        """In the block, the threads that compute the model."""
        ...


class HuggingFaceDecoder:
    """textgen.protocols.Decoder.

    When the context of a row is full, its last half is kept and fed again, so that it has room to
    grow; where that happens depends on the row's number of tokens alone, not on how they were cut
    into calls or on other rows. An architecture that fills no plain cache is fed the whole context
    at each step.

    A model that was trained with a token before each text gets it as the first of every context.

    Rows are padded on the left: the last column holds the last token of each, and a row of N tokens
    fills the last N columns of tokens, keys and values. The rows of this class all have one length,
    so that there is no padding.
    """

    def __init__(self, module: Network, batch_size: int) -> None:
        self._module = module
        self._tokens: npt.NDArray[np.int64] = np.empty((batch_size, 0), np.int64)
        self._lengths: npt.NDArray[np.int64] = np.zeros(batch_size, np.int64)
        self._cache: Any = None
        self._last: Tensor | None = (
            None  # None at the start and after a state was written, where rows have one length
        )

    @property
    def batch_size(self) -> int:
        """B."""
        return len(self._tokens)

    def extend(self, tokens: Ids) -> Array:
        """Logits (B, V) after `tokens` (B, T).

        At the start, T = 0 gives those after the model's start tokens.

        The start tokens are not kept: the context is what has been fed.
        """
        with self._inference():
            if tokens.shape[1]:
                self._feed(tokens, last_only=True)
            return self._array(self._current().clone())  # the caller may write into it

    def score(self, tokens: Ids) -> Array:
        """Logits (B, T, V) after each of `tokens` (B, T)."""
        with self._inference():
            return self._array(self._feed(tokens, last_only=False))

    def read_state(self) -> Tensors:
        """The tokens of the context (B, T), and per layer `key.I` and `value.I` (B, heads, T, size
        of a head).

        Raises ValueError where rows have different lengths.
        """
        if len(set(self._lengths.tolist())) > 1:
            raise ValueError(
                f"rows of different lengths {self._lengths.tolist()} have no common state; "
                f"take() one each"
            )
        state: Tensors = {"tokens": self._tokens.copy()}
        for index, part in enumerate(self._parts()):
            state[f"{'value' if index % 2 else 'key'}.{index // 2}"] = (
                _wide(part).cpu().numpy().copy()
            )
        return state

    def write_state(self, state: Tensors) -> None:
        """Go on from a state that `read_state` gave, or rows of one."""
        self._tokens = np.array(state["tokens"], np.int64)
        self._lengths = np.full(len(self._tokens), self._tokens.shape[1])
        parts: list[Tensor] = []
        for layer in range(sum(name.startswith("key.") for name in state)):
            for name in (f"key.{layer}", f"value.{layer}"):
                given = torch.from_numpy(np.array(state[name]))
                parts.append(given.to(self._module.device, self._module.dtype))
        self._set_parts(parts)
        self._last = None

    def _feed(self, tokens: Ids, *, last_only: bool) -> Tensor:
        """Feed `tokens` (B, T) in parts that every row has room for; logits of all, or of each
        part's last.
        """
        limit = self._module.context_length
        logits = []
        rest = np.asarray(tokens, np.int64)
        while rest.shape[1]:
            room = rest.shape[1]
            if limit is not None:
                self._forget(np.flatnonzero(self._lengths >= limit), limit // 2)
                room = limit - max(int(self._lengths.max()), self._module.begin is not None)
            logits.append(self._run(rest[:, :room], last_only=last_only))
            rest = rest[:, room:]
        self._last = logits[-1][:, -1].clone()  # the caller may write into what is returned
        return torch.cat(logits, dim=1) if len(logits) > 1 else logits[0]

    def _run(self, tokens: npt.NDArray[np.int64], *, last_only: bool) -> Tensor:
        """Logits after `tokens` (B, T), or the last of them."""
        if self._module.begin is not None and not self._tokens.shape[1]:
            begun = np.pad(tokens, ((0, 0), (1, 0)), constant_values=self._module.begin)
            logits = self._append(begun, last_only=last_only)
            return logits if last_only else logits[:, 1:]
        return self._append(tokens, last_only=last_only)

    def _append(self, tokens: npt.NDArray[np.int64], *, last_only: bool) -> Tensor:
        module, padding = self._module, self._tokens.shape[1] - self._lengths
        self._tokens = np.concatenate([self._tokens, tokens], axis=1)
        self._lengths = self._lengths + tokens.shape[1]
        if not module.caches:
            logits = module.run(self._ids(self._tokens), last_only=last_only)
            return logits[:, -1 if last_only else -tokens.shape[1] :]
        if self._cache is None:
            self._cache = make_growing_cache(())
        lacking = self._ids(padding) if padding.any() else None
        return module.run(self._ids(tokens), self._cache, padding=lacking, last_only=last_only)

    def _forget(self, rows: npt.NDArray[np.intp], keep: int) -> None:
        """Drop all but the last `keep` tokens of `rows`.

        Positions are counted anew, so the rest is fed again.
        """
        if not rows.size:
            return
        begin = self._tokens.shape[1] - keep
        if keep and self._module.begin is not None:
            self._tokens[rows, begin] = self._module.begin
        if keep and self._module.caches:
            fresh = HuggingFaceDecoder(self._module, len(rows))
            fresh._append(self._tokens[rows, begin:], last_only=True)
            index = torch.from_numpy(rows).to(self._module.device)
            for part, new in zip(self._parts(), fresh._parts(), strict=True):
                part[index, :, begin:] = new
        self._lengths[rows] = keep
        self._trim()

    def _trim(self) -> None:
        """Cut off columns that are padding in every row."""
        spare = self._tokens.shape[1] - int(self._lengths.max())
        if spare:
            self._tokens = self._tokens[:, spare:]
            self._set_parts([part[:, :, spare:] for part in self._parts()])

    def _current(self) -> Tensor:
        """The logits (B, V) of what follows the tokens fed so far."""
        if self._last is None:
            self._last = self._after_last() if self._tokens.shape[1] else self._start()
        return self._last

    def _start(self) -> Tensor:
        module = self._module
        if not module.start_tokens:
            return torch.zeros(self.batch_size, module.vocab_size, device=module.device)
        logits = module.run(self._ids(np.array([module.start_tokens])), last_only=True)[:, -1]
        return logits.expand(self.batch_size, -1).contiguous()

    def _after_last(self) -> Tensor:
        """The logits after a state that was written: its last token is taken back and fed again."""
        last, self._tokens = self._tokens[:, -1:], self._tokens[:, :-1]
        self._lengths = self._lengths - 1
        self._set_parts([part[:, :, :-1] for part in self._parts()])
        return self._append(last, last_only=True)[:, -1]

    def _parts(self) -> State:
        """Keys and values of each layer, (B, heads, T, size of a head)."""
        return cache_parts(self._cache) if self._cache is not None else ()

    def _set_parts(self, parts: Sequence[Tensor]) -> None:
        self._cache = make_growing_cache(tuple(parts)) if parts and self._tokens.shape[1] else None

    @contextmanager
    def _inference(self) -> Iterator[None]:
        """No gradients and no dropout, whatever mode the module is in."""
        training = self._module.training
        if training:
            self._module.train(False)
        try:
            with torch.inference_mode(), self._module.threads():
                yield
        finally:
            if training:
                self._module.train()

    def _ids(self, tokens: npt.NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(tokens)).to(self._module.device)

    def _array(self, logits: Tensor) -> Array:
        if logits.device.type == "cpu":
            return logits.numpy()
        with torch.inference_mode(False):  # the caller may write into it
            return logits.clone()


class HuggingFaceRowDecoder(HuggingFaceDecoder):
    """textgen.protocols.RowDecoder, for architectures that take an attention mask and positions for
    padded rows.
    """

    exact_rows: Final = False  # sums over padded rows round differently

    def take(self, rows: Sequence[int]) -> Self:
        """Another decoder with these rows, in this order, which shares nothing with this one."""
        places = np.array(rows, np.int64)
        taken = type(self)(self._module, len(places))
        with self._inference():
            index = self._ids(places)
            taken._tokens, taken._lengths = self._tokens[places], self._lengths[places]
            taken._set_parts([part.index_select(0, index) for part in self._parts()])
            taken._last = None if self._last is None else self._last.index_select(0, index)
            taken._trim()
        return taken

    def join(self, other: Self) -> None:
        """Append the rows of another decoder of the model, which is not used any more."""
        with self._inference():
            self._begin_beside(other)
            other._begin_beside(self)
            self._last = torch.cat([self._current(), other._current()])
            width = max(self._tokens.shape[1], other._tokens.shape[1])
            parts = [
                decoder._padded_parts(width, self._parts() or other._parts())
                for decoder in (self, other)
            ]
            self._tokens = np.concatenate(
                [_pad(decoder._tokens, width) for decoder in (self, other)]
            )
            self._lengths = np.concatenate([self._lengths, other._lengths])
            self._set_parts([torch.cat(both) for both in zip(*parts, strict=True)])

    def _begin_beside(self, other: Self) -> None:
        """Feed the token before each text, if another decoder was fed and this one was not: `_run`
        would take their rows for begun.
        """
        begin = self._module.begin
        if begin is not None and other._tokens.shape[1] and not self._tokens.shape[1]:
            begun = np.full((self.batch_size, 1), begin, np.int64)
            self._last = self._append(begun, last_only=True)[:, -1]

    def _padded_parts(self, width: int, like: State) -> list[Tensor]:
        """Keys and values with `width` columns; those of a decoder that was fed nothing are all
        padding.
        """
        if not (parts := self._parts()):
            return [
                part.new_zeros(self.batch_size, part.shape[1], width, part.shape[3])
                for part in like
            ]
        return [functional.pad(part, (0, 0, width - part.shape[2], 0)) for part in parts]


def can_pad(module: Network) -> bool:
    """Whether rows of different lengths give together what each gives alone: tried, since it
    depends on the code.
    """
    rows = [np.array([[0, 1, 2, 0, 1]]) % module.vocab_size, np.array([[1, 0]]) % module.vocab_size]
    feed = np.array([[1], [0]]) % module.vocab_size
    alone, together = (
        [HuggingFaceRowDecoder(module, 1) for _ in rows],
        HuggingFaceRowDecoder(module, 1),
    )
    short = HuggingFaceRowDecoder(module, 1)
    tolerance = _TOLERANCE.get(module.dtype, _COARSE_DIFFERENCE)
    try:
        together.extend(rows[0])
        short.extend(rows[1])
        together.join(short)
        for decoder, ids in zip(alone, rows, strict=True):
            decoder.extend(ids)
        for _ in range(2):
            given = torch.as_tensor(together.extend(feed))
            expected = torch.cat(
                [
                    torch.as_tensor(decoder.extend(feed[i : i + 1]))
                    for i, decoder in enumerate(alone)
                ]
            )
            if not torch.allclose(
                given, expected, rtol=0, atol=tolerance * max(1.0, float(expected.abs().max()))
            ):
                return False
    except Exception:  # code of other people, that may refuse masks in any way
        return False
    return True


def _pad(tokens: npt.NDArray[np.int64], width: int) -> npt.NDArray[np.int64]:
    return np.pad(tokens, ((0, 0), (width - tokens.shape[1], 0)))


def _wide(part: Tensor) -> Tensor:
    """A tensor that NumPy can hold: of 16 bits, in float32."""
    return part.float() if part.is_floating_point() and part.itemsize == 2 else part
