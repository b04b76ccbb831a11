"""The training loop: batches, updates, evaluations, and a state to resume from."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, ClassVar

import attrs
import torch
from attrs.validators import ge
from torch import Tensor

from textgen import devices
from textgen.data import Dataset
from textgen.errors import UsageError
from textgen.events import Evaluated, StepDone, TrainingEvent
from textgen.gradient.arrays import like_weights, to_numpy
from textgen.gradient.batches import Batches, training_batches
from textgen.gradient.computing import Computation, State
from textgen.gradient.optimization import MakeOptimizer, Optimization
from textgen.gradient.options import GradientOptions
from textgen.gradient.plan import Plan
from textgen.gradient.schedules import Schedule, constant
from textgen.gradient.validation import validation_loss
from textgen.pipeline.records import COUNT, is_number, structure
from textgen.protocols import TrainerState, TrainingContext


@attrs.define(eq=False)
class GradientTrainer:
    """textgen.protocols.Trainer for a torch module with `forward(tokens, state=None) -> (logits, state)`.

    options         batches, clipping, precision and the like
    make_optimizer  makes the optimizer for the Parameters, or several that share them out. Each of its param_groups has
                    "lr", into which the schedule writes the learning rate of each step. Parameters in none of them
                    stay as they are, and a warning names them
    schedule        the factor of their learning rates in each step, see textgen.gradient.constant and the others

    Its state is a position and what the optimizers keep: the order of epoch e is keyed by the seed and e, the dropout
    of step s by the seed and s, so no generator's state has to be saved.
    """

    distributed: ClassVar[bool] = True

    options: GradientOptions
    make_optimizer: MakeOptimizer
    schedule: Schedule = constant
    _step: int = attrs.field(default=0, init=False)
    _training_loss: Any = attrs.field(default=float("nan"), init=False)
    _evaluated_step: int = attrs.field(default=-1, init=False)
    _measuring: bool = attrs.field(default=False, init=False)  # the steps of a budget, in this run
    _carried: list[State] | None = attrs.field(default=None, init=False)
    _optimization: Optimization | None = attrs.field(default=None, init=False)
    _loaded: TrainerState | None = attrs.field(default=None, init=False)
    _computation: Computation | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        devices.check_fork()  # before the model is made, which may compute too
        if not isinstance(self.options, GradientOptions):
            raise TypeError(
                f"options of type {type(self.options).__name__} are not those of the training loop; make it a subclass "
                "of textgen.gradient.GradientOptions, with @attrs.frozen(kw_only=True)"
            )

    def train(self, model: Any, data: Dataset, context: TrainingContext) -> Iterator[TrainingEvent]:
        """See textgen.protocols.Trainer."""
        devices.check_fork(computes=True)
        devices.free_large_block()
        if not hasattr(model, "parameters"):
            raise UsageError(
                "this trainer trains by gradient, and the model has none; choose a trainer made for it"
            )
        batches = training_batches(self.options, data.training_windows(), context.seed)
        plan = Plan(self.options, context, batches, self.schedule)
        self._optimization = Optimization.of(
            model, self.options, self.make_optimizer, self.schedule
        )
        if (frozen := self._optimization.left_out(model)) and (
            context.processes is None or context.processes.leads
        ):
            shown = ", ".join(frozen[:5]) + (
                f" and {len(frozen) - 5} more" if len(frozen) > 5 else ""
            )
            warnings.warn(
                f"no optimizer has these parameters, which stay as they are: {shown}", stacklevel=2
            )
        computation = self._computation = plan.computation(model)
        try:
            self._restore(context, computation)
            plan.resume(self._measuring)
            if context.processes is None or context.processes.leads:
                yield from self._train(computation, plan, data, context)
            else:
                self._follow(computation, plan, data, context.seed)
        except GeneratorExit:  # the engine ends the run
            self._end(computation)
            raise
        else:
            self._end(computation)
        finally:
            self._computation = None
            computation.close()

    def _end(self, computation: Computation) -> None:
        """Have the whole state here, for `state()` when the other processes have left."""
        self._carried = computation.gathered(self._carried, self.options.batch_size, last=True)

    def _follow(self, computation: Any, plan: Plan, data: Dataset, seed: int) -> None:
        """Make the steps and the evaluations that the first process orders."""
        evaluate = partial(validation_loss, computation, self.options, data)
        while (
            horizon := computation.follow(self._carried, self.options.batch_size, evaluate)
        ) is not None:
            self._advance(computation, plan.batches, seed, horizon)

    def _train(
        self, computation: Computation, plan: Plan, data: Dataset, context: TrainingContext
    ) -> Iterator[TrainingEvent]:
        yield from plan.settle()
        while True:
            if self._step != self._evaluated_step and plan.is_due(self._step):
                self._evaluated_step = self._step
                loss = float(
                    self._training_loss
                )  # waits for the device, whose steps are not the evaluation's time
                with plan.evaluation(self._step):
                    yield Evaluated(
                        step=self._step,
                        epoch=(self._step - 1) // plan.batches.per_epoch + 1,
                        training_loss=loss,
                        validation_loss=computation.run(
                            partial(validation_loss, computation, self.options, data)
                        ),
                    )
                self._measuring = plan.measures(self._step)
                if self._measuring:
                    plan.measure(self._step)
                    yield from plan.settle()
            if plan.steps and self._step >= plan.steps:
                return
            yield self._update(computation, plan, context.seed)

    def state(self) -> TrainerState:
        """The position, what the optimizers keep, and the carried state; before training, the loaded state."""
        if self._loaded is not None:
            return self._loaded
        arrays, kept = ({}, {}) if self._optimization is None else self._optimization.state()
        arrays = {f"optimizer.{name}": array for name, array in arrays.items()}
        carried = self._carried
        if self._computation is not None:
            carried = self._computation.gathered(carried, self.options.batch_size)
        for i, parts in enumerate(zip(*(carried or ()), strict=True)):
            arrays[f"carried.{i}"] = to_numpy(torch.cat(parts))
        values = {
            "step": self._step,
            "training_loss": float(self._training_loss),
            "evaluated_step": self._evaluated_step,
            "measuring": self._measuring,
            "optimizer": kept,
        }
        return TrainerState(arrays, values)

    def load_state(self, state: TrainerState) -> None:
        """Continue from `state` in the next `train`. Raises ValueError if it is none of these trainers."""
        structure(_Position, state.values)
        self._loaded = state

    def _restore(self, context: TrainingContext, computation: Computation) -> None:
        if self._loaded is None:
            self._step, self._training_loss, self._evaluated_step = 0, float("nan"), -1
            self._measuring, self._carried = False, None
            return
        assert self._optimization is not None
        arrays, values = self._loaded.arrays, self._loaded.values
        self._step, self._training_loss = values["step"], values["training_loss"]
        self._evaluated_step, self._measuring = values["evaluated_step"], values["measuring"]
        prefix = "optimizer."
        kept = {
            name.removeprefix(prefix): array
            for name, array in arrays.items()
            if name.startswith(prefix)
        }
        self._optimization.restore(kept, values["optimizer"])
        carried = [
            arrays[f"carried.{i}"]
            for i in range(sum(name.startswith("carried.") for name in arrays))
        ]
        rows = self.options.batch_size
        if context.processes is not None:
            own_rows = context.processes.rows(rows)
            carried, rows = [part[own_rows] for part in carried], own_rows.stop - own_rows.start
        model = computation.replicas[0]
        own = [
            like_weights(torch.from_numpy(part.copy()), model).to(context.device)
            for part in carried
        ]
        self._carried = [tuple(own)] if own else None
        if own:
            computation.try_carried(tuple(own), rows)
        self._loaded = None

    def _update(self, computation: Computation, plan: Plan, seed: int) -> StepDone:
        """One step on the next batch, and what there is to say of it."""
        horizon = plan.horizon(self._step + 1)
        computation.announce(horizon)
        tokens, rate, norm = computation.run(
            partial(self._advance, computation, plan.batches, seed, horizon)
        )
        if plan.steps is None:  # the time of a step is measured: wait for the device
            float(self._training_loss)
        plan.step_done(self._step)
        return StepDone(
            step=self._step,
            steps=plan.steps or plan.estimated_steps(self._step),
            epoch=(self._step - 1) // plan.batches.per_epoch + 1,
            loss=self._training_loss,
            tokens=tokens,
            learning_rate=rate,
            gradient_norm=norm,
            stable_steps=plan.stable_steps(self._step),
        )

    def _advance(
        self, computation: Computation, batches: Batches, seed: int, horizon: int
    ) -> tuple[int, float, Tensor | None]:
        """Update the weights by the next batch; return its tokens, the learning rate and the gradient's norm."""
        assert self._optimization is not None
        epoch, number = divmod(self._step, batches.per_epoch)
        windows = batches.batch(epoch, number)
        carried = (
            self._shared_out(len(computation.replicas))
            if self.options.order == "streams" and number
            else None
        )
        self._step += 1
        loss, after = computation.gradients(windows, carried, (seed, self._step))
        rate, norm = self._optimization.step(self._step, horizon)
        if self.options.order == "streams":
            self._carried = after
        self._training_loss = loss
        return windows.shape[0] * (windows.shape[1] - 1), rate, norm

    def _shared_out(self, workers: int) -> list[State] | None:
        """The carried state for each worker; after a resume it is one for all of them."""
        if self._carried is None or len(self._carried) == workers:
            return self._carried
        parts = [
            torch.tensor_split(torch.cat(part), workers)
            for part in zip(*self._carried, strict=True)
        ]
        return [tuple(part) for part in zip(*parts, strict=True)]


@attrs.frozen
class _Position:
    """The values of a saved state; those under `optimizer` are the optimizers' own."""

    step: int = attrs.field(validator=COUNT)
    training_loss: Any = attrs.field(validator=is_number)
    evaluated_step: int = attrs.field(validator=ge(-1))
    measuring: bool
    optimizer: Mapping[str, Any]
