"""Generator: a trained model, its tokenizer and a sampler chain, made to be shared between threads."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, Final, Literal

import attrs
import numpy as np
import numpy.typing as npt

from textgen import contracts
from textgen.config import MAX_NEW_TOKENS, MAX_SEED, Choice
from textgen.errors import PromptError, UsageError
from textgen.plugins import Offer
from textgen.protocols import Array, Decoder, Ids, Model, Sampler, Tokenizer

UnknownCharacters = Literal["error", "skip", "unknown"]
_DRAWS_AT_ONCE: Final = 256
_SCORE_TOKENS: Final = 4096


@attrs.frozen(kw_only=True)
class Generation:
    """A continuation. `str()` of it is prompt and text together.

    text    what was added
    tokens  its ids
    seed, index   with the same of these, the same text comes again
    """

    prompt: str
    text: str
    tokens: tuple[int, ...]
    seed: int
    index: int = 0

    def __str__(self) -> str:
        return self.prompt + self.text


@attrs.frozen(kw_only=True)
class TextScore:
    """How well a model predicts a text.

    tokens               predictions made: every token but the first
    characters           of the text that they make up, after the tokenizer's normalisation
    loss                 mean cross-entropy, nats per token
    perplexity           exp(loss)
    bits_per_character   the text's total cross-entropy in bits over its characters
    unknown_tokens       how many tokens stood for text outside the vocabulary
    """

    tokens: int
    characters: int
    loss: float
    perplexity: float
    bits_per_character: float
    unknown_tokens: int


@attrs.frozen(eq=False, kw_only=True)
class Generator:
    """Continues prompts. Immutable: any number of threads may use one at once. Made by textgen.load or Run.generator.

    `seed` is the default seed. Each text depends on its prompt, seed and index alone.
    """

    tokenizer: Tokenizer
    model: Model
    model_offer: Offer = attrs.field(repr=False)
    chain: tuple[tuple[Choice, Sampler], ...] = attrs.field(repr=False)
    seed: int = 0

    def generate(
        self,
        prompt: str = "",
        *,
        max_new_tokens: int = 400,
        seed: int | None = None,
        index: int = 0,
        unknown_characters: UnknownCharacters = "error",
    ) -> Generation:
        """Continue `prompt` by `max_new_tokens` tokens.

        seed, index         of the random draws; `index` tells the texts of one seed apart
        unknown_characters  prompt characters outside the vocabulary are an error, skipped, or fed as <unk>

        Raises PromptError, UsageError for arguments out of range, and ContractError where a plugin is to blame.
        """
        tokens = self._start(prompt, max_new_tokens, seed, index, unknown_characters)
        ids = list(tokens)
        return Generation(
            prompt=prompt,
            text=self.tokenizer.decode(np.asarray(ids, np.int64)),
            tokens=tuple(ids),
            seed=self.seed if seed is None else seed,
            index=index,
        )

    def stream(
        self,
        prompt: str = "",
        *,
        max_new_tokens: int = 400,
        seed: int | None = None,
        index: int = 0,
        unknown_characters: UnknownCharacters = "error",
    ) -> Iterator[str]:
        """The same text as `generate`, in pieces as they come. Arguments are checked before the first piece."""
        tokens = self._start(prompt, max_new_tokens, seed, index, unknown_characters)
        return self._pieces(tokens)

    def score(self, pieces: str | Iterable[str]) -> TextScore:
        """How well the model predicts a text, given whole or in pieces, as one stream and in bounded memory."""
        pieces = [pieces] if isinstance(pieces, str) else pieces
        decoder = self.model.decoder(1)
        total, count, characters, unknown = 0.0, 0, 0, 0
        waiting: npt.NDArray[np.int64] = np.empty(0, np.int64)
        for ids in self.tokenizer.encode_pieces(pieces):
            unknown += int((ids == self.tokenizer.unknown_id).sum()) if self.tokenizer.unknown_id is not None else 0
            waiting = np.concatenate([waiting, ids.astype(np.int64)])
            while len(waiting) > 1:
                block = waiting[: _SCORE_TOKENS + 1]
                losses = self._losses(decoder, block)
                total += float(losses.sum())
                count += len(losses)
                characters += len(self.tokenizer.decode(block[1:]))
                waiting = waiting[len(block) - 1 :]
        if not count:
            raise UsageError("there is nothing to score: the text has less than two tokens")
        loss = total / count
        return TextScore(
            tokens=count,
            characters=characters,
            loss=loss,
            perplexity=perplexity(loss),
            bits_per_character=total / math.log(2) / max(characters, 1),
            unknown_tokens=unknown,
        )

    def _losses(self, decoder: Decoder, block: Ids) -> npt.NDArray[np.float64]:
        """(T - 1,) cross-entropy, in nats, of each token of `block` (T,) given the ones before it."""
        logits = decoder.score(block[None, :-1])
        contracts.check_logits(logits, (1, len(block) - 1, self.tokenizer.vocab_size), self.model_offer)
        rows = _to_numpy(logits)[0].astype(np.float64)
        peak = rows.max(axis=-1, keepdims=True)
        log_total = peak[:, 0] + np.log(np.exp(rows - peak).sum(axis=-1))
        losses: npt.NDArray[np.float64] = log_total - rows[np.arange(len(rows)), block[1:]]
        return losses

    def _start(
        self, prompt: str, max_new_tokens: int, seed: int | None, index: int, unknown: UnknownCharacters
    ) -> Iterator[int]:
        """Check the arguments, then give the tokens as they are drawn."""
        _check_whole("max_new_tokens", max_new_tokens, MAX_NEW_TOKENS)
        _check_whole("seed", self.seed if seed is None else seed, MAX_SEED - 1)
        _check_whole("index", index, MAX_SEED - 1)
        if unknown not in ("error", "skip", "unknown"):
            raise UsageError(f"unknown_characters must be 'error', 'skip' or 'unknown', and is {unknown!r}")
        ids = self.encode_prompt(prompt, unknown)
        return self._tokens(ids, max_new_tokens, self.seed if seed is None else seed, index)

    def encode_prompt(self, prompt: str, unknown_characters: UnknownCharacters = "error") -> Ids:
        """(T,) ids of a prompt, with what the vocabulary lacks treated as told. Raises PromptError."""
        ids = self.tokenizer.encode(prompt)
        unknown = self.tokenizer.unknown_id
        if unknown is None or unknown_characters == "unknown" or unknown not in ids:
            return ids
        lacking = [c for c in dict.fromkeys(prompt) if unknown in self.tokenizer.encode(c)]
        if unknown_characters == "error":
            raise PromptError(lacking or [prompt])
        kept = "".join(c for c in prompt if c not in lacking)
        ids = self.tokenizer.encode(kept)
        known: Ids = ids[ids != unknown]
        return known

    def _tokens(self, prompt: Ids, max_new_tokens: int, seed: int, index: int) -> Iterator[int]:
        decoder = self.model.decoder(1)
        history = _History([prompt.tolist()])
        draws = _uniforms(seed, index)
        feed = np.asarray(prompt, np.int64)[None]
        for _ in range(max_new_tokens):
            logits = decoder.extend(feed)
            contracts.check_logits(logits, (1, self.tokenizer.vocab_size), self.model_offer)
            token = self._draw(logits, history, next(draws))
            history.tokens[0].append(token)
            feed = np.array([[token]], np.int64)
            yield token

    def _draw(self, logits: Array, history: _History, uniform: float) -> int:
        """Send logits (1, V) through the chain and draw a token by inverse CDF."""
        sampled = logits
        for choice, sampler in self.chain:
            given, sampled = sampled, sampler(sampled, history)
            contracts.check_logits(sampled, tuple(given.shape), choice.offer)
        token = _inverse_cdf(_to_numpy(sampled), np.array([uniform]))[0]
        if token < 0:
            contracts.explain_undrawable(logits, list(self.chain), history, self.model_offer)
        return int(token)

    def _pieces(self, tokens: Iterator[int]) -> Iterator[str]:
        decoder = self.tokenizer.incremental_decoder()
        for token in tokens:
            if piece := decoder.decode(np.array([token])):
                yield piece
        if piece := decoder.decode(np.empty(0, np.int64), final=True):
            yield piece


def perplexity(loss: float) -> float:
    """exp(loss), and infinity where that is too large for a float."""
    return math.exp(loss) if loss < 700 else math.inf


@attrs.frozen
class _History:
    """textgen.protocols.History for sequences whose tokens are all kept."""

    tokens: list[list[int]]
    prompt_lengths: list[int] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "prompt_lengths", [len(row) for row in self.tokens])


def _uniforms(seed: int, index: int) -> Iterator[float]:
    """Numbers of [0, 1) that depend on seed and index alone: Philox is keyed by both (Salmon et al., 2011)."""
    generator = np.random.Generator(np.random.Philox(key=np.array([seed, index], np.uint64)))
    while True:
        yield from generator.random(_DRAWS_AT_ONCE).tolist()


def _inverse_cdf(logits: npt.NDArray[Any], uniforms: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Draw a token for each row of logits (B, V); -1 where there is none to draw.

    Token i is drawn when the cumulative weight of 0 to i is the first above the uniform number times the total, so a
    token of weight zero never is. The factor keeps the product below the total when the number is next to 1.
    """
    with np.errstate(invalid="ignore"):
        weights = np.exp(logits - logits.max(axis=-1, keepdims=True), dtype=np.float64)
    cdf = weights.cumsum(axis=-1)
    total = cdf[:, -1]
    threshold = uniforms * (total * (1 - 2**-52))
    drawn = (cdf <= threshold[:, None]).sum(axis=-1)
    return np.where(np.isfinite(total), drawn, -1)


def _to_numpy(values: Array) -> npt.NDArray[Any]:
    return np.asarray(values.cpu() if hasattr(values, "cpu") else values)


def _check_whole(name: str, value: Any, limit: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= limit:
        raise UsageError(f"{name} must be a whole number from 0 to {limit:,}, and is {value!r}")
