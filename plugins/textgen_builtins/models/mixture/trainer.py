"""Trains both parts of a mixture, and its gate."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, Final

import attrs
import numpy as np

from textgen import UsageError
from textgen.data import Dataset
from textgen.events import Evaluated, TrainingEvent
from textgen.plugin import from_json
from textgen.protocols import Model, Table, Tensors, Trainer, TrainerState, TrainingContext
from textgen_builtins.models.gate import fit, gate_size
from textgen_builtins.models.loss import log_softmax, mean_loss
from textgen_builtins.models.mixture.model import Mixture, expert_logs

_LEAD_TOKENS: Final = 512  # tokens read before those of the gate, so that no state is a beginning
_SHORT_TEXT: Final = 512  # tokens that the first's trainer evaluates on: the mixture's loss counts
_NEGLIGIBLE_RATIO: Final = 50  # times as long as the text of the gate, a text has no need of it
_BLOCK_TOKENS: Final = 8192  # tokens mixed at once
_VALUES: Final = 1 << 26  # log probabilities of a held-out text that are held at once: 256 MiB


@attrs.define(eq=False)
class MixtureTrainer:
    """textgen.protocols.Trainer for a Mixture.

    The text of the gate is the end of the training text. The first part never sees it. The second
    is trained without it for the gate, and with it for the mixture, unless it is less than a
    fiftieth of the text; both before the first begins. Then the events are those of the first's
    trainer, for which the end of the text of the gate is the held-out text. At each Evaluated the
    gate is fitted anew, and its validation loss becomes that of the mixture on the held-out text of
    the data, read as one stream. Both go by the weights that the first's trainer publishes, such as
    means. The training loss stays the first's.

    Where several processes train together, they share out the training of the first; each does all
    else for itself.

    The state is that of the first's trainer, and whether the second is trained; its counterpart for
    the gate is made again, which gives the same.
    """

    first: Trainer
    make_second: Callable[[], Trainer]
    _second_trained: bool = False
    _goes_on: bool = False  # from a state that was loaded
    _model: Mixture | None = attrs.field(default=None, init=False)  # that was trained last

    @property
    def distributed(self) -> bool:
        """Whether the first's trainer can share its work out."""
        return bool(getattr(self.first, "distributed", False))

    def train(self, model: Any, data: Dataset, context: TrainingContext) -> Iterator[TrainingEvent]:
        """See textgen.protocols.Trainer."""
        if not isinstance(model, Mixture):
            raise UsageError(
                "the trainer 'mixture' fits the model 'mixture', and the pipeline's is a "
                f"{type(model).__name__}; choose another trainer.type or model.type"
            )
        begun, self._model = time.perf_counter(), model
        self._second_trained, self._goes_on = self._second_trained and self._goes_on, False
        size = gate_size(len(data.training), len(model.prior), data.vocab_size)
        cut = len(data.training) - size
        before, gate_text = data.training[:cut], data.training[cut:]
        part = attrs.evolve(data, training=before, validation=gate_text[-_SHORT_TEXT:])
        apart = size * _NEGLIGIBLE_RATIO > len(data.training)
        for_gate = model.make_second() if apart else model.second
        if apart or not self._second_trained:
            self._train_second(
                for_gate, attrs.evolve(data, training=before, validation=gate_text[:0]), context
            )
        if apart and not self._second_trained:
            self._train_second(model.second, attrs.evolve(data, validation=gate_text[:0]), context)
        self._second_trained = True
        read = data.training[max(0, cut - _LEAD_TOKENS) : -1]
        logs = expert_logs(for_gate, read, data.window_length)[-size:] if size else None
        held_out = _HeldOut(model, data)
        context = attrs.evolve(context, elapsed=context.elapsed + time.perf_counter() - begun)
        with contextlib.closing(self._train_first(model, part, context)) as events:
            for event in events:
                if not isinstance(event, Evaluated):
                    yield event
                    continue
                with self._published_first(model):
                    if logs is not None:
                        first = expert_logs(model.first, read, data.window_length)[-size:]
                        both = np.concatenate([first, logs], axis=1)
                        model.gate = fit(both, gate_text, model.prior)
                    loss = held_out.loss()
                yield attrs.evolve(event, validation_loss=loss)

    def published(self) -> Tensors:
        """The mixture with the weights that the first's trainer publishes; {} if it publishes
        none.
        """
        first = self._first_weights()
        if self._model is None or not first:
            return {}
        rest = self._model.tensors()
        rest = {name: array for name, array in rest.items() if not name.startswith("first.")}
        return {**rest, **{f"first.{name}": array for name, array in first.items()}}

    def state(self) -> TrainerState:
        """The state of the first's trainer, under `first.` and `first`."""
        state = self.first.state()
        values = {"second_trained": self._second_trained, "first": state.values}
        return TrainerState(
            {f"first.{name}": array for name, array in state.arrays.items()}, values
        )

    def load_state(self, state: TrainerState) -> None:
        """Go on from `state` in the next `train`.

        Raises ValueError if it is none of this trainer.
        """
        position = from_json(_Position, state.values)
        self._second_trained, self._goes_on = position.second_trained, True
        arrays = {name.removeprefix("first."): array for name, array in state.arrays.items()}
        self.first.load_state(TrainerState(arrays, dict(position.first)))

    def _first_weights(self) -> Tensors:
        """The weights that the first's trainer publishes; {} for those that it trains."""
        published: Callable[[], Tensors] = getattr(self.first, "published", dict)
        return published()

    @contextlib.contextmanager
    def _published_first(self, model: Mixture) -> Iterator[None]:
        """A block in which the first part has the weights that its trainer publishes.

        Weights of other names are those of a network whose adapters are merged: it computes the
        same as it is.
        """
        published = self._first_weights()
        own = model.first.tensors() if published else {}
        if not published or published.keys() != own.keys():
            yield
            return
        kept = {name: array.copy() for name, array in own.items()}
        model.first.load_tensors(published)
        try:
            yield
        finally:
            model.first.load_tensors(kept)

    def _train_first(
        self, model: Mixture, data: Dataset, context: TrainingContext
    ) -> Generator[TrainingEvent, None, None]:
        try:
            yield from self.first.train(model.first, data, context)
        except UsageError as error:
            own = "trainer.", "trainer.first."
            faults = [attrs.evolve(f, path=f.path.replace(*own, 1)) for f in error.faults]
            raise UsageError(faults=faults) from error

    def _train_second(self, model: Model, data: Dataset, context: TrainingContext) -> None:
        alone = attrs.evolve(context, seed=context.seed + 1, processes=None)
        for _ in self.make_second().train(model, data, alone):
            pass


@attrs.frozen
class _Position:
    second_trained: bool
    first: Table


class _HeldOut:
    """The loss of a mixture on the held-out text, as one stream.

    What the second model says of it is kept.
    """

    def __init__(self, model: Mixture, data: Dataset) -> None:
        self._model, self._tokens, self._vocab_size = model, data.validation, data.vocab_size
        self._context = data.window_length
        values = len(self._tokens) * len(model.prior) * self._vocab_size
        is_kept = len(self._tokens) > 1 and values < _VALUES
        self._second = (
            expert_logs(model.second, self._tokens[:-1], self._context) if is_kept else None
        )

    def loss(self) -> float | None:
        """Loss in nats per token, with the gate as it is now; None where nothing is held out."""
        if self._second is None:
            return mean_loss(self._model, self._tokens, self._vocab_size)
        first, total = expert_logs(self._model.first, self._tokens[:-1], self._context), 0.0
        targets = self._tokens[1:]
        for start in range(0, len(targets), _BLOCK_TOKENS):
            rows = slice(start, start + _BLOCK_TOKENS)
            logits = self._model.gate.mix(np.concatenate([first[rows], self._second[rows]], axis=1))
            total -= float(
                log_softmax(logits)[np.arange(len(logits)), targets[rows]].sum(dtype=np.float64)
            )
        return total / len(targets)
