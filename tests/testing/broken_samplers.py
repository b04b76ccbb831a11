"""Samplers and strategies that break one statement of their contract each."""

import random

import numpy as np
from checking import NOISE, NUMBERS, broken
from good import Sampler, Sampling, StateSampler, Strategy

from textgen.protocols import Moves

FACTORS = [1.0 - 0.001 * step for step in range(257)]


def call(change):
    """A sampler's call that gives something else."""
    return {"__call__": lambda self, logits, history: change(logits)}


def write_rarely(logits):
    if len(logits) > 8:
        logits[:, 0] -= 1
    return logits


def write_state(self, tokens, logits, history):
    history.state["seen"][:] += 1
    return {"seen": history.state["seen"].copy()}


def stale(self, context):
    """Keeps a weight of the model as it was."""
    self.weight = float(next(iter(context.model.tensors().values())).flat[0])


def late_noise(self, logits, history):
    return logits / (1 + (len(history.tokens(0)) > 100 and random.random()))


def scratch(self, logits, history):
    """Gives a buffer that it fills anew in each call."""
    if not isinstance(logits, np.ndarray):
        return logits * 0.5
    key = logits.shape, logits.dtype
    buffers = self.__dict__.setdefault("buffers", {})
    made = buffers.setdefault(key, np.empty_like(logits))
    return np.multiply(logits, 0.5, out=made)


def by_attributes(self, logits, history):
    """Keeps on the object what it works on."""
    self.logits = logits
    self.scaled = self.logits * 0.5
    return self.scaled


def table_of_256(self, logits, history):
    """Has a factor for each step, up to a length that no test of its author had."""
    return logits * FACTORS[int(history.lengths.max())]


def listing(self, logits, history):
    """Notes how far each text was."""
    self.__dict__.setdefault("seen", []).append(int(history.lengths.max()))
    return logits * 0.5


SAMPLERS = [
    broken("sampler-memory", "a list that grows", Sampler, __call__=listing),
    broken("sampler-deterministic", "a scratch buffer", Sampler, __call__=scratch),
    broken("sampler-deterministic", "attributes within a call", Sampler, __call__=by_attributes),
    broken("component-raises", "a table of 256 steps", Sampler, __call__=table_of_256),
    broken("sampler-history", "no such level", Sampler, history="all"),
    broken("sampler-history", "reads counts", Sampler,
           __call__=lambda s, logits, history: logits * (0.5 if history.counts.any() else 1)),
    broken("sampler-history", "reads random numbers", StateSampler, random=False),
    broken("sampler-history", "start without accept", StateSampler, accept=None),
    broken("sampler-shape", "float64", Sampler, **call(
           lambda x: x.astype(np.float64) if isinstance(x, np.ndarray) else x.double())),
    broken("sampler-input", "rarely in place", Sampler, **call(write_rarely)),
    broken("sampler-input", "the history in place", Sampler,
           __call__=lambda s, logits, history: (history.lengths.fill(1), logits)[1]),
    broken("sampler-input", "the state in place", StateSampler, accept=write_state),
    broken("sampler-values", "NaN", Sampler, **call(lambda x: x - x)),
    broken("sampler-values", "nothing left", Sampler, **call(lambda x: x - np.inf)),
    broken("sampler-values", "forbidden comes back", Sampler, **call(lambda x: x.clip(-100))),
    broken("sampler-deterministic", "a counter", Sampler,
           **call(lambda logits: logits / (1 + next(NUMBERS)))),
    broken("sampler-rows", "more than 8 rows", Sampler,
           **call(lambda logits: logits / (2 if len(logits) < 9 else 3))),
    broken("sampler-rows", "another row's random number", StateSampler,
           __call__=lambda self, logits, history: logits * (1 + float(history.random()[0, 0]))),
    broken("sampler-rows", "the largest of all rows", Sampler, **call(lambda x: x - x.max())),
    broken("sampler-deterministic", "its own generator", Sampler,
           **call(lambda logits: logits * (1 + float(NOISE.random())))),
    broken("sampler-texts", "a state of all rows", StateSampler,
           accept=lambda self, tokens, logits, history:
           {"seen": history.state["seen"] + [0, len(tokens)]}),
    broken("component-globals", "the global random state, late", Sampler, history="tokens",
           __call__=late_noise),
    broken("sampler-deterministic", "weights of before", Sampler, __init__=stale,
           __call__=lambda self, logits, history: logits + self.weight),
    broken("sampler-torch", "other logits than an array", Sampler,
           **call(lambda x: x * (0.5 if isinstance(x, np.ndarray) else 0.25))),
    broken("sampler-torch", "on the CPU", Sampler, **call(lambda x: x.new_zeros(
           x.shape, device="cpu") if "meta" in str(getattr(x, "device", "")) else x)),
]  # fmt: skip


def remembering(self, lanes):
    """The same token once more for each text that came before."""
    self.count = getattr(self, "count", 0) + (not len(lanes.tokens[0]))
    return [(lanes.draw()[0] + self.count) % 30]


def taking_back(self, lanes):
    """Shows the first of two lanes, and goes on with the other."""
    if len(lanes) == 1:
        return Moves([0, 0], np.argsort(lanes.logits[0])[-2:, None], final=1)
    return Moves([1], [lanes.draw()[1:]])


def with_attributes(self, lanes):
    """Keeps on the object what it works on in a step."""
    self.drawn = lanes.draw()
    return self.drawn


def caching(self, lanes):
    """Keeps what it drew after each text."""
    key = (*lanes.prompt.tolist(), *lanes.tokens[0].tolist())
    self.__dict__.setdefault("cache", {})[key] = True
    return lanes.draw()


STRATEGIES = [
    broken("strategy-memory", "a cache that grows", Sampling, pick=caching),
    broken("strategy-texts", "attributes within a step", Sampling, pick=with_attributes),
    broken("strategy-moves", "lanes", Strategy, lanes=True),
    broken("strategy-moves", "more lanes than it says", Strategy,
           step=lambda self, lanes: Moves([0] * 3, [()] * 3)),
    broken("strategy-moves", "takes back what is final", Strategy, step=taking_back),
    broken("strategy-moves", "never ends", Strategy, step=lambda self, lanes: Moves([0], [()])),
    broken("strategy-texts", "noise", Sampling, pick=lambda self, lanes: [int(NOISE.integers(30))]),
    broken("strategy-texts", "what came before", Sampling, pick=remembering),
    broken("strategy-texts", "counts the tokens that it has", Sampling, pick=lambda self, lanes:
           lanes.draw() if len(lanes.tokens[0]) % 3 else [int(lanes.logprobs()[0].argmax())]),
]  # fmt: skip
