"""Scores a text by a model, token by token, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import attrs
import numpy as np

from textgen import display
from textgen.contracts.decoders import DecoderFactory
from textgen.errors import UsageError
from textgen.generation.sampling.draw import log_softmax, to_numpy
from textgen.generation.texts.prompts import NO_IDS, EncodedPrompt
from textgen.generation.texts.results import TokenLogprobs
from textgen.generation.texts.row import Row
from textgen.protocols import Decoder, Floats, Ids, Model, Tokenizer
from textgen.tokenizers import incremental_decoder, unknown_id

BLOCK: Final = 1024  # tokens scored at once
_VALUES_AT_ONCE: Final = 1 << 23  # log-probabilities in memory
_ROWS: Final = 8  # windows
_LENGTH: Final = 72  # tokens of a window
_UNREAD: Final = 20  # first tokens of a window, for which there is no context
_STREAM: Final = 4096  # tokens of a stream
_STREAM_BLOCK: Final = 128  # tokens of it at once
_MIN_TOKENS: Final = 1000  # tokens of a text that a few windows tell of
_NO_PROMPT: Final = EncodedPrompt()


@attrs.frozen(kw_only=True, slots=False)
class TextScore:
    """How well a model predicts a text. Notebooks show the text, coloured by surprise.

    tokens               number of predictions: all tokens and ends of documents, without the first
                         if nothing comes before it
    characters           number of characters of these tokens, after the tokenizer's normalisation
    loss                 mean cross-entropy, in nats per token
    perplexity           exp(loss)
    bits_per_character   total cross-entropy in bits, divided by the number of characters. A lower
                         bound if there are unknown tokens, whose spelling is not counted
    unknown_tokens       number of tokens for text outside the vocabulary
    """

    tokens: int
    characters: int
    loss: float
    perplexity: float
    bits_per_character: float
    unknown_tokens: int

    @classmethod
    def from_tokens(
        cls, blocks: Iterable[TokenScores], tokenizer: Tokenizer, held: int = 0
    ) -> TextScore:
        """Sum up the scores of tokens, as yielded by `Generator.score_tokens`.

        held  number of characters of the first token that belong to the prompt

        Raises UsageError if there is no prediction.
        """
        total, count, unknown = 0.0, 0, 0
        characters = -held
        beginning = []
        decode = incremental_decoder(tokenizer).decode
        for block in blocks:
            if count <= display.MAX_TOKENS:
                beginning.append(block)
            predicted = ~np.isnan(block.logprobs)
            total -= float(block.logprobs[predicted].sum())
            count += int(predicted.sum())
            unknown += int((block.tokens[predicted] == unknown_id(tokenizer)).sum())
            characters += len(decode(block.tokens))
            characters -= len(tokenizer.decode(block.tokens[~predicted]))
        if not count:
            cause = "the text is empty, or one token with nothing before it"
            raise UsageError(f"there is nothing to score: {cause}")
        characters += len(decode(NO_IDS, True))
        score = cls(
            tokens=count,
            characters=characters,
            loss=total / count,
            perplexity=perplexity(total / count),
            bits_per_character=total / math.log(2) / max(characters, 1),
            unknown_tokens=unknown,
        )
        # It is no field, so that `attrs.asdict` and `==` look at the figures alone.
        vars(score)["beginning"] = beginning, tokenizer
        return score

    def _repr_html_(self) -> str | None:
        """None, so that the figures are shown, of a copy with other ones."""
        beginning, tokenizer = vars(self).get("beginning", ((), None))
        if tokenizer is None:
            return None
        tokens = np.concatenate([block.tokens for block in beginning])
        logprobs = np.concatenate([block.logprobs for block in beginning])
        return display.styled(display.coloured(tokens, logprobs, tokenizer))


@attrs.frozen(eq=False)
class TokenScores:
    """The scores of a block of a text.

    tokens    ids (T,). A document ends with the tokenizer's id for that, if it has one
    logprobs  (T,) in nats; NaN for the first token of the text if nothing comes before it
    """

    tokens: Ids
    logprobs: Floats


def windows_loss(model: Model, tokens: Ids) -> float | None:
    """The mean loss in nats of windows from all over a text (N,); None of a short one."""
    if len(tokens) < _MIN_TOKENS:
        return None
    starts = np.linspace(0, len(tokens) - _LENGTH, _ROWS).astype(int)
    losses = []
    for start in starts:  # one by one, since all logits of a large vocabulary take half a gigabyte
        window = np.asarray(tokens[start : start + _LENGTH], np.int64)
        logprobs = log_softmax(to_numpy(model.decoder(1).score(window[None, :-1]))[0])
        losses.append(-logprobs[np.arange(_LENGTH - 1), window[1:]][_UNREAD:].mean())
    return float(np.mean(losses))


def stream_loss(model: Model, tokens: Ids) -> float:
    """The mean loss in nats of a text (N,), N > 1, of which the first thousands of tokens are read
    in one stream and the second half of these is counted.

    There the past is long, as it is in training: some models learn from the text so far.
    """
    tokens = np.asarray(tokens[:_STREAM], np.int64)
    decoder, losses = model.decoder(1), []
    for start in range(0, len(tokens) - 1, _STREAM_BLOCK):
        block = tokens[start : start + _STREAM_BLOCK + 1]
        logprobs = log_softmax(to_numpy(decoder.score(block[None, :-1]))[0])
        losses.append(-logprobs[np.arange(len(block) - 1), block[1:]])
    every = np.concatenate(losses)
    return float(every[len(every) // 2 :].mean())


def prompt_logprobs(
    factory: DecoderFactory, row: Row, cancelled: Callable[[], bool]
) -> list[TokenLogprobs]:
    """Log-probabilities of each token of a row's prompt, given the tokens before it.

    `cancelled` is asked before each block; once it gives true, the other tokens are left out.
    """
    most, made = row.request.logprobs, list[TokenLogprobs]()
    assert most is not None
    blocks = predictions(factory, row.restore(factory()), row.before, [row.ids])
    while not cancelled() and (block := next(blocks, None)) is not None:
        for token, given in zip(block[0].tolist(), block[1], strict=True):
            is_first = np.isnan(given[token])
            known = TokenLogprobs.of(given, token, most)
            made.append(TokenLogprobs(token, None, ()) if is_first else known)
    return made


def predictions(
    factory: DecoderFactory,
    decoder: Decoder,
    before: Ids,
    parts: Iterable[Ids],
    prompt: EncodedPrompt = _NO_PROMPT,
) -> Iterator[tuple[Ids, Floats]]:
    """Ids (T,) in blocks, and the log-probabilities (T, V) at each, the first as after the prompt;
    NaN where nothing comes before.
    """
    decoder.extend(before[None, :-1])
    last, size = before[-1:], min(BLOCK, max(1, _VALUES_AT_ONCE // factory.vocab_size))
    for ids in parts:
        for start in range(0, len(ids), size):
            block = ids[start : start + size].astype(np.int64)
            fed = np.concatenate([last, block[:-1]])
            logprobs = np.full((len(block), factory.vocab_size), np.nan)
            if len(fed):
                given = to_numpy(factory.score(decoder, fed[None]))[0]
                if len(last):
                    prompt.open(given[0])
                logprobs[-len(fed) :], prompt = log_softmax(given), _NO_PROMPT
            yield block, logprobs
            last = block[-1:]


def perplexity(loss: float) -> float:
    """exp(loss), and infinity where that is too large for a float."""
    return math.exp(loss) if loss < 700 else math.inf
