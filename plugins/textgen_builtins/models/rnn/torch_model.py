"""The recurrent network as a torch module, for training on any device and for decoding on a GPU."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Self, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from textgen.protocols import Decoder, Ids, Tensors
from textgen_builtins.models.rnn.config import RNNConfig
from textgen_builtins.models.rnn.numpy_decoder import NumpyDecoder
from textgen_builtins.models.rnn.weights import Folded, check_shapes, expected_shapes, is_bounded

_EAGER_STEPS: Final = 3  # single steps before a graph is worth its capture

State: TypeAlias = tuple[Tensor, ...]
"""Per layer the hidden state, and for LSTMs the cell state after it, each (B, H)."""


class TorchRNN(nn.Module):
    """textgen.protocols.Model that trains by gradient.

    Each layer is a separate module, so that dropout between them can use its own generator: torch's stacked RNNs use
    the global one, which belongs to the user.
    """

    def __init__(self, config: RNNConfig, vocab_size: int) -> None:
        super().__init__()
        self.config, self.vocab_size = config, vocab_size
        cells: dict[str, Any] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
        extra = {"nonlinearity": config.nonlinearity} if config.cell == "rnn" else {}
        width = config.embedding_size or vocab_size
        if config.embedding_size:
            self.embedding = nn.Embedding(vocab_size, width, _weight=torch.empty(vocab_size, width))
        else:
            self.one_hot: Tensor
            self.register_buffer("one_hot", torch.empty(vocab_size, vocab_size), persistent=False)  # see `create`
        sizes = [width] + [config.hidden_size] * (config.layers - 1)
        self.layers = nn.ModuleList(cells[config.cell](size, config.hidden_size, **extra) for size in sizes)
        self.head = nn.Linear(config.hidden_size, vocab_size)
        if config.tied_weights:
            self.head.weight = self.embedding.weight
        self._dropout_generator: torch.Generator | None = None
        self._rows: tuple[int, int] | None = None

    @classmethod
    def create(cls, config: RNNConfig, vocab_size: int, *, seed: int, device: str) -> TorchRNN:
        """A network with initial weights drawn from a generator of `seed` alone.

        As torch draws them, uniform within 1/sqrt(hidden_size) for cells and head, standard normal for the embedding,
        times 1/sqrt(hidden_size) if it is also the head.
        """
        with torch.device("meta"):  # draws nothing from the global generator, and imports nothing if it is uniform
            module = cls(config, vocab_size)
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
        made = self.run(tokens, state, dropout=self.training)
        self._rows = None
        return made

    def run(self, tokens: Tensor, state: State | None, *, dropout: bool) -> tuple[Tensor, State]:
        """`forward` with or without dropout, whatever the module's mode."""
        # Time first, as the cells expect; the transposed result is a view and costs nothing.
        table = self.embedding.weight if self.config.embedding_size else self.one_hot
        x = F.embedding(tokens.T, table)  # (T, B, E)
        x = self._dropout(x, self.config.input_dropout) if dropout else x
        after: list[Tensor] = []
        for i, layer in enumerate(self.layers):
            run = self._weight_dropped(layer) if dropout and self.config.recurrent_dropout else layer
            x, carried = run(x, self._carried(state, i))  # (T, B, H)
            after += [part[0] for part in (carried if isinstance(carried, tuple) else (carried,))]
            x = self._dropout(x, self.config.dropout) if dropout else x
        return self.head(x).transpose(0, 1), tuple(after)

    def set_dropout_seed(self, seed: int) -> None:
        """Make the dropout of the next step depend on `seed` alone."""
        if self.config.dropout or self.config.input_dropout or self.config.recurrent_dropout:
            device = self.head.bias.device
            self._dropout_generator = torch.Generator(device).manual_seed(seed)

    def set_rows(self, first: int, total: int) -> None:
        """Make the dropout of the next step that of these rows of a batch of `total`, whoever computes the others."""
        self._rows = (first, total)

    def decoder(self, batch_size: int) -> Decoder:
        """NumPy on a CPU, torch elsewhere. On a CPU, later changes of the weights do not affect it."""
        if self.head.bias.device.type == "cpu":
            return NumpyDecoder(Folded.of(self.config, self.tensors()), batch_size)
        return TorchDecoder(self, batch_size)

    def tensors(self) -> Tensors:
        """The weights; on a CPU they share memory with the module."""
        return {name: p.detach().cpu().numpy() for name, p in self._named_tensors().items()}

    def load_tensors(self, tensors: Tensors) -> None:
        """Copy weights in. Raises ValueError if names or shapes differ."""
        check_shapes(tensors, expected_shapes(self.config, self.vocab_size))
        with torch.no_grad():
            for name, parameter in self._named_tensors().items():
                parameter.copy_(torch.from_numpy(np.ascontiguousarray(tensors[name])))

    def _named_tensors(self) -> dict[str, nn.Parameter]:
        """The parameters by the names that torch's stacked cells use, in the order of `expected_shapes`."""
        named = {}
        for name in expected_shapes(self.config, self.vocab_size):
            if name.startswith("rnn."):
                kind, _, index = name.removeprefix("rnn.").rpartition("_l")
                named[name] = getattr(self.layers[int(index)], f"{kind}_l0")
            else:
                named[name] = self.get_parameter(name)
        return named

    def _carried(self, state: State | None, layer: int) -> Any:
        """One layer's state as its module expects it: (1, B, H), or a pair of them."""
        if state is None:
            return None
        if self.config.cell != "lstm":
            return state[layer][None]
        return state[2 * layer][None].contiguous(), state[2 * layer + 1][None].contiguous()

    def _dropout(self, x: Tensor, p: float) -> Tensor:
        """x (T, B, N) with a share p of it set to zero."""
        if not p:
            return x
        rows = x.shape[1]
        first, total = self._rows or (0, rows)
        shape = (1 if self.config.locked_dropout else x.shape[0], total, x.shape[2])
        mask = torch.empty(shape, dtype=x.dtype, device=x.device).bernoulli_(1 - p, generator=self._dropout_generator)
        return x * mask[:, first : first + rows].div_(1 - p)

    def _weight_dropped(self, layer: nn.Module) -> Callable[..., Any]:
        """The layer with another mask over its recurrent matrix."""
        weight = layer.get_parameter("weight_hh_l0")
        mask = torch.empty_like(weight).bernoulli_(1 - self.config.recurrent_dropout, generator=self._dropout_generator)
        dropped = weight * mask.div_(1 - self.config.recurrent_dropout)
        return partial(_call_with, layer, {"weight_hh_l0": dropped})

    def parameter_roles(self) -> dict[str, str]:
        """The weight of the head, unless it is the embedding's."""
        return {} if self.config.tied_weights else {"head.weight": "head"}


def _call_with(layer: nn.Module, weights: dict[str, Tensor], *arguments: Any) -> Any:
    return functional_call(layer, weights, arguments)


class TorchDecoder:
    """textgen.protocols.RowDecoder and GreedyDecoder on the module's device, without dropout.

    On CUDA a step of one token is launched as one graph: the launch of its small kernels costs more than they do.
    """

    exact_rows: Final = False  # the kernels of another batch size may round differently

    def __init__(self, module: TorchRNN, batch_size: int) -> None:
        self._module = module
        self._device = module.head.bias.device
        parts = module.config.layers * (2 if module.config.cell == "lstm" else 1)
        self._state: State = tuple(
            torch.zeros(batch_size, module.config.hidden_size, device=self._device) for _ in range(parts)
        )
        self._graph: StepGraph | None = None
        self._single_steps = 0
        self._bounded: bool | None = None  # whether logits are always finite; None until it is needed

    @property
    def batch_size(self) -> int:
        """B."""
        return len(self._state[0])

    @torch.no_grad()
    def extend(self, tokens: Ids) -> Tensor:
        """Logits (B, V) after `tokens` (B, T)."""
        if not tokens.shape[1]:
            last = self._state[-2 if self._module.config.cell == "lstm" else -1]
            start: Tensor = self._module.head(last)
            return start
        ids = torch.from_numpy(np.ascontiguousarray(tokens, np.int64))
        return self._step(ids) if tokens.shape[1] == 1 else self._run(ids)[:, -1]

    @torch.no_grad()
    def score(self, tokens: Ids) -> Tensor:
        """Logits (B, T, V) after each of `tokens` (B, T)."""
        return self._run(torch.from_numpy(np.ascontiguousarray(tokens, np.int64)))

    @torch.no_grad()
    def continue_greedily(self, tokens: Ids, steps: int, forbidden: Sequence[int]) -> Ids:
        """The (B, steps) most likely tokens after `tokens` (B,); the CPU waits for the device once, at the end.

        (B, 0) if a logit might not be finite.
        """
        if self._bounded is None:
            finite = all(bool(part.isfinite().all()) for part in self._state)
            magnitude = float(sum(weights.abs().sum(dtype=torch.float64) for weights in self._module.parameters()))
            self._bounded = finite and is_bounded(self._module.config, magnitude)
        if not self._bounded:
            return np.empty((len(tokens), 0), np.int64)
        made = torch.empty(steps, len(tokens), dtype=torch.int64, device=self._device)
        never = torch.tensor(tuple(forbidden), dtype=torch.int64, device=self._device)
        ids = torch.from_numpy(np.array(tokens, np.int64))[:, None]
        for step in range(steps):
            logits = self._step(ids).index_fill(1, never, -torch.inf)
            torch.argmax(logits, dim=1, out=made[step])
            ids = made[step, :, None]
        return made.T.cpu().numpy()

    def _step(self, ids: Tensor) -> Tensor:
        """Logits (B, V) after one token for each sequence, `ids` (B, 1)."""
        if self._device.type == "cuda":
            self._single_steps += 1
            if self._graph is None and self._single_steps > _EAGER_STEPS:
                self._graph = StepGraph(self._module, self._state)
            if self._graph is not None:
                return self._graph.step(ids)
        return self._run(ids)[:, -1]

    def _run(self, ids: Tensor) -> Tensor:
        """Logits (B, T, V) after each of `ids` (B, T)."""
        logits, after = self._module.run(ids.to(self._device), self._state, dropout=False)
        for part, new in zip(self._state, after, strict=True):
            part.copy_(new)  # in place: a captured graph uses these very tensors
        return logits

    def read_state(self) -> Tensors:
        """The same as NumpyDecoder's, so that either continues from the other's."""
        step = len(self._state) // self._module.config.layers
        state = {"hidden": torch.stack(self._state[::step], dim=1).cpu().numpy()}
        if step == 2:
            state["cell"] = torch.stack(self._state[1::2], dim=1).cpu().numpy()
        return state

    def write_state(self, state: Tensors) -> None:
        """Continue from a state that `read_state` gave, or from rows of one."""
        parts = [state[name] for name in ("hidden", "cell") if name in state]
        layers = range(self._module.config.layers)
        self._state = tuple(
            torch.from_numpy(part[:, layer].copy()).to(self._device) for layer in layers for part in parts
        )
        self._begin_anew()

    @torch.no_grad()
    def take(self, rows: Sequence[int]) -> Self:
        """Another decoder with these rows, in this order; nothing leaves the device."""
        taken = type(self)(self._module, len(rows))
        index = torch.tensor(tuple(rows), dtype=torch.int64, device=self._device)
        taken._state = tuple(part.index_select(0, index) for part in self._state)
        taken._bounded = self._bounded or None  # what is finite for all rows is so for some
        return taken

    @torch.no_grad()
    def join(self, other: Self) -> None:
        """Append the rows of another decoder of the model, which is not used any more."""
        self._state = tuple(torch.cat(both) for both in zip(self._state, other._state, strict=True))
        self._begin_anew()

    def _begin_anew(self) -> None:
        """Drop what was made for the tensors of another state."""
        self._graph, self._single_steps, self._bounded = None, 0, None


class StepGraph:
    """A step of one token for each sequence, captured as a CUDA graph that reads and writes fixed tensors."""

    def __init__(self, module: TorchRNN, state: State) -> None:
        self._tokens = torch.zeros(len(state[0]), 1, dtype=torch.int64, device=state[0].device)
        before = tuple(part.clone() for part in state)
        stream = torch.cuda.Stream(state[0].device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(state[0].device))
        with torch.cuda.stream(stream):  # libraries initialise in a first run, which is not allowed in a capture
            for _ in range(2):
                module.run(self._tokens, state, dropout=False)
        torch.cuda.current_stream(state[0].device).wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            logits, after = module.run(self._tokens, state, dropout=False)
            for part, new in zip(state, after, strict=True):
                part.copy_(new)
            self._logits = logits[:, -1]
        for part, kept in zip(state, before, strict=True):
            part.copy_(kept)

    def step(self, tokens: Tensor) -> Tensor:
        """Feed `tokens` (B, 1) and return logits (B, V), which the next step overwrites."""
        self._tokens.copy_(tokens)
        self._graph.replay()
        return self._logits
