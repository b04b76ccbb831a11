"""The contract of trainers."""

from __future__ import annotations

import json
import math
from functools import cached_property
from typing import Any, Final

import attrs

from textgen.contracts.checks import FAILURES
from textgen.errors import TextgenError
from textgen.events import Evaluated, StepDone
from textgen.protocols import Table, TrainerState, TrainingContext
from textgen.testing.environment import close
from textgen.testing.outcomes import Skip, Violation
from textgen.testing.partners import SMALL_NETWORK
from textgen.testing.process import seeds
from textgen.testing.training import (
    Training,
    TrainingSuite,
    differing,
    is_torch_module,
    written_and_read,
)

__tracebackhide__ = True  # pytest shows the test and the code of the component

# By which factor a loss may differ that is measured on windows, without what is before them, or on
# a batch. Bits are 1.44 of nats.
_LOSS_TOLERANCE: Final = 1.25


@attrs.frozen(kw_only=True)
class TrainerSuite(TrainingSuite):
    """The checks of a trainer, with a small recurrent network, or the first model of its package
    that it takes.
    """

    @cached_property
    def model(self) -> Table:
        """The table of a model that it trains."""
        refusals = []
        for table in self.tables("model", {**SMALL_NETWORK, "dropout": 0.1}):
            assert table is not None
            model = self.other("model", table, tokenizer=self.tokenizer)
            context = TrainingContext(seed=0, device="cpu")
            try:
                next(iter(self.new().train(model, self.data(), context) or ()), None)
            except TextgenError as error:
                refusals.append(str(error) or type(error).__name__)
                continue
            except FAILURES:  # the checks will say so
                pass
            return table
        raise Skip(f"it trains no model that is known here: {'; '.join(refusals)}")

    def new_model(self) -> Any:
        """A model, always with the same weights."""
        return self.other("model", self.model, tokenizer=self.tokenizer)

    @cached_property
    def training(self) -> Training:
        """A whole training."""
        return self.trained()

    def trained(self, *, held_out: bool = True, seed: int = 0) -> Training:
        """Another one."""
        trainer = self.new(seed=seed)
        made = self.train(trainer, self.new_model(), held_out=held_out, seed=seed)
        close(trainer)
        return made

    def trainer_events(self) -> None:
        events = self.training.events
        for event in events:
            if not isinstance(event, StepDone | Evaluated):
                raise Violation(f"it yielded {type(event).__name__}")
        done = [event for event in events if isinstance(event, StepDone)]
        numbers = [(event.step, event.steps) for event in done]
        if not done or numbers != [(step, len(done)) for step in range(1, len(done) + 1)]:
            raise Violation(f"step and steps of its {len(done)} StepDone are {numbers[:5]}")
        for event in done:
            if event.epoch < 1 or event.tokens < 1 or not math.isfinite(_number(event.loss)):
                raise Violation(f"it yielded {event}")
        last = events[-1]
        if not isinstance(last, Evaluated) or last.step != len(done):
            raise Violation(f"the last event is {last}")

    def trainer_losses(self) -> None:
        """Losses that it reports, beside the model's own score."""
        events, model, untrained = self.training.events, self.training.model, self.new_model()
        if not untrained.tensors():
            raise Skip("its model has no weights, and learns nothing")
        before, after = self.text_loss(untrained), self.text_loss(model)
        if not after < before:
            raise Violation(
                f"on its training text, the model had {before:.4f} nats per token, and now has "
                f"{after:.4f}"
            )
        losses = {
            "the last validation loss": (
                next(e.validation_loss for e in events[::-1] if isinstance(e, Evaluated)),
                self.text_loss(model, "validation"),
            )
        }
        if is_torch_module(model):
            first = next(event for event in events if isinstance(event, StepDone))
            losses["the loss of step 1"] = first.loss, before
        for what, (loss, expected) in losses.items():
            if not expected / _LOSS_TOLERANCE < _number(loss) < expected * _LOSS_TOLERANCE:
                raise Violation(
                    f"{what} is {_number(loss):.4f}, and by the model's own score() it is "
                    f"{expected:.4f} nats per token"
                )

    def trainer_validation(self) -> None:
        """Losses with nothing held out, and the weights before the first evaluation."""
        held_out = self.training
        try:
            without = self.trained(held_out=False)
        except TextgenError as error:
            raise Skip(f"it refuses to train with nothing held out: {error}") from error
        if getattr(last := without.events[-1], "validation_loss", "") is not None:
            raise Violation(f"with nothing held out, the last event is {last}")
        for event, *tensors in zip(
            held_out.events, held_out.tensors, without.tensors, strict=False
        ):
            if isinstance(event, Evaluated):
                return
            if name := differing(*tensors):
                raise Violation(f"before the first evaluation, {name} depends on the held-out data")

    def trainer_deterministic(self) -> None:
        with seeds() as ours:
            again = self.trained()
        self._same(again, 0, "a second training")
        with seeds() as theirs:
            other = self.trained(seed=1)
        is_constant = ours and ours == theirs
        if is_constant and not differing(other.model.tensors(), again.model.tensors()):
            raise Violation("another seed gave the same weights, drawn by the same generators")

    def trainer_resumes(self) -> None:
        """The trainer resumes from several steps, with a state that was written to files."""
        count = len(self.training.events)
        for stop in sorted({1, 2, count // 2, count - 1, count} & {*range(1, count + 1)}):
            state = self.training.states[stop - 1]
            if not isinstance(state, TrainerState):
                raise Violation(f"state() gave {type(state).__name__}")
            model, trainer = self.new_model(), self.new()
            model.load_tensors(written_and_read(self.training.tensors[stop - 1]))
            values = json.loads(json.dumps(state.values))
            trainer.load_state(TrainerState(written_and_read(state.arrays), values))
            what = f"gone on from event {stop} of {count}, training"
            self._same(self.train(trainer, model), stop, what)

    def _same(self, training: Training, begin: int, what: str) -> None:
        """Compare with the events from a step on, and with the weights after them."""
        left = self.training.events[begin:]
        if len(training.events) != len(left):
            raise Violation(f"{what} yielded {len(training.events)} events, with {len(left)} left")
        for number, events in enumerate(zip(training.events, left, strict=True), begin + 1):
            given, wanted = map(_read, events)
            if given != wanted:
                raise Violation(f"{what} gave {given} as event {number}, not {wanted}")
        if name := differing(training.model.tensors(), self.training.model.tensors()):
            raise Violation(f"{what} gave another {name}")


def _number(value: Any) -> float:
    """A loss as a number, which may be on a device until it is read; NaN for anything else."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _read(event: Any) -> Any:
    """An event with numbers that can be compared."""
    if not isinstance(event, StepDone):
        return event
    return attrs.evolve(event, loss=event.loss, gradient_norm=event.gradient_norm)
