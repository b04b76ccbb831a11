"""A plugin in one file, for tests: a tokenizer with four tokens a character, of which three are
always the same.
"""

import attrs
import numpy as np

from textgen import Component, hookimpl

ALWAYS = (253, 254, 255)  # after each character


@attrs.frozen
class WideConfig:
    """Characters of Latin-1, each with three tokens after it."""


class Wide:
    vocab_size = 256
    unknown_id = None

    def fit(self, pieces):
        for _ in pieces:
            pass

    def encode(self, text):
        codes = np.frombuffer(text.encode("latin-1"), np.uint8)
        return np.column_stack([codes, *(np.full_like(codes, token) for token in ALWAYS)]).ravel()

    def encode_pieces(self, pieces):
        return map(self.encode, pieces)

    def decode(self, ids, final=False):
        return "".join(chr(token) for token in ids if token < ALWAYS[0])

    def incremental_decoder(self):
        return self

    def to_dict(self):
        return {}

    def from_dict(self, state):
        return Wide()


@hookimpl
def textgen_tokenizers():
    return [Component("wide", WideConfig, lambda config, context: Wide())]
