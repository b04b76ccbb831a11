"""A plugin for the third training: a trainer that reads pieces of texts, each from the start state.

    textgen --plugin cuts.py --plugin pieces.py run third.toml

Every row of a batch reads a piece of mix.py window by window, and carries its state; then it takes
the next piece that nobody reads. The learning rate follows the clock, and is zero at the end of
`length`, however busy the machine is.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import attrs
import numpy as np

from textgen import BuildContext, Component, hookimpl
from textgen.data import Dataset, side_by_side
from textgen.events import Evaluated, StepDone
from textgen.gradient import Length
from textgen.protocols import Ids, TrainerState, TrainingContext
from textgen_builtins.trainers.config import AdamWConfig


@attrs.define(eq=False)
class Pieces:
    """The pieces of the training tokens that follow a form feed, in an order of each pass.

    taken   pieces that were begun
    begins  (B,) where each row's next window begins
    ends    (B,) where its piece ends
    """

    tokens: Ids
    starts: Ids
    seed: int
    taken: int
    begins: Ids
    ends: Ids

    def windows(self, length: int) -> tuple[Ids, Ids]:
        """(B, T + 1) int64, the next window of each row; and (B,) whether it begins a piece."""
        begun = np.zeros(len(self.begins), bool)
        for row in range(len(begun)):
            while self.begins[row] + length + 1 > self.ends[row]:
                passed, index = divmod(self.taken, len(self.starts))
                order = np.random.default_rng([self.seed, passed]).permutation(len(self.starts))
                piece, begun[row] = order[index], True
                last = piece + 1 == len(self.starts)
                self.begins[row] = self.starts[piece] + 1
                self.ends[row] = len(self.tokens) if last else self.starts[piece + 1]
                self.taken += 1
        indices = self.begins[:, None] + np.arange(length + 1)
        self.begins += length
        return np.asarray(self.tokens[indices], np.int64), begun


@attrs.define(eq=False)
class _Training:
    """A training that goes on; `carried` is the state of the rows after their last windows."""

    config: AdamWConfig
    data: Dataset
    context: TrainingContext
    pieces: Pieces
    parallel_step: Any
    optimization: Any = None
    step: int = 0
    stable: int = 0
    carried: Any = None
    begun: float = attrs.field(factory=time.perf_counter)

    def gone(self) -> float:
        """The share of the time that is over."""
        seconds = self.context.elapsed + time.perf_counter() - self.begun
        return seconds / Length.of(self.config.length).seconds

    def factor(self) -> float:
        """The factor of the learning rate."""
        falling = (1 - self.gone()) / self.config.decay_share
        return max(0.0, min(1.0, self.step / self.config.warmup_steps, falling))

    def advance(self) -> StepDone:
        """Update the weights."""
        windows, begins = self.pieces.windows(self.data.window_length)
        if self.carried is not None:
            keep = self.carried[0].new_tensor(~begins)[:, None]
            self.carried = tuple(part * keep for part in self.carried)
        made = self.parallel_step.gradients(
            (windows,), self.carried, (self.context.seed, self.step), keeps_state=True
        )
        self.step, self.carried = self.step + 1, made.state
        rate, norm = self.optimization.step(self.factor())
        gone = self.gone()
        if gone < 1 - self.config.decay_share:
            self.stable = self.step
        return StepDone(
            step=self.step,
            steps=self.step
            if gone >= 1
            else self.step + max(1, int(self.step / gone * (1 - gone))),
            epoch=self.pieces.taken // len(self.pieces.starts) + 1,
            loss=made.loss,
            tokens=windows.shape[0] * self.data.window_length,
            learning_rate=rate,
            gradient_norm=norm,
            steps_before_decay=self.stable,
            evaluates=gone >= 1 or self.step % (self.config.evaluate_every or 1000) == 0,
        )

    def validation_loss(self) -> Any:
        """The loss of the held-out text."""
        from textgen.gradient.objectives import HeldOut

        batches = side_by_side(self.data.validation, self.config.batch_size)
        return self.parallel_step.mean(batches, HeldOut(self.data.window_length))

    def state(self) -> TrainerState:
        """The state that `restore` continues from."""
        arrays, kept = self.optimization.state()
        arrays |= {"begins": self.pieces.begins, "ends": self.pieces.ends}
        arrays |= {name: part.numpy() for name, part in zip("hc", self.carried or (), strict=False)}
        values = {"step": self.step, "stable": self.stable, "taken": self.pieces.taken}
        return TrainerState(arrays, {**values, "optimizer": kept})

    def restore(self, state: TrainerState) -> None:
        """Continue from a state."""
        import torch

        arrays, values = dict(state.arrays), state.values
        self.step, self.stable, self.pieces.taken = (values[k] for k in ("step", "stable", "taken"))
        self.pieces.begins, self.pieces.ends = (arrays.pop(k).copy() for k in ("begins", "ends"))
        self.carried = tuple(torch.from_numpy(arrays.pop(k).copy()) for k in "hc" if k in arrays)
        self.carried = self.carried or None
        self.optimization.restore(arrays, values["optimizer"])


class PiecesTrainer:
    """textgen.protocols.Trainer, as the built-in `adamw` but for its batches and its schedule."""

    def __init__(self, config: AdamWConfig, adamw: Any) -> None:
        self.config, self.adamw = config, adamw
        self.loaded: TrainerState | None = None
        self.training: _Training | None = None

    def train(self, model: Any, data: Dataset, context: TrainingContext) -> Iterator[Any]:
        """Train until the time is over."""
        from textgen.gradient import NextToken
        from textgen.gradient.data_parallel import DataParallelStep
        from textgen.gradient.optimization import Optimization

        tokens, size = data.training, self.config.batch_size
        starts = np.flatnonzero(np.asarray(tokens) == tokens[0])
        nothing = np.zeros((2, size), np.int64)
        pieces = Pieces(tokens, starts, context.seed, 0, *nothing)
        first = np.zeros((size, data.window_length + 1), np.int64)
        parallel_step = DataParallelStep.of(model, (first,), context, NextToken())
        parallel_step.precision = self.config.precision
        training = _Training(self.config, data, context, pieces, parallel_step)
        make_optimizer = self.adamw.make_optimizer
        training.optimization = Optimization.of(model, self.config, make_optimizer)
        if self.loaded is not None:
            training.restore(self.loaded)
        self.training, self.loaded = training, None
        try:
            while True:
                done = parallel_step.run(training.advance)
                yield done
                if done.evaluates:
                    yield Evaluated(
                        step=done.step,
                        epoch=done.epoch,
                        training_loss=done.loss,
                        validation_loss=parallel_step.run(training.validation_loss),
                    )
                if done.step == done.steps:
                    return
        finally:
            parallel_step.close()

    def state(self) -> TrainerState:
        """The position, the states of the rows and of the optimizer."""
        if self.loaded is None and self.training is not None:
            return self.training.state()
        return self.loaded or TrainerState()

    def load_state(self, state: TrainerState) -> None:
        """Continue from there."""
        self.loaded = state


def build(config: AdamWConfig, context: BuildContext) -> PiecesTrainer:
    """A trainer that has not begun."""
    from textgen_builtins.trainers import adamw

    return PiecesTrainer(config, adamw.build(config, context))


@hookimpl
def textgen_trainers() -> list[Component]:
    """Offer `pieces`."""
    return [Component("pieces", AdamWConfig, build)]
