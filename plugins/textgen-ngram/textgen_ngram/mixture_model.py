"""Two models as one, which carries both in its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import numpy as np

from textgen import BuildContext, Engine, Generator, PipelineError, UsageError
from textgen.protocols import Array, Decoder, Ids, Model, Tensors
from textgen_ngram.mixture import MixtureConfig
from textgen_ngram.smoothing import Floats

PARTS: Final = ("first", "second")


@attrs.frozen(eq=False)
class Part:
    """A model of the mixture, and the JSON record to make it again: its TOML table, and the package it came with."""

    model: Model
    record: Mapping[str, Any]


@attrs.define(eq=False)
class Mixture:
    """textgen.protocols.Model: P = weight · P of the first part + (1 - weight) · P of the second.

    Its weights are `weight` (1,) float64 and, for each part, `first.record` (N,) uint8, the UTF-8 of a JSON record, and
    `first.weights.*`, the part's own. So it loads where the two runs are not.
    """

    context: BuildContext
    parts: tuple[Part, ...] = ()
    weight: float = 0.5

    @classmethod
    def of_runs(cls, config: MixtureConfig, context: BuildContext) -> Mixture:
        """The mixture of two finished runs. Raises UsageError where their vocabulary is not the pipeline's."""
        engine = Engine(context.plugins)
        return cls(context, tuple(_load_run(engine, path, context) for path in (config.first, config.second)))

    def decoder(self, batch_size: int) -> MixtureDecoder:
        """A decoder at the start states of both. Raises ValueError before weights are loaded."""
        if not self.parts:
            raise ValueError("the model has no weights yet")
        return MixtureDecoder([part.model.decoder(batch_size) for part in self.parts], self.weight)

    def tensors(self) -> Tensors:
        """The weight, and both parts with what it takes to make them again."""
        tensors: Tensors = {"weight": np.array([self.weight])}
        for name, part in zip(PARTS, self.parts, strict=False):
            tensors[f"{name}.record"] = np.frombuffer(json.dumps(part.record, sort_keys=True).encode(), np.uint8)
            tensors |= {f"{name}.weights.{key}": array for key, array in part.model.tensors().items()}
        return tensors

    def load_tensors(self, tensors: Tensors) -> None:
        """Make both parts and take over their weights. Raises PipelineError where a plugin is missing, ValueError."""
        missing = {"weight", *(f"{name}.record" for name in PARTS)} - tensors.keys()
        if missing:
            raise ValueError(f"there is no {', '.join(sorted(missing))}")
        weight = tensors["weight"]
        if weight.shape != (1,) or weight.dtype != np.float64 or not 0 <= weight[0] <= 1:
            raise ValueError(f"weight must be one float64 from 0 to 1, and is {weight.dtype} {weight.tolist()}")
        self.parts = tuple(self._make_part(name, tensors) for name in PARTS)
        self.weight = float(weight[0])

    def _make_part(self, name: str, tensors: Tensors) -> Part:
        record = json.loads(tensors[f"{name}.record"].tobytes())
        source = f"the {name} model of the mixture (it came with {record['distribution']} {record['version']})"
        context = attrs.evolve(self.context, training=False, seed=record["seed"])
        try:
            model: Model = Engine(context.plugins).build("model", record["table"], context)
        except PipelineError as error:
            raise PipelineError(error.faults, source) from None
        prefix = f"{name}.weights."
        try:
            model.load_tensors({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        return Part(model, record)


class MixtureDecoder:
    """textgen.protocols.Decoder that runs the decoders of both parts."""

    def __init__(self, decoders: list[Decoder], weight: float) -> None:
        self._decoders = decoders
        with np.errstate(divide="ignore"):  # a weight of 0 is a logarithm of -inf, which leaves a part out
            self._log_weights = np.log([weight, 1 - weight])

    @property
    def batch_size(self) -> int:
        """B."""
        return self._decoders[0].batch_size

    def extend(self, tokens: Ids) -> Floats:
        """Log probabilities (B, V) of what follows `tokens` (B, T)."""
        return self._mix([decoder.extend(tokens) for decoder in self._decoders])

    def score(self, tokens: Ids) -> Floats:
        """Log probabilities (B, T, V) after each of `tokens` (B, T)."""
        return self._mix([decoder.score(tokens) for decoder in self._decoders])

    def read_state(self) -> Tensors:
        """The states of both, under `first.` and `second.`."""
        pairs = zip(PARTS, self._decoders, strict=True)
        return {f"{name}.{key}": array for name, decoder in pairs for key, array in decoder.read_state().items()}

    def write_state(self, state: Tensors) -> None:
        """Go on from a state that `read_state` gave, or rows of one."""
        for name, decoder in zip(PARTS, self._decoders, strict=True):
            prefix = f"{name}."
            decoder.write_state({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})

    def _mix(self, logits: list[Array]) -> Floats:
        first, second = (log_softmax(part) for part in logits)
        mixed: Floats = np.logaddexp(first + self._log_weights[0], second + self._log_weights[1])
        return mixed


def log_softmax(logits: Array) -> Floats:
    """Log probabilities (..., V) float64 in NumPy of logits, which may be on a GPU."""
    values = np.array(logits.cpu() if hasattr(logits, "cpu") else logits, np.float64)
    values -= values.max(axis=-1, keepdims=True)
    values -= np.log(np.exp(values).sum(axis=-1, keepdims=True))
    return values


def _load_run(engine: Engine, path: Path, context: BuildContext) -> Part:
    generator = engine.load(path, device=context.requested_device)
    _check_vocabulary(generator, path, context)
    origin = next(component for component in generator.record["components"] if component["kind"] == "model")
    record = {
        "table": {**generator.tables["model"], "type": f"{origin['distribution']}:{origin['name']}"},
        "seed": generator.seed,
        "distribution": origin["distribution"],
        "version": origin["version"],
    }
    return Part(generator.model, record)


def _check_vocabulary(generator: Generator, path: Path, context: BuildContext) -> None:
    assert context.tokenizer is not None
    own, theirs = context.tokenizer.to_dict(), generator.tokenizer.to_dict()
    if own != theirs:
        sizes = f"{generator.tokenizer.vocab_size} tokens there, {context.vocab_size} here"
        raise UsageError(
            f"the vocabulary of {path} is not this pipeline's ({sizes}); give the mixture the [corpus] and "
            "[tokenizer] tables that both its runs were made with"
        )
