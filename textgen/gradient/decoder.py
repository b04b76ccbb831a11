"""Generation with any `forward(tokens, state)`."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Final, Self

import attrs
import numpy as np
import torch
from torch import Tensor

from textgen.errors import BrokenContract
from textgen.gradient.arrays import like_weights, to_numpy
from textgen.protocols import Array, Ids, Tensors
from textgen.threads import free_threads

_PROBED_ROWS: Final = 5  # rows that ask for V: neither 1 nor a usual number of layers


class ForwardDecoder:
    """textgen.protocols.RowDecoder for a module with `forward(tokens, state=None) -> (logits,
    state)`.

    tokens (B, T) int64, logits (B, T, V), state a flat tuple of tensors with the batch as first
    axis. The state may grow with each token, as an attention cache does: rows that joined with a
    state of another shape are then computed group by group, all rows of one shape together.

    Before the first token there are no logits, so `extend` with T = 0 gives zeros there: any token
    may be first.
    """

    exact_rows: Final = False  # the kernels of another batch size may round differently

    def __init__(self, module: Any, batch_size: int) -> None:
        """A decoder of `batch_size` rows at the start state.

        The module is switched to `eval` in each call.
        """
        self._module = module
        first = next(iter(module.parameters()), None)
        self._device = torch.device("cpu") if first is None else first.device
        self._weights = sum(each.numel() for each in module.parameters())
        self._groups = [_Group(np.arange(batch_size))]

    @property
    def batch_size(self) -> int:
        """B."""
        return sum(len(group.rows) for group in self._groups)

    def extend(self, tokens: Ids) -> Array:
        """Logits (B, V) float32 after `tokens` (B, T), NumPy on a CPU."""
        if tokens.shape[1]:
            return _given(self._run(tokens, last=True)[:, -1])
        begun = [group for group in self._groups if group.tensors]
        size = begun[0].tensors[0].shape[1] if begun else self._vocab_size()
        made = torch.zeros(len(tokens), size, device=self._device)
        for group in begun:
            made[torch.from_numpy(group.rows)] = group.tensors[0]
        return _given(made)

    def score(self, tokens: Ids) -> Array:
        """Logits (B, T, V) float32 after each of `tokens` (B, T), NumPy on a CPU."""
        return _given(self._run(tokens, last=False))

    def read_state(self) -> Tensors:
        """The state and the last logits, which T = 0 needs. Rows must be alike in shape."""
        if len(self._groups) > 1:
            raise ValueError("these rows differ in length; take them one by one")
        (group,) = self._groups
        names = ("logits", *map(str, range(len(group.tensors))))
        arrays = {name: to_numpy(t).copy() for name, t in zip(names, group.tensors, strict=False)}
        return {"begun": np.full(len(group.rows), bool(arrays)), **arrays}

    def write_state(self, state: Tensors) -> None:
        """Continue from a state that `read_state` gave, or from rows of one."""
        tensors = {
            name: torch.from_numpy(array.copy()) for name, array in state.items() if name != "begun"
        }
        parts = [like_weights(tensors[str(i)], self._module) for i in range(len(tensors) - 1)]
        whole = [tensors["logits"], *parts] if tensors else []
        rows = np.arange(len(state["begun"]))
        self._groups = [_Group(rows, tuple(part.to(self._device) for part in whole))]

    def take(self, rows: Sequence[int]) -> Self:
        """Another decoder with these rows, in this order; a row may occur twice."""
        taken = type(self)(self._module, 0)
        groups = []
        for group in self._groups:
            indices = {row: index for index, row in enumerate(group.rows.tolist())}
            mine = [i for i, row in enumerate(rows) if row in indices]
            if mine:
                groups.append(group.at([indices[rows[i]] for i in mine], np.array(mine)))
        taken._groups = groups or taken._groups
        return taken

    def join(self, other: Self) -> None:
        """Append the rows of another decoder of the module.

        Groups whose states are alike in shape become one.
        """
        before = self.batch_size
        for group in other._groups:
            self._add(_Group(group.rows + before, group.tensors))
        self._groups = [group for group in self._groups if len(group.rows)] or self._groups[:1]

    def _add(self, group: _Group) -> None:
        like = next((own for own in self._groups if own.shapes() == group.shapes()), None)
        if like is None:
            self._groups.append(group)
        else:
            like.append(group)

    @torch.no_grad()
    def _run(self, tokens: Ids, *, last: bool) -> Tensor:
        """Logits after each of `tokens` (B, T), or with `last` after the last of them only, as
        (B, 1, V).
        """
        parts = []
        for group in self._groups:
            ids = torch.from_numpy(np.ascontiguousarray(tokens[group.rows], np.int64))
            logits, state = self._forward(
                ids.to(self._device), group.tensors[1:] if group.tensors else None
            )
            logits = logits.float()
            group.tensors = (logits[:, -1].clone(), *state)
            parts.append(logits[:, -1:] if last else logits)
        order = np.argsort(np.concatenate([group.rows for group in self._groups]))
        groups, self._groups = self._groups, []
        for group in groups:  # those that began with nothing are now like others
            self._add(group)
        return torch.cat(parts)[torch.from_numpy(order)]

    @torch.no_grad()
    def _vocab_size(self) -> int:
        """V, of which any logits tell."""
        zero = torch.zeros(_PROBED_ROWS, 1, dtype=torch.int64, device=self._device)
        return self._forward(zero, None)[0].shape[-1]

    def _forward(
        self, ids: Tensor, state: tuple[Tensor, ...] | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The outputs of the module in evaluation, where nothing is dropped out, and nothing drawn.

        It stays in that mode, as other threads may be in the midst of a forward pass. A training
        step sets its own.
        """
        if self._module.training:
            self._module.eval()
        is_on_cpu = self._device.type == "cpu"
        with free_threads(self._weights) if is_on_cpu else contextlib.nullcontext():
            given = self._module(ids, state)
        try:
            return check_forward(given, len(ids))
        except (TypeError, ValueError) as error:
            raise BrokenContract(self._module, str(error)) from error


def check_forward(given: Any, rows: int) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Logits and state as `forward` gave them for so many rows.

    Raises TypeError or ValueError for anything else.
    """
    if not isinstance(given, tuple) or len(given) != 2:
        raise TypeError(
            f"forward gave {type(given).__name__}, and must give logits and the state after them"
        )
    logits, state = given
    if not isinstance(state, tuple | list) or not all(isinstance(part, Tensor) for part in state):
        raise TypeError(
            f"forward gave a state of type {type(state).__name__}, and must give a tuple of "
            "tensors, such as (hidden,), or () for none"
        )
    for index, part in enumerate(state):
        if not part.ndim or len(part) != rows:
            raise ValueError(
                f"forward gave state[{index}] of shape {tuple(part.shape)} for a batch of {rows}, "
                "and must give a tensor with the batch as first axis: transpose(0, 1) turns the "
                "state of torch's own GRU, LSTM and RNN"
            )
    return logits, tuple(state)


def _given(logits: Tensor) -> Array:
    return logits.numpy() if logits.device.type == "cpu" else logits


@attrs.define(eq=False)
class _Group:
    """Rows whose states have one shape: their indices in the batch (N,), last logits (N, V) and
    state.

    There are no tensors before the first token.
    """

    rows: Ids
    tensors: tuple[Tensor, ...] = ()

    def shapes(self) -> list[torch.Size]:
        """The shapes of a row's tensors."""
        return [part.shape[1:] for part in self.tensors]

    def at(self, indices: Sequence[int], rows: Ids) -> _Group:
        """The members at `indices`, as the rows `rows` of a batch."""
        return _Group(rows, tuple(part[list(indices)] for part in self.tensors))

    def append(self, other: _Group) -> None:
        """Take in rows of the same shapes."""
        self.rows = np.concatenate([self.rows, other.rows])
        self.tensors = tuple(map(torch.cat, zip(self.tensors, other.tensors, strict=True)))
