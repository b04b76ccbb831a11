"""A tokenizer that knows capitals alone, and a sampler that insists on what is likely."""

import attrs
from attrs.validators import gt

from textgen import Component, hookimpl, option


@attrs.frozen
class LoudConfig:
    """Multiplies logits, so that what is likely becomes certain."""

    factor: float = option(1000.0, help="what logits are multiplied by", validator=gt(0))


@attrs.frozen
class ShoutConfig:
    """One token per character, in capitals."""


@attrs.frozen
class Loud:
    """textgen.protocols.Sampler."""

    factor: float
    uses_history = False

    def __call__(self, logits, history):
        """(B, V)."""
        return logits * self.factor


@attrs.define
class Shout:
    """textgen.protocols.Tokenizer."""

    characters: str = ""
    unknown_id = 0

    @property
    def vocab_size(self):
        """The characters, and what stands for any other."""
        if not self.characters:
            raise ValueError("not fitted")
        return len(self.characters) + 1

    def fit(self, pieces):
        """Take every character, as a capital."""
        self.characters = "".join(sorted(set().union(*(piece.upper() for piece in pieces))))

    def encode(self, text):
        """(T,) int64."""
        import numpy as np

        return np.array(
            [self.characters.find(character) + 1 for character in text.upper()], np.int64
        )

    def encode_pieces(self, pieces):
        """Piece by piece."""
        return map(self.encode, pieces)

    def decode(self, ids):
        """Capitals; a question mark for what is unknown."""
        return "".join(("?" + self.characters)[i] for i in ids)

    def incremental_decoder(self):
        """Holds nothing back."""
        return Stream(self)

    def to_dict(self):
        """The characters."""
        return {"characters": self.characters}

    def from_dict(self, state):
        """The same again."""
        return Shout(state["characters"])


@attrs.frozen
class Stream:
    """textgen.protocols.IncrementalDecoder."""

    tokenizer: Shout

    def decode(self, ids, final=False):
        """At once."""
        return self.tokenizer.decode(ids)


@hookimpl
def textgen_samplers():
    """Offer `loud`."""
    return [Component("loud", LoudConfig, lambda config, context: Loud(config.factor))]


@hookimpl
def textgen_tokenizers():
    """Offer `shout`."""
    return [Component("shout", ShoutConfig, lambda config, context: Shout())]
