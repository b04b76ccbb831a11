"""From logits to a token: the sampler chain, and the draw."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from math import isfinite
from typing import Any, Final, NoReturn

import attrs
import numpy as np
import numpy.typing as npt

from textgen.contracts import checks
from textgen.contracts.guards import FAILURES, begin_decoding, raise_failure
from textgen.errors import ContractError, TextgenError
from textgen.pipeline.pipeline import Choice
from textgen.plugin.component import Offer
from textgen.protocols import Array, History, Ids, Model, Sampler

BLOCK: Final = 64  # uniform numbers made at once for a sequence
_NEVER: Final = -np.inf
_LEVELS: Final = ("none", "counts", "tokens")


@attrs.frozen(eq=False)
class Link:
    """A sampler and whose it is."""

    sampler: Sampler
    offer: Offer


@attrs.define(eq=False)
class SequenceHistory:
    """textgen.protocols.History, kept as far as `level` says. B rows that a batch may exchange."""

    vocab_size: int
    level: str
    counts: npt.NDArray[np.int32] = attrs.field(init=False)
    prompt_counts: npt.NDArray[np.int32] = attrs.field(init=False)
    _tokens: list[list[int]] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.counts = np.zeros((0, self.vocab_size), np.int32)
        self.prompt_counts = np.zeros((0, self.vocab_size), np.int32)
        self._tokens = []

    def tokens(self, row: int) -> Ids:
        """(N,) ids of a row."""
        if self.level != "tokens":
            raise LookupError("no sampler has announced that it reads tokens: set its attribute history to 'tokens'")
        return np.array(self._tokens[row], np.int64)

    def append_row(self, prompt: Ids) -> None:
        """Begin a sequence below the others."""
        if self.level != "none":
            counted = np.bincount(prompt, minlength=self.vocab_size).astype(np.int32)
            self.prompt_counts = np.concatenate([self.prompt_counts, counted[None]])
            self.counts = np.concatenate([self.counts, np.zeros_like(counted)[None]])
        if self.level == "tokens":
            self._tokens.append(prompt.tolist())

    def keep_rows(self, rows: Sequence[int]) -> None:
        """Keep only these rows, in this order."""
        if self.level != "none":
            self.counts, self.prompt_counts = self.counts[rows], self.prompt_counts[rows]
        if self.level == "tokens":
            self._tokens = [self._tokens[row] for row in rows]

    def add(self, rows: Ids, tokens: Ids) -> None:
        """Note one generated token for each of `rows`."""
        if self.level != "none":
            self.counts[rows, tokens] += 1
        if self.level == "tokens":
            for row, token in zip(rows.tolist(), tokens.tolist(), strict=True):
                self._tokens[row].append(token)

    def extend_prompt(self, row: int, prompt: Ids) -> None:
        """Note tokens that the caller adds to a sequence."""
        if self.level != "none":
            np.add.at(self.prompt_counts[row], prompt, 1)
        if self.level == "tokens":
            self._tokens[row] += prompt.tolist()

    def dump_row(self, row: int) -> dict[str, Any]:
        """A row as arrays, for a saved state."""
        kept: dict[str, Any] = {}
        if self.level != "none":
            kept |= {"counts": self.counts[row], "prompt_counts": self.prompt_counts[row]}
        if self.level == "tokens":
            kept["tokens"] = self.tokens(row)
        return kept

    def load_row(self, kept: dict[str, Any]) -> None:
        """Begin a row from what `dump_row` gave. Raises KeyError when the samplers need more than was kept."""
        self.append_row(np.empty(0, np.int64))
        if self.level != "none":
            self.counts[-1], self.prompt_counts[-1] = kept["counts"], kept["prompt_counts"]
        if self.level == "tokens":
            self._tokens[-1] = kept["tokens"].tolist()


@attrs.frozen(eq=False)
class Chain:
    """The samplers that logits pass, in order.

    model       whose the logits are
    vocab_size  V
    forbidden   ids that are never drawn, such as the one for unknown characters
    """

    links: tuple[Link, ...]
    model: Offer
    vocab_size: int
    forbidden: tuple[int, ...] = ()
    level: str = attrs.field(init=False)
    _applied: tuple[Link, ...] = attrs.field(init=False)
    _greedy: bool = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        levels = [_level(link) for link in self.links]
        object.__setattr__(self, "level", max(levels, key=_LEVELS.index, default="none"))
        # A last link that keeps only the best is an arg-max: the draw could give nothing else.
        greedy = bool(self.links) and getattr(self.links[-1].sampler, "deterministic", False)
        object.__setattr__(self, "_greedy", greedy)
        object.__setattr__(self, "_applied", self.links[:-1] if greedy else self.links)

    @classmethod
    def of(cls, samplers: Sequence[tuple[Choice, Any]], model: Offer, vocab_size: int, unknown: int | None) -> Chain:
        """A chain of built samplers; one that is itself made of `links` counts as those."""
        links = [
            Link(part, choice.offer) for choice, sampler in samplers for part in getattr(sampler, "links", (sampler,))
        ]
        return cls(tuple(links), model, vocab_size, () if unknown is None else (unknown,))

    def history(self) -> SequenceHistory:
        """An empty history that keeps what the samplers read."""
        return SequenceHistory(self.vocab_size, self.level)

    @property
    def draws(self) -> bool:
        """Whether a token depends on a random number."""
        return not self._greedy

    @property
    def plainly_greedy(self) -> bool:
        """Whether the token is the likeliest by the model, with no sampler changing the logits before."""
        return self._greedy and not self._applied

    def pick_one(self, logits: Array, history: SequenceHistory, uniform: float, forbidden: tuple[int, ...]) -> int:
        """The token for logits (1, V). `forbidden` holds for this token alone. Writes into `logits`."""
        for token in self.forbidden + forbidden if forbidden else self.forbidden:
            logits[0, token] = _NEVER
        sampled = logits
        for link in self._applied:
            try:
                sampled = link.sampler(sampled, history)
            except FAILURES as error:
                raise_failure(link.offer, "sampling", error)
            if getattr(sampled, "shape", None) != logits.shape or sampled.dtype != logits.dtype:
                checks.check_logits(sampled, (1, self.vocab_size), link.offer)
        row = sampled[0] if type(sampled) is np.ndarray else to_numpy(sampled)[0]
        token = int(row.argmax()) if self._greedy else draw_one(row, uniform)
        # NaN passes through arg-max and draw alike, and so does a row of -inf through arg-max.
        if token < 0 or not isfinite(row.item(token)):
            self._explain(logits, history)
        return token

    def pick(self, logits: Array, history: SequenceHistory, uniforms: npt.NDArray[np.float64], rows: Ids) -> Ids:
        """The tokens (B,) for logits (B, V), row by row what `pick_one` gives. Writes into `logits`.

        Only `rows` are needed; what the others give means nothing, and may be impossible to draw from.
        """
        for token in self.forbidden:
            logits[:, token] = -np.inf
        sampled = logits
        for link in self._applied:
            try:
                sampled = link.sampler(sampled, history)
            except FAILURES as error:
                raise_failure(link.offer, "sampling", error)
            checks.check_logits(sampled, tuple(logits.shape), link.offer)
        values = to_numpy(sampled)
        if self._greedy:
            tokens: Ids = values.argmax(axis=-1)
            if not np.isfinite(values[rows, tokens[rows]]).all():
                self._explain(logits, history)
            return tokens
        tokens = inverse_cdf(values, uniforms)
        if (tokens[rows] < 0).any():
            self._explain(logits, history)
        return tokens

    def try_on(self, model: Model) -> None:
        """One step for nothing, of a model that may not be trained yet: what has another shape or raises is blamed."""
        try:
            decoder = begin_decoding(model, 1, self.model)
            logits = decoder.extend(np.empty((1, 0), np.int64))
        except FAILURES as error:
            if isinstance(error, TextgenError) and not isinstance(error, ContractError):
                return  # it may say that it is to be trained first
            raise_failure(self.model, "decoding", error)
        checks.check_logits(logits, (1, self.vocab_size), self.model)
        for token in self.forbidden:
            logits[0, token] = _NEVER
        if not isfinite(to_numpy(logits).max()):
            return  # what is not trained may give no number yet, which is no matter of the samplers
        history = self.history()
        history.append_row(np.empty(0, np.int64))
        self.pick_one(logits, history, 0.0, ())

    def _explain(self, logits: Array, history: SequenceHistory) -> None:
        _explain_undrawable(logits, self.links, history, self.model)


def _explain_undrawable(logits: Array, links: Sequence[Link], history: History, model: Offer) -> NoReturn:
    """Find out who made logits that no token can be drawn from, and blame them."""

    def faulty(values: Array) -> str:
        rows = to_numpy(values).astype(np.float64)
        if np.isnan(rows).any():
            return "gave NaN logits"
        if (rows == np.inf).any():
            return "gave infinite logits"
        return "forbade every token" if (rows == -np.inf).all(axis=-1).any() else ""

    if cause := faulty(logits):
        raise checks.blame(model, cause)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for link in links:
            before, logits = logits, link.sampler(logits, history)
            checks.check_logits(logits, tuple(before.shape), link.offer)
            if cause := faulty(logits):
                raise checks.blame(link.offer, cause)
    raise AssertionError("no token could be drawn, and no component is to blame")


def _level(link: Link) -> str:
    """What a sampler reads of the history. One that asks for less and reads more is found out when it reads it."""
    level = getattr(link.sampler, "history", "tokens")
    if level not in _LEVELS:
        raise checks.blame(link.offer, f"has history = {level!r}, and must have one of {', '.join(_LEVELS)}")
    return str(level)


class Uniforms:
    """Numbers of [0, 1) for one sequence, one after the other."""

    def __init__(self, seed: int, index: int, position: int = 0) -> None:
        self._seed, self._index, self.position = seed, index, position
        self._start = position - position % BLOCK
        self._block = uniform_block(seed, index, self._start).tolist()

    def next(self) -> float:
        """The number at `position`, which moves on."""
        offset = self.position - self._start
        if offset == BLOCK:
            self._start, offset = self.position, 0
            self._block = uniform_block(self._seed, self._index, self._start).tolist()
        self.position += 1
        number: float = self._block[offset]
        return number


def uniform_block(seed: int, index: int, start: int) -> npt.NDArray[np.float64]:
    """(BLOCK,) numbers of [0, 1) from place `start` on, a multiple of four.

    Each depends on seed, index and place alone.

    Philox is keyed by seed and index, and its counter jumps to any place, four numbers a count (Salmon et al.,
    "Parallel random numbers: as easy as 1, 2, 3", 2011).
    """
    bits = np.random.Philox(key=np.array([seed, index], np.uint64), counter=start // 4)
    return np.random.Generator(bits).random(BLOCK)


def draw_one(row: npt.NDArray[Any], uniform: float) -> int:
    """`inverse_cdf` for one row of logits (V,): the same steps with less around them."""
    peak = row.max()
    if not isfinite(peak):
        return -1
    cdf = np.add.accumulate(np.exp(row - peak), dtype=np.float64)
    return int(cdf.searchsorted(uniform * (cdf.item(-1) * (1 - 2**-52)), side="right"))


def inverse_cdf(logits: npt.NDArray[Any], uniforms: npt.NDArray[np.float64]) -> Ids:
    """Draw a token for each row of logits (B, V); -1 where there is none to draw.

    Token i is drawn when the cumulative weight of 0 to i is the first above the uniform number times the total, so a
    token of weight zero never is. The factor keeps the product below the total when the number is next to 1.
    """
    peak = logits.max(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        cdf = np.exp(logits - peak).cumsum(axis=-1, dtype=np.float64)
    total = cdf[:, -1]
    threshold = uniforms * (total * (1 - 2**-52))
    drawn: Ids = (cdf <= threshold[:, None]).sum(axis=-1)
    if not np.isfinite(total.sum()):
        drawn = np.where(np.isfinite(total), drawn, -1)
    return drawn


def to_numpy(values: Array) -> npt.NDArray[Any]:
    """An array as NumPy has it, copied from a GPU if need be."""
    return values if isinstance(values, np.ndarray) else np.asarray(values.cpu())


def log_softmax(logits: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Log-probabilities (…, V), in float64."""
    rows = logits.astype(np.float64)
    rows -= rows.max(axis=-1, keepdims=True)
    rows -= np.log(np.exp(rows).sum(axis=-1, keepdims=True))
    return rows
