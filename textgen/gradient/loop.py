"""Trainers by gradient: batches, updates, evaluations, and a state to resume from."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import attrs
import torch
from attrs.validators import ge

from textgen.data import Dataset, side_by_side
from textgen.errors import TrainingError, UsageError
from textgen.events import Evaluated, StepDone, TrainingEvent
from textgen.files.opening import MALFORMED_DATA
from textgen.gradient.arrays import like_weights, to_numpy
from textgen.gradient.data_parallel import DataParallelStep
from textgen.gradient.objectives import HeldOut, NextToken, State
from textgen.gradient.optimization import MakeOptimizer, Optimization
from textgen.gradient.options import GradientOptions
from textgen.gradient.plan import Plan
from textgen.gradient.schedules import Schedule, constant
from textgen.plugin.strict_json import COUNT, OPTIONAL_COUNT, from_json, is_number
from textgen.protocols import Objective, Table, Tensors, TrainerState, TrainingContext
from textgen.speed import faster_precision


@attrs.define(eq=False)
class GradientTrainer:
    """textgen.protocols.Trainer for a torch module with `forward(tokens, state=None) -> (logits,
    state)`.

    options         length, batches, clipping and the like
    make_optimizer  makes one optimizer for the Parameters, or several that share them. Each of
                    their param_groups has "lr", into which the schedule writes the learning rate of
                    each step. Parameters in no group do not change, and a warning names them
                    An optimizer may put other weights in place by `eval()`, such as a mean, and
                    then `train()` ends that, as Schedule-Free ones do: evaluations and the run's
                    model have these
    schedule        the factor of the learning rates in each step, such as textgen.gradient.constant
    objective       what a step sums, `context.build(options.objective)`; NextToken if None

    The state is a position, the decisions, and the states of the optimizers. The order of epoch e
    is keyed by the seed and e, and the dropout of step s by the seed and s, so there is no state of
    a random generator.

    Several processes each run this program, and see the same sums of gradients, losses and states.
    """

    distributed: ClassVar[bool] = True

    options: GradientOptions
    make_optimizer: MakeOptimizer
    schedule: Schedule = constant
    objective: Objective | None = None
    _loaded: TrainerState | None = attrs.field(default=None, init=False)
    _training: _Training | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        if self.options.objective is not None and self.objective is None:
            raise ValueError(
                "there is an objective among the options; GradientTrainer takes it as "
                "objective=context.build(options.objective)"
            )

    def train(self, model: Any, data: Dataset, context: TrainingContext) -> Iterator[TrainingEvent]:
        """See textgen.protocols.Trainer."""
        if not hasattr(model, "parameters"):
            raise UsageError(
                "this trainer trains by gradient, and the model has none; choose a trainer "
                "made for it"
            )
        training = _Training(self, model, data, context)
        try:
            if self._loaded is not None:
                training.restore(self._loaded)
            self._training, self._loaded = training, None
            yield from training.events()
        finally:
            training.parallel_step.close()

    def state(self) -> TrainerState:
        """The position, the decisions, the states of the optimizers, and the carried state; or the
        loaded state.
        """
        if self._loaded is None and self._training is not None:
            return self._training.state()
        return self._loaded or TrainerState()

    def published(self) -> Tensors:
        """The weights that optimizers with `eval` and `train` are evaluated by, or that the model's
        own `published` gives, such as adapters merged into their base; {} for neither.
        """
        if self._training is None:
            return {}
        model = self._training.parallel_step.replicas[0]
        with self._training.optimization.evaluating() as is_averaged:
            made: Tensors = getattr(model, "published", model.tensors if is_averaged else dict)()
            return {name: array.copy() for name, array in made.items()}

    def load_state(self, state: TrainerState) -> None:
        """Continue from `state` in the next `train`.

        Raises ValueError for a state of another trainer.
        """
        from_json(_Position, state.values)
        self._loaded = state


@attrs.frozen(kw_only=True)
class _Position:
    """The values of a saved state; those under `optimizer` are the optimizers' own."""

    step: int = attrs.field(default=0, validator=COUNT)
    training_loss: Any = attrs.field(default=float("nan"), validator=is_number)
    evaluated_step: int = attrs.field(default=-1, validator=ge(-1))
    precision: Literal["float32", "bfloat16"] = "float32"
    length: str = ""
    steps: int | None = attrs.field(default=None, validator=OPTIONAL_COUNT)
    steps_before_decay: int = attrs.field(default=0, validator=COUNT)
    optimizer: Table = attrs.field(factory=dict)


class _Training:
    """A training of a model that goes on.

    is_restored  whether no step has been made since a state was restored
    """

    def __init__(
        self, trainer: GradientTrainer, model: Any, data: Dataset, context: TrainingContext
    ) -> None:
        self.begun = time.perf_counter() - context.elapsed
        _free_large_block()
        self.options, self.data, self.context = trainer.options, data, context
        options = trainer.options
        objective = NextToken() if trainer.objective is None else trainer.objective
        self.batches = objective.batches(data, options, context.seed)
        first = self.batches.batch(0, 0)
        self.plan = Plan(
            options,
            self.batches.per_epoch,
            trainer.schedule,
            0.8 * len(data.validation) / first[0].size,  # forward, but with its past
        )
        self.optimization = Optimization.of(model, options, trainer.make_optimizer)
        self.parallel_step = DataParallelStep.of(
            model, first, context, objective, options.accumulate
        )
        self.parallel_step.precision = (
            faster_precision(context.device) if options.precision == "auto" else options.precision
        )
        self.step, self.evaluated_step = 0, -1
        self.training_loss: Any = float("nan")
        self.carried: State | None = None
        self.is_restored = False

    def events(self) -> Iterator[TrainingEvent]:
        """Train to the end."""
        plan, run = self.plan, self.parallel_step.run
        while True:
            if plan.is_due(self.step, self.evaluated_step):
                self.evaluated_step = self.step
                plan.evaluated()
                yield run(self._evaluated)
            if self.step >= plan.expected_steps(self.step):
                return
            with self._refusing_state():
                done = run(self._advance)
            self.is_restored = False
            yield done

    def _evaluated(self) -> Evaluated:
        """Measure the held-out data."""
        parallel_step, options, data = self.parallel_step, self.options, self.data
        context = getattr(parallel_step.replicas[0], "context_length", None)
        batches, objective = side_by_side(data.validation, options.batch_size, context), None
        with self.optimization.evaluating():
            loss = parallel_step.mean(batches, HeldOut(data.window_length))
            if own := getattr(parallel_step.objective, "validation", None):
                objective = parallel_step.mean(own(data, options), parallel_step.objective)
        return Evaluated(
            step=self.step,
            epoch=(self.step - 1) // self.batches.per_epoch + 1,
            training_loss=float(self.training_loss),
            validation_loss=loss,
            figures={} if objective is None else {"objective": objective},
            objective=objective,
        )

    def _advance(self) -> StepDone:
        """Update the weights by the next batch."""
        step, now = self.step + 1, time.perf_counter() - self.begun
        epoch, number = divmod(self.step, self.batches.per_epoch)
        batch = self.batches.batch(epoch, number)
        keeps = self.options.order == "streams"
        carried = self.carried if keeps and number else None
        made = self.parallel_step.gradients(
            batch,
            carried,
            (self.context.seed, step),
            keeps_state=keeps,
            now=now,
        )
        rate, norm = self.optimization.step(self.plan.factor(step))
        self.step, self.training_loss, self.carried = step, made.loss, made.state
        self.plan.step_done(step, made.now)
        return StepDone(
            step=step,
            steps=self.plan.expected_steps(step),
            epoch=epoch + 1,
            loss=made.loss,
            tokens=batch[0].size - len(batch[0]),
            learning_rate=rate,
            gradient_norm=norm,
            steps_before_decay=self.plan.before_decay_so_far(step),
            evaluates=self.plan.is_due(step, self.evaluated_step),
        )

    def state(self) -> TrainerState:
        """The state after the last step."""
        arrays, kept = self.optimization.state()
        arrays = {f"optimizer.{name}": array for name, array in arrays.items()}
        arrays |= {f"carried.{i}": to_numpy(part) for i, part in enumerate(self.carried or ())}
        position = _Position(
            step=self.step,
            training_loss=float(self.training_loss),
            evaluated_step=self.evaluated_step,
            precision=self.parallel_step.precision,
            length=self.options.length,
            steps=self.plan.steps,
            steps_before_decay=self.plan.steps_before_decay,
            optimizer=kept,
        )
        return TrainerState(arrays, attrs.asdict(position, recurse=False))

    def restore(self, state: TrainerState) -> None:
        """Continue from a state.

        What does not fit raises a TrainingError, here or in the first step.
        """
        position = from_json(_Position, state.values)
        self.step, self.training_loss = position.step, position.training_loss
        self.evaluated_step = position.evaluated_step
        if position.length == self.options.length and position.steps is not None:
            self.plan.decide(position.steps, position.steps_before_decay)
        if self.options.precision == "auto":
            self.parallel_step.precision = position.precision
        arrays, model = dict(state.arrays), self.parallel_step.replicas[0]  # in any order
        carried = list[torch.Tensor]()
        while (part := arrays.pop(f"carried.{len(carried)}", None)) is not None:
            tensor = torch.from_numpy(part.copy())
            carried.append(like_weights(tensor, model).to(self.context.device))
        kept = {name.removeprefix("optimizer."): array for name, array in arrays.items()}
        self.carried, self.is_restored = tuple(carried) or None, True
        with self._refusing_state():
            self.optimization.restore(kept, position.optimizer)

    @contextlib.contextmanager
    def _refusing_state(self) -> Iterator[None]:
        """Blame what fails before the first step after a restored state is done on that state."""
        try:
            yield
        except (RuntimeError, *MALFORMED_DATA) as error:
            if not self.is_restored or isinstance(error, torch.OutOfMemoryError):
                raise
            cause = f"it does not fit the model and the optimizers ({error})"
            raise TrainingError(cause, step=0, refuses_state=True) from error


def _free_large_block() -> None:
    """Free a block of almost 32 MiB, from whose size glibc learns to keep freed blocks for the next
    step.

    Until then glibc maps each block from 128 KiB on anew, page by page. No setting of the process
    is changed.
    """
    torch.empty((32 << 20) - (64 << 10), dtype=torch.uint8)
