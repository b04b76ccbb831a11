"""The formulas of the cells, forward and backward, for LANES units at a time.

They are those of torch.nn.RNN, GRU and LSTM. `given` are the input's parts of the gates, and
`recurrent` the hidden state's, biases added, in torch's order; `before` is the float32 state before
a step: c of an LSTM and h of a GRU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import attrs

from textgen_fast.vectors import Vector, sigmoid, tanh


@attrs.frozen
class Forward:
    """The hidden state after a step, the float32 state, if the cell has one, and what `backward`
    needs.
    """

    hidden: Vector
    state: Vector | None
    saved: Sequence[Vector]


@attrs.frozen
class Backward:
    """Gradients of the arguments of the gates, those of the recurrent parts last, and of the state
    before.

    carried  what reaches the step before without a product: the gradient of c, or, of a cell that
             `adds_carried`, a part of that of h
    """

    gates: Sequence[Vector]
    carried: Vector | None


Vectors: TypeAlias = Sequence[Vector]


@attrs.frozen
class Cell:
    """The numbers of vectors of LANES units, of gates, of what is saved, and of gradients; and the
    formulas.

    forward    (given, recurrent, before): a step
    backward   (saved, dh, carried, before, after): its gradients, where dh is that of its hidden
               state, and `carried` that of the step after
    """

    gates: int
    saved: int
    gradients: int
    adds_carried: bool
    forward: Callable[[Vectors, Vectors, Vector], Forward]
    backward: Callable[[Vectors, Vector, Vector, Vector, Vector], Backward]


def _lstm(given: Vectors, recurrent: Vectors, before: Vector) -> Forward:
    """c = f c + i g, h = o tanh(c)."""
    i, f, g, o = (a + b for a, b in zip(given, recurrent, strict=True))
    i, f, g, o = sigmoid(i), sigmoid(f), tanh(g), sigmoid(o)
    c = f * before + i * g
    return Forward(o * tanh(c), c, (i, f, g, o))


def _lstm_back(
    saved: Vectors, dh: Vector, carried: Vector, before: Vector, after: Vector
) -> Backward:
    i, f, g, o = saved
    squashed = tanh(after)
    dc = carried + dh * o * (1.0 - squashed * squashed)
    di, df, dg = dc * g * (i - i * i), dc * before * (f - f * f), dc * i * (1.0 - g * g)
    return Backward((di, df, dg, dh * squashed * (o - o * o)), dc * f)


def _gru(given: Vectors, recurrent: Vectors, before: Vector) -> Forward:
    """h = (1 - z) n + z h, where n = tanh(given + r recurrent)."""
    r, z = sigmoid(given[0] + recurrent[0]), sigmoid(given[1] + recurrent[1])
    n = tanh(given[2] + r * recurrent[2])
    h = n + z * (before - n)
    return Forward(h, h, (r, z, n, recurrent[2]))


def _gru_back(
    saved: Vectors, dh: Vector, carried: Vector, before: Vector, after: Vector
) -> Backward:
    """The gradients are those of n's input part, then those of the recurrent parts of r, z, n."""
    r, z, n, recurrent = saved
    dn = dh * (1.0 - z) * (1.0 - n * n)
    return Backward(
        (dn, dn * recurrent * (r - r * r), dh * (before - n) * (z - z * z), dn * r), dh * z
    )


def _rnn(given: Vectors, recurrent: Vectors, before: Vector) -> Forward:
    """h = tanh(given + recurrent)."""
    h = tanh(given[0] + recurrent[0])
    return Forward(h, None, (h,))


def _rnn_back(
    saved: Vectors, dh: Vector, carried: Vector, before: Vector, after: Vector
) -> Backward:
    (h,) = saved
    return Backward((dh * (1.0 - h * h),), None)


CELLS: Final = {
    "lstm": Cell(4, 4, 4, False, _lstm, _lstm_back),  # i, f, g, o
    "gru": Cell(3, 4, 4, True, _gru, _gru_back),  # r, z, n
    "rnn": Cell(1, 1, 1, False, _rnn, _rnn_back),
}
