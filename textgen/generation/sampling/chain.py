"""The sampler chain: from logits to a token, and who is to blame where there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from math import isfinite
from typing import Any, Final, NoReturn, Self

import attrs
import numpy as np
import numpy.typing as npt

from textgen.contracts import checks
from textgen.contracts.components import Components
from textgen.contracts.decoders import DecoderFactory
from textgen.errors import ContractError, TextgenError
from textgen.generation.sampling.draw import draw, draw_one, likeliest, to_numpy
from textgen.generation.sampling.history import SequenceHistory
from textgen.plugin.component import RegisteredComponent
from textgen.plugin.configured import ConfiguredComponent
from textgen.protocols import Array, Floats, History, Ids, Model, Strategy, Tensors

LEVELS: Final = ("none", "counts", "tokens")
END: Final = -1
"""In place of a token: a sampler has ended the text."""
_NEVER: Final = -np.inf


@attrs.frozen(eq=False)
class Link:
    """A sampler and whose it is.

    position  in the chain, on which its random numbers depend
    key       its name, and how many of that name stand before it: its state is saved under it
    level     what it reads of the history
    """

    sampler: Any
    offer: RegisteredComponent
    position: int
    key: str
    level: str
    has_state: bool
    random: bool
    ends: bool
    deterministic: bool
    _form: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = attrs.field(factory=dict)
    """Dtypes and shapes of the first state, which all others must have."""

    @classmethod
    def of(cls, sampler: Any, offer: RegisteredComponent, position: int, before: int) -> Self:
        """The link of a sampler, with `before` others of its name before it. Raises ContractError.

        A sampler that announces to read less than it does is found out when it reads it.
        """
        level = getattr(sampler, "history", "tokens")
        if level not in LEVELS:
            raise ContractError(
                offer, f"has history = {level!r}, and must have one of {', '.join(LEVELS)}"
            )
        start, accept = (callable(getattr(sampler, name, None)) for name in ("start", "accept"))
        if start != accept:
            has, lacks = ("start", "accept") if start else ("accept", "start")
            raise ContractError(
                offer, f"has the method {has!r} and no {lacks!r}; a sampler with a state needs both"
            )
        random, ends, deterministic = (
            bool(getattr(sampler, name, False)) for name in ("random", "ends", "deterministic")
        )
        key = f"{offer.name}-{before}"
        return cls(sampler, offer, position, key, level, start, random, ends, deterministic)

    def __call__(self, logits: Array, rows: SequenceHistory) -> Array:
        """The sampler's logits (B, V), checked."""
        made: Array = self.sampler(logits, self.view(rows))
        if getattr(made, "shape", None) != logits.shape or made.dtype != logits.dtype:
            checks.check_logits(made, tuple(logits.shape), self.offer)
        return made

    def view(self, rows: SequenceHistory) -> History:
        """The rows as the sampler sees them."""
        return rows.seen_by(self) if self.has_state or self.random else rows

    def start(self, prompts: Sequence[Ids]) -> Tensors:
        """The states of rows that begin, under the names that they have in their history."""
        states = [self._checked("start", self.sampler.start(prompt)) for prompt in prompts]
        return {name: np.stack([state[name] for state in states]) for name in states[0]}

    def accept(self, tokens: Ids, logits: Array, rows: SequenceHistory) -> Tensors:
        """The states after tokens (B,) were drawn."""
        made = self.sampler.accept(tokens, logits, self.view(rows))
        return self._checked("accept", made, len(tokens))

    def state(self, rows: SequenceHistory) -> Tensors:
        """The states as the sampler sees them."""
        return {name: rows.arrays[f"{self.key}.{name}"] for name in self._form}

    def _checked(self, method: str, made: Any, *rows: int) -> Tensors:
        """A state, or the states of so many rows."""
        if not isinstance(made, Mapping):
            cause = f"gave {type(made).__name__} from {method}, and must give a dict of arrays"
            raise ContractError(self.offer, cause)
        arrays = {str(name): np.asarray(value) for name, value in made.items()}
        form = {name: (array.dtype, array.shape) for name, array in arrays.items()}
        if not self._form:
            self._form.update(form)
        expected = {name: (dtype, (*rows, *shape)) for name, (dtype, shape) in self._form.items()}
        if form != expected:
            cause = f"gave from {method} arrays of {form}, and must give {expected}"
            raise ContractError(self.offer, f"{cause}: dtype and shape by name")
        return {f"{self.key}.{name}": array for name, array in arrays.items()}


@attrs.frozen(eq=False)
class Chain:
    """The samplers that logits pass, in order.

    model       whose the logits are
    vocab_size  V
    forbidden   ids that are never drawn, such as the one for unknown characters
    strategy    what decides how a text is made of steps, and whose it is; None to sample
    components  samplers, model and tokenizer are among them
    """

    links: tuple[Link, ...]
    model: RegisteredComponent
    vocab_size: int
    forbidden: tuple[int, ...] = ()
    strategy: tuple[Strategy, RegisteredComponent] | None = None
    components: Components = attrs.field(factory=Components, repr=False)

    @cached_property
    def others(self) -> tuple[DecoderFactory, ...]:
        """Makers of decoders of the models of which a text may have lanes, beside its own."""
        if self.strategy is None:
            return ()
        strategy, source = self.strategy
        models = getattr(strategy, "models", ())
        return tuple(DecoderFactory(model, source, self.vocab_size) for model in models)

    @cached_property
    def _greedy(self) -> bool:
        """Whether the last link keeps only the likeliest token, so that it need not be called."""
        # A sampler that keeps a state or ends texts has to be called, whatever it promises.
        last = self.links[-1:]
        return any(li.deterministic and not (li.has_state or li.ends) for li in last)

    @classmethod
    def of(
        cls,
        samplers: Sequence[tuple[ConfiguredComponent, Any]],
        model: RegisteredComponent,
        vocab_size: int,
        unknown: int | None,
        components: Components,
    ) -> Chain:
        """A chain of built samplers, and at most one strategy; a sampler that is itself made of
        `links` counts as those.
        """
        links: list[Link] = []
        strategy = None
        for choice, sampler in samplers:
            if choice.offer.kind == "strategy":
                strategy = (
                    None if getattr(sampler, "draws_only", False) else (sampler, choice.offer)
                )
                continue
            for part in getattr(sampler, "links", (sampler,)):
                before = sum(link.offer.name == choice.offer.name for link in links)
                links.append(Link.of(part, choice.offer, len(links), before))
        forbidden = () if unknown is None else (unknown,)
        return cls(tuple(links), model, vocab_size, forbidden, strategy, components)

    @property
    def lanes(self) -> int:
        """The most rows of a decoder that a text takes."""
        return 1 if self.strategy is None else self.strategy[0].lanes

    def begin(self, prompts: Sequence[Ids], streams: Sequence[tuple[int, int]]) -> SequenceHistory:
        """The history of rows that begin after their prompts, with the seed and index of each."""
        level = max((link.level for link in self.links), key=LEVELS.index, default="none")
        history = SequenceHistory.begin(self.vocab_size, level, prompts, streams)
        for link in self.links:
            if link.has_state:
                history.arrays |= link.start(prompts)
        return history

    @property
    def is_plain(self) -> bool:
        """Whether no sampler reads more of the history than its lengths."""
        return not any(
            link.level != "none" or link.has_state or link.ends or link.random
            for link in self.links
        )

    def pick_one(self, logits: Array, history: SequenceHistory, uniform: float) -> int:
        """`pick` for one row of a plain chain, with less work around it.

        The caller notes the length.
        """
        for token in self.forbidden:
            logits[0, token] = _NEVER
        sampled = logits
        for link in self.links[:-1] if self._greedy else self.links:
            sampled = link(sampled, history)
        row = to_numpy(sampled)[0]
        drawn = int(row.argmax()) if self._greedy else draw_one(row, uniform)
        if drawn is None or not isfinite(row.item(drawn)):
            self._explain(logits, history)
        return drawn

    def pick(self, logits: Array, history: SequenceHistory, uniforms: Floats) -> Ids:
        """The tokens (B,) for logits (B, V), noted in the history; END if a sampler ended a text.

        Writes into `logits`. Nothing is noted if a sampler fails.
        """
        for token in self.forbidden:
            logits[:, token] = _NEVER
        sampled, ended = logits, np.zeros(len(logits), np.bool_)
        given: list[tuple[Link, Array]] = []
        for link in self.links[:-1] if self._greedy else self.links:
            before, sampled = sampled, link(sampled, history)
            if link.ends and (gone := _has_nothing(sampled) & ~_has_nothing(before)).any():
                sampled, rows = rows_of(sampled, np.arange(len(gone))), np.flatnonzero(gone)
                sampled[rows.tolist()] = rows_of(before, rows)  # so that something can be drawn
                ended |= gone
            if link.has_state:
                given.append((link, sampled))
        values = to_numpy(sampled)
        tokens = likeliest(values) if self._greedy else draw(values, uniforms)
        if tokens is None:
            self._explain(logits, history)
        if not ended.any():
            self._accept(tokens, given, history)
            return tokens
        kept = np.flatnonzero(~ended)
        if not len(kept):
            return np.full(len(ended), END)
        rest = history.rows(kept.tolist())
        self._accept(tokens[kept], [(link, rows_of(made, kept)) for link, made in given], rest)
        history.put(kept.tolist(), rest)
        return np.where(ended, END, tokens)

    def note(self, tokens: Ids, logits: Array, history: SequenceHistory) -> None:
        """Note tokens (B,) that were not drawn by `pick` after logits (B, V) in the history."""
        given = []
        for link in self.links if any(link.has_state for link in self.links) else ():
            logits = link(logits, history)
            if link.has_state:
                given.append((link, logits))
        self._accept(tokens, given, history)

    def _accept(
        self, tokens: Ids, given: Sequence[tuple[Link, Array]], history: SequenceHistory
    ) -> None:
        """Note tokens (B,), of which samplers with a state gave logits (B, V)."""
        states = [link.accept(tokens, logits, history) for link, logits in given]
        history.add(tokens)
        for state in states:
            history.arrays |= state

    def sampled(self, logits: Array, history: SequenceHistory) -> Array:
        """The logits (B, V) that the samplers make of others."""
        for link in self.links:
            logits = link(logits, history)
        return logits

    def try_on(self, model: Model) -> None:
        """Dry-run one step of a model that may not be trained yet. Raises ContractError."""
        factory = DecoderFactory(model, self.model, self.vocab_size)
        try:
            logits = factory.extend(factory(), np.empty((1, 0), np.int64))
        except ContractError:
            raise
        except TextgenError:
            return  # it may say that it has to be trained first
        if isfinite(to_numpy(logits).max()):  # else an untrained model says nothing of the samplers
            self.pick(logits, self.begin([np.empty(0, np.int64)], [(0, 0)]), np.zeros(1))

    def _explain(self, logits: Array, history: SequenceHistory) -> NoReturn:
        """Find out who made logits that no token can be drawn from, and blame them."""
        if cause := _fault(logits):
            raise ContractError(self.model, cause)
        with np.errstate(all="ignore"):
            for link in self.links:
                logits = link(logits, history)
                if cause := _fault(logits):
                    raise ContractError(link.offer, cause)
        raise AssertionError("no token could be drawn, and no component is to blame")


def rows_of(logits: Array, rows: Ids) -> Array:
    """Some rows of logits (B, V), as a copy."""
    return logits[rows] if isinstance(logits, np.ndarray) else logits[rows.tolist()]


def _has_nothing(logits: Array) -> npt.NDArray[np.bool_]:
    """(B,) whether every token of a row is forbidden."""
    made: npt.NDArray[np.bool_] = to_numpy((logits == _NEVER).all(-1))
    return made


def _fault(logits: Array) -> str:
    """The reason why no token can be drawn from logits (B, V); "" where one can."""
    rows = to_numpy(logits)
    if not (rows < np.inf).all():
        return "gave NaN or infinite logits"
    if (rows == _NEVER).all(axis=-1).any():
        return "forbade every token; a sampler that may end a text has the attribute ends = True"
    return ""
