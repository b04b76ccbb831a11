"""Models and decoders that break one statement of their contract each."""

import time
from types import SimpleNamespace

import attrs
import numpy as np
import torch
from checking import NOISE, broken, module, raising, then
from good import Decoder, Model, RowDecoder
from networks import Recurrent

from textgen.gradient import GradientModel


def extend(change):
    """A decoder's `extend` whose logits are changed."""
    return {"extend": then(Decoder.extend, change)}


def score(change):
    return {"score": then(Decoder.score, change)}


def weights(make):
    """A model whose first weights are made so, of its context."""
    return {"__init__": lambda self, context: Model.__init__(self, make(context))}


def buffered(self, tokens):
    """Its logits where the caller may write into them."""
    if tokens.shape[1] or not hasattr(self, "logits"):
        self.logits = Decoder.extend(self, tokens)
    return self.logits


def write_tokens(self, tokens):
    tokens[tokens < 1] = 1
    return Decoder.extend(self, tokens)


def take_all(self, rows):
    """Hand the rows out and keep nothing of what they hold."""
    taken = RowDecoder.take(self, rows)
    self.memory[rows] = 0
    return taken


def stale(self, batch_size):
    """A decoder of the weights that were there first."""
    if not hasattr(self, "kept"):
        self.kept = SimpleNamespace(weights=self.weights.copy())
    return Decoder(self.kept, batch_size)


def buffer_of_seed(self, context):
    Model.__init__(self, context)
    self.buffer = 1 + context.seed


def with_buffer(self, batch_size):
    return Decoder(SimpleNamespace(weights=self.weights * self.buffer), batch_size)


def late(place, change):
    """Logits (B, T, V) that are changed from this place on."""
    return lambda made: np.concatenate([made[:, :place], change(made[:, place:])], axis=1)


def after(count):
    """A decoder's `extend` that is another after so many tokens."""

    def extended(self, tokens):
        self.fed = getattr(self, "fed", 0) + tokens.shape[1]
        return Decoder.extend(self, tokens) * (1 + (self.fed > count))

    return extended


def shared(self, name, value):
    """All decoders have the attributes of one."""
    setattr(type(self), name, value)


def racing(self, tokens):
    """The state of a model that several decoders write to."""
    self.model.tokens = tokens
    time.sleep(0.0001)
    return Decoder.score(self, self.model.tokens)


def list_on_model(self, tokens):
    """Counts on the model what was fed."""
    self.model.__dict__.setdefault("fed", []).append(tokens.shape[1])
    return Decoder.extend(self, tokens)


def list_on_decoder(self, tokens):
    """Keeps what was fed, and does not count it as its state."""
    self.__dict__.setdefault("fed", []).append(tokens)
    return Decoder.extend(self, tokens)


def weight_by_position(self, tokens):
    """Counts positions from 0 in each call."""
    return Decoder.extend(self, tokens) * (1 + 0.01 * tokens.shape[1])


def drop_out(self, tokens):
    """Is still in training mode when it decodes."""
    logits = Decoder.extend(self, tokens)
    return logits * (NOISE.random(logits.shape) > 0.1)


def draw_globally(context):
    np.random.seed(context.seed)
    return context


MODELS = [
    broken("model-rows", "positions of each call", Decoder, extend=weight_by_position),
    broken("model-rows", "the mean of the batch", Decoder,
           **extend(lambda logits: logits - logits.mean(axis=0))),
    broken("model-rows", "dropout", Decoder, extend=drop_out),
    broken("component-globals", "NumPy's seed", Model, **weights(draw_globally)),
    broken("model-memory", "a list of the model", Decoder, extend=list_on_model),
    broken("model-memory", "a list of the decoder", Decoder, extend=list_on_decoder),
    broken("component-methods", "no decoder", Model, decoder=lambda self, size: None),
    broken("model-seed", "none", Model, **weights(
           lambda context: attrs.evolve(context, seed=int(NOISE.integers(1 << 30))))),
    broken("model-seed", "a constant", Model,
           **weights(lambda context: attrs.evolve(context, seed=1))),
    broken("model-logits", "half precision", Decoder, **extend(lambda x: x.astype(np.float16))),
    broken("model-logits", "(B, V) of score()", Decoder, **score(lambda x: x[:, -1])),
    broken("model-logits", "nothing possible", Decoder, **extend(lambda x: x - np.inf)),
    broken("component-raises", "writes into tokens", Decoder, extend=write_tokens),
    broken("model-rows", "batch_size", Decoder, batch_size=1),
    broken("model-rows", "looks ahead late", Decoder, **score(
           late(40, lambda x: x + x[:, ::-1]))),
    broken("model-rows", "another after 50", Decoder, extend=after(50)),
    broken("model-rows", "more than 8 rows", Decoder,
           **extend(lambda logits: logits * (1 + (len(logits) > 8)))),
    broken("model-rows", "only the last token", Decoder,
           extend=lambda self, tokens: Decoder.extend(self, tokens[:, -1:])),
    broken("model-rows", "its own buffer", Decoder, extend=buffered),
    broken("model-rows", "state of another form", Decoder,
           read_state=lambda self: {"memory": self.memory.T.copy()}),
    broken("model-rows", "state not a copy", Decoder,
           read_state=lambda self: {"memory": self.memory}),
    broken("model-rows", "write_state", Decoder, write_state=lambda self, state: None),
    broken("model-rows", "take", RowDecoder, take=take_all),
    broken("model-rows", "takes itself", RowDecoder, take=lambda self, rows: self
           if [*rows] == [*range(self.batch_size)] else RowDecoder.take(self, rows)),
    broken("model-rows", "shared attributes", Decoder, __setattr__=shared),
    broken("model-decoders", "on the model", Decoder, score=racing),
    broken("model-saved", "a list", Model, tensors=lambda self: {"weights": [1.0]}),
    broken("model-saved", "stale decoders", Model, decoder=stale),
    broken("model-saved", "a buffer is lost", Model, __init__=buffer_of_seed,
           decoder=with_buffer),
    broken("model-refuses", "trusts", Model, load_tensors=lambda self, tensors: setattr(
           self, "weights", tensors.get("weights", self.weights))),
    broken("model-refuses", "without a word", Model, load_tensors=lambda self, tensors:
           Model.load_tensors(self, tensors) if len(tensors) else raising(ValueError())()),
]  # fmt: skip


def drifting(count):
    """Logits that are others from a place on, as the decoder never sees them."""
    return lambda logits, state: (
        logits * (1 + (logits.new_ones(logits.shape).cumsum(1) > count)),
        state,
    )


class Network(Recurrent, GradientModel):
    """A plain network, as an author writes it."""

    def __init__(self, context):
        with torch.random.fork_rng():
            torch.manual_seed(context.seed)
            super().__init__(context.vocab_size)


def keep_activations(self, tokens, state=None):
    """Keeps on the module what it computes, to draw pictures of it."""
    carried = None if state is None else state[0].transpose(0, 1).contiguous()
    self.seen = self.embedding(tokens)
    self.seen, self.after = self.cell(self.seen, carried)
    return self.head(self.seen), (self.after.transpose(0, 1),)


def after_many(self, tokens, state=None):
    """Is another model once it was fed 20,000 tokens."""
    self.count = getattr(self, "count", 0) + tokens.numel()
    logits, after = Recurrent.forward(self, tokens, state)
    return logits * (1 + (self.count > 20_000)), after


MODULES = [
    broken("model-rows", "another after 20,000", Network, forward=after_many),
    broken("model-decoders", "activations on the module", Network, forward=keep_activations),
    module("model-forward", "logits alone", lambda logits, state: logits),
    module("model-forward", "fewer tokens", lambda logits, state: (logits[..., 1:], state)),
    module("model-forward", "an empty state",
           lambda logits, state: (logits, tuple(part * 0 for part in state))),
    module("model-forward", "others after 50", drifting(50)),
    module("model-forward", "others after 1,500", drifting(1500)),
    module("model-dropout", "NumPy's", lambda logits, state: (
           logits + float(NOISE.normal()) * logits.requires_grad, state)),
]  # fmt: skip
