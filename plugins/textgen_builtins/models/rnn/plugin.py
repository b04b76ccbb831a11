"""The recurrent language model: plain RNN, GRU or LSTM."""

from __future__ import annotations

from typing import Any

from textgen import BuildContext, Component, hookimpl
from textgen_builtins.models.rnn.config import RNNConfig


def build(config: RNNConfig, context: BuildContext) -> Any:
    """A torch.nn.Module to train, or on a CPU a model without torch that only decodes."""
    if not context.training and context.device == "cpu":
        from textgen_builtins.models.rnn.numpy_decoder import NumpyRNN

        return NumpyRNN(config, context.vocab_size)
    from textgen_builtins.models.rnn.torch_model import TorchRNN

    return TorchRNN.create(config, context.vocab_size, seed=context.seed, device=context.device)


@hookimpl
def textgen_models() -> list[Component]:
    """Offer `rnn`."""
    return [Component("rnn", RNNConfig, build)]
