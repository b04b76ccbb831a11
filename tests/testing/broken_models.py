"""Models, decoders and trainers that break one statement of their contract each: a good one with an
override.
"""

from __future__ import annotations

import math
import time
from typing import Any

import attrs
import numpy as np
from checking import NOISE, broken, module, raising, then
from good import Decoder, Model, Objective, RowDecoder, Trainer

from textgen import UsageError
from textgen.gradient import Batches
from textgen.protocols import TrainerState


def extend(change):
    """A decoder's `extend` whose logits are changed."""
    return {"extend": then(Decoder.extend, change)}


def write_tokens(self, tokens):
    tokens[tokens < 1] = 1
    return Decoder.extend(self, tokens)


def noisy(logits):
    return logits + NOISE.normal(size=logits.shape)


def least_likely(self, tokens, steps, forbidden):
    made = []
    for _ in range(steps):
        tokens = self.extend(tokens[:, None]).argmin(axis=-1)
        made.append(tokens)
    return np.stack(made, axis=1)


class BufferDecoder(Decoder):
    """Remembers its logits where the caller may write into them."""

    logits: Any = None

    def extend(self, tokens):
        if tokens.shape[1] or self.logits is None:
            self.logits = super().extend(tokens)
        return self.logits


class EmptiedDecoder(RowDecoder):
    """Hands its rows out and keeps none of what they hold."""

    def take(self, rows):
        taken = super().take(rows)
        self.memory[rows] = 0
        return taken


def take_without_state(self, rows):
    taken = RowDecoder.take(self, rows)
    taken.read_state = dict
    return taken


def take_roughly(self, rows):
    taken = RowDecoder.take(self, rows)
    taken.extend = lambda tokens: RowDecoder.extend(taken, tokens) + 1e-9
    return taken


def first_only(scored):
    scored[..., 1:] = -np.inf
    return scored


class StaleModel(Model):
    """Makes a copy for its decoders, once."""

    kept: Any = None

    def decoder(self, batch_size):
        if self.kept is None:
            self.kept = Model.__new__(Model)
            self.kept.weights = self.weights.copy()
        return Decoder(self.kept, batch_size)


def round_off(self, tensors):
    self.weights = tensors["weights"] + 1e-9


def trust(self, tensors):
    self.weights = tensors.get("weights", self.weights)


MODELS = [
    broken("model-shape", "gave None; is a `return` missing?", Decoder, **extend(lambda x: None)),
    broken("model-shape", "score() of tokens (1, 1) gave (1, ", Decoder,
           score=then(Decoder.score, lambda scored: scored[:, -1])),
    broken("model-shape", "batch_size is 1, not 2", Decoder, batch_size=1),
    broken("model-shape", "gave a list", Decoder, **extend(lambda x: x.tolist())),
    broken("model-finite", "+inf after", Decoder, **extend(lambda logits: logits + np.inf)),
    broken("model-finite", "every token is impossible", Decoder, **extend(lambda x: x - np.inf)),
    broken("model-input", "changed the tokens", Decoder, extend=lambda self, tokens: (
           tokens.setflags(write=True), tokens.fill(0), Decoder.extend(self, tokens))[2]),
    broken("model-stepwise", "not (1, 35)", Decoder,
           score=then(Decoder.score, lambda scored: scored[..., 1:])),
    broken("model-stepwise", "other tokens that are impossible", Decoder,
           score=then(Decoder.score, first_only)),
    broken("model-take-join", "memory of a row is None", RowDecoder, take=take_without_state),
    broken("model-take-join", "differs in the last bits", RowDecoder, take=take_roughly),
    broken("model-saved", "'weights' of type list", Model,
           tensors=lambda self: {"weights": self.weights.tolist()}),
    broken("model-saved", "came back changed", Model, load_tensors=round_off),
    broken("model-refuses", "is empty", Model, load_tensors=raising(ValueError())),
    broken("model-state", "of a state were written", Decoder, write_state=lambda self, state: None),
    broken("model-take-join", "offers take() alone", Decoder, take=RowDecoder.take),
    broken("model-shape", "float16", Decoder,
           **extend(lambda logits: logits.astype(np.float16))),
    broken("model-finite", "NaN after", Decoder, **extend(lambda logits: logits * np.nan)),
    broken("model-input", "of read-only tokens raised", Decoder, extend=write_tokens),
    broken("model-deterministic", "a second decoder", Decoder, **extend(noisy)),
    broken("model-stepwise", "beside score(), gave logits", Decoder, score=then(
           Decoder.score, lambda scored: scored + scored.mean(axis=1, keepdims=True))),
    broken("model-rows", "than it gives alone", Decoder,
           **extend(lambda logits: logits - logits.mean(axis=0) * 0.1)),
    broken("model-rows", "row 0 of 33", Decoder,
           **extend(lambda logits: logits * (1 + (len(logits) > 8)))),
    broken("model-stepwise", "from token 0 to 50", Decoder,
           extend=lambda self, tokens: Decoder.extend(self, tokens[:, -1:])),
    broken("model-decoders", "other decoders at work", Decoder,  # all have the attributes of one
           __setattr__=lambda self, name, value: setattr(type(self), name, value)),
    broken("model-stepwise", "beside score(), gave", BufferDecoder),
    broken("model-greedy", "is not the likeliest", Decoder, continue_greedily=least_likely),
    broken("model-state-form", "is empty", Decoder, read_state=lambda self: {}),
    broken("model-state-form", "memory of a batch of 3 is (", Decoder,
           read_state=lambda self: {"memory": self.memory.T.copy()}),
    broken("model-state", "changed memory", Decoder,
           read_state=lambda self: {"memory": self.memory}),
    broken("model-take-join", "after join() and take()", EmptiedDecoder),
    broken("model-stepwise", "from token 1560 to 1561", Decoder, score=then(Decoder.score,
           lambda scored: np.concatenate([scored[:, :1560], 2 * scored[:, 1560:]], axis=1))),
    broken("model-deterministic", "a second decoder", Decoder,
           **extend(lambda logits: logits * (1 + time.localtime().tm_hour))),
    broken("model-seed", "another seed gave the same", Model, __init__=lambda self, context:
           Model.__init__(self, attrs.evolve(context, seed=1))),
    broken("model-saved", "and loaded gives logits", StaleModel),
    broken("model-refuses", "were taken", Model, load_tensors=trust),
    broken("model-seed", "of the same seed differs", Model, __init__=lambda self, context: setattr(
        self, "weights", NOISE.normal(size=(context.vocab_size, context.vocab_size)))),
]  # fmt: skip

# Torch modules.

MODULES = [
    module("model-forward", "forward gave Tensor", lambda logits, state: logits, "model-causal"),
    module("model-forward", "forward() of tokens (3, 12) gave logits (3, 12, 35)",
           lambda logits, state: (logits[..., 1:], state), "model-causal"),
    module("model-causal", "forward() of 5 tokens and those",
           lambda logits, state: (logits + logits.mean(dim=1, keepdim=True), state)),
    module("model-forward", "going on from a state gave",
           lambda logits, state: (logits, tuple(part * 0 for part in state))),
    module("model-forward", "score() of its own decoder gave",
           lambda logits, state: (logits * 2, state)),
    module("model-forward", "score() of its own decoder gave", lambda logits, state:
           (logits * (1 + (logits.new_ones(logits.shape).cumsum(1) > 70)), state)),
    module("model-forward", "score() of its own decoder gave", lambda logits, state:
           (logits * (1 + (logits.new_ones(logits.shape).cumsum(1) > 1500)), state)),
    module("model-dropout", "torch's global generator",
           lambda logits, state: (logits + logits.new_empty(()).uniform_(), state)),
    module("model-dropout", "a second training step gave other",
           lambda logits, state: (logits + float(NOISE.normal()), state)),
]  # fmt: skip

# Trainers.


def done(**changes):
    """A trainer's events of a step with other attributes."""
    return {"done": then(Trainer.done, lambda event: attrs.evolve(event, **changes))}


def noisy_update(self, model, goal):
    Trainer.update(self, model, goal + NOISE.normal(size=goal.shape) * 0.01)


def constant_update(self, model, goal):
    Trainer.update(self, model, goal + np.random.default_rng(3).normal(size=goal.shape) * 0.01)


def train_on_all(self, model, data, context):
    both = np.concatenate([data.training, data.validation])
    yield from Trainer.train(self, model, attrs.evolve(data, training=both), context)


def sort_data(self, model, data, context):
    data.training.sort()
    yield from Trainer.train(self, model, data, context)


def ask_model(self, model, *others):
    model.tensors()
    yield from Trainer.train(self, model, *others)


def begin_again(self, state):
    Trainer.load_state(self, state)
    if self.evaluated:
        self.step, self.evaluated = 0, False


class MomentumTrainer(Trainer):
    """Its momentum is not in its state."""

    momentum: Any = 0.0

    def update(self, model, goal):
        bias = model.tensors()["head.bias"]
        self.momentum = 0.5 * self.momentum + 0.2 * (goal - bias)
        moved = (bias + self.momentum).astype(np.float32)
        model.load_tensors({**model.tensors(), "head.bias": moved})


TRAINERS = [
    broken("component-raises", "raised ValueError: not today", Trainer, "trainer-data",
           train=raising(ValueError("not today"))),
    broken("trainer-events", "no StepDone", Trainer, step=4),
    broken("trainer-steps", "announced [5] steps and did 4", Trainer, **done(steps=5)),
    broken("trainer-steps", "step 1 has epoch 0", Trainer, **done(epoch=0)),
    broken("trainer-evaluates", "with data held out", Trainer, loss=lambda *_: "low"),
    broken("trainer-deterministic", "gave another head.bias", Trainer, update=noisy_update,
           loss=lambda *_: 2.0),
    broken("trainer-state-form", "state() gave dict", Trainer, state=lambda self: {}),
    broken("trainer-state-form", "step is of type int", Trainer,
           state=lambda self: TrainerState({"step": self.step})),
    broken("trainer-resumes", "yielded 5 events, and had 4 left", Trainer,
           load_state=lambda self, state: None),
    broken("trainer-resumes", "training gave another head.bias", MomentumTrainer,
           loss=lambda *_: 2.0),
    broken("trainer-refuses", "the error says nothing", Trainer, train=raising(UsageError(""))),
    broken("trainer-refuses", "was trained", Trainer, train=lambda *_: iter(())),
    broken("trainer-events", "train() gave None; is a `yield` missing?", Trainer,
           train=lambda self, *arguments: None),
    broken("trainer-steps", "is nan", Trainer, **done(loss=float("nan"))),
    broken("trainer-losses", "the loss of step 1 is 5.1", Trainer, **done(loss=math.log2(35))),
    broken("trainer-data", "read-only", Trainer, train=sort_data),
    broken("trainer-events", "it yielded dict", Trainer, done=lambda self, data: {}),
    broken("trainer-steps", "[7, 7, 7, 7", Trainer, **done(step=7)),
    broken("trainer-evaluates", "the last event is StepDone", Trainer, evaluated=True),
    broken("trainer-learns", "the loss was", Trainer, rate=0.0),
    broken("trainer-losses", "the last validation loss is", Trainer,
           loss=then(Trainer.loss, lambda loss: loss * 1.44)),
    broken("trainer-deterministic", "training gave Evaluated", Trainer, update=noisy_update),
    broken("trainer-deterministic", "another seed gave the same", Trainer, update=constant_update),
    broken("trainer-validation", "head.bias depends on the held-out", Trainer, train=train_on_all),
    broken("trainer-state-form", "more than JSON can hold", Trainer,
           state=lambda self: TrainerState({}, {"self": {self.step}})),
    broken("trainer-resumes", "training gave Evaluated", MomentumTrainer),
    broken("trainer-resumes", "and had 0 left", Trainer, load_state=begin_again),
    broken("trainer-refuses", "raised AttributeError", Trainer, train=ask_model),
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


OBJECTIVES = [
    broken("objective-batches", "is another", Objective, batches=in_turn),
    broken("objective-batches", "no tuple", Objective,
           batches=then(Objective.batches, lambda made: Batches(made.per_epoch,
                        then(made.batch, lambda batch: batch[0])))),
    broken("objective-batches", "no token ids", Objective, validation=lambda *_: [(np.ones(3),)]),
    broken("objective-counts", "of a batch is 1, and of its rows [1, 1", Objective,
           count=lambda self, batch: 1),
    broken("objective-sums", "its rows together", Objective,
           **loss(lambda self, total, batch: total / len(batch[0]))),
    broken("objective-repeatable", "a second time", Objective, "objective-repeatable",
           **loss(growing)),
    broken("objective-falls", "and is", Objective, "objective-falls",
           **loss(lambda self, total, batch: total * 0 + 5)),
]  # fmt: skip
