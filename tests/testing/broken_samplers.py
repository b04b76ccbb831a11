"""Samplers and strategies that break one statement of their contract each."""

from __future__ import annotations

import random
import time

import numpy as np
from checking import NOISE, broken
from good import (
    Sampler,
    Sampling,
    StateSampler,
    Strategy,
)

from textgen.protocols import Moves


def call(change):
    """A sampler's call that gives something else."""
    return {"__call__": lambda self, logits, history: change(logits)}


def write_logits(logits):
    logits[:, 0] -= 1
    return logits


def square_root(logits):
    with np.errstate(all="ignore"):
        return logits**0.5


def race(self, logits, history):
    self.logits = logits
    time.sleep(0)
    return self.logits * 0.5


def over_the_batch(logits):
    best = logits.max()
    return logits - (best if abs(float(best)) < 1e30 else 0)


def accept_all(self, tokens, logits, history):
    """Moves the state of every row by what all rows drew."""
    return {"seen": history.state["seen"] + [0, int(tokens.sum()) % 7]}


def accept_more(self, tokens, logits, history):
    return {"seen": np.concatenate([history.state["seen"], tokens[:, None]], axis=1)}


def accept_into(self, tokens, logits, history):
    history.state["seen"][:] += 1
    return history.state


SAMPLERS = [
    broken("sampler-torch", "other logits than an array", Sampler,
           **call(lambda x: x * (0.5 if isinstance(x, np.ndarray) else 0.25))),
    broken("component-raises", "the check sampler-device raised", Sampler, "sampler-device",
           **call(lambda x: x + np.ones(x.shape, "float32"))),
    broken("component-raises", "ZeroDivisionError", StateSampler, "sampler-state-form",
           start=lambda self, prompt: 1 / 0),
    broken("sampler-input", "accept wrote into", StateSampler, "sampler-state-form",
           accept=accept_into),
    broken("sampler-history", "history is 'all'", Sampler, history="all"),
    broken("sampler-state-form", "list from start", StateSampler, start=lambda self, prompt: [0]),
    broken("sampler-history", "that it reads counts", Sampler, __call__=lambda s, logits, history:
           logits * (0.5 if history.counts.any() else 1)),
    broken("sampler-shape", "came back as (", Sampler, **call(lambda logits: logits[:, :-1])),
    broken("sampler-shape", "float64, a ndarray on cpu", Sampler, **call(
           lambda x: x.astype(np.float64) if isinstance(x, np.ndarray) else x.double())),
    broken("sampler-input", "it wrote into the logits", Sampler, **call(write_logits)),
    broken("sampler-input", "wrote into history.lengths", Sampler,
           __call__=lambda s, logits, history: (history.lengths.fill(1), logits)[1]),
    broken("sampler-finite", "made NaN", Sampler, **call(square_root)),
    broken("sampler-deterministic", "a second time", Sampler,
           **call(lambda logits: logits * float(NOISE.uniform(0.5, 1)))),
    broken("sampler-deterministic", "a second time", Sampler,
           **call(lambda logits: logits / (1 + time.localtime().tm_hour))),
    broken("sampler-rows", "of 33 gives something else", Sampler,
           **call(lambda logits: logits / (2 if len(logits) < 9 else 3))),
    broken("component-globals", "the random state of `random`", Sampler, "sampler-shape",
           history="tokens", __call__=lambda self, logits, history:
           logits / (1 + (len(history.tokens(0)) > 100 and random.random()))),
    broken("sampler-possible", "every token of a row", Sampler, **call(lambda x: x - np.inf)),
    broken("sampler-forbidden", "came back possible", Sampler, **call(lambda x: x.clip(-100))),
    broken("sampler-rows", "alone than in the batch", Sampler, **call(over_the_batch)),
    broken("sampler-promise", "it left the tokens", Sampler, deterministic=True),
    broken("sampler-torch", "a Tensor on cpu came back as", Sampler,
           **call(lambda x: np.asarray(x) * np.asarray(x).dtype.type(0.5))),
    broken("sampler-device", "on meta came back as", Sampler, **call(lambda x: x.new_zeros(
           x.shape, device="cpu") if "meta" in str(getattr(x, "device", "")) else x)),
    broken("sampler-state-form", "'start' and no 'accept'", StateSampler, accept=None),
    broken("sampler-state-form", "from accept seen int64 (3, 3)", StateSampler, accept=accept_more),
    broken("sampler-state", "other logits than in a batch", StateSampler, accept=accept_all),
    broken("sampler-random", "that it reads random", StateSampler, "sampler-history",
           random=False),
    broken("sampler-random", "once other rows have other numbers", StateSampler,
           __call__=lambda self, logits, history: logits * (1 + float(history.random()[0, 0]))),
    broken("sampler-threads", "while other threads called too", Sampler, __call__=race),
]  # fmt: skip


class Sampled(Sampling, Strategy):
    """Promises nothing."""

    draws_only = False


def remembering(self, lanes):
    """The same token once more for each text that came before."""
    self.count = getattr(self, "count", 0) + (not len(lanes.tokens[0]))
    return [(lanes.draw()[0] + self.count) % 30]


STRATEGIES = [
    broken("strategy-lanes", "is True", Strategy, lanes=True),
    broken("strategy-moves", "3 lanes, and announces 1 to 2", Strategy,
           step=lambda self, lanes: Moves([0] * 3, [()] * 3)),
    broken("strategy-deterministic", "a second time", Sampled,
           pick=lambda self, lanes: [int(NOISE.integers(30))]),
    broken("strategy-rows", "in a batch", Sampled, "strategy-rows", pick=remembering),
    broken("strategy-streams", "as a stream", Sampled, pick=remembering),
    broken("strategy-sampling", "by sampling", Sampled, draws_only=True,
           pick=lambda self, lanes: [int(lanes.logits[0].argmin())]),
]  # fmt: skip
