"""Recurrent layers as functions of torch, with gradients of their own."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from textgen_fast.cells import CELLS, Cell
from textgen_fast.program import Program, is_fast_in_bfloat16, tile


class Layers:
    """The layers that the model `rnn` asks for.

    Compiles a small one, so that a library that does not work here is found at once.
    """

    def __init__(self) -> None:
        Program.of("rnn", False, 1, tile().columns)

    def is_faster(self, cell: str, hidden_size: int, in_bfloat16: bool) -> bool:
        """Whether `run` can compute such a layer, faster than torch."""
        if hidden_size % tile().columns:
            return False
        return not in_bfloat16 or is_fast_in_bfloat16(cell)

    def run(
        self,
        cell: str,
        x: Tensor,
        rows: Tensor | None,
        weights: tuple[Tensor, Tensor, Tensor, Tensor],
        carried: tuple[Tensor, ...],
    ) -> tuple[Tensor, ...]:
        """The hidden states and the state of a layer after them, as `run_layer` gives them."""
        return run_layer(cell, x, rows, weights, carried)


def run_layer(
    cell: str,
    x: Tensor,
    rows: Tensor | None,
    weights: tuple[Tensor, Tensor, Tensor, Tensor],
    carried: tuple[Tensor, ...],
) -> tuple[Tensor, ...]:
    """The hidden states (T, B, H), and the layer's state after them: (B, H) each.

    Within torch's autocast to bfloat16, products are of bfloat16 and their sums of float32, as is
    all else.

    cell     of CELLS
    x        (T, B, E); or (N, E), of which `rows` (T, B) int64 says what each step reads: the
             product with the input's weights is then that of N rows, which are fewer
    weights  weight_ih (G H, E), weight_hh (G H, H), bias_ih and bias_hh (G H,), as torch has them
    carried  the state before: h, and c of an LSTM; none to begin with zeros
    """
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    units = CELLS[cell].gates * weight_hh.shape[1]  # machine code checks nothing
    if {len(each) for each in weights} != {units} or {w.dtype for w in weights} != {torch.float32}:
        raise ValueError("the weights of a layer must be float32, and belong together")
    given = F.linear(x, weight_ih, bias_ih)
    steps, batch = x.shape[:2] if rows is None else rows.shape
    if not carried:
        zeros = bias_hh.new_zeros(batch, weight_hh.shape[1])
        carried = (zeros, zeros) if cell == "lstm" else (zeros,)
    indices = torch.arange(steps * batch).view(steps, batch)
    if rows is not None:
        indices = rows.long().contiguous()
        least, most = map(int, indices.aminmax())
        if least < 0 or most >= len(x):
            raise IndexError(f"rows of {len(x)} are from {least} to {most}")
    made: tuple[Tensor, ...] = _Layer.apply(  # type: ignore[no-untyped-call]
        cell, given, indices, weight_hh, bias_hh, *carried
    )
    return made


class _Layer(torch.autograd.Function):
    """Backpropagation through the steps of one window."""

    @staticmethod
    def forward(
        ctx: Any,
        name: str,
        given: Tensor,
        rows: Tensor,
        weight: Tensor,
        bias: Tensor,
        h: Tensor,
        *c: Tensor,
    ) -> tuple[Tensor, ...]:
        """given (T, B, G H) or (N, G H), rows (T, B), weight (G H, H), bias (G H,), h and c
        (B, H).
        """
        cell, (steps, batch), units = CELLS[name], rows.shape, weight.shape[1]
        program = Program.of(name, given.dtype == torch.bfloat16, batch, units)
        hidden, state = (
            given.new_empty(steps + 1, batch, units),
            bias.new_empty(steps + 1, batch, units),
        )
        hidden[0], state[0] = h, (c or (h,))[0]
        saved, recurrent = (
            bias.new_empty(steps, batch, cell.saved * units),
            bias.new_empty(batch, cell.gates * units),
        )
        packed, weight = given.new_empty(weight.shape), weight.contiguous()
        _call(
            program.forward,
            steps,
            given.contiguous(),
            rows,
            weight,
            packed,
            bias,
            hidden,
            state,
            saved,
            recurrent,
        )
        ctx.name, ctx.program, ctx.given = name, program, given.shape
        ctx.save_for_backward(rows, weight, hidden, state, saved)
        last = state[-1].clone()
        after = (
            (hidden[-1].float(), last) if c else (last if name == "gru" else hidden[-1].float(),)
        )
        return (hidden[1:], *after)

    @staticmethod
    def backward(ctx: Any, dy: Tensor, dh: Tensor, *dc: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of `forward`'s arguments."""
        rows, weight, hidden, state, saved = ctx.saved_tensors
        cell, (steps, batch, units) = CELLS[ctx.name], dy.shape
        is_table = len(ctx.given) == 2
        gradients = dy.new_empty(steps, batch, cell.gradients * units)
        sums = weight.new_zeros(ctx.given[0] if is_table else 1, cell.gradients * units)
        dh, carried = dh.float().clone(), dc[0].clone() if dc else weight.new_zeros(batch, units)
        added = rows if is_table else torch.zeros_like(rows)
        arrays = (
            dy.new_empty(weight.shape),
            weight.new_zeros(units),
            state,
            saved,
            gradients,
            sums,
            carried,
            dh,
        )
        _call(ctx.program.backward, steps, dy.contiguous(), added, weight, *arrays)
        recurrent = gradients[..., -cell.gates * units :].flatten(0, 1)
        d_weight = (recurrent.T @ hidden[:-1].flatten(0, 1)).float()
        d_bias = sums[:, -cell.gates * units :].sum(0)
        d_given = _given(sums if is_table else gradients, cell, units)
        return None, d_given, None, d_weight, d_bias, dh, *((carried,) if dc else ())


def _given(gradients: Tensor, cell: Cell, units: int) -> Tensor:
    """Gradients (..., D H) as those of the input's parts (..., G H): a GRU's r and z, then its n,
    which comes first.
    """
    if cell.gradients == cell.gates:
        return gradients
    return torch.cat((gradients[..., units:-units], gradients[..., :units]), -1)


def _call(function: Any, steps: int, *tensors: Tensor) -> None:
    """Without the interpreter's lock."""
    function(steps, *(tensor.data_ptr() for tensor in tensors))
