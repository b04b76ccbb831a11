"""How well a model predicts a text, token by token, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Final

import attrs
import numpy as np
import numpy.typing as npt

from textgen.contracts import checks
from textgen.contracts.checks import begin_decoding
from textgen.documents import CorpusPiece
from textgen.errors import UsageError
from textgen.generation.prompts import encode_documents
from textgen.generation.results import TokenLogprobs
from textgen.generation.row import Row
from textgen.generation.sampling import log_softmax, to_numpy
from textgen.plugin.component import Offer
from textgen.protocols import Ids, Model, Tokenizer

_BLOCK: Final = 4096  # tokens scored at once


@attrs.frozen(kw_only=True)
class TextScore:
    """How well a model predicts a text.

    tokens               predictions made: every token but the first. With documents every token of each, and its end
    characters           of the text that they make up, after the tokenizer's normalisation
    loss                 mean cross-entropy, nats per token
    perplexity           exp(loss)
    bits_per_character   the text's total cross-entropy in bits over its characters. Only a lower bound where tokens
                         are unknown: the spelling of what they stand for costs nothing here
    unknown_tokens       how many of those tokens stood for text outside the vocabulary
    """

    tokens: int
    characters: int
    loss: float
    perplexity: float
    bits_per_character: float
    unknown_tokens: int


@attrs.frozen(eq=False)
class TokenScores:
    """A stretch of a text: its ids (T,) and the log-probability (T,) of each in nats, NaN for the text's first.

    If the tokenizer has an id for the end of a document, the first is that id, and so is the last of each document.
    """

    tokens: Ids
    logprobs: npt.NDArray[np.float64]


def score_pieces(
    model: Model, tokenizer: Tokenizer, offer: Offer, pieces: Iterable[CorpusPiece]
) -> TextScore:
    """Sum up `score_tokens`. Raises UsageError when the text has fewer than two tokens."""
    total, count, characters, unknown = 0.0, 0, 0, 0
    for block in score_tokens(model, tokenizer, offer, pieces):
        predicted = ~np.isnan(block.logprobs)
        total -= float(block.logprobs[predicted].sum())
        count += int(predicted.sum())
        characters += len(tokenizer.decode(block.tokens[predicted]))
        if tokenizer.unknown_id is not None:
            unknown += int((block.tokens[predicted] == tokenizer.unknown_id).sum())
    if not count:
        raise UsageError("there is nothing to score: the text has fewer than two tokens")
    loss = total / count
    return TextScore(
        tokens=count,
        characters=characters,
        loss=loss,
        perplexity=perplexity(loss),
        bits_per_character=total / math.log(2) / max(characters, 1),
        unknown_tokens=unknown,
    )


def score_tokens(
    model: Model, tokenizer: Tokenizer, offer: Offer, pieces: Iterable[CorpusPiece]
) -> Iterator[TokenScores]:
    """Score a text given in pieces as one stream, a block of it at a time."""
    decoder = begin_decoding(model, 1, offer, scoring=True)
    last: Ids | None = None
    for ids in encode_documents(tokenizer, pieces):
        for start in range(0, len(ids), _BLOCK):
            block = ids[start : start + _BLOCK].astype(np.int64)
            fed = block[:-1] if last is None else np.concatenate([last, block[:-1]])
            logprobs = np.full(len(block), np.nan)
            if len(fed):
                logits = decoder.score(fed[None])
                checks.check_logits(logits, (1, len(fed), tokenizer.vocab_size), offer)
                rows = log_softmax(to_numpy(logits)[0])
                targets = block[len(block) - len(fed) :]
                logprobs[len(block) - len(fed) :] = rows[np.arange(len(fed)), targets]
            last = block[-1:]
            yield TokenScores(block, logprobs)


def prompt_logprobs(model: Model, offer: Offer, row: Row) -> Iterator[TokenLogprobs]:
    """Of each token of a row's prompt, given those before it."""
    top = row.settings.top
    assert top is not None
    decoder = begin_decoding(model, 1, offer)
    feed = row.asked.before[None]
    if row.start is not None:
        row.start.resume(decoder)
        feed = row.start.pending[None]
    for token in row.prompt.tolist():
        logits = decoder.extend(feed)
        yield TokenLogprobs.of(to_numpy(logits)[0], token, top)
        feed = np.array([[token]], np.int64)


def perplexity(loss: float) -> float:
    """exp(loss), and infinity where that is too large for a float."""
    return math.exp(loss) if loss < 700 else math.inf
