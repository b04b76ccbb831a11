"""The recurrent network's weights: their shapes by name, and their form for decoding.

Three things make a step cheap. The one-hot or embedded token times the input matrix, biases added,
is one row of a table computed at load. A layer's recurrent matrix and the matrix applied to its
output (the next layer's input matrix, or the head) stand side by side, with the biases below, so a
layer is one product. And the factor of a sigmoid's argument is folded into the weights: the half of
(1 + tanh(x / 2)) / 2 in an LSTM, whose gates are then one tanh, and the minus of 1 / (1 + exp(-x))
in a GRU, whose update gate has to be exact near 0.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import attrs
import numpy as np
import numpy.typing as npt

from textgen.protocols import Tensors
from textgen_builtins.models.rnn.config import RNNConfig
from textgen_builtins.models.rnn.large_products import SHARED_FROM, multiply_in_parts

Floats: TypeAlias = npt.NDArray[np.floating[Any]]

_COLUMN_MAJOR_FROM: Final = (
    384  # units from which BLAS is faster with a column-major matrix; measured
)
_ROW_BY_ROW: Final = (
    500_000_000  # multiplications that take one thread less time than BLAS's threads then waste
)
_LANES: Final = 16  # product widths are multiples of it: BLAS computes remainders one by one


@attrs.frozen(eq=False)
class Folded:
    """The weights of a network, prepared for decoding.

    table     (V, G·H) the first layer's input for each token, biases added
    products  per layer (H + 1, G·H + out, padded): from its output, and a 1 for the biases, to the
              gates' recurrent part and to the next layer's input or the logits
    rows      those of the table, each (G·H,)
    """

    config: RNNConfig
    vocab_size: int
    table: Floats
    products: tuple[Floats, ...]
    rows: list[Any]

    @classmethod
    def of(cls, config: RNNConfig, tensors: Tensors) -> Folded:
        """Fold weights under the names of `expected_shapes`."""
        head = tensors["embedding.weight" if config.tied_weights else "head.weight"]
        dtype = head.dtype
        factors = _gate_factors(config, dtype)
        # The input weights and biases of each layer; the head comes after the last.
        ups = [tensors[f"rnn.weight_ih_l{i}"] * factors[:, None] for i in range(config.layers)] + [
            head
        ]
        biases = [_input_bias(config, tensors, i) * factors for i in range(config.layers)] + [
            tensors["head.bias"]
        ]
        inputs = (
            _multiplied(tensors["embedding.weight"], ups[0].T)
            if config.embedding_size
            else ups[0].T
        )
        table = np.ascontiguousarray(inputs + biases[0])
        products = []
        for i in range(config.layers):
            recurrent = tensors[f"rnn.weight_hh_l{i}"] * factors[:, None]
            used = len(recurrent) + len(ups[i + 1])
            product = np.zeros((config.hidden_size + 1, -(-used // _LANES) * _LANES), dtype)
            product[:-1, :used] = np.concatenate([recurrent, ups[i + 1]]).T
            product[-1, len(recurrent) : used] = biases[i + 1]
            if config.cell == "gru":  # the candidate's recurrent bias stays inside the reset gate
                product[-1, 2 * config.hidden_size : len(recurrent)] = tensors[f"rnn.bias_hh_l{i}"][
                    -config.hidden_size :
                ]
            column_major = config.hidden_size > _COLUMN_MAJOR_FROM or product.size >= SHARED_FROM
            products.append(np.asfortranarray(product) if column_major else product)
        return cls(config, len(head), table, tuple(products), list(table))


def expected_shapes(config: RNNConfig, vocab_size: int) -> dict[str, tuple[int, ...]]:
    """The shape of every weight by name."""
    gates = {"gru": 3, "lstm": 4}.get(config.cell, 1) * config.hidden_size
    shapes: dict[str, tuple[int, ...]] = {}
    if config.embedding_size:
        shapes["embedding.weight"] = (vocab_size, config.embedding_size)
    for i in range(config.layers):
        below = config.hidden_size if i else config.embedding_size or vocab_size
        shapes |= {
            f"rnn.weight_ih_l{i}": (gates, below),
            f"rnn.weight_hh_l{i}": (gates, config.hidden_size),
        }
        shapes |= {f"rnn.bias_ih_l{i}": (gates,), f"rnn.bias_hh_l{i}": (gates,)}
    if not config.tied_weights:
        shapes["head.weight"] = (vocab_size, config.hidden_size)
    return shapes | {"head.bias": (vocab_size,)}


def check_shapes(tensors: Tensors, expected: dict[str, tuple[int, ...]]) -> None:
    """Raise ValueError that says which names or shapes are not as expected, or are no floats."""
    given = {
        name: tuple(array.shape) if array.dtype.kind == "f" else str(array.dtype)
        for name, array in tensors.items()
    }
    wrong = [
        f"{name} is {given.get(name, 'missing')}, and should be {expected.get(name, 'absent')}"
        for name in sorted({*expected, *given})
        if expected.get(name) != given.get(name)
    ]
    if wrong:
        raise ValueError("; ".join(wrong))


def _multiplied(rows: Floats, matrix: Floats) -> Floats:
    """`rows` (V, K) times `matrix` (K, N), row by row unless that takes long.

    BLAS shares a larger product among threads, which then wait for the next one at full speed for a
    tenth of a second: a training step that follows a sample would have to share its cores with
    them.
    """
    if len(rows) * matrix.size > _ROW_BY_ROW:
        return rows @ matrix
    product = np.empty((len(rows), matrix.shape[1]), rows.dtype)
    multiply_in_parts(rows[:, None], matrix, product[:, None])
    return product


def _gate_factors(config: RNNConfig, dtype: Any) -> Floats:
    """(G·H,) the factors of the gates' arguments, before their sigmoids."""
    factors = {"gru": [-1.0, -1.0, 1.0], "lstm": [0.5, 0.5, 1.0, 0.5]}.get(config.cell, [1.0])
    return np.repeat(np.asarray(factors, dtype), config.hidden_size)


def _input_bias(config: RNNConfig, tensors: Tensors, layer: int) -> Floats:
    """(G·H,) both biases, except for the GRU's candidate, whose recurrent bias stays inside the
    reset gate.
    """
    bias = np.array(tensors[f"rnn.bias_ih_l{layer}"])
    recurrent = tensors[f"rnn.bias_hh_l{layer}"]
    added = 2 * config.hidden_size if config.cell == "gru" else len(bias)
    bias[:added] += recurrent[:added]
    return bias
