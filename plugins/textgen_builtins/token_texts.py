"""The text of each token of a vocabulary."""

from __future__ import annotations

import numpy as np

from textgen.protocols import Tokenizer


def token_texts(tokenizer: Tokenizer) -> list[str]:
    """The text that each of the V tokens adds, such as a space and a word: here to the same token
    before it.
    """
    pairs = np.arange(tokenizer.vocab_size)[:, None].repeat(2, axis=1)
    return [tokenizer.decode(pair)[len(tokenizer.decode(pair[:1])) :] for pair in pairs]
