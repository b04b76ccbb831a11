"""Two models as one, and its decoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final

import attrs
import numpy as np

from textgen.protocols import Array, Ids, Model, Tensors
from textgen_builtins.models.gate import Gate
from textgen_builtins.models.loss import Floats32, log_softmax

_PARTS: Final = ("first", "second")
_ROWS: Final = 64  # parts of a text that are read side by side, at most
_LEAD_TOKENS: Final = 256  # tokens that each begins early


@attrs.define(eq=False)
class Mixture:
    """textgen.protocols.Model that mixes two others by a gate.

    A part may be made of experts: it then has `expert_weights`, and its decoders `extend_experts`
    and `score_experts`, as those of NgramModel.

    Its weights are those of the parts, as `first.*` and `second.*`, and `gate.bias` and
    `gate.slopes` of a Gate.

    make_second   makes another second model as it was before training
    """

    trained_part: ClassVar = "the first model"
    """Whose training loss its trainer reports; see
    textgen_builtins.observers.run_files.LossPlot.
    """
    first: Model
    second: Model
    make_second: Callable[[], Model]
    gate: Gate = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.gate = Gate.fixed(self.prior)

    @property
    def prior(self) -> list[float]:
        """(E,) the weights of all experts that give both parts an equal say."""
        parts = [getattr(part, "expert_weights", (1.0,)) for part in (self.first, self.second)]
        return [weight / 2 for weights in parts for weight in weights]

    def decoder(self, batch_size: int) -> MixtureDecoder:
        """A decoder at the start states of both. Raises ValueError while a part has no weights."""
        return MixtureDecoder(self, batch_size)

    def tensors(self) -> Tensors:
        """The gate, and the weights of both parts."""
        tensors = self.gate.tensors()
        for name, part in zip(_PARTS, (self.first, self.second), strict=True):
            tensors |= {f"{name}.{key}": array for key, array in part.tensors().items()}
        return tensors

    def load_tensors(self, tensors: Tensors) -> None:
        """Load the weights of both parts and the gate.

        Raises ValueError where they are not those of this mixture.
        """
        for name, part in zip(_PARTS, (self.first, self.second), strict=True):
            try:
                part.load_tensors(_under(name, tensors))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
        self.gate = Gate.of_tensors(_under("gate", tensors), len(self.prior))


class MixtureDecoder:
    """textgen.protocols.Decoder that runs the decoders of both parts, and mixes what they give."""

    def __init__(self, mixture: Mixture, batch_size: int) -> None:
        self._gate = mixture.gate
        self._parts = [_Part(part, batch_size) for part in (mixture.first, mixture.second)]

    @property
    def batch_size(self) -> int:
        """B."""
        size: int = self._parts[0].decoder.batch_size
        return size

    def extend(self, tokens: Ids) -> Floats32:
        """Logits (B, V) of what follows `tokens` (B, T)."""
        return self._gate.mix(np.concatenate([part.extend(tokens) for part in self._parts], axis=1))

    def score(self, tokens: Ids) -> Floats32:
        """Logits (B, T, V) after each of `tokens` (B, T)."""
        logs = np.concatenate([part.score(tokens) for part in self._parts], axis=2)  # (B, T, E, V)
        mixed = self._gate.mix(logs.reshape(-1, *logs.shape[2:]))
        return mixed.reshape(*tokens.shape, -1)

    def read_state(self) -> Tensors:
        """The states of both, under `first.` and `second.`."""
        pairs = zip(_PARTS, self._parts, strict=True)
        return {
            f"{name}.{key}": array
            for name, part in pairs
            for key, array in part.decoder.read_state().items()
        }

    def write_state(self, state: Tensors) -> None:
        """Go on from a state that `read_state` gave, or rows of one."""
        for name, part in zip(_PARTS, self._parts, strict=True):
            part.decoder.write_state(_under(name, state))


def _under(name: str, tensors: Tensors) -> Tensors:
    """The tensors whose names begin with that of a part, by the rest of their names."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}


class _Part:
    """A decoder, of which it gives the log probabilities of each expert; a model without experts is
    its only one.
    """

    def __init__(self, model: Model, batch_size: int) -> None:
        self.decoder: Any = model.decoder(batch_size)
        self._has_experts = hasattr(model, "expert_weights")

    def extend(self, tokens: Ids) -> Floats32:
        """(B, E, V) after `tokens` (B, T)."""
        if self._has_experts:
            logs: Floats32 = self.decoder.extend_experts(tokens)
            return logs
        return log_softmax(self.decoder.extend(tokens))[:, None]

    def score(self, tokens: Ids) -> Floats32:
        """(B, T, E, V) after each of `tokens` (B, T)."""
        if self._has_experts:
            logs: Floats32 = self.decoder.score_experts(tokens)
            return logs
        return log_softmax(self.decoder.score(tokens))[:, :, None]


def expert_logs(model: Model, tokens: Ids, context: int) -> Floats32:
    """(N, E, V) the log probabilities of each expert after each of `tokens` (N,), N > 0, from the
    start state.

    A network reads no more than `context` tokens at once: some cannot.
    """
    ids = tokens.astype(np.int64)
    if hasattr(model, "parameters"):
        return log_softmax(_forward_in_rows(model, ids, context))[:, None]
    logs: Floats32 = _Part(model, 1).score(ids[None])[0]
    return logs


def _forward_in_rows(module: Any, tokens: Ids, context: int) -> Array:
    """Logits (N, V) of a torch module after each of `tokens` (N,), several times as fast as in one
    stream.

    The text is cut into parts that are read side by side. Each begins _LEAD_TOKENS tokens early, so
    what a network remembers from further back is missing; a short text is read in one go. On a CPU
    threads share the rows, each with one of torch's own: on a busy machine those of one product
    would wait for each other.
    """
    import torch

    from textgen.threads import worker_threads

    rows = max(1, min(_ROWS, len(tokens) // (2 * _LEAD_TOKENS)))
    length = -(-max(0, len(tokens) - _LEAD_TOKENS) // rows)
    indices = np.minimum(
        np.arange(rows)[:, None] * length + np.arange(_LEAD_TOKENS + length), len(tokens) - 1
    )
    training, device = module.training, next(module.parameters()).device
    module.eval()

    @torch.no_grad()
    def logits_of(part: Any) -> Any:  # (rows of the part, _LEAD_TOKENS + length, V)
        ids, state, pieces = torch.from_numpy(part).to(device), None, []
        for start in range(0, ids.shape[1], context):
            logits, state = module(ids[:, start : start + context], state)
            pieces.append(logits)
        return torch.cat(pieces, dim=1)

    shares = min(rows, torch.get_num_threads()) if device.type == "cpu" else 1
    if shares == 1:
        parts = [logits_of(tokens[indices])]
    else:
        threads = worker_threads(shares)
        made = [
            thread.submit(logits_of, tokens[part])
            for thread, part in zip(threads, np.array_split(indices, shares), strict=True)
        ]
        for thread in threads:
            thread.shutdown()
        parts = [part.result() for part in made]
    module.train(training)
    logits = torch.cat(parts)
    return torch.cat([logits[0], logits[1:, _LEAD_TOKENS:].flatten(0, 1)])[: len(tokens)]
