"""The options of the recurrent language model."""

from __future__ import annotations

from typing import Literal

import attrs
from attrs.validators import and_, ge, lt

from textgen import option


@attrs.frozen
class RNNConfig:
    """A recurrent network: tokens one-hot or embedded, layers of cells, a linear head.

    The formulas are those of torch.nn.RNN, GRU and LSTM, two biases included.
    """

    cell: Literal["rnn", "gru", "lstm"] = option("rnn", help="the recurrence")
    nonlinearity: Literal["tanh", "relu"] = option("tanh", help='what the cell "rnn" applies; others ignore it')
    hidden_size: int = option(256, help="units of each layer", validator=and_(ge(1), lt(1 << 20)))
    layers: int = option(1, help="cells stacked on each other", validator=and_(ge(1), lt(1000)))
    dropout: float = option(
        0.0, help="share of each layer's outputs set to zero while training", validator=and_(ge(0), lt(1))
    )
    embedding_size: int = option(
        0, help="numbers that stand for a token; 0 feeds it one-hot", validator=and_(ge(0), lt(1 << 20))
    )
    tied_weights: bool = option(
        False, help="use the embedding as the head's weight too; needs embedding_size = hidden_size"
    )

    def __attrs_post_init__(self) -> None:
        if self.tied_weights and self.embedding_size != self.hidden_size:
            raise ValueError(
                f"tied_weights needs embedding_size = hidden_size, given {self.embedding_size} and {self.hidden_size}"
            )
