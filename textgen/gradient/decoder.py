"""Generation with any `forward(tokens, state)`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Self

import numpy as np
import torch
from torch import Tensor

from textgen.gradient.arrays import like_weights, to_numpy
from textgen.protocols import Array, Ids, Tensors

_PROBED: Final = (
    5  # rows that ask for V: neither 1 nor a usual number of layers, which a wrong axis would have
)


class ForwardDecoder:
    """textgen.protocols.RowDecoder for a module with `forward(tokens, state=None) -> (logits, state)`.

    tokens (B, T) int64, logits (B, T, V), state a flat tuple of tensors with the batch as first axis. The state may
    grow with each token, as an attention cache does: rows that joined with a state of another shape are then computed
    group by group, all rows of one shape together.

    Before the first token there are no logits, so `extend` with T = 0 gives zeros there: any token may be first.
    """

    exact_rows: Final = False  # the kernels of another batch size may round differently

    def __init__(self, module: Any, batch_size: int) -> None:
        """A decoder of `batch_size` rows at the start state. The module is switched to `eval` in each call."""
        self._module = module
        first = next(iter(module.parameters()), None)
        self._device = torch.device("cpu") if first is None else first.device
        self._groups = [_Group(np.arange(batch_size), None, None)]
        self._vocab_size: int | None = None

    @property
    def batch_size(self) -> int:
        """B."""
        return sum(len(group.rows) for group in self._groups)

    def extend(self, tokens: Ids) -> Array:
        """Logits (B, V) float32 after `tokens` (B, T), NumPy on a CPU."""
        if tokens.shape[1]:
            return _given(self._run(tokens, last=True)[:, -1])
        size = self._size()
        made = torch.zeros(len(tokens), size, device=self._device)
        for group in self._groups:
            if group.logits is not None:
                made[torch.from_numpy(group.rows)] = group.logits
        return _given(made)

    def score(self, tokens: Ids) -> Array:
        """Logits (B, T, V) float32 after each of `tokens` (B, T), NumPy on a CPU."""
        return _given(self._run(tokens, last=False))

    def read_state(self) -> Tensors:
        """The state and the last logits, which T = 0 needs. Rows must be alike in shape."""
        if len(self._groups) > 1:
            raise ValueError("these rows differ in length; take them one by one")
        (group,) = self._groups
        if group.state is None or group.logits is None:
            return {"begun": np.zeros(len(group.rows), np.bool_)}
        arrays = {str(i): to_numpy(part).copy() for i, part in enumerate(group.state)}
        return {
            "begun": np.ones(len(group.rows), np.bool_),
            "logits": group.logits.cpu().numpy().copy(),
            **arrays,
        }

    def write_state(self, state: Tensors) -> None:
        """Continue from a state that `read_state` gave, or from rows of one."""
        rows = np.arange(len(state["begun"]))
        if "logits" not in state:
            self._groups = [_Group(rows, None, None)]
            return
        arrays = (torch.from_numpy(state[str(i)].copy()) for i in range(len(state) - 2))
        parts = tuple(like_weights(part, self._module).to(self._device) for part in arrays)
        self._groups = [
            _Group(rows, parts, torch.from_numpy(state["logits"].copy()).to(self._device))
        ]

    def take(self, rows: Sequence[int]) -> Self:
        """Another decoder with these rows, in this order; a row may occur twice."""
        taken = type(self)(self._module, 0)
        taken._vocab_size = self._vocab_size
        wanted = np.asarray(rows, np.int64)
        groups = []
        for group in self._groups:
            places = {row: place for place, row in enumerate(group.rows.tolist())}
            mine = np.array([i for i, row in enumerate(wanted.tolist()) if row in places], np.int64)
            if len(mine):
                groups.append(
                    group.of(mine, torch.tensor([places[int(row)] for row in wanted[mine]]))
                )
        taken._groups = groups or taken._groups
        return taken

    def join(self, other: Self) -> None:
        """Append the rows of another decoder of the module. Groups whose states are alike in shape become one."""
        before = self.batch_size
        for group in other._groups:
            moved = _Group(group.rows + before, group.state, group.logits)
            for place, own in enumerate(self._groups):
                if own.is_like(moved) or not len(own.rows):
                    self._groups[place] = own.joined(moved) if len(own.rows) else moved
                    break
            else:
                self._groups.append(moved)

    @torch.no_grad()
    def _run(self, tokens: Ids, *, last: bool) -> Tensor:
        """Logits after each of `tokens` (B, T), or with `last` after the last of them only, as (B, 1, V)."""
        made = None
        for place, group in enumerate(self._groups):
            ids = torch.from_numpy(np.ascontiguousarray(tokens[group.rows], np.int64)).to(
                self._device
            )
            logits, state = self._forward(ids, group.state)
            self._groups[place] = _Group(group.rows, state, logits[:, -1].float())
            part = logits[:, -1:].float() if last else logits.float()
            if len(self._groups) == 1 and (group.rows == np.arange(len(group.rows))).all():
                made = part
            else:
                made = part.new_empty(len(tokens), *part.shape[1:]) if made is None else made
                made[torch.from_numpy(group.rows)] = part
        assert made is not None
        self._vocab_size = made.shape[-1]
        result: Tensor = made.clone() if last else made
        return result

    @torch.no_grad()
    def _size(self) -> int:
        """V, which is known from any logits."""
        if self._vocab_size is None:
            zero = torch.zeros(_PROBED, 1, dtype=torch.int64, device=self._device)
            self._vocab_size = self._forward(zero, None)[0].shape[-1]
        return self._vocab_size

    def _forward(
        self, ids: Tensor, state: tuple[Tensor, ...] | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """What the module gives in evaluation, where nothing is dropped out, and nothing drawn.

        It stays in that mode, as other threads may be in the midst of a forward pass. A training step sets its own.
        """
        if self._module.training:
            self._module.eval()
        given = self._module(ids, state)
        try:
            return check_forward(given, len(ids))
        except (TypeError, ValueError) as error:
            error.made = self._module  # type: ignore[union-attr]  # whose plugin is to blame
            raise


def check_forward(given: Any, rows: int) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Logits and state as `forward` gave them for so many rows. Raises TypeError or ValueError for anything else."""
    if not isinstance(given, tuple) or len(given) != 2:
        raise TypeError(
            f"forward gave {type(given).__name__}, and must give logits and the state after them"
        )
    logits, state = given
    if not isinstance(state, tuple | list) or not all(isinstance(part, Tensor) for part in state):
        raise TypeError(
            f"forward gave a state of type {type(state).__name__}, and must give a tuple of tensors, such as "
            "(hidden,), or () for none"
        )
    for place, part in enumerate(state):
        if not part.ndim or len(part) != rows:
            raise ValueError(
                f"forward gave state[{place}] of shape {tuple(part.shape)} for a batch of {rows}, and must give a "
                "tensor with the batch as first axis: transpose(0, 1) turns the state of torch's own GRU, LSTM and RNN"
            )
    return logits, tuple(state)


def _given(logits: Tensor) -> Array:
    return logits.numpy() if logits.device.type == "cpu" else logits


class _Group:
    """Rows whose states have one shape: their places in the batch (N,), state, and last logits (N, V)."""

    def __init__(self, rows: Ids, state: tuple[Tensor, ...] | None, logits: Tensor | None) -> None:
        self.rows, self.state, self.logits = rows, state, logits

    def of(self, rows: Ids, places: Tensor) -> _Group:
        """The members at `places`, as the rows `rows` of a batch."""
        if self.state is None or self.logits is None:
            return _Group(rows, None, None)
        places = places.to(self.logits.device)
        return _Group(rows, tuple(part[places] for part in self.state), self.logits[places])

    def is_like(self, other: _Group) -> bool:
        """Whether the states may be put together."""
        if self.state is None or other.state is None:
            return self.state is other.state
        return [p.shape[1:] for p in self.state] == [p.shape[1:] for p in other.state]

    def joined(self, other: _Group) -> _Group:
        """Both as one."""
        rows = np.concatenate([self.rows, other.rows])
        if self.state is None or other.state is None or self.logits is None or other.logits is None:
            return _Group(rows, None, None)
        state = tuple(torch.cat(parts) for parts in zip(self.state, other.state, strict=True))
        return _Group(rows, state, torch.cat([self.logits, other.logits]))
