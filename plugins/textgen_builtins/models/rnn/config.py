"""The options of the recurrent language model."""

from __future__ import annotations

from typing import Literal

import attrs
from attrs.validators import and_, ge, lt

from textgen import option


@attrs.frozen
class RNNConfig:
    """A recurrent network, plain, GRU or LSTM: one-hot or embedded tokens, layers of cells, a head.

    The formulas are those of torch.nn.RNN, GRU and LSTM, with two biases. Dropout is locked: a
    window has one mask for all of its positions. Dropout, embedding dropout and weight drop are
    those of Merity, Keskar and Socher, "Regularizing and optimizing LSTM language models" (2018).
    With the package textgen-fast, layers whose size is a multiple of 32 are compiled for the
    processor to train on a CPU: see docs/training.md.
    """

    cell: Literal["rnn", "gru", "lstm"] = option(
        "rnn", help='type of the recurrent cell; "rnn" is a plain one with tanh'
    )
    hidden_size: int = option(256, help="units of each layer", validator=and_(ge(1), lt(1 << 20)))
    layers: int = option(1, help="number of stacked layers", validator=and_(ge(1), lt(1000)))
    dropout: float = option(
        0.0,
        help="share of each layer's outputs set to zero in training",
        validator=and_(ge(0), lt(1)),
    )
    embedding_dropout: float = option(
        0.0,
        help="share of the embedding's values set to zero in each training step, wherever "
        "their tokens are read",
        validator=and_(ge(0), lt(1)),
    )
    weight_drop: float = option(
        0.0,
        help="share of the recurrent weights set to zero in each training step",
        validator=and_(ge(0), lt(1)),
    )
    embedding_size: int = option(
        0,
        help="size of the token embedding; 0 feeds tokens one-hot",
        validator=and_(ge(0), lt(1 << 20)),
    )
    tied_weights: bool = option(
        False,
        help="use the embedding as the weight of the head; needs embedding_size = hidden_size",
    )

    def __attrs_post_init__(self) -> None:
        if self.tied_weights and self.embedding_size != self.hidden_size:
            raise ValueError(
                f"tied_weights needs embedding_size = hidden_size, given "
                f"{self.embedding_size} and {self.hidden_size}"
            )
