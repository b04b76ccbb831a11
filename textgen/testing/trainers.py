"""The contract of trainers."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar, Final, Unpack

import attrs
import numpy as np

from textgen.contracts.checks import FAILURES
from textgen.data import Dataset
from textgen.errors import TextgenError
from textgen.events import Evaluated, StepDone
from textgen.files.reading import dump_tensors
from textgen.plugin.component import Component
from textgen.protocols import TrainerState
from textgen.testing.environment import build_from_table, close
from textgen.testing.outcomes import Outcome, Skip, Violation
from textgen.testing.suite import GivenData, Suite, check
from textgen.testing.training_data import (
    TRAINING,
    Training,
    differing,
    is_torch_module,
    small_dataset,
    text_loss,
    written_and_read,
)
from textgen.testing.watching import seeds

__tracebackhide__ = True  # pytest shows the test and the code of the component

# By which factor a loss may differ that is measured on windows, without what is before them, or on
# a batch. Bits are 1.44 of nats.
_CLOSE: Final = 1.25
SMALL_RNN: Final[Mapping[str, Any]] = {"type": "rnn", "hidden_size": 8, "dropout": 0.1}


def check_trainer(
    component: Component, *, model: Mapping[str, Any] = SMALL_RNN, **given: Unpack[GivenData]
) -> tuple[Outcome, ...]:
    """Hold a trainer to its contract. Raises ContractFailure.

    model       the table of a model that it can train, unless `start` names a run
    """
    return check(TrainerSuite, component, given, model=model)


@attrs.frozen
class TrainerSuite(Suite):
    """The checks of a trainer."""

    kind: ClassVar[str] = "trainer"
    model: Mapping[str, Any] = SMALL_RNN

    @cached_property
    def training(self) -> Training:
        return self._train()

    @cached_property
    def without(self) -> Training:
        """A training with nothing held out. Raises Skip where that is refused."""
        try:
            return self._train(held_out=False)
        except TextgenError as error:
            raise Skip(f"it refuses to train with nothing held out: {error}") from error

    def data(self) -> None:
        try:
            assert self.training
        except ValueError as error:
            if "read-only" not in str(error):
                raise
            raise Violation(f"training raised {type(error).__name__}: {error}") from error

    def events(self) -> None:
        for event in self.training.events:
            if not isinstance(event, StepDone | Evaluated):
                raise Violation(f"it yielded {type(event).__name__}")
        if not any(isinstance(event, StepDone) for event in self.training.events):
            raise Violation("it yielded no StepDone")

    def steps(self) -> None:
        done = [event for event in self.training.events if isinstance(event, StepDone)]
        if (numbers := [event.step for event in done]) != list(range(1, len(done) + 1)):
            raise Violation(f"the steps are numbered {str(numbers[:6])[:-1]}, …]")
        if (totals := {event.steps for event in done}) != {len(done)}:
            raise Violation(f"it announced {sorted(totals)} steps and did {len(done)}")
        for event in done:
            if event.epoch < 1 or event.tokens < 1:
                raise Violation(f"step {event.step} has epoch {event.epoch}, {event.tokens} tokens")
            if not math.isfinite(_number(event.loss)):
                raise Violation(f"the loss of step {event.step} is {event.loss!r}")

    def evaluates(self) -> None:
        for held_out in (True, False):
            events = (self.training if held_out else self.without).events
            last = events[-1]
            steps = sum(isinstance(event, StepDone) for event in events)
            if not isinstance(last, Evaluated) or last.step != steps:
                raise Violation(f"the last event is {last}")
            loss = last.validation_loss
            fits = math.isfinite(_number(loss)) if held_out else loss is None
            if not fits or not math.isfinite(_number(last.training_loss)):
                which = "data" if held_out else "nothing"
                raise Violation(f"with {which} held out, the last event is {last}")

    def learns(self) -> None:
        after = text_loss(self.training.model, self._data())
        if not after < self.training.loss_before:
            before = self.training.loss_before
            raise Violation(f"the loss was {before:.4f} nats per token, and is {after:.4f}")

    def losses(self) -> None:
        """What it reports, beside what the model's own score gives."""
        last = next(
            event for event in reversed(self.training.events) if isinstance(event, Evaluated)
        )
        expected = text_loss(self.training.model, self._data(), "validation")
        self._compare("the last validation loss", last.validation_loss, expected)
        if is_torch_module(self.training.model):
            first = next(event for event in self.training.events if isinstance(event, StepDone))
            self._compare("the loss of step 1", first.loss, self.training.loss_before)

    def _compare(self, what: str, loss: Any, expected: float) -> None:
        given = _number(loss)
        if not expected / _CLOSE < given < expected * _CLOSE:
            seen = (
                f"{what} is {given:.4f}, and by the model's own score() it is "
                f"{expected:.4f} nats per token"
            )
            raise Violation(seen)

    def validation(self) -> None:
        """The weights before the first evaluation, with other held-out data and with none."""
        with_data, without = self.training, self.without
        for place, (ours, theirs) in enumerate(zip(with_data.events, without.events, strict=False)):
            if not isinstance(ours, StepDone) or not isinstance(theirs, StepDone):
                return
            if name := differing(with_data.tensors[place], without.tensors[place]):
                raise Violation(f"after step {ours.step}, {name} depends on the held-out data")

    def deterministic(self) -> None:
        again, other = self._train(), self._train(seed=1)
        self._compare_rest(again.events, again.model, 0, "a second training")
        is_constant = again.seeds and again.seeds == other.seeds
        if is_constant and not differing(other.model.tensors(), again.model.tensors()):
            raise Violation("another seed gave the same weights, drawn by the same generators")

    def state_form(self) -> None:
        for state in self.training.states:
            if not isinstance(state, TrainerState):
                raise Violation(f"state() gave {type(state).__name__}")
            for name, array in state.arrays.items():
                if not isinstance(array, np.ndarray):
                    raise Violation(f"{name} is of type {type(array).__name__}")
            try:
                json.dumps(state.values)
            except (TypeError, ValueError) as error:
                raise Violation(f"its values are more than JSON can hold: {error}") from error
            dump_tensors(state.arrays)

    def resumes(self) -> None:
        count = len(self.training.events)
        for stop in sorted({1, 2, count // 2, count - 1, count} & set(range(1, count + 1))):
            events, model = self._resume(stop)
            what = f"gone on from event {stop} of {count}, training"
            self._compare_rest(events, model, stop, what)

    def _compare_rest(self, events: list[Any], model: Any, begin: int, what: str) -> None:
        """The events from a place on, and the weights after them."""
        left = self.training.events[begin:]
        if len(events) != len(left):
            raise Violation(f"{what} yielded {len(events)} events, and had {len(left)} left")
        for number, (given, wanted) in enumerate(zip(events, left, strict=True), begin + 1):
            if given != wanted:
                raise Violation(f"{what} gave {given} as event {number}, not {wanted}")
        if name := differing(model.tensors(), self.training.model.tensors()):
            raise Violation(f"{what} gave another {name}")

    def refuses(self) -> None:
        trainer = self.new()
        try:
            next(iter(trainer.train(object(), self._data(), TRAINING)), None)
        except TextgenError as error:
            if not str(error):
                raise Violation("the error says nothing") from error
        except FAILURES as error:
            kind = type(error).__name__
            raise Violation(f"a model that is an object() raised {kind}: {error}") from error
        else:
            raise Violation("a model that is an object() was trained")

    def _train(self, *, held_out: bool = True, seed: int = 0) -> Training:
        model, trainer = self._new_model(), self.new(seed=seed)
        training = Training(model, text_loss(model, self._data()))
        context = attrs.evolve(TRAINING, seed=seed)
        events = trainer.train(model, self._data(held_out), context)
        if events is None:
            raise Violation("train() gave None; is a `yield` missing?", "trainer-events")
        with seeds() as training.seeds:
            for event in events:
                training.events.append(_read(event))
                training.tensors.append(copy.deepcopy(model.tensors()))
                training.states.append(copy.deepcopy(trainer.state()))
        close(trainer)
        return training

    def _resume(self, stop: int) -> tuple[list[Any], Any]:
        """The events that are left, and the model, after a way through files."""
        model, trainer = self._new_model(), self.new()
        model.load_tensors(written_and_read(self.training.tensors[stop - 1]))
        state = self.training.states[stop - 1]
        values = json.loads(json.dumps(state.values))
        trainer.load_state(TrainerState(written_and_read(state.arrays), values))
        return [_read(event) for event in trainer.train(model, self._data(), TRAINING)], model

    def _new_model(self) -> Any:
        table, context = self.subject.tables.get("model", self.model), self.subject.fitted_context()
        return build_from_table(self.subject.plugins, "model", table, context)

    def _data(self, held_out: bool = True) -> Dataset:
        return small_dataset(self.subject, held_out=held_out)


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
