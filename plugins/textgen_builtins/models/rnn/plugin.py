"""The recurrent language model: plain RNN, GRU or LSTM."""

from __future__ import annotations

from typing import Any, Final

from textgen import BuildContext, Component, UsageError, hookimpl
from textgen_builtins.models.rnn.config import RNNConfig

_MOST_ONE_HOT: Final = 1 << 15  # tokens, whose identity matrix takes 4 GiB


def build(config: RNNConfig, context: BuildContext) -> Any:
    """A torch.nn.Module to train, or on a CPU a model without torch that only decodes."""
    if not context.training and context.device == "cpu":
        from textgen_builtins.models.rnn.numpy_decoder import NumpyRNN

        return NumpyRNN(config, context.vocab_size)
    if context.training and not config.embedding_size and context.vocab_size > _MOST_ONE_HOT:
        cause = f"a vocabulary of {context.vocab_size:,} tokens is too large to be fed one-hot"
        raise UsageError(cause, argument="model.embedding_size", suggestion="set it, as to 256")
    from textgen_builtins.models.rnn.layers import offered_layers
    from textgen_builtins.models.rnn.torch_model import TorchRNN

    device = context.device
    compiled = offered_layers(context) if device == "cpu" else None
    return TorchRNN.create(
        config, context.vocab_size, seed=context.seed, device=device, compiled=compiled
    )


@hookimpl
def textgen_models() -> list[Component]:
    """Offer `rnn`."""
    return [Component("rnn", RNNConfig, build)]
