"""The training loop: batches, updates, evaluations, and a state to resume from."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, ClassVar, Literal

import attrs
import torch
from attrs.validators import ge

from textgen import devices
from textgen.data import Dataset
from textgen.errors import ProcessesError, UsageError
from textgen.events import Decided, Evaluated, StepDone, TrainingEvent
from textgen.gradient.arrays import like_weights, to_numpy
from textgen.gradient.batches import Batches, training_batches
from textgen.gradient.computing import Computation, State
from textgen.gradient.optimization import MakeOptimizer, Optimization
from textgen.gradient.options import GradientOptions
from textgen.gradient.plan import Plan
from textgen.gradient.schedules import Schedule, constant
from textgen.gradient.validation import validation_loss
from textgen.pipeline.records import COUNT, OPTIONAL_COUNT, is_number, structure
from textgen.protocols import TrainerState, TrainingContext


@attrs.define(eq=False)
class GradientTrainer:
    """textgen.protocols.Trainer for a torch module with `forward(tokens, state=None) -> (logits, state)`.

    options         batches, clipping, length and the like
    make_optimizer  makes the optimizer for the Parameters, or several that share them out. Each of its param_groups has
                    "lr", into which the schedule writes the learning rate of each step. Parameters in none of them
                    stay as they are, and a warning names them
    schedule        the factor of their learning rates in each step, see textgen.gradient.constant and the others

    Its state is a position, what was decided, and what the optimizers keep: the order of epoch e is keyed by the seed
    and e, the dropout of step s by the seed and s, so no generator's state has to be saved.

    Several processes each run this same program, and see the same numbers: the sums of gradients, losses and states.
    """

    distributed: ClassVar[bool] = True

    options: GradientOptions
    make_optimizer: MakeOptimizer
    schedule: Schedule = constant
    _step: int = attrs.field(default=0, init=False)
    _training_loss: Any = attrs.field(default=float("nan"), init=False)
    _evaluated_step: int = attrs.field(default=-1, init=False)
    _carried: State | None = attrs.field(default=None, init=False)
    _optimization: Optimization | None = attrs.field(default=None, init=False)
    _computation: Computation | None = attrs.field(default=None, init=False)
    _plan: Plan | None = attrs.field(default=None, init=False)
    _loaded: TrainerState | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        devices.check_fork()  # before the model is made, which may compute too
        if not isinstance(self.options, GradientOptions):
            raise TypeError(
                f"options of type {type(self.options).__name__} are not those of the training loop; make it a subclass "
                "of textgen.gradient.GradientOptions, with @attrs.frozen(kw_only=True)"
            )

    def train(self, model: Any, data: Dataset, context: TrainingContext) -> Iterator[TrainingEvent]:
        """See textgen.protocols.Trainer."""
        begun = time.perf_counter()
        devices.check_fork(computes=True)
        devices.free_large_block()
        if not hasattr(model, "parameters"):
            raise UsageError(
                "this trainer trains by gradient, and the model has none; choose a trainer made for it"
            )
        batches = training_batches(self.options, data.training_windows(), context.seed)
        self._plan = Plan(self.options, batches.per_epoch, self.schedule, context.elapsed)
        self._optimization = Optimization.of(
            model, self.options, self.make_optimizer, self.schedule
        )
        leads = context.processes is None or context.processes.leads
        if leads and (frozen := self._optimization.left_out(model)):
            shown = ", ".join(frozen[:5]) + (
                f" and {len(frozen) - 5} more" if len(frozen) > 5 else ""
            )
            warnings.warn(
                f"no optimizer has these parameters, which stay as they are: {shown}", stacklevel=2
            )
        first = batches.batch(0, 0)
        self._computation = computation = Computation.of(model, first, context)
        try:
            self._restore(context, computation)
            if computation.precision == "auto":
                computation.precision = computation.faster_precision(first)
                yield Decided(values={"precision": computation.precision})
            yield from self._train(computation, self._plan, batches, data, context, begun)
        finally:
            computation.close()

    def _train(
        self,
        computation: Computation,
        plan: Plan,
        batches: Batches,
        data: Dataset,
        context: TrainingContext,
        begun: float,
    ) -> Iterator[TrainingEvent]:
        measure = partial(validation_loss, computation, self.options, data)
        advance = partial(self._advance, computation, plan, batches, context.seed, begun)
        try:
            while True:
                if plan.is_due(self._step, self._evaluated_step):
                    self._evaluated_step = self._step
                    plan.evaluated()
                    yield Evaluated(
                        step=self._step,
                        epoch=(self._step - 1) // batches.per_epoch + 1,
                        training_loss=float(self._training_loss),
                        validation_loss=computation.run(measure),
                    )
                if plan.steps is not None and self._step >= plan.steps:
                    return
                was_decided = plan.steps is not None
                if (done := computation.run(advance)) is None:
                    return
                yield done
                if plan.steps is not None and not was_decided:
                    yield Decided(values={"steps": plan.steps})
        except (
            GeneratorExit
        ):  # the engine ends the run, which the other processes learn in the next step
            if context.processes is not None:
                with contextlib.suppress(ProcessesError):
                    if plan.is_due(self._step, self._evaluated_step):
                        computation.run(measure)
                    if plan.steps is None or self._step < plan.steps:
                        computation.run(partial(advance, leaves=True))
            raise

    def _advance(
        self,
        computation: Computation,
        plan: Plan,
        batches: Batches,
        seed: int,
        begun: float,
        *,
        leaves: bool = False,
    ) -> StepDone | None:
        """Update the weights by the next batch. None, and no update, if a process asks for the end."""
        assert self._optimization is not None
        step, now = self._step + 1, time.perf_counter() - begun
        epoch, number = divmod(self._step, batches.per_epoch)
        windows = batches.batch(epoch, number)
        keeps = self.options.order == "streams"
        carried = self._carried if keeps and number else None
        made = computation.gradients(
            windows, carried, (seed, step), keeps_state=keeps, now=now, leaves=leaves
        )
        if made.stops:
            return None
        rate, norm = self._optimization.step(step, plan.horizon())
        self._step, self._training_loss, self._carried = step, made.loss, made.state
        plan.step_done(step, made.now)
        return StepDone(
            step=step,
            steps=plan.expected_steps(step),
            epoch=epoch + 1,
            loss=made.loss,
            tokens=windows.shape[0] * (windows.shape[1] - 1),
            learning_rate=rate,
            gradient_norm=norm,
            stable_steps=plan.stable_after(step),
        )

    def state(self) -> TrainerState:
        """The position, what was decided, what the optimizers keep, and the carried state; or what was loaded."""
        if self._loaded is not None:
            return self._loaded
        arrays, kept = ({}, {}) if self._optimization is None else self._optimization.state()
        arrays = {f"optimizer.{name}": array for name, array in arrays.items()}
        arrays |= {f"carried.{i}": to_numpy(part) for i, part in enumerate(self._carried or ())}
        plan, computation = self._plan, self._computation
        values = {
            "step": self._step,
            "training_loss": float(self._training_loss),
            "evaluated_step": self._evaluated_step,
            "precision": computation.precision if computation else self.options.compute,
            "length": self.options.length,
            "steps": plan.steps if plan else None,
            "stable_steps": plan.stable_steps if plan else 0,
            "optimizer": kept,
        }
        return TrainerState(arrays, values)

    def load_state(self, state: TrainerState) -> None:
        """Continue from `state` in the next `train`. Raises ValueError if it is none of these trainers."""
        structure(_Position, state.values)
        self._loaded = state

    def _restore(self, context: TrainingContext, computation: Computation) -> None:
        """Begin, or continue from the loaded state."""
        self._step, self._training_loss, self._evaluated_step = 0, float("nan"), -1
        self._carried, computation.precision = None, self.options.compute
        if self._loaded is None:
            return
        assert self._optimization is not None
        assert self._plan is not None
        arrays, values = self._loaded.arrays, self._loaded.values
        self._step, self._training_loss = values["step"], values["training_loss"]
        self._evaluated_step = values["evaluated_step"]
        if values["length"] == self.options.length and values["steps"] is not None:
            self._plan.decide(values["steps"], values["stable_steps"])
        if self.options.compute == "auto":
            computation.precision = values["precision"]
        prefix = "optimizer."
        kept = {
            name.removeprefix(prefix): array
            for name, array in arrays.items()
            if name.startswith(prefix)
        }
        self._optimization.restore(kept, values["optimizer"])
        count = sum(name.startswith("carried.") for name in arrays)
        if count:
            model = computation.replicas[0]
            parts = [torch.from_numpy(arrays[f"carried.{i}"].copy()) for i in range(count)]
            self._carried = tuple(like_weights(part, model).to(context.device) for part in parts)
            computation.try_carried(self._carried, self.options.batch_size)
        self._loaded = None


@attrs.frozen
class _Position:
    """The values of a saved state; those under `optimizer` are the optimizers' own."""

    step: int = attrs.field(validator=COUNT)
    training_loss: Any = attrs.field(validator=is_number)
    evaluated_step: int = attrs.field(validator=ge(-1))
    precision: Literal["auto", "float32", "bfloat16"]
    length: str
    steps: int | None = attrs.field(validator=OPTIONAL_COUNT)
    stable_steps: int = attrs.field(validator=COUNT)
    optimizer: Mapping[str, Any]
