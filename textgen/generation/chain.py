"""The sampler chain: from logits to a token, and who is to blame where there is none."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from math import isfinite
from typing import Any, Final, NoReturn

import attrs
import numpy as np
import numpy.typing as npt

from textgen.contracts import checks
from textgen.contracts.guards import FAILURES, begin_decoding, blame, raise_failure
from textgen.errors import ContractError, TextgenError
from textgen.generation.sampling import SequenceHistory, draw_one, inverse_cdf, to_numpy
from textgen.pipeline.structure import Choice
from textgen.plugin.component import Offer
from textgen.protocols import Array, Ids, Model, Sampler

_NEVER: Final = -np.inf
_LEVELS: Final = ("none", "counts", "tokens")


@attrs.frozen(eq=False)
class Link:
    """A sampler and whose it is."""

    sampler: Sampler
    offer: Offer


@attrs.frozen(eq=False)
class Chain:
    """The samplers that logits pass, in order.

    model       whose the logits are
    vocab_size  V
    forbidden   ids that are never drawn, such as the one for unknown characters
    tables      the [[sampler]] tables that make it
    """

    links: tuple[Link, ...]
    model: Offer
    vocab_size: int
    forbidden: tuple[int, ...] = ()
    tables: tuple[dict[str, Any], ...] = ()
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
        forbidden = () if unknown is None else (unknown,)
        tables = tuple({**choice.table(), "type": choice.offer.name} for choice, _ in samplers)
        return cls(tuple(links), model, vocab_size, forbidden, tables)

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
        sampled = self._apply(logits, history)
        row = sampled[0] if type(sampled) is np.ndarray else to_numpy(sampled)[0]
        token = int(row.argmax()) if self._greedy else draw_one(row, uniform)
        # NaN passes through arg-max and draw alike, and so does a row of -inf through arg-max.
        if token < 0 or not isfinite(row.item(token)):
            self._explain(logits, history)
        return token

    def pick(self, logits: Array, history: SequenceHistory, uniforms: npt.NDArray[np.float64]) -> Ids:
        """The tokens (B,) for logits (B, V), row by row what `pick_one` gives. Writes into `logits`."""
        for token in self.forbidden:
            logits[:, token] = _NEVER
        values = to_numpy(self._apply(logits, history))
        if self._greedy:
            tokens: Ids = values.argmax(axis=-1)
            if not np.isfinite(values[np.arange(len(tokens)), tokens]).all():
                self._explain(logits, history)
            return tokens
        tokens = inverse_cdf(values, uniforms)
        if (tokens < 0).any():
            self._explain(logits, history)
        return tokens

    def try_on(self, model: Model) -> None:
        """Dry-run one step of a model that may not be trained yet; blame what raises or gives another shape."""
        try:
            decoder = begin_decoding(model, 1, self.model)
            logits = decoder.extend(np.empty((1, 0), np.int64))
        except FAILURES as error:
            if isinstance(error, TextgenError) and not isinstance(error, ContractError):
                return  # it may say that it has to be trained first
            raise_failure(self.model, "decoding", error)
        checks.check_logits(logits, (1, self.vocab_size), self.model)
        for token in self.forbidden:
            logits[0, token] = _NEVER
        if not isfinite(to_numpy(logits).max()):
            return  # an untrained model may give no finite logit yet, which says nothing of the samplers
        history = self.history()
        history.append_rows([np.empty(0, np.int64)])
        self.pick_one(logits, history, 0.0, ())

    def _apply(self, logits: Array, history: SequenceHistory) -> Array:
        """Logits after the samplers, all but a last one that is an arg-max."""
        sampled = logits
        for link in self._applied:
            try:
                sampled = link.sampler(sampled, history)
            except FAILURES as error:
                raise_failure(link.offer, "sampling", error)
            if getattr(sampled, "shape", None) != logits.shape or sampled.dtype != logits.dtype:
                checks.check_logits(sampled, tuple(logits.shape), link.offer)
        return sampled

    def _explain(self, logits: Array, history: SequenceHistory) -> NoReturn:
        """Find out who made logits that no token can be drawn from, and blame them."""
        if cause := _fault(logits):
            raise blame(self.model, cause)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for link in self.links:
                before, logits = logits, link.sampler(logits, history)
                checks.check_logits(logits, tuple(before.shape), link.offer)
                if cause := _fault(logits):
                    raise blame(link.offer, cause)
        raise AssertionError("no token could be drawn, and no component is to blame")


def _level(link: Link) -> str:
    """What a sampler reads of the history. One that asks for less and reads more is found out when it reads it."""
    level = getattr(link.sampler, "history", "tokens")
    if level not in _LEVELS:
        raise blame(link.offer, f"has history = {level!r}, and must have one of {', '.join(_LEVELS)}")
    return str(level)


def _fault(logits: Array) -> str:
    """Why no token can be drawn from logits (B, V); "" where one can."""
    rows = to_numpy(logits)
    if np.isnan(rows).any():
        return "gave NaN logits"
    if (rows == np.inf).any():
        return "gave infinite logits"
    return "forbade every token" if (rows == -np.inf).all(axis=-1).any() else ""
