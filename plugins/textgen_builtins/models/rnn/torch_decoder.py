"""Decoding by the torch module, on a GPU."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Final, Self, TypeAlias

import numpy as np
import torch
from torch import Tensor

from textgen.protocols import Ids, Tensors
from textgen_builtins.models.rnn.weights import is_bounded

_EAGER_STEPS: Final = 3  # single steps before a graph is worth its capture
_CAPTURING: Final = threading.Lock()  # CUDA captures one graph at a time in a process

State: TypeAlias = tuple[Tensor, ...]
"""Per layer the hidden state, and for LSTMs the cell state after it, each (B, H)."""


class TorchDecoder:
    """textgen.protocols.RowDecoder and GreedyDecoder on the module's device, without dropout.

    On CUDA a step of one token is launched as one graph: the launch of its small kernels costs more
    than they do.
    """

    exact_rows: Final = False  # the kernels of another batch size may round differently

    def __init__(self, module: Any, batch_size: int) -> None:
        self._module = module
        self._device = module.head.bias.device
        parts = module.config.layers * (2 if module.config.cell == "lstm" else 1)
        self._state: State = tuple(
            torch.zeros(batch_size, module.config.hidden_size, device=self._device)
            for _ in range(parts)
        )
        self._graph: StepGraph | None = None
        self._single_steps = 0
        self._bounded: bool | None = (
            None  # whether logits are always finite; None until it is needed
        )

    @property
    def batch_size(self) -> int:
        """B."""
        return len(self._state[0])

    @torch.no_grad()
    def extend(self, tokens: Ids) -> Tensor:
        """Logits (B, V) after `tokens` (B, T)."""
        if not tokens.shape[1]:
            last = self._state[-2 if self._module.config.cell == "lstm" else -1]
            start: Tensor = self._module.head(last)
            return start
        ids = torch.from_numpy(np.ascontiguousarray(tokens, np.int64))
        return self._step(ids) if tokens.shape[1] == 1 else self._run(ids)[:, -1]

    @torch.no_grad()
    def score(self, tokens: Ids) -> Tensor:
        """Logits (B, T, V) after each of `tokens` (B, T)."""
        return self._run(torch.from_numpy(np.ascontiguousarray(tokens, np.int64)))

    @torch.no_grad()
    def continue_greedily(self, tokens: Ids, steps: int, forbidden: Sequence[int]) -> Ids:
        """The (B, steps) most likely tokens after `tokens` (B,); the CPU waits for the device once,
        at the end.

        (B, 0) if a logit might not be finite.
        """
        if self._bounded is None:
            finite = all(bool(part.isfinite().all()) for part in self._state)
            wide = torch.float32 if self._device.type == "mps" else torch.float64
            magnitude = float(
                sum(weights.abs().sum(dtype=wide) for weights in self._module.parameters())
            )
            self._bounded = finite and is_bounded(magnitude)
        if not self._bounded:
            return np.empty((len(tokens), 0), np.int64)
        made = torch.empty(steps, len(tokens), dtype=torch.int64, device=self._device)
        never = torch.tensor(tuple(forbidden), dtype=torch.int64, device=self._device)
        ids = torch.from_numpy(np.array(tokens, np.int64))[:, None]
        for step in range(steps):
            logits = self._step(ids).index_fill(1, never, -torch.inf)
            torch.argmax(logits, dim=1, out=made[step])
            ids = made[step, :, None]
        return made.T.cpu().numpy()

    def _step(self, ids: Tensor) -> Tensor:
        """Logits (B, V) after one token for each sequence, `ids` (B, 1)."""
        if self._device.type == "cuda":
            self._single_steps += 1
            if self._graph is None and self._single_steps > _EAGER_STEPS:
                self._graph = StepGraph(self._module, self._state)
            if self._graph is not None:
                return self._graph.step(ids)
        return self._run(ids)[:, -1]

    def _run(self, ids: Tensor) -> Tensor:
        """Logits (B, T, V) after each of `ids` (B, T)."""
        logits: Tensor
        logits, after = self._module.run(ids.to(self._device), self._state, dropout=False)
        for part, new in zip(self._state, after, strict=True):
            part.copy_(new)  # in place: a captured graph uses these very tensors
        return logits

    def read_state(self) -> Tensors:
        """The same as NumpyDecoder's, so that either continues from the other's."""
        step = len(self._state) // self._module.config.layers
        state = {"hidden": torch.stack(self._state[::step], dim=1).cpu().numpy()}
        if step == 2:
            state["cell"] = torch.stack(self._state[1::2], dim=1).cpu().numpy()
        return state

    def write_state(self, state: Tensors) -> None:
        """Continue from a state that `read_state` gave, or from rows of one."""
        parts = [state[name] for name in ("hidden", "cell") if name in state]
        layers = range(self._module.config.layers)
        self._state = tuple(
            torch.from_numpy(part[:, layer].copy()).to(self._device)
            for layer in layers
            for part in parts
        )
        self._begin_anew()

    @torch.no_grad()
    def take(self, rows: Sequence[int]) -> Self:
        """Another decoder with these rows, in this order; nothing leaves the device."""
        taken = type(self)(self._module, len(rows))
        index = torch.tensor(tuple(rows), dtype=torch.int64, device=self._device)
        taken._state = tuple(part.index_select(0, index) for part in self._state)
        taken._bounded = self._bounded or None  # what is finite for all rows is so for some
        return taken

    @torch.no_grad()
    def join(self, other: Self) -> None:
        """Append the rows of another decoder of the model, which is not used any more."""
        self._state = tuple(torch.cat(both) for both in zip(self._state, other._state, strict=True))
        self._begin_anew()

    def _begin_anew(self) -> None:
        """Drop what was made for the tensors of another state."""
        self._graph, self._single_steps, self._bounded = None, 0, None


class StepGraph:
    """A step of one token for each sequence, captured as a CUDA graph that reads and writes fixed
    tensors.
    """

    def __init__(self, module: Any, state: State) -> None:
        self._tokens = torch.zeros(len(state[0]), 1, dtype=torch.int64, device=state[0].device)
        before = tuple(part.clone() for part in state)
        stream = torch.cuda.Stream(state[0].device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(state[0].device))
        with torch.cuda.stream(
            stream
        ):  # libraries initialise in a first run, which is not allowed in a capture
            for _ in range(2):
                module.run(self._tokens, state, dropout=False)
        torch.cuda.current_stream(state[0].device).wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        # torch's own stream for this is one for all threads, and of the current device, which may
        # be another.
        with (
            _CAPTURING,
            torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"),
        ):
            logits, after = module.run(self._tokens, state, dropout=False)
            for part, new in zip(state, after, strict=True):
                part.copy_(new)
            self._logits: Tensor = logits[:, -1]
        for part, kept in zip(state, before, strict=True):
            part.copy_(kept)

    def step(self, tokens: Tensor) -> Tensor:
        """Feed `tokens` (B, 1) and return logits (B, V), which the next step overwrites."""
        self._tokens.copy_(tokens)
        self._graph.replay()
        return self._logits
