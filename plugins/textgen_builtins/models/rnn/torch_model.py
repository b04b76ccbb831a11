"""The recurrent network as a torch module, for training on any device."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from operator import attrgetter
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textgen.gradient import ForwardDecoder
from textgen.protocols import Decoder, Tensors
from textgen_builtins.models.rnn.config import RNNConfig
from textgen_builtins.models.rnn.layers import RecurrentLayers
from textgen_builtins.models.rnn.numpy_decoder import NumpyDecoder
from textgen_builtins.models.rnn.weights import Folded, check_shapes, expected_shapes

State: TypeAlias = tuple[Tensor, ...]
"""Per layer the hidden state, and for LSTMs the cell state after it, each (B, H)."""


class TorchRNN(nn.Module):
    """textgen.protocols.Model that trains by gradient.

    Each layer is a separate module, so that dropout between them can use its own generator: torch's
    stacked RNNs use the global one, which belongs to the user.

    compiled  computes steps of training on a CPU, with torch's numbers but for rounding; None
              leaves them to torch
    """

    def __init__(self, config: RNNConfig, vocab_size: int) -> None:
        super().__init__()
        self.config, self.vocab_size = config, vocab_size
        layer = getattr(nn, config.cell.upper())
        width = config.embedding_size or vocab_size
        if config.embedding_size:
            self.embedding = nn.Embedding(vocab_size, width, _weight=torch.empty(vocab_size, width))
        else:
            self.one_hot: Tensor
            self.register_buffer(
                "one_hot", torch.empty(vocab_size, vocab_size), persistent=False
            )  # see `create`
        sizes = [width] + [config.hidden_size] * (config.layers - 1)
        self.layers = nn.ModuleList(layer(size, config.hidden_size) for size in sizes)
        self.head = nn.Linear(config.hidden_size, vocab_size)
        if config.tied_weights:
            self.head.weight = self.embedding.weight
        self._dropout_generator: torch.Generator | None = None
        self._rows: tuple[int, int] | None = None
        self.compiled: RecurrentLayers | None = None

    @classmethod
    def create(
        cls,
        config: RNNConfig,
        vocab_size: int,
        *,
        seed: int,
        device: str,
        compiled: RecurrentLayers | None = None,
    ) -> TorchRNN:
        """A network with initial weights drawn from a generator of `seed` alone.

        As torch draws them, uniform within 1/sqrt(hidden_size) for cells and head, standard normal
        for the embedding, times 1/sqrt(hidden_size) if it is also the head.
        """
        # The meta device draws nothing from the global generator, and imports nothing if it is
        # uniform.
        with torch.device("meta"):
            module = cls(config, vocab_size)
        module.compiled = compiled
        for part in module.modules():  # to_empty would import hundreds of torch's modules
            for name, parameter in part._parameters.items():
                if parameter is not None:
                    setattr(part, name, nn.Parameter(torch.empty(parameter.shape, device=device)))
        if config.tied_weights:
            module.head.weight = module.embedding.weight
        if not config.embedding_size:
            module.one_hot = torch.eye(vocab_size, device=device)
        generator = torch.Generator().manual_seed(seed)
        bound = 1 / math.sqrt(config.hidden_size)
        with torch.no_grad():
            for name, parameter in module._named_tensors().items():
                values = torch.empty(parameter.shape)
                if name == "embedding.weight":
                    values.normal_(generator=generator).mul_(bound if config.tied_weights else 1)
                else:
                    values.uniform_(-bound, bound, generator=generator)
                parameter.copy_(values)
        for layer in module.layers:
            assert isinstance(layer, nn.RNNBase)
            layer.flatten_parameters()
        return module

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """tokens (B, T) int64 to logits (B, T, V) and the state after them."""
        table = self.embedding.weight if self.config.embedding_size else self.one_hot
        table = self._masked(table, self.config.embedding_dropout)
        if tokens.is_floating_point():
            raise TypeError(f"tokens must be integers, and are {tokens.dtype}; use tokens.long()")
        tokens = tokens.long()
        compiled = self._usable_layers() if tokens.numel() > 0 else None
        # Time first, as the cells expect; the transposed result is a view and costs nothing.
        rows = tokens.T if compiled is not None and len(table) <= tokens.numel() else None
        x = F.embedding(tokens.T, table) if rows is None else table  # (T, B, E)
        after: list[Tensor] = []
        parts = 2 if self.config.cell == "lstm" else 1
        for i, layer in enumerate(self.layers):
            carried = () if state is None else state[parts * i : parts * (i + 1)]
            weight: Any = layer.weight_hh_l0
            weight = self._masked(weight, self.config.weight_drop)
            if compiled is not None:
                weights = layer.weight_ih_l0, weight, layer.bias_ih_l0, layer.bias_hh_l0
                cell, read = self.config.cell, rows if i == 0 else None
                x, *last = compiled.run(cell, x, read, weights, carried)  # type: ignore[arg-type]
            else:
                x, *last = self._torchs(layer, x, weight, carried)
            after += last
            x = self._dropout(x, self.config.dropout)
        self._rows = None
        return self.head(x).transpose(0, 1), tuple(after)

    def _usable_layers(self) -> RecurrentLayers | None:
        """The compiled layers, if a step of training is faster by them here."""
        given = self.head.bias
        is_training = torch.is_grad_enabled()
        if self.compiled is None or not is_training or given.device.type != "cpu":
            return None
        if given.dtype != torch.float32:
            return None
        in_bfloat16 = torch.is_autocast_enabled("cpu")
        size = self.config.hidden_size
        is_faster = self.compiled.is_faster(self.config.cell, size, in_bfloat16)
        return self.compiled if is_faster else None

    def set_dropout_seed(self, seed: int) -> None:
        """Make the dropout of the next step depend on `seed` alone."""
        self._dropout_generator = torch.Generator(self.head.bias.device).manual_seed(seed)

    def set_rows(self, first: int, total: int) -> None:
        """Make the dropout of the next step that of these rows of a batch of `total`, whoever
        computes the others.
        """
        self._rows = (first, total)

    def decoder(self, batch_size: int) -> Decoder:
        """NumPy on a CPU, where later changes of the weights do not affect it; torch elsewhere."""
        if self.head.bias.device.type == "cpu":
            return NumpyDecoder(Folded.of(self.config, self.tensors()), batch_size)
        return ForwardDecoder(self, batch_size)

    def tensors(self) -> Tensors:
        """The weights; on a CPU they share memory with the module."""
        return {name: p.detach().cpu().numpy() for name, p in self._named_tensors().items()}

    def load_tensors(self, tensors: Tensors) -> None:
        """Copy weights in. Raises ValueError if names or shapes differ."""
        check_shapes(tensors, expected_shapes(self.config, self.vocab_size))
        with torch.no_grad():
            for name, parameter in self._named_tensors().items():
                if not isinstance(parameter, nn.Parameter):
                    raise ValueError(f"{name} is computed from others; load it before that begins")
                parameter.copy_(torch.from_numpy(np.ascontiguousarray(tensors[name])))

    def _named_tensors(self) -> dict[str, Any]:
        """The parameters by the names that torch's stacked cells use, in the order of
        `expected_shapes`.
        """
        named = {}
        for name in expected_shapes(self.config, self.vocab_size):
            if name.startswith("rnn."):
                kind, _, index = name.removeprefix("rnn.").rpartition("_l")
                named[name] = getattr(self.layers[int(index)], f"{kind}_l0")
            else:
                named[name] = attrgetter(name)(self)
        return named

    def _dropout(self, x: Tensor, p: float) -> Tensor:
        """x (T, B, N) with a share p of it set to zero in training, the same at every time."""
        if not (p and self.training):
            return x
        rows = x.shape[1]
        first, total = self._rows or (0, rows)
        shape = (1, total, x.shape[2])
        mask = torch.empty(shape, dtype=x.dtype, device=x.device).bernoulli_(
            1 - p, generator=self._dropout_generator
        )
        return x * mask[:, first : first + rows].div_(1 - p)

    def _masked(self, weight: Tensor, p: float) -> Tensor:
        """A weight with a share p of it set to zero in training."""
        if not (p and self.training):
            return weight
        return weight * torch.empty_like(weight).bernoulli_(
            1 - p, generator=self._dropout_generator
        ).div_(1 - p)

    def _torchs(self, layer: Any, x: Tensor, weight: Tensor, carried: State) -> Sequence[Tensor]:
        """One layer's outputs (T, B, H) with this recurrent matrix, and its state after them.

        On a GPU in float32: cuDNN has no recurrent layers in bfloat16, and torch's autocast would
        take float16, in which gradients that are not scaled vanish.
        """
        cell = self.config.cell
        weights = [layer.weight_ih_l0, weight, layer.bias_ih_l0, layer.bias_hh_l0]
        with torch.autocast("cuda", enabled=False) if x.is_cuda else contextlib.nullcontext():
            x = x.float() if x.is_cuda else x
            before = [part[None].contiguous() for part in carried]
            if not before:
                before = [x.new_zeros(1, x.shape[1], weight.shape[1])] * 2
            run: Any = getattr(torch, "rnn_tanh" if cell == "rnn" else cell)
            state = before if cell == "lstm" else before[0]
            x, *last = run(x, state, weights, True, 1, 0.0, self.training, False, False)
        return x, *(part[0] for part in last)

    def parameter_roles(self) -> dict[str, str]:
        """The weight of the head, unless it is the embedding's."""
        return {} if self.config.tied_weights else {"head.weight": "head"}
