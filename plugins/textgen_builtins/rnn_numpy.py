"""Decoding a recurrent network with NumPy: no torch, no allocation in a step, and each row as if it were alone.

Three things make a step cheap. The one-hot or embedded token times the input matrix, biases added, is one row of a
table made at load. A layer's recurrent matrix and the matrix that takes its output further up (the next layer's
input matrix, or the head) stand side by side, so a layer is one product. And sigmoid(x) is (1 + tanh(x / 2)) / 2 with
the inner half folded into the weights, so all gates of a cell are one tanh.

A batch is a stack of vector-matrix products, not one matrix-matrix product: BLAS rounds the two differently, and a
sequence must give the same text alone and in any batch.
"""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from textgen.protocols import Ids, Tensors
from textgen_builtins.rnn import RNNConfig

Floats = npt.NDArray[np.floating[Any]]


@attrs.frozen(eq=False)
class _Layer:
    """One layer's fused weights: `product` (H, G·H + out) gives the gates' recurrent part and what goes up.

    bias_up   (out,) added to what goes up
    bias_new  (H,) of the GRU's candidate, which the reset gate multiplies; None for other cells
    """

    product: Floats
    bias_up: Floats
    bias_new: Floats | None


@attrs.frozen(eq=False)
class Folded:
    """The weights of a network made ready for decoding. `table` (V, G·H) is the first layer's input per token."""

    config: RNNConfig
    vocab_size: int
    table: Floats
    layers: tuple[_Layer, ...]

    @classmethod
    def of(cls, config: RNNConfig, tensors: Tensors) -> Folded:
        """Fold weights under the names of `TorchRNN.tensors`."""
        head = tensors["embedding.weight" if config.tied_weights else "head.weight"]
        vocab_size = len(head)
        inputs = tensors["embedding.weight"] if config.embedding_size else np.eye(vocab_size, dtype=head.dtype)
        halves = _half_gates(config, head.dtype)
        table, layers = None, []
        # From the bottom up: each layer's input matrix belongs to what lies below it.
        ups = [tensors[f"rnn.weight_ih_l{i}"] * halves[:, None] for i in range(config.layers)]
        biases = [_input_bias(config, tensors, i) * halves for i in range(config.layers)]
        table = np.ascontiguousarray(inputs @ ups[0].T + biases[0])
        for i in range(config.layers):
            up, bias_up = (ups[i + 1], biases[i + 1]) if i + 1 < config.layers else (head, tensors["head.bias"])
            recurrent = tensors[f"rnn.weight_hh_l{i}"] * halves[:, None]
            # Column-major: BLAS is faster with it from a few hundred units on.
            product = np.asfortranarray(np.concatenate([recurrent.T, up.T], axis=1))
            size = config.hidden_size
            bias_new = tensors[f"rnn.bias_hh_l{i}"][2 * size :].copy() if config.cell == "gru" else None
            layers.append(_Layer(product, bias_up.copy(), bias_new))
        return cls(config, vocab_size, table, tuple(layers))


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
        """Take over weights. Raises ValueError where names or shapes differ."""
        check_shapes(tensors, expected_shapes(self.config, self.vocab_size))
        self._tensors, self._folded = dict(tensors), Folded.of(self.config, tensors)


class NumpyDecoder:
    """textgen.protocols.Decoder for a batch, in preallocated arrays."""

    def __init__(self, folded: Folded, batch_size: int) -> None:
        self._folded = folded
        self._step = _STEPS[folded.config.cell]
        self._relu = folded.config.nonlinearity == "relu"
        self._allocate(batch_size)

    @property
    def batch_size(self) -> int:
        """B."""
        return len(self._logits)

    def extend(self, tokens: Ids) -> Floats:
        """Logits (B, V) after `tokens` (B, T). The array is used again by the next call."""
        for column in tokens.T:
            self._advance(column)
        return self._logits

    def score(self, tokens: Ids) -> Floats:
        """Logits (B, T, V) after each of `tokens` (B, T)."""
        logits = np.empty((*tokens.shape, self._folded.vocab_size), self._logits.dtype)
        for t, column in enumerate(tokens.T):
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
        """Go on from a state that `read_state` gave, or rows of one."""
        self._allocate(len(state["hidden"]))
        for layer in range(len(self._hidden)):
            self._hidden[layer][:] = state["hidden"][:, layer]
            if "cell" in state:
                self._cell[layer][:] = state["cell"][:, layer]
            self._multiply(layer)
        self._read_out()

    def _allocate(self, batch_size: int) -> None:
        folded, size = self._folded, self._folded.config.hidden_size
        dtype = folded.table.dtype
        gates = folded.table.shape[1]
        self._input = np.zeros((batch_size, gates), dtype)
        self._scratch = np.zeros((batch_size, size), dtype)
        self._hidden = [np.zeros((batch_size, size), dtype) for _ in folded.layers]
        self._cell = [np.zeros((batch_size, size), dtype) for _ in folded.layers]
        products = [np.zeros((batch_size, layer.product.shape[1]), dtype) for layer in folded.layers]
        self._products = products
        self._recurrent = [product[:, :gates] for product in products]
        self._up = [product[:, gates:] for product in products]
        self._logits = np.zeros((batch_size, folded.vocab_size), dtype)
        self._read_out()

    def _advance(self, tokens: Ids) -> None:
        """Feed one token to each sequence: `tokens` (B,)."""
        gates = self._folded.table.take(tokens, axis=0, out=self._input, mode="clip")
        for layer in range(len(self._hidden)):
            if layer:
                np.add(self._up[layer - 1], self._folded.layers[layer - 1].bias_up, out=gates)
            self._step(self, layer, gates)
            self._multiply(layer)
        self._read_out()

    def _multiply(self, layer: int) -> None:
        """The layer's output times its fused matrix, row by row."""
        weights, hidden, product = self._folded.layers[layer].product, self._hidden[layer], self._products[layer]
        if len(hidden) == 1:
            np.dot(hidden[0], weights, out=product[0])
        else:
            np.matmul(hidden[:, None], weights, out=product[:, None])

    def _read_out(self) -> None:
        np.add(self._up[-1], self._folded.layers[-1].bias_up, out=self._logits)

    def _rnn(self, layer: int, gates: Floats) -> None:
        hidden = self._hidden[layer]
        np.add(gates, self._recurrent[layer], out=hidden)
        if self._relu:
            np.maximum(hidden, 0, out=hidden)
        else:
            np.tanh(hidden, out=hidden)

    def _gru(self, layer: int, gates: Floats) -> None:
        hidden, recurrent, scratch = self._hidden[layer], self._recurrent[layer], self._scratch
        size = hidden.shape[1]
        bias_new = self._folded.layers[layer].bias_new
        assert bias_new is not None
        both = gates[:, : 2 * size]  # reset and update gate
        both += recurrent[:, : 2 * size]
        _sigmoid_of_twice(both)
        reset, update, new = gates[:, :size], gates[:, size : 2 * size], gates[:, 2 * size :]
        np.add(recurrent[:, 2 * size :], bias_new, out=scratch)
        scratch *= reset
        new += scratch
        np.tanh(new, out=new)
        hidden -= new  # h' = n + z (h - n)
        hidden *= update
        hidden += new

    def _lstm(self, layer: int, gates: Floats) -> None:
        hidden, cell, scratch = self._hidden[layer], self._cell[layer], self._scratch
        size = hidden.shape[1]
        gates += self._recurrent[layer]
        np.tanh(gates, out=gates)
        enter, keep = gates[:, :size], gates[:, size : 2 * size]
        new, leave = gates[:, 2 * size : 3 * size], gates[:, 3 * size :]
        for gate in (gates[:, : 2 * size], leave):
            gate *= 0.5
            gate += 0.5
        cell *= keep
        np.multiply(enter, new, out=scratch)
        cell += scratch
        np.tanh(cell, out=hidden)
        hidden *= leave


_STEPS = {"rnn": NumpyDecoder._rnn, "gru": NumpyDecoder._gru, "lstm": NumpyDecoder._lstm}


def expected_shapes(config: RNNConfig, vocab_size: int) -> dict[str, tuple[int, ...]]:
    """The shape of every weight by name."""
    gates = {"rnn": 1, "gru": 3, "lstm": 4}[config.cell] * config.hidden_size
    shapes: dict[str, tuple[int, ...]] = {}
    if config.embedding_size:
        shapes["embedding.weight"] = (vocab_size, config.embedding_size)
    for i in range(config.layers):
        below = config.hidden_size if i else config.embedding_size or vocab_size
        shapes |= {f"rnn.weight_ih_l{i}": (gates, below), f"rnn.weight_hh_l{i}": (gates, config.hidden_size)}
        shapes |= {f"rnn.bias_ih_l{i}": (gates,), f"rnn.bias_hh_l{i}": (gates,)}
    if not config.tied_weights:
        shapes["head.weight"] = (vocab_size, config.hidden_size)
    return shapes | {"head.bias": (vocab_size,)}


def check_shapes(tensors: Tensors, expected: dict[str, tuple[int, ...]]) -> None:
    """Raise ValueError saying which names or shapes are not as expected."""
    given = {name: tuple(array.shape) for name, array in tensors.items()}
    wrong = [
        f"{name} is {given.get(name, 'missing')}, and should be {expected.get(name, 'absent')}"
        for name in sorted({*expected, *given})
        if expected.get(name) != given.get(name)
    ]
    if wrong:
        raise ValueError("; ".join(wrong))


def _half_gates(config: RNNConfig, dtype: Any) -> Floats:
    """(G·H,) factors: one half for the gates that a sigmoid is applied to."""
    factors = {"rnn": [1.0], "gru": [0.5, 0.5, 1.0], "lstm": [0.5, 0.5, 1.0, 0.5]}[config.cell]
    return np.repeat(np.asarray(factors, dtype), config.hidden_size)


def _input_bias(config: RNNConfig, tensors: Tensors, layer: int) -> Floats:
    """(G·H,) both biases, but for the GRU's candidate, whose recurrent bias stays inside the reset gate."""
    bias = np.array(tensors[f"rnn.bias_ih_l{layer}"])
    recurrent = tensors[f"rnn.bias_hh_l{layer}"]
    added = 2 * config.hidden_size if config.cell == "gru" else len(bias)
    bias[:added] += recurrent[:added]
    return bias


def _sigmoid_of_twice(values: Floats) -> None:
    """sigmoid(2 x) = (1 + tanh(x)) / 2, in place."""
    np.tanh(values, out=values)
    values *= 0.5
    values += 0.5
