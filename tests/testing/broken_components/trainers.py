"""Trainers: one that keeps the contract, and some that break one statement of it each."""

from __future__ import annotations

import threading
from typing import Any

import attrs
import numpy as np

from broken_components.cases import Case, offered
from textgen import Component, UsageError, option
from textgen.events import Evaluated, StepDone
from textgen.protocols import TrainerState


class GoodTrainer:
    """Moves the head's bias towards the logarithm of the tokens' frequency, in four steps."""

    steps = 4
    rate = 0.5

    def __init__(self, context: Any) -> None:
        self.step = 0
        self.evaluated = False

    def train(self, model: Any, data: Any, context: Any) -> Any:
        if not hasattr(model, "tensors"):
            raise UsageError("there is nothing to train: the model has no tensors")
        goal = np.log(np.bincount(data.training, minlength=data.vocab_size) + 1.0)
        while self.step < self.steps:
            self.step += 1
            self.update(model, goal, context)
            yield self.done(data)
        if not self.evaluated:
            self.evaluated = True
            held_out = self.loss(model, data.validation) if len(data.validation) else None
            yield Evaluated(
                step=self.step, epoch=self.step, training_loss=2.0, validation_loss=held_out
            )

    def loss(self, model: Any, tokens: Any) -> float:
        """In nats per token."""
        given = model.decoder(1).score(np.asarray(tokens[None, :-1], np.int64))[0]
        given = given - np.log(np.exp(given).sum(axis=-1, keepdims=True))
        return -float(given[np.arange(len(given)), tokens[1:]].mean())

    def update(self, model: Any, goal: Any, context: Any) -> None:
        bias = model.tensors()["head.bias"]
        model.load_tensors(
            {**model.tensors(), "head.bias": (bias + self.rate * (goal - bias)).astype(np.float32)}
        )

    def done(self, data: Any) -> Any:
        return StepDone(
            step=self.step, steps=self.steps, epoch=self.step, loss=3.0, tokens=len(data.training)
        )

    def state(self) -> Any:
        return TrainerState({}, {"step": self.step, "evaluated": self.evaluated})

    def load_state(self, state: Any) -> None:
        self.step, self.evaluated = state.values["step"], state.values["evaluated"]


class DictTrainer(GoodTrainer):
    def done(self, data: Any) -> Any:
        return {"step": self.step}


class FromZeroTrainer(GoodTrainer):
    def done(self, data: Any) -> Any:
        return attrs.evolve(super().done(data), step=self.step - 1)


class NaNTrainer(GoodTrainer):
    def done(self, data: Any) -> Any:
        return attrs.evolve(super().done(data), loss=float("nan"))


class BlindTrainer(GoodTrainer):
    """Never evaluates."""

    def __init__(self, context: Any) -> None:
        super().__init__(context)
        self.evaluated = True


class IdleTrainer(GoodTrainer):
    rate = 0.0


class NoisyTrainer(GoodTrainer):
    noise = np.random.default_rng()

    def update(self, model: Any, goal: Any, context: Any) -> None:
        super().update(model, goal + self.noise.normal(size=goal.shape) * 0.01, context)


class GlobalTrainer(GoodTrainer):
    def update(self, model: Any, goal: Any, context: Any) -> None:
        np.random.seed(context.seed)
        super().update(model, goal + np.random.normal(size=goal.shape) * 0.01, context)


class TalkingTrainer(GoodTrainer):
    def done(self, data: Any) -> Any:
        print("step", self.step)
        return super().done(data)


class MomentumTrainer(GoodTrainer):
    """Its momentum is not in its state."""

    momentum: Any = 0.0

    def update(self, model: Any, goal: Any, context: Any) -> None:
        bias = model.tensors()["head.bias"]
        self.momentum = 0.5 * self.momentum + 0.2 * (goal - bias)
        model.load_tensors(
            {**model.tensors(), "head.bias": (bias + self.momentum).astype(np.float32)}
        )


@attrs.frozen
class StepsConfig:
    """How long to train."""

    steps: int = option(4, help="number of steps", more=True)


class HastyTrainer(GoodTrainer):
    """Its rate depends on the number of steps, and it says otherwise."""

    def update(self, model: Any, goal: Any, context: Any) -> None:
        self.rate = 1 / self.steps
        super().update(model, goal, context)

    def done(self, data: Any) -> Any:
        return attrs.evolve(super().done(data), stable_steps=2)


def build_hasty(config: StepsConfig, context: Any) -> HastyTrainer:
    made = HastyTrainer(context)
    made.steps = config.steps
    return made


class EndlessTrainer(GoodTrainer):
    """Begins again when it is done."""

    def load_state(self, state: Any) -> None:
        super().load_state(state)
        if self.evaluated:
            self.step, self.evaluated = 0, False


class ObjectStateTrainer(GoodTrainer):
    def state(self) -> Any:
        return TrainerState({}, {"step": self.step, "evaluated": self.evaluated, "self": self})


class WritingTrainer(GoodTrainer):
    def train(self, model: Any, data: Any, context: Any) -> Any:
        data.training.sort()
        yield from super().train(model, data, context)


class StumblingTrainer(GoodTrainer):
    def train(self, model: Any, data: Any, context: Any) -> Any:
        model.tensors()
        yield from super().train(model, data, context)


class YieldlessTrainer(GoodTrainer):
    def train(self, model: Any, data: Any, context: Any) -> Any:
        for _ in super().train(model, data, context):
            pass


class FloatTrainer(GoodTrainer):
    def done(self, data: Any) -> Any:
        return 2.0


class HeldOutTrainer(GoodTrainer):
    """Trains on all there is."""

    def train(self, model: Any, data: Any, context: Any) -> Any:
        both = np.concatenate([data.training, data.validation])
        yield from super().train(model, attrs.evolve(data, training=both), context)


class BitsTrainer(GoodTrainer):
    def loss(self, model: Any, tokens: Any) -> float:
        return super().loss(model, tokens) / float(np.log(2))


class AccumulatingTrainer(GoodTrainer):
    """Reports a loss that was divided for the batches that make a step."""

    def done(self, data: Any) -> Any:
        return attrs.evolve(super().done(data), loss=3.0 / 4)


class CPUTrainer(GoodTrainer):
    """Puts its batches on the CPU, whatever the context says."""

    def update(self, model: Any, goal: Any, context: Any) -> None:
        import torch

        with torch.no_grad():
            model.eval()(torch.zeros((2, 3), dtype=torch.int64))
        super().update(model, goal, context)


class ThreadTrainer(GoodTrainer):
    """Leaves its loader running."""

    def train(self, model: Any, data: Any, context: Any) -> Any:
        threading.Thread(target=threading.Event().wait, daemon=True, name="loader").start()
        yield from super().train(model, data, context)


class DictStateTrainer(GoodTrainer):
    def state(self) -> Any:
        return {"step": self.step}


TRAINERS = [
    Case(
        "trainer",
        "trainer-validation",
        "head.bias depends on the held-out data",
        offered(HeldOutTrainer),
    ),
    Case("trainer", "trainer-losses", "the last validation loss is", offered(BitsTrainer)),
    Case("trainer", "trainer-losses", "the loss of step 1 is 0.75", offered(AccumulatingTrainer)),
    Case("trainer", "trainer-device", "fed tokens on 'cpu'", offered(CPUTrainer)),
    Case(
        "trainer", "component-leaks", "it left the thread 'loader' behind", offered(ThreadTrainer)
    ),
    Case(
        "trainer",
        "trainer-events",
        "train() gave None; is a `yield` missing?",
        offered(YieldlessTrainer),
    ),
    Case("trainer", "trainer-events", "it yielded float", offered(FloatTrainer)),
    Case("trainer", "trainer-state-form", "state() gave dict", offered(DictStateTrainer)),
    Case("trainer", "trainer-events", "yielded dict", offered(DictTrainer)),
    Case("trainer", "trainer-data", "read-only", offered(WritingTrainer)),
    Case("trainer", "trainer-steps", "[0, 1, 2, 3", offered(FromZeroTrainer)),
    Case("trainer", "trainer-steps", "is nan", offered(NaNTrainer)),
    Case("trainer", "trainer-evaluates", "the last event is StepDone", offered(BlindTrainer)),
    Case("trainer", "trainer-learns", "the loss was", offered(IdleTrainer)),
    Case("trainer", "trainer-quiet", "to stdout", offered(TalkingTrainer)),
    Case("trainer", "trainer-quiet", "random state of NumPy", offered(GlobalTrainer)),
    Case("trainer", "trainer-deterministic", "a second training differs", offered(NoisyTrainer)),
    Case("trainer", "trainer-state-form", "more than JSON can hold", offered(ObjectStateTrainer)),
    Case("trainer", "trainer-resumes", "training gave Evaluated", offered(MomentumTrainer)),
    Case(
        "trainer",
        "trainer-stable",
        "gave another head.bias",
        Component("good", StepsConfig, build_hasty),
    ),
    Case("trainer", "trainer-finished", "yielded StepDone", offered(EndlessTrainer)),
    Case("trainer", "trainer-refuses", "raised AttributeError", offered(StumblingTrainer)),
]


class RaisingTrainer(GoodTrainer):
    def update(self, model: Any, goal: Any, context: Any) -> None:
        self.rate = 1 / 0
