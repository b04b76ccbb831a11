"""What a decoder gives along a text: nothing of what follows, and something after any number of tokens."""

from __future__ import annotations

from typing import Final

import numpy as np

from textgen.generation.sampling import to_numpy
from textgen.testing.decoders import DecoderSuite, difference

__tracebackhide__ = True  # what pytest shows is the test, and the code of the component

_LONG: Final = 1100  # tokens
_PIECE: Final = 50


def check_causal(suite: DecoderSuite) -> None:
    """The beginning of a text, with what follows and without."""
    fed = suite.tokens(2, 8)
    whole = to_numpy(suite.model.decoder(2).score(fed)).copy()
    for end in (1, 5):
        part = to_numpy(suite.model.decoder(2).score(fed[:, :end]))
        if apart := difference(whole[:, :end], part, suite.tolerance):
            suite.fail(f"score() of {end} tokens and those that follow gave {apart} than of these {end} alone")


def check_length(suite: DecoderSuite) -> None:
    """Many tokens: in pieces, the last of them one by one, and at once."""
    fed = suite.tokens(1, _LONG)
    bounds = [1, *range(_PIECE, _LONG - _PIECE, _PIECE), *range(_LONG - _PIECE, _LONG + 1)]
    decoder, begin, given = suite.model.decoder(1), 0, {}
    for end in bounds:
        given[end] = to_numpy(decoder.extend(fed[:, begin:end])).copy()
        if begin == 0 and np.isnan(given[end]).any():
            return  # no matter of length: model-finite says so
        begin = end
    scored = to_numpy(suite.model.decoder(1).score(fed))
    for end in bounds:
        if np.isnan(given[end]).any() or np.isnan(scored[:, end - 1]).any():
            suite.fail(f"the logits are NaN after {end} tokens")
        if apart := difference(scored[:, end - 1], given[end], 10 * suite.tolerance):
            suite.fail(f"after {end} tokens score() gave {apart} than in pieces")
