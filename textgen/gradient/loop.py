"""The training loop: batches, updates, evaluations, and a state to resume from."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final

import attrs
import numpy as np
import torch
from attrs.validators import ge
from torch import Tensor

from textgen import devices
from textgen.data import Dataset
from textgen.errors import TrainingError, UsageError
from textgen.events import Evaluated, Settled, StepDone, TrainingEvent
from textgen.gradient import computing
from textgen.gradient.batches import Batches, training_batches, validation_batches
from textgen.gradient.computing import Computation, State, to_device
from textgen.gradient.optimization import MakeOptimizer, Optimization
from textgen.gradient.options import GradientOptions, seconds_of
from textgen.gradient.schedules import Schedule, constant, stable_steps
from textgen.pipeline.records import COUNT, is_number, structure
from textgen.protocols import TrainerState, TrainingContext

_EVALUATIONS: Final = 10  # in a run with a budget
_EVALUATING: Final = 0.12  # share of a budget that they may take
_UNTIMED: Final = 3  # first steps, which allocate memory and start threads
_FAR: Final = 10**9
_TIMED: Final = 0.03  # share of a budget in which the time of a step is measured
_RESERVE: Final = 0.04  # share of a budget that is left for checkpoints and what cannot be measured


@attrs.define(eq=False)
class GradientTrainer:
    """textgen.protocols.Trainer for a torch module with `forward(tokens, state=None) -> (logits, state)`.

    options         batches, clipping, precision and the like
    make_optimizer  makes the optimizer for the Parameters, or several that share them out
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
    _carried: list[State] | None = attrs.field(default=None, init=False)
    _optimization: Optimization | None = attrs.field(default=None, init=False)
    _loaded: TrainerState | None = attrs.field(default=None, init=False)
    _computation: Computation | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        devices.check_fork()  # before the model is made, which may compute too

    def train(self, model: Any, data: Dataset, context: TrainingContext) -> Iterator[TrainingEvent]:
        """See textgen.protocols.Trainer."""
        devices.check_fork(computes=True)
        if not hasattr(model, "parameters"):
            raise UsageError("this trainer trains by gradient, and the model has none; choose a trainer made for it")
        plan = Plan(self.options, context, training_batches(self.options, data.training_windows(), context.seed))
        self._optimization = Optimization.of(model, self.options, self.make_optimizer, self.schedule)
        computation = self._computation = plan.computation(model)
        self._restore(context)
        try:
            if context.processes is None or context.processes.leads:
                yield from self._train(computation, plan, data, context)
            else:
                self._follow(computation, plan, context.seed)
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

    def _follow(self, computation: Any, plan: Plan, seed: int) -> None:
        """Make the steps that the first process announces."""
        while (horizon := computation.follow(self._carried, self.options.batch_size)) is not None:
            self._advance(computation, plan.batches, seed, horizon)

    def _train(
        self, computation: Computation, plan: Plan, data: Dataset, context: TrainingContext
    ) -> Iterator[TrainingEvent]:
        yield from plan.settle()
        while True:
            if self._step != self._evaluated_step and plan.is_due(self._step):
                self._evaluated_step = self._step
                with plan.evaluation():
                    yield Evaluated(
                        step=self._step,
                        epoch=(self._step - 1) // plan.batches.per_epoch + 1,
                        training_loss=float(self._training_loss),
                        validation_loss=self._validation_loss(computation, data, context.device),
                    )
                if not plan.steps:
                    plan.measure(self._step)
                    yield from plan.settle()
            if plan.steps and self._step >= plan.steps:
                return
            yield self._update(computation, plan, context.seed)

    def state(self) -> TrainerState:
        """The position, what the optimizers keep, and the carried state."""
        arrays, kept = ({}, {}) if self._optimization is None else self._optimization.state()
        arrays = {f"optimizer.{name}": array for name, array in arrays.items()}
        carried = self._carried
        if self._computation is not None:
            carried = self._computation.gathered(carried, self.options.batch_size)
        for i, parts in enumerate(zip(*(carried or ()), strict=True)):
            arrays[f"carried.{i}"] = torch.cat(parts).float().cpu().numpy()
        values = {
            "step": self._step,
            "training_loss": float(self._training_loss),
            "evaluated_step": self._evaluated_step,
            "optimizer": kept,
        }
        return TrainerState(arrays, values)

    def load_state(self, state: TrainerState) -> None:
        """Continue from `state` in the next `train`. Raises ValueError if it is none of these trainers."""
        structure(_Position, state.values)
        self._loaded = state

    def _restore(self, context: TrainingContext) -> None:
        if self._loaded is None:
            return
        assert self._optimization is not None
        arrays, values = self._loaded.arrays, self._loaded.values
        self._step, self._training_loss = values["step"], values["training_loss"]
        self._evaluated_step = values["evaluated_step"]
        prefix = "optimizer."
        kept = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        try:
            self._optimization.restore(kept, values["optimizer"])
        except (ValueError, LookupError, TypeError) as error:
            cause = f"the saved state of the optimizer is not one of this model and this trainer: {error}"
            raise TrainingError(cause, step=self._step) from error
        carried = [arrays[f"carried.{i}"] for i in range(sum(name.startswith("carried.") for name in arrays))]
        if context.processes is not None:
            carried = [part[context.processes.rows(len(part))] for part in carried]
        own = [torch.from_numpy(part.copy()).to(context.device) for part in carried]
        self._carried = [tuple(own)] if own else None
        self._loaded = None

    def _update(self, computation: Computation, plan: Plan, seed: int) -> StepDone:
        """One step on the next batch, and what there is to say of it."""
        horizon = plan.horizon(self._step + 1)
        computation.announce(horizon)
        tokens, rate, norm = self._advance(computation, plan.batches, seed, horizon)
        plan.step_done()
        return StepDone(
            step=self._step,
            steps=plan.steps or plan.estimated_steps(self._step),
            epoch=(self._step - 1) // plan.batches.per_epoch + 1,
            loss=self._training_loss,
            tokens=tokens,
            learning_rate=rate,
            gradient_norm=norm,
            stable_steps=plan.stable_steps(self.schedule),
        )

    def _advance(
        self, computation: Computation, batches: Batches, seed: int, horizon: int
    ) -> tuple[int, float, Tensor | None]:
        """Update the weights by the next batch; return its tokens, the learning rate and the gradient's norm."""
        assert self._optimization is not None
        epoch, number = divmod(self._step, batches.per_epoch)
        windows = batches.batch(epoch, number)
        carried = self._shared_out(len(computation.replicas)) if self.options.order == "streams" and number else None
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
        parts = [torch.tensor_split(torch.cat(part), workers) for part in zip(*self._carried, strict=True)]
        return [tuple(part) for part in zip(*parts, strict=True)]

    @torch.no_grad()
    def _validation_loss(self, computation: Computation, data: Dataset, device: str) -> float | None:
        """Mean loss per token of the held-out text, in float32; None if there is none."""
        model = computation.replicas[0]
        model.eval()
        total, count = torch.zeros((), dtype=torch.float64, device=device), 0
        for windows, counts in validation_batches(self.options, data.validation_windows()):
            tokens, carried, length = to_device(windows, device), None, windows.shape[1] - 1
            for start in range(0, length, data.window_length):  # a model's context may hold no more
                stop = min(start + data.window_length, length)
                logits, carried = model(tokens[:, start:stop], carried)
                losses = torch.nn.functional.cross_entropy(
                    logits.transpose(1, 2).float(), tokens[:, start + 1 : stop + 1], reduction="none"
                )
                counted = np.arange(start, stop) >= length - counts[:, None]
                total += (losses * torch.from_numpy(counted).to(device)).sum(dtype=torch.float64)
            count += int(counts.sum())
        return float(total) / count if count else None


@attrs.frozen
class _Position:
    """The values of a saved state; those under `optimizer` are the optimizers' own."""

    step: int = attrs.field(validator=COUNT)
    training_loss: Any = attrs.field(validator=is_number)
    evaluated_step: int = attrs.field(validator=ge(-1))
    optimizer: Mapping[str, Any]


@attrs.define(eq=False)
class Plan:
    """How many steps there will be, when to evaluate, and how to compute: as the options say, or as measured.

    steps  None while a budget's steps are being measured
    """

    options: GradientOptions
    context: TrainingContext
    batches: Batches
    steps: int | None = attrs.field(init=False)
    _evaluations: int = attrs.field(default=_EVALUATIONS, init=False)
    _measured: int = attrs.field(default=0, init=False)
    _stable_steps: int | None = attrs.field(default=None, init=False)
    _settled: dict[str, int | str] = attrs.field(factory=dict, init=False)
    _begun: float = attrs.field(factory=time.perf_counter, init=False)
    _times: list[float] = attrs.field(factory=list, init=False)
    _evaluation_seconds: float = attrs.field(default=0.0, init=False)

    def __attrs_post_init__(self) -> None:
        options, recorded = self.options, self.options.settled.get("steps")
        self.steps = options.steps
        if self.steps is None and options.budget is None:
            self.steps = options.epochs * self.batches.per_epoch
        elif self.steps is None and recorded is not None and options.settled.get("budget") == options.budget:
            self.steps, self._measured = int(recorded), int(options.settled.get("measured", 0))
            self._evaluations = int(options.settled.get("evaluations", _EVALUATIONS))

    def computation(self, model: Any) -> Computation:
        """With the precision and the workers that are the faster where they are "auto", or among several processes."""
        context, windows, processes = self.context, self.batches.batch(0, 0), self.context.processes
        if processes is None:
            precision = self._precision(model, windows)
            workers = self.options.settled.get("workers", self.options.workers)
            if workers == "auto":
                workers = self._settled["workers"] = computing.choose_workers(model, windows, context, precision)
            workers = min(int(workers), len(windows)) if context.device == "cpu" else 1
            return Computation.of(model, context.device, precision, workers)
        from textgen.gradient.distributed import DistributedComputation, check

        def choose() -> list[Any]:
            check(model, self.options.batch_size, processes)
            return [self._precision(model, windows), computing.leaves_unused(model, windows, context)]

        precision, unused = processes.agree(choose)
        return DistributedComputation.among(model, context.device, precision, unused, processes)

    def _precision(self, model: Any, windows: Any) -> str:
        precision = str(self.options.settled.get("precision", self.options.precision))
        if precision == "auto":
            precision = self._settled["precision"] = computing.choose_precision(model, windows, self.context)
        return precision

    def settle(self) -> Iterator[Settled]:
        """Tell once what was decided, so that it is recorded."""
        if self._settled:
            yield Settled(options={"settled": {**self.options.settled, **self._settled}})

    def is_due(self, step: int) -> bool:
        """Whether to evaluate after this step."""
        if self.steps is None:
            return self._is_measured()
        if step and step == self._measured:
            return True
        every = self.options.evaluate_every or self._evaluate_every(self.steps)
        return step > 0 and (step % every == 0 or step == self.steps)

    def horizon(self, step: int) -> int:
        """The number of steps for the schedule; far away while it is being measured, so that nothing decays."""
        return _FAR if self.steps is None or step <= self._measured else self.steps

    def stable_steps(self, schedule: Schedule) -> int | None:
        """How many steps are the same however many there will be; None while that is being measured."""
        if self._stable_steps is None and self.steps is not None:
            stable = stable_steps(schedule, self.steps)
            self._stable_steps = max(stable, self._measured) if stable else 0  # nothing decays while it is measured
        return self._stable_steps

    def _evaluate_every(self, steps: int) -> int:
        if self.options.budget is not None:
            return -(-steps // self._evaluations)
        return min(self.batches.per_epoch, -(-steps // 8))

    def step_done(self) -> None:
        """Take the time, while it is being measured."""
        if self.steps is None:
            self._times.append(time.perf_counter())

    def evaluation(self) -> EvaluationTimer:
        """Takes the time of an evaluation and of all that the engine does about it."""
        return EvaluationTimer(self)

    def _is_measured(self) -> bool:
        if len(self._times) <= 2 * _UNTIMED:
            return False
        assert self.options.budget is not None
        return self._times[-1] - self._times[_UNTIMED] >= _TIMED * seconds_of(self.options.budget)

    def estimated_steps(self, step: int) -> int:
        """A first guess at the number of steps, while it is being measured."""
        assert self.options.budget is not None
        share = (self.context.elapsed + time.perf_counter() - self._begun) / seconds_of(self.options.budget)
        return max(step + 1, int(step / share))

    def measure(self, step: int) -> None:
        """Set the number of steps that fill the budget."""
        assert self.options.budget is not None
        timed = self._times[_UNTIMED:]
        a_step = (timed[-1] - timed[0]) / (len(timed) - 1)
        budget, self._settled["budget"] = seconds_of(self.options.budget), self.options.budget
        spent = self.context.elapsed + time.perf_counter() - self._begun
        left = budget * (1 - _RESERVE) - spent
        most = int(_EVALUATING * left / max(self._evaluation_seconds, 1e-9))
        self._evaluations = self._settled["evaluations"] = max(1, min(_EVALUATIONS, most))
        left -= self._evaluations * self._evaluation_seconds
        self._measured = self._settled["measured"] = step
        self.steps = self._settled["steps"] = step + max(1, int(left / a_step))


@attrs.define(eq=False)
class EvaluationTimer:
    """A context manager that gives the time within it to the plan."""

    plan: Plan
    _begun: float = 0.0

    def __enter__(self) -> None:
        self._begun = time.perf_counter()

    def __exit__(self, *exception: object) -> None:
        self.plan._evaluation_seconds = time.perf_counter() - self._begun
