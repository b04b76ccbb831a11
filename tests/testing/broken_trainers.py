"""Trainers and objectives that break one statement of their contract each."""

import math

import attrs
import numpy as np
import torch
from checking import NOISE, broken, then
from good import Objective, Trainer

from textgen.gradient import Batches
from textgen.protocols import TrainerState


def done(**changes):
    """A trainer's events of a step with other attributes."""
    return {"done": then(Trainer.done, lambda event: attrs.evolve(event, **changes))}


def updating(noise):
    """A trainer whose goal is changed."""
    return {
        "update": lambda self, model, goal: Trainer.update(self, model, goal + noise(goal.shape))
    }


def training(change):
    """A trainer that changes the data."""

    def train(self, model, data, context):
        yield from Trainer.train(self, model, change(data), context)

    return {"train": train}


def train_on_all(data):
    return attrs.evolve(data, training=np.concatenate([data.training, data.validation]))


def lose_nothing(self, *arguments):
    for event in Trainer.train(self, *arguments):
        is_none = getattr(event, "validation_loss", "") is None
        yield attrs.evolve(event, validation_loss=0.0) if is_none else event


def seed_torch(self, model, goal):
    torch.manual_seed(self.step)
    Trainer.update(self, model, goal)


def begin_again(self, state):
    Trainer.load_state(self, state)
    if self.evaluated:
        self.step, self.evaluated = 0, False


def load_late(self, state):
    """A step is lost, and its update is made twice."""
    Trainer.load_state(self, state)
    self.step = max(0, self.step - 1)


def with_momentum(self, model, goal):
    """Its momentum is not in its state."""
    self.momentum = 0.5 * getattr(self, "momentum", 0.0) + 0.2 * goal
    Trainer.update(self, model, self.momentum)


def one_row_too_far(self, model, goal):
    """Looks a rate up in a table that ends before training does."""
    self.rate = [0.5, 0.5, 0.5][self.step - 1]
    Trainer.update(self, model, goal)


TRAINERS = [
    broken("component-raises", "a late IndexError", Trainer, update=one_row_too_far),
    broken("component-raises", "sorts the data", Trainer,
           **training(lambda data: data.training.sort())),
    broken("component-globals", "torch's seed", Trainer, update=seed_torch),
    broken("trainer-events", "None", Trainer, train=lambda *_: None),
    broken("trainer-events", "a dict", Trainer, done=lambda self, data: {}),
    broken("trainer-events", "no step", Trainer, step=4),
    broken("trainer-events", "other steps", Trainer, **done(steps=5)),
    broken("trainer-events", "NaN", Trainer, **done(loss=math.nan)),
    broken("trainer-events", "no Evaluated", Trainer, evaluated=True),
    broken("trainer-losses", "nothing learnt", Trainer, rate=0.0),
    broken("trainer-losses", "bits", Trainer,
           loss=then(Trainer.loss, lambda loss: loss * 1.44)),
    broken("trainer-losses", "a step's in bits", Trainer, **done(loss=math.log2(35))),
    broken("trainer-validation", "trained on", Trainer, **training(train_on_all)),
    broken("trainer-validation", "a loss of nothing", Trainer, train=lose_nothing),
    broken("trainer-deterministic", "noise", Trainer,
           **updating(lambda shape: 0.01 * NOISE.normal(size=shape))),
    broken("trainer-deterministic", "a constant seed", Trainer,
           **updating(lambda shape: 0.01 * np.random.default_rng(3).normal(size=shape))),
    broken("trainer-resumes", "no state", Trainer, state=lambda self: {}),
    broken("trainer-resumes", "a step behind", Trainer, load_state=load_late),
    broken("trainer-resumes", "momentum", Trainer, update=with_momentum),
    broken("trainer-resumes", "begins again", Trainer, load_state=begin_again),
    broken("component-raises", "values that are no JSON", Trainer,
           state=lambda self: TrainerState({}, {"self": {self.step}})),
]  # fmt: skip


def loss(change):
    """An objective whose sum is changed, by what it is and the objective."""

    def changed(self, model, batch, state):
        total, state = Objective.loss(self, model, batch, state)
        return change(self, total, batch), state

    return {"loss": changed}


def in_turn(self, data, options, seed):
    """Batches of which each asked for is the next."""
    made, asked = Objective.batches(self, data, options, seed), iter(range(99))
    return Batches(made.per_epoch, lambda *_: made.batch(0, next(asked) % made.per_epoch))


def growing(self, total, batch):
    self.calls = getattr(self, "calls", 0) + 1
    return total * self.calls


def held_out(self, data, options, seed):
    text = data.validation if len(data.validation) else data.training
    return Objective.batches(self, attrs.evolve(data, training=text), options, seed)


def validating_once(self, data, options):
    self.kept = getattr(self, "kept", None) or Objective.validation(self, data, options)
    return self.kept


def roll(self, model, batch, state):
    return Objective.loss(self, model, batch, state and tuple(part.roll(1, 0) for part in state))


OBJECTIVES = [
    broken("objective-batches", "in turn", Objective, batches=in_turn),
    broken("objective-batches", "of held-out data", Objective, batches=held_out),
    broken("objective-batches", "held-out ones once", Objective, validation=validating_once),
    broken("objective-sums", "another row's state", Objective, loss=roll),
    broken("objective-batches", "no token ids", Objective, validation=lambda *_: [(np.ones(3),)]),
    broken("objective-sums", "a count of batches", Objective, count=lambda self, batch: 1),
    broken("objective-sums", "a mean", Objective,
           **loss(lambda self, total, batch: total / len(batch[0]))),
    broken("objective-sums", "what it remembers", Objective, **loss(growing)),
    broken("objective-sums", "torch's random numbers", Objective,
           **loss(lambda self, total, batch: total * (1 + torch.rand(())))),
    broken("objective-falls", "no gradient", Objective,
           **loss(lambda self, total, batch: total * 0 + batch[0].numel())),
]  # fmt: skip
