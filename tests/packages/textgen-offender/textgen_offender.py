"""Models, samplers and tokenizers that break their contracts, and a trainer that lets them come so far."""

import attrs
import numpy as np

from textgen import Component, hookimpl, option
from textgen.events import Evaluated, StepDone
from textgen.protocols import TrainerState


@attrs.frozen
class UniformConfig:
    """Every token is as likely as any other."""

    extra: int = option(0, help="logits too many")
    dtype: str = option("float32", help="dtype of the logits, or none for no logits")


@attrs.frozen
class NoneConfig:
    """One step that changes nothing."""


@attrs.frozen
class SpoilConfig:
    """Puts one value into every logit."""


@attrs.frozen
class RewordConfig:
    """Characters that come back as others."""


@attrs.frozen
class Uniform:
    """textgen.protocols.Model."""

    config: UniformConfig
    vocab_size: int

    def decoder(self, batch_size):
        """A decoder without a state."""
        return UniformDecoder(self, batch_size)

    def tensors(self):
        """One weight, so that there is something to save."""
        return {"nothing": np.zeros(1, np.float32)}

    def load_tensors(self, tensors):
        """Nothing to take over."""


class Unsaved:
    """A model whose weights cannot be had."""

    decoder = load_tensors = len


@attrs.frozen
class UniformDecoder:
    """textgen.protocols.Decoder."""

    model: Uniform
    batch_size: int

    def extend(self, tokens):
        """(B, V), or not quite."""
        if self.model.config.dtype == "none":
            return None
        return np.zeros(
            (self.batch_size, self.model.vocab_size + self.model.config.extra),
            self.model.config.dtype,
        )

    def score(self, tokens):
        """(B, T, V), or not quite."""
        return np.zeros(
            (*tokens.shape, self.model.vocab_size + self.model.config.extra),
            self.model.config.dtype,
        )

    def read_state(self):
        """None to read."""
        return {}

    def write_state(self, state):
        """None to write."""


class Nothing:
    """textgen.protocols.Trainer."""

    def train(self, model, data, context):
        """One step and its evaluation."""
        yield StepDone(step=1, steps=1, epoch=1, loss=1.0, tokens=1)
        yield Evaluated(step=1, epoch=1, training_loss=1.0)

    def state(self):
        """Nothing."""
        return TrainerState()

    def load_state(self, state):
        """Nothing."""


class Reword:
    """textgen.protocols.Tokenizer, with two letters exchanged on the way back."""

    unknown_id = None
    vocab_size = 128

    def fit(self, pieces):
        """Read it all."""
        for _ in pieces:
            pass

    def encode(self, text):
        """(T,) ASCII codes."""
        return np.frombuffer(text.encode("ascii", "replace"), np.uint8)

    def encode_pieces(self, pieces):
        """Piece by piece."""
        return map(self.encode, pieces)

    def decode(self, ids):
        """Not what was encoded."""
        return bytes(ids.astype(np.uint8)).decode().replace("e", "i")

    def incremental_decoder(self):
        return self

    def to_dict(self):
        """Nothing learnt."""
        return {}

    def from_dict(self, state):
        """Another of them."""
        return Reword()


def spoil(value):
    """A build function for a sampler that puts `value` everywhere."""
    return lambda config, context: lambda logits, history: np.full_like(logits, value)


def needy(config, context):
    """A build function that imports what is not there."""
    import package_that_nobody_has  # noqa: F401


@hookimpl
def textgen_models():
    """Offer `uniform`, honest unless told otherwise, and `unsaved`, which lacks a method."""
    return [
        Component(
            "uniform", UniformConfig, lambda config, context: Uniform(config, context.vocab_size)
        ),
        Component("unsaved", SpoilConfig, lambda config, context: Unsaved()),
    ]


@hookimpl
def textgen_trainers():
    """Offer `none`."""
    return [Component("none", NoneConfig, lambda config, context: Nothing())]


@hookimpl
def textgen_samplers():
    """Offer what cannot be built, cannot be called, or gives what no token can be drawn from."""
    return [
        Component("mask-all", SpoilConfig, spoil(-np.inf)),
        Component("not-a-number", SpoilConfig, spoil(np.nan)),
        Component("cannot-be-built", SpoilConfig, lambda config, context: 1 // 0),
        Component("needs-a-module", SpoilConfig, needy),
        Component("built-as-none", SpoilConfig, lambda config, context: None),
    ]


@hookimpl
def textgen_tokenizers():
    """Offer `reword`."""
    return [Component("reword", RewordConfig, lambda config, context: Reword())]
