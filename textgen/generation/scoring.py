"""How well a model predicts a text, token by token, in bounded memory."""

from __future__ import annotations

import itertools
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
from textgen.generation.prompts import encode_documents, end_id, text_pieces
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


def summed(blocks: Iterable[TokenScores], tokenizer: Tokenizer) -> TextScore:
    """The score of a text from those of its tokens. Raises UsageError if none was predicted."""
    total, count, characters, unknown = 0.0, 0, 0, 0
    decode = tokenizer.incremental_decoder().decode
    for block in blocks:
        predicted = ~np.isnan(block.logprobs)
        total -= float(block.logprobs[predicted].sum())
        count += int(predicted.sum())
        given = int(not predicted[0]) if len(predicted) else 0
        text = decode(block.tokens)
        characters += len(text) - len(tokenizer.decode(block.tokens[:given]))
        if tokenizer.unknown_id is not None:
            unknown += int((block.tokens[predicted] == tokenizer.unknown_id).sum())
    if not count:
        raise UsageError("there is nothing to score: the text has fewer than two tokens")
    characters += len(decode(np.empty(0, np.int64), True))
    loss = total / count
    return TextScore(
        tokens=count,
        characters=characters,
        loss=loss,
        perplexity=perplexity(loss),
        bits_per_character=total / math.log(2) / max(characters, 1),
        unknown_tokens=unknown,
    )


def check_text(text: object) -> None:
    """Raise UsageError for what is not a text to score, as a list: its texts may be one, or several."""
    if isinstance(text, (str, Iterator)):
        return
    hint = "score each text by itself, or give the pieces of one as iter(pieces)"
    expected = "expected a string, or an iterator of the pieces of a text"
    raise UsageError(expected, argument="text", value=text, suggestion=hint)


def score_tokens(
    model: Model,
    tokenizer: Tokenizer,
    offer: Offer,
    text: str | Iterator[CorpusPiece],
    prompt: str = "",
) -> Iterator[TokenScores]:
    """Score a text as one stream, a block of it at a time. A prompt before it is read, and not scored."""
    decoder = begin_decoding(model, 1, offer)
    last: Ids | None = None
    skipped = len(tokenizer.encode(prompt)) + (end_id(tokenizer) is not None) if prompt else 0
    pieces = itertools.chain([prompt] if prompt else [], text_pieces(text))
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
            rest, skipped = min(skipped, len(block)), max(0, skipped - len(block))
            if rest < len(block):
                yield TokenScores(block[rest:], logprobs[rest:])


def prompt_logprobs(model: Model, offer: Offer, row: Row) -> Iterator[TokenLogprobs]:
    """Of each token of a row's prompt, given those before it."""
    top = row.options.logprobs
    assert top is not None
    decoder = begin_decoding(model, 1, offer)
    feed = row.request.before[None]
    if row.start is not None:
        row.start.restore(decoder)
        feed = np.array([row.start.pending], np.int64)
    for place, token in enumerate(row.ids.tolist()):
        if not place and row.start is None and not feed.size:
            yield TokenLogprobs(token, None, ())
            feed = np.array([[token]], np.int64)
            continue
        logits = decoder.extend(feed)
        yield TokenLogprobs.of(to_numpy(logits)[0], token, top)
        feed = np.array([[token]], np.int64)


def perplexity(loss: float) -> float:
    """exp(loss), and infinity where that is too large for a float."""
    return math.exp(loss) if loss < 700 else math.inf
