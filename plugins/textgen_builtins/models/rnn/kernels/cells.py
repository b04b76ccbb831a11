"""The formulas of the cells, forward and backward, for LANES units at a time.

They are those of torch.nn.RNN, GRU and LSTM. `given` are the input's parts of the gates, and
`recurrent` the hidden state's, biases added, in torch's order; `before` is the float32 state before
a step: c of an LSTM and h of a GRU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final, Protocol

import attrs

from textgen_builtins.models.rnn.kernels.vectors import Vector, sigmoid, tanh


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


class Cell(Protocol):
    """The numbers of vectors of LANES units: of gates, of what is saved, and of gradients."""

    gates: ClassVar[int]
    saved: ClassVar[int]
    gradients: ClassVar[int]
    adds_carried: ClassVar[bool]

    def forward(
        self, given: Sequence[Vector], recurrent: Sequence[Vector], before: Vector
    ) -> Forward:
        """A step."""

    def backward(
        self, saved: Sequence[Vector], dh: Vector, carried: Vector, before: Vector, after: Vector
    ) -> Backward:
        """Its gradients, where dh is that of its hidden state, and `carried` that of the step
        after.
        """


@attrs.frozen
class LSTM:
    """i, f, g, o."""

    gates: ClassVar[int] = 4
    saved: ClassVar[int] = 4
    gradients: ClassVar[int] = 4
    adds_carried: ClassVar[bool] = False

    def forward(
        self, given: Sequence[Vector], recurrent: Sequence[Vector], before: Vector
    ) -> Forward:
        """c = f c + i g, h = o tanh(c)."""
        i, f, g, o = (a + b for a, b in zip(given, recurrent, strict=True))
        i, f, g, o = sigmoid(i), sigmoid(f), tanh(g), sigmoid(o)
        c = f * before + i * g
        return Forward(o * tanh(c), c, (i, f, g, o))

    def backward(
        self, saved: Sequence[Vector], dh: Vector, carried: Vector, before: Vector, after: Vector
    ) -> Backward:
        """dh is the gradient of h, and `carried` that of c from the step after."""
        i, f, g, o = saved
        squashed = tanh(after)
        dc = carried + dh * o * (1.0 - squashed * squashed)
        di, df, dg = dc * g * (i - i * i), dc * before * (f - f * f), dc * i * (1.0 - g * g)
        return Backward((di, df, dg, dh * squashed * (o - o * o)), dc * f)


@attrs.frozen
class GRU:
    """r, z, n.

    The gradients are those of n's input part, then those of the recurrent parts of r, z and n.
    """

    gates: ClassVar[int] = 3
    saved: ClassVar[int] = 4
    gradients: ClassVar[int] = 4
    adds_carried: ClassVar[bool] = True

    def forward(
        self, given: Sequence[Vector], recurrent: Sequence[Vector], before: Vector
    ) -> Forward:
        """h = (1 - z) n + z h, where n = tanh(given + r recurrent)."""
        r, z = sigmoid(given[0] + recurrent[0]), sigmoid(given[1] + recurrent[1])
        n = tanh(given[2] + r * recurrent[2])
        h = n + z * (before - n)
        return Forward(h, h, (r, z, n, recurrent[2]))

    def backward(
        self, saved: Sequence[Vector], dh: Vector, carried: Vector, before: Vector, after: Vector
    ) -> Backward:
        """dh is the gradient of h."""
        r, z, n, recurrent = saved
        dn = dh * (1.0 - z) * (1.0 - n * n)
        return Backward(
            (dn, dn * recurrent * (r - r * r), dh * (before - n) * (z - z * z), dn * r), dh * z
        )


@attrs.frozen
class RNN:
    """One gate: h itself."""

    gates: ClassVar[int] = 1
    saved: ClassVar[int] = 1
    gradients: ClassVar[int] = 1
    adds_carried: ClassVar[bool] = False

    def forward(
        self, given: Sequence[Vector], recurrent: Sequence[Vector], before: Vector
    ) -> Forward:
        """h = tanh(given + recurrent)."""
        h = tanh(given[0] + recurrent[0])
        return Forward(h, None, (h,))

    def backward(
        self, saved: Sequence[Vector], dh: Vector, carried: Vector, before: Vector, after: Vector
    ) -> Backward:
        """dh is the gradient of h."""
        (h,) = saved
        return Backward((dh * (1.0 - h * h),), None)


CELLS: Final[dict[str, Cell]] = {
    "lstm": LSTM(),
    "gru": GRU(),
    "rnn": RNN(),
}
