"""Decodes a recurrent network with NumPy: without torch, without allocation in a step, and each row
as if alone.

A batch is a stack of vector-matrix products, not one matrix-matrix product: BLAS rounds the two
differently, and a sequence must give the same text alone and in any batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import copy
from typing import Any, Final, Self

import attrs
import numpy as np

from textgen.protocols import Ids, Tensors
from textgen_builtins.models.rnn.config import RNNConfig
from textgen_builtins.models.rnn.large_products import SHARED_FROM, multiply_in_parts
from textgen_builtins.models.rnn.weights import Floats, Folded, check_shapes, expected_shapes

_SHUT_GATE_INPUT: Final = np.float32(80)  # here exp is far from overflow, and a gate is 1e-35


@attrs.define(eq=False)
class NumpyRNN:
    """textgen.protocols.Model that only decodes."""

    config: RNNConfig
    vocab_size: int
    _tensors: Tensors = attrs.field(factory=dict)
    _folded: Folded | None = None

    def decoder(self, batch_size: int) -> NumpyDecoder:
        """A decoder at the start state. Raises ValueError before weights are loaded."""
        if self._folded is None:
            raise ValueError("the model has no weights yet")
        return NumpyDecoder(self._folded, batch_size)

    def tensors(self) -> Tensors:
        """The loaded weights."""
        return dict(self._tensors)

    def load_tensors(self, tensors: Tensors) -> None:
        """Load weights. Raises ValueError if names or shapes differ."""
        check_shapes(tensors, expected_shapes(self.config, self.vocab_size))
        self._tensors, self._folded = dict(tensors), Folded.of(self.config, tensors)


class NumpyDecoder:
    """textgen.protocols.RowDecoder for a batch, in preallocated arrays."""

    def __init__(self, folded: Folded, batch_size: int) -> None:
        self._folded = folded
        self._step = _STEPS[folded.config.cell]
        self._rows = folded.rows
        self._allocate(batch_size)

    @property
    def batch_size(self) -> int:
        """B."""
        return len(self._logits)

    def extend(self, tokens: Ids) -> Floats:
        """Logits (B, V) after `tokens` (B, T). The next call reuses the array."""
        if tokens.size == 1:  # a step of one text, with as little as possible around it
            self._advance(tokens.item())
            return self._logits
        if not tokens.shape[1]:
            self._read_out()  # the caller may have written into the logits
        for column in self._columns(tokens):
            self._advance(column)
        return self._logits

    def score(self, tokens: Ids) -> Floats:
        """Logits (B, T, V) after each of `tokens` (B, T)."""
        logits = np.empty((*tokens.shape, self._folded.vocab_size), self._logits.dtype)
        for t, column in enumerate(self._columns(tokens)):
            self._advance(column)
            logits[:, t] = self._logits
        return logits

    def read_state(self) -> Tensors:
        """`hidden` and, for LSTMs, `cell`: (B, layers, H)."""
        state = {"hidden": np.stack(self._hidden, axis=1)}
        if self._folded.config.cell == "lstm":
            state["cell"] = np.stack(self._cell, axis=1)
        return state

    def write_state(self, state: Tensors) -> None:
        """Continue from a state that `read_state` gave, or from rows of one."""
        self._allocate(len(state["hidden"]))
        for layer in range(len(self._hidden)):
            self._hidden[layer][:] = state["hidden"][:, layer]
            if "cell" in state:
                self._cell[layer][:] = state["cell"][:, layer]
        self._read_out()

    def take(self, rows: Sequence[int]) -> Self:
        """Another decoder with these rows: copies, so nothing is multiplied again."""
        other = copy(self)
        other._arrange(*([array[rows] for array in arrays] for arrays in self._carried))
        return other

    def join(self, other: Self) -> None:
        """Append the rows of another decoder of the model."""
        pairs = zip(self._carried, other._carried, strict=True)
        self._arrange(
            *([*map(np.concatenate, zip(mine, theirs, strict=True))] for mine, theirs in pairs)
        )

    def _allocate(self, batch_size: int) -> None:
        """Arrays for a batch, at the start state."""
        folded, size = self._folded, self._folded.config.hidden_size
        outputs, cells, products = [], [], []
        for weights in folded.products:
            outputs.append(np.zeros((batch_size, size + 1), folded.table.dtype))
            outputs[-1][:, size] = 1
            cells.append(np.zeros((batch_size, size), folded.table.dtype))
            products.append(np.zeros((batch_size, weights.shape[1]), folded.table.dtype))
        self._arrange(outputs, cells, products)
        self._read_out()

    def _arrange(self, outputs: list[Floats], cells: list[Floats], products: list[Floats]) -> None:
        """Work with these arrays, one a layer.

        A batch of one drops that axis, which makes its steps faster.
        """
        folded, size, layers = self._folded, self._folded.config.hidden_size, len(products)
        batch_size, dtype, gates = len(outputs[0]), folded.table.dtype, folded.table.shape[1]
        self._carried = outputs, cells, products
        self._hidden, self._cell = [output[:, :size] for output in outputs], cells
        self._logits = products[-1][:, gates : gates + folded.vocab_size]
        one = 0 if batch_size == 1 else slice(None)
        # The plain cell takes tanh of whole arrays, which is faster: that of infinity is the 1 in
        # the last column of its outputs.
        width = gates + (folded.config.cell == "rnn")
        self._multiply = self._product(batch_size)
        self._taken = np.zeros((batch_size, gates), dtype)
        sums = [np.full((batch_size, width), np.inf, dtype)[one] for _ in range(layers)]
        self._layers = [
            _LayerBuffers(
                weights=folded.products[layer],
                sums=sums[layer],
                gates=sums[layer][..., :gates],
                parts=np.split(sums[layer], range(size, gates, size), axis=-1),
                output=outputs[layer][one],
                scratch=np.zeros((batch_size, size), dtype)[one],
                hidden=self._hidden[layer][one],
                cell=cells[layer][one],
                recurrent=products[layer][:, :gates][one],
                up=(products[layer][:, gates : 2 * gates] if layer + 1 < layers else self._logits)[
                    one
                ],
                factor=outputs[layer][0] if batch_size == 1 else outputs[layer][:, None],
                product=products[layer][0] if batch_size == 1 else products[layer][:, None],
            )
            for layer in range(layers)
        ]
        self._one = batch_size == 1

    def _product(self, batch_size: int) -> Callable[[Any, Any, Any], object]:
        """The function that multiplies: a stack of products, not one matrix product, so that rows
        are as if alone.
        """
        if any(product.size >= SHARED_FROM for product in self._folded.products):
            return multiply_in_parts
        return np.dot if batch_size == 1 else np.matmul

    def _read_out(self) -> None:
        """Multiply every layer's state; even the start state has a recurrent part, the biases."""
        for layer in self._layers:
            self._multiply(layer.factor, layer.weights, layer.product)

    def _columns(self, tokens: Ids) -> Iterable[Any]:
        """The columns of `tokens` (B, T), as `_advance` takes them."""
        return tokens[0].tolist() if self._one else tokens.T

    def _advance(self, column: Any) -> None:
        """Feed one token to each sequence: `column` (B,), or the token of a batch of one."""
        step, multiply = self._step, self._multiply
        if self._one:
            given = self._rows[column]
        else:
            given = self._folded.table.take(column, axis=0, out=self._taken, mode="clip")
        for layer in self._layers:
            step(layer, given)
            multiply(layer.factor, layer.weights, layer.product)
            given = layer.up


@attrs.frozen(eq=False)
class _LayerBuffers:
    """One layer's arrays in a decoder.

    `factor`, which is `hidden` and a column of ones, times `weights` is `product`; `recurrent` and
    `up` are views of it, and `parts` of `gates`, one of each. `output` is `factor` in another
    shape, and `sums` is `gates`, for the plain cell with a column more.
    """

    weights: Floats
    hidden: Floats
    cell: Floats
    recurrent: Floats
    up: Floats
    factor: Floats
    product: Floats
    sums: Floats
    gates: Floats
    output: Floats
    parts: list[Floats]
    scratch: Floats


def _tanh(layer: _LayerBuffers, given: Floats) -> None:
    np.add(given, layer.recurrent, layer.gates)
    np.tanh(layer.sums, layer.output)


def _gru(layer: _LayerBuffers, given: Floats) -> None:
    hidden, recurrent, scratch, gates = layer.hidden, layer.recurrent, layer.scratch, layer.gates
    size = hidden.shape[-1]
    both = gates[..., : 2 * size]  # reset and update gate
    np.add(given[..., : 2 * size], recurrent[..., : 2 * size], both)
    _sigmoid_of_negative(both)
    reset, update, _ = layer.parts
    np.multiply(recurrent[..., 2 * size :], reset, scratch)
    scratch += given[..., 2 * size :]
    np.tanh(scratch, scratch)
    hidden -= scratch  # h' = n + z (h - n)
    hidden *= update
    hidden += scratch


def _lstm(layer: _LayerBuffers, given: Floats) -> None:
    hidden, cell, scratch, gates = layer.hidden, layer.cell, layer.scratch, layer.gates
    enter, keep, new, leave = layer.parts
    np.add(given, layer.recurrent, gates)
    np.tanh(gates, gates)
    for gate in (gates[..., : 2 * hidden.shape[-1]], leave):
        gate *= 0.5
        gate += 0.5
    cell *= keep
    np.multiply(enter, new, scratch)
    cell += scratch
    np.tanh(cell, hidden)
    hidden *= leave


_STEPS = {"rnn": _tanh, "gru": _gru, "lstm": _lstm}


def _sigmoid_of_negative(values: Floats) -> None:
    """sigmoid(-x) = 1 / (1 + exp(x)), in place."""
    np.minimum(values, _SHUT_GATE_INPUT, out=values)
    np.exp(values, values)
    values += 1
    np.reciprocal(values, values)
