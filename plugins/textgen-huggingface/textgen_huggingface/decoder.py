"""Incremental inference with keys and values kept from step to step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from textgen.protocols import Array, Ids, Tensors
from textgen_huggingface.model import State, cache_parts, make_cache

if TYPE_CHECKING:
    from textgen_huggingface.model import HuggingFaceModel


class HuggingFaceDecoder:
    """textgen.protocols.Decoder. All rows have the same length.

    When the context is full, the last half of it is kept and fed again, so that it has room to grow; where that
    happens depends on the number of tokens alone, not on how they were cut into calls. An architecture that fills no
    plain cache is fed the whole context at each step.
    """

    def __init__(self, module: HuggingFaceModel, batch_size: int) -> None:
        self._module = module
        self._tokens: npt.NDArray[np.int64] = np.empty((batch_size, 0), np.int64)
        self._cache: Any = None
        self._last: Tensor | None = None

    @property
    def batch_size(self) -> int:
        """B."""
        return len(self._tokens)

    def extend(self, tokens: Ids) -> Array:
        """Logits (B, V) after `tokens` (B, T). At the start, T = 0 gives those after the model's start tokens.

        The start tokens are not kept: the context is what has been fed.
        """
        with self._inference():
            if tokens.shape[1]:
                self._feed(tokens, last_only=True)
            elif self._last is None:
                self._last = self._after_last() if self._tokens.shape[1] else self._start()
            assert self._last is not None
            return self._array(self._last.clone())

    def score(self, tokens: Ids) -> Array:
        """Logits (B, T, V) after each of `tokens` (B, T)."""
        with self._inference():
            return self._array(self._feed(tokens, last_only=False))

    def read_state(self) -> Tensors:
        """The tokens of the context (B, T), and per layer `key.I` and `value.I` (B, heads, T, size of a head)."""
        state: Tensors = {"tokens": self._tokens.copy()}
        for index, part in enumerate(cache_parts(self._cache) if self._cache is not None else ()):
            state[f"{'value' if index % 2 else 'key'}.{index // 2}"] = part.cpu().numpy().copy()
        return state

    def write_state(self, state: Tensors) -> None:
        """Go on from a state that `read_state` gave, or rows of one."""
        self._tokens = np.array(state["tokens"], np.int64)
        parts: list[Tensor] = []
        for layer in range(sum(name.startswith("key.") for name in state)):
            for name in (f"key.{layer}", f"value.{layer}"):
                parts.append(torch.from_numpy(np.array(state[name])).to(self._module.device))
        self._cache = make_cache(tuple(parts)) if parts else None
        self._last = None

    def _feed(self, tokens: Ids, *, last_only: bool) -> Tensor:
        """Feed `tokens` (B, T) in parts that the context has room for; logits of all, or of each part's last."""
        limit = self._module.context_length
        logits = []
        rest = np.asarray(tokens, np.int64)
        while rest.shape[1]:
            if limit is not None and self._tokens.shape[1] >= limit:
                self._forget(limit // 2)
            room = rest.shape[1] if limit is None else limit - self._tokens.shape[1]
            logits.append(self._run(rest[:, :room], last_only=last_only))
            rest = rest[:, room:]
        self._last = logits[-1][:, -1].clone()  # the caller may write into what is returned
        return torch.cat(logits, dim=1) if len(logits) > 1 else logits[0]

    def _run(self, tokens: npt.NDArray[np.int64], *, last_only: bool) -> Tensor:
        self._tokens = np.concatenate([self._tokens, tokens], axis=1)
        if not self._module.caches:
            logits = self._module.run(self._ids(self._tokens), last_only=last_only)
            return logits[:, -1 if last_only else -tokens.shape[1] :]
        if self._cache is None:
            self._cache = make_cache(())
        return self._module.run(self._ids(tokens), self._cache, last_only=last_only)

    def _forget(self, keep: int) -> None:
        """Drop all but the last `keep` tokens. Positions are counted anew, so the rest is fed again."""
        kept = self._tokens[:, self._tokens.shape[1] - keep :]
        self._tokens, self._cache = self._tokens[:, :0], None
        if keep:
            self._run(kept, last_only=True)

    def _start(self) -> Tensor:
        module = self._module
        if not module.start_tokens:
            return torch.zeros(self.batch_size, module.vocab_size, device=module.device)
        logits = module.run(self._ids(np.array([module.start_tokens])), last_only=True)[:, -1]
        return logits.expand(self.batch_size, -1).contiguous()

    def _after_last(self) -> Tensor:
        """The logits after a state that was written: its last token is taken back and fed again."""
        last, self._tokens = self._tokens[:, -1:], self._tokens[:, :-1]
        if self._cache is not None:
            parts: State = tuple(part[:, :, :-1] for part in cache_parts(self._cache))
            self._cache = make_cache(parts) if self._tokens.shape[1] else None
        return self._run(last, last_only=True)[:, -1]

    @contextmanager
    def _inference(self) -> Iterator[None]:
        """No gradients and no dropout, whatever mode the module is in."""
        training = self._module.training
        if training:
            self._module.eval()
        try:
            with torch.inference_mode():
                yield
        finally:
            if training:
                self._module.train()

    def _ids(self, tokens: npt.NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(tokens)).to(self._module.device)

    def _array(self, logits: Tensor) -> Array:
        return logits.numpy() if logits.device.type == "cpu" else logits
