"""The sampler chain: from logits to a token, and who is to blame where there is none."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, Final, NoReturn, Self, TypeAlias

import attrs
import numpy as np
import numpy.typing as npt

from textgen.contracts import checks
from textgen.contracts.checks import begin_decoding, blame
from textgen.contracts.components import Components
from textgen.errors import ContractError, TextgenError
from textgen.generation.sampling import (
    SequenceHistory,
    draw_one,
    inverse_cdf,
    step_numbers,
    to_numpy,
)
from textgen.plugin.component import Offer
from textgen.plugin.structure import Choice
from textgen.protocols import Array, History, Ids, Model, Sampler, Tensors

_Form: TypeAlias = "dict[str, tuple[np.dtype[Any], tuple[int, ...]]]"
LEVELS: Final = ("none", "counts", "tokens")
END: Final = -1
"""In place of a token: a sampler has ended the text."""
_NEVER: Final = -np.inf
_NOTHING_LEFT: Final = "forbade every token"


@attrs.frozen(eq=False)
class Link:
    """A sampler and whose it is.

    place   in the chain, on which its random numbers depend
    key     its name, and how many of that name stand before it: what its state is saved under
    level   what it reads of the history
    """

    sampler: Sampler
    offer: Offer
    place: int
    key: str
    level: str
    has_state: bool
    random: bool
    ends: bool
    deterministic: bool
    _form: dict[str, _Form] = attrs.field(
        factory=dict
    )  # that of the first state, which all others must have

    @classmethod
    def of(cls, sampler: Any, offer: Offer, place: int, before: int) -> Self:
        """A sampler at a place of a chain, with so many of its name before it. Raises ContractError.

        A sampler that announces to read less than it does is found out when it reads it.
        """
        level = getattr(sampler, "history", "tokens")
        if level not in LEVELS:
            raise blame(offer, f"has history = {level!r}, and must have one of {', '.join(LEVELS)}")
        start, accept = (callable(getattr(sampler, name, None)) for name in ("start", "accept"))
        if start != accept:
            has, lacks = ("start", "accept") if start else ("accept", "start")
            raise blame(
                offer, f"has the method {has!r} and no {lacks!r}; a sampler with a state needs both"
            )
        random, ends = (bool(getattr(sampler, name, False)) for name in ("random", "ends"))
        # One that also keeps a state, or may leave nothing, has to be called, whatever it promises.
        deterministic = bool(getattr(sampler, "deterministic", False)) and not (start or ends)
        return cls(
            sampler,
            offer,
            place,
            f"{offer.name}-{before}",
            level,
            start,
            random,
            ends,
            deterministic,
        )

    def view(self, rows: SequenceHistory) -> History:
        """What the sampler sees of the rows."""
        return LinkHistory(rows, self) if self.has_state or self.random else rows

    def start(self, prompts: Sequence[Ids]) -> Tensors:
        """The states of rows that begin, each array with the batch as its first axis."""
        states = []
        for prompt in prompts:
            states.append(
                {str(name): np.array(value) for name, value in self._state("start", prompt).items()}
            )
            form, first = _form(states[-1]), self._form.setdefault("of a row", _form(states[-1]))
            if form != first:
                shapes = f"{_shown(first)} for one row and {_shown(form)} for another"
                raise blame(
                    self.offer,
                    f"gave from start {shapes}; every row needs the same names, shapes and dtypes",
                )
        return {name: np.stack([state[name] for state in states]) for name in states[0]}

    def accept(self, tokens: Ids, logits: Array, rows: SequenceHistory) -> Tensors:
        """The states after tokens (B,) were drawn, checked."""
        made = self._state("accept", tokens, logits, LinkHistory(rows, self))
        after = {name: np.asarray(value) for name, value in made.items()}
        form, before = _form(after), _form(rows.states[self.key])
        if form != before:
            raise blame(
                self.offer,
                f"gave from accept {_shown(form)}, and must give what it had: {_shown(before)}",
            )
        return after

    def _state(self, method: str, *arguments: Any) -> Mapping[str, Any]:
        made = getattr(self.sampler, method)(*arguments)
        if not isinstance(made, Mapping):
            raise blame(
                self.offer,
                f"gave {type(made).__name__} from {method}, and must give a dict of arrays",
            )
        return made


@attrs.frozen(eq=False)
class LinkHistory:
    """textgen.protocols.History for a sampler with a state, or one that reads random numbers."""

    rows: SequenceHistory
    link: Link

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rows, name)

    @property
    def state(self) -> Tensors:
        """The sampler's own."""
        return self.rows.states[self.link.key] if self.link.has_state else self.rows.state

    def random(self, count: int = 1) -> npt.NDArray[np.float64]:
        """(B, count) numbers from [0, 1)."""
        if not self.link.random:
            return self.rows.random(count)
        return step_numbers(self.rows.streams, self.rows.lengths, self.link.place, count)


def _form(state: Tensors) -> _Form:
    return {name: (array.dtype, array.shape) for name, array in state.items()}


def _shown(form: _Form) -> str:
    return (
        ", ".join(f"{name} {dtype} {shape}" for name, (dtype, shape) in form.items()) or "no arrays"
    )


@attrs.frozen(eq=False)
class Chain:
    """The samplers that logits pass, in order.

    model       whose the logits are
    vocab_size  V
    forbidden   ids that are never drawn, such as the one for unknown characters
    tables      the [[sampler]] tables that make it
    components  what samplers, model and tokenizer are among
    """

    links: tuple[Link, ...]
    model: Offer
    vocab_size: int
    forbidden: tuple[int, ...] = ()
    tables: tuple[dict[str, Any], ...] = ()
    components: Components = attrs.field(factory=Components, repr=False)
    level: str = attrs.field(init=False)
    draws: bool = attrs.field(init=False)  # whether a token depends on a random number
    _applied: tuple[Link, ...] = attrs.field(init=False)
    _greedy: bool = attrs.field(init=False)
    _special: bool = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        # A last link that keeps only the best is an arg-max: the draw could give nothing else.
        greedy = any(link.deterministic for link in self.links[-1:])
        made = {
            "level": max((link.level for link in self.links), key=LEVELS.index, default="none"),
            "draws": not greedy or any(link.random for link in self.links),
            "_applied": self.links[:-1] if greedy else self.links,
            "_greedy": greedy,
            "_special": any(link.has_state or link.ends for link in self.links),
        }
        for name, value in made.items():
            object.__setattr__(self, name, value)

    @classmethod
    def of(
        cls,
        samplers: Sequence[tuple[Choice, Any]],
        model: Offer,
        vocab_size: int,
        unknown: int | None,
        components: Components,
    ) -> Chain:
        """A chain of built samplers; one that is itself made of `links` counts as those."""
        links: list[Link] = []
        for choice, sampler in samplers:
            for part in getattr(sampler, "links", (sampler,)):
                before = sum(link.offer.name == choice.offer.name for link in links)
                links.append(Link.of(part, choice.offer, len(links), before))
        forbidden = () if unknown is None else (unknown,)
        tables = tuple({**choice.table(), "type": choice.offer.name} for choice, _ in samplers)
        return cls(tuple(links), model, vocab_size, forbidden, tables, components)

    def begin(self, prompts: Sequence[Ids], streams: Sequence[tuple[int, int]]) -> SequenceHistory:
        """The history of rows that begin after their prompts, with the seed and index of each."""
        history = SequenceHistory.begin(self.vocab_size, self.level, prompts, streams)
        history.states = {link.key: link.start(prompts) for link in self.links if link.has_state}
        return history

    @property
    def plainly_greedy(self) -> bool:
        """Whether the token is the likeliest by the model, with no sampler changing the logits before."""
        return self._greedy and not self._applied and len(self.forbidden) < self.vocab_size

    def pick_one(
        self, logits: Array, history: SequenceHistory, uniform: float, forbidden: tuple[int, ...]
    ) -> int:
        """The token for logits (1, V), noted in the history. END if a sampler left none and may.

        `forbidden` holds for this token alone. Writes into `logits`.
        """
        for token in self.forbidden + forbidden if forbidden else self.forbidden:
            logits[0, token] = _NEVER
        if self._special:
            return int(self._pick(logits, history, np.array([uniform]))[0])
        sampled = self._apply(logits, history)
        row = sampled[0] if type(sampled) is np.ndarray else to_numpy(sampled)[0]
        token = int(row.argmax()) if self._greedy else draw_one(row, uniform)
        # NaN passes through arg-max and draw alike, and so does a row of -inf through arg-max.
        if token < 0 or not isfinite(row.item(token)):
            self._explain(logits, history)
        if self.level == "none":
            history.lengths[0] += 1
        else:
            history.add(np.array([token]))
        return token

    def pick(
        self, logits: Array, history: SequenceHistory, uniforms: npt.NDArray[np.float64]
    ) -> Ids:
        """The tokens (B,) for logits (B, V), row by row what `pick_one` gives. Writes into `logits`."""
        for token in self.forbidden:
            logits[:, token] = _NEVER
        if self._special:
            return self._pick(logits, history, uniforms)
        tokens = self._drawn(self._apply(logits, history), uniforms)
        if (tokens < 0).any():
            self._explain(logits, history)
        history.add(tokens)
        return tokens

    def _pick(
        self, logits: Array, history: SequenceHistory, uniforms: npt.NDArray[np.float64]
    ) -> Ids:
        """`pick` with samplers that have states or end texts. Nothing is noted if one of them fails."""
        given: list[tuple[Link, Array]] = []
        left = np.ones(len(uniforms), bool)
        tokens = self._drawn(self._apply(logits, history, given, left), uniforms)
        if (tokens[left] < 0).any():
            self._explain(logits, history)
        rows: slice | Ids = slice(None)
        accepting = history
        if not left.all():
            tokens[~left] = END
            rows = np.flatnonzero(left)
            given = [(link, rows_of(made, rows)) for link, made in given] if len(rows) else []
            accepting = history.rows(rows.tolist())
        states = [(link.key, link.accept(tokens[rows], made, accepting)) for link, made in given]
        for key, state in states:
            for name, array in state.items():
                history.states[key][name][rows] = array
        history.add(tokens[rows], rows)
        return tokens

    def _drawn(self, sampled: Array, uniforms: npt.NDArray[np.float64]) -> Ids:
        """Tokens (B,) from what the samplers made of the logits; below 0 where there is none."""
        values = to_numpy(sampled)
        if not self._greedy:
            return inverse_cdf(values, uniforms)
        tokens = values.argmax(axis=-1)
        found = np.isfinite(values[np.arange(len(tokens)), tokens])
        return tokens if found.all() else np.where(found, tokens, -1)

    def try_on(self, model: Model) -> None:
        """Dry-run one step of a model that may not be trained yet; blame what raises or gives another shape."""
        try:
            decoder = begin_decoding(model, 1, self.model)
            logits = decoder.extend(np.empty((1, 0), np.int64))
        except TextgenError as error:
            if isinstance(error, ContractError):
                raise
            return  # it may say that it has to be trained first
        checks.check_logits(logits, (1, self.vocab_size), self.model)
        for token in self.forbidden:
            logits[0, token] = _NEVER
        if not isfinite(to_numpy(logits).max()):
            return  # an untrained model may give no finite logit yet, which says nothing of the samplers
        self.pick_one(logits, self.begin([np.empty(0, np.int64)], [(0, 0)]), 0.0, ())

    def _apply(
        self,
        logits: Array,
        history: SequenceHistory,
        given: list[tuple[Link, Array]] | None = None,
        left: npt.NDArray[np.bool_] | None = None,
    ) -> Array:
        """Logits after the samplers, all but a last one that is an arg-max.

        given  gets what each sampler with a state gave
        left   (B,) becomes False for the rows that a sampler ended; the samplers after it see other logits there
        """
        sampled = logits
        for link in self._applied:
            before = sampled
            sampled = link.sampler(sampled, link.view(history))
            if getattr(sampled, "shape", None) != logits.shape or sampled.dtype != logits.dtype:
                checks.check_logits(sampled, tuple(logits.shape), link.offer)
            if link.ends and left is not None:
                sampled = _reopened(before, sampled, left)
            if link.has_state and given is not None:
                given.append((link, sampled))
        return sampled

    def _explain(self, logits: Array, history: SequenceHistory) -> NoReturn:
        """Find out who made logits that no token can be drawn from, and blame them."""
        if cause := _fault(logits):
            raise blame(self.model, cause)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for link in self.links:
                before, logits = logits, link.sampler(logits, link.view(history))
                checks.check_logits(logits, tuple(before.shape), link.offer)
                if link.ends:
                    logits = _reopened(before, logits, np.ones(logits.shape[0], bool))
                if cause := _fault(logits):
                    may_end = "; one that may end a text says so with the attribute ends = True"
                    raise blame(link.offer, cause + (may_end if cause == _NOTHING_LEFT else ""))
        raise AssertionError("no token could be drawn, and no component is to blame")


def rows_of(logits: Array, rows: Ids) -> Array:
    """Some rows of logits (B, V), as a copy."""
    return logits[rows] if isinstance(logits, np.ndarray) else logits[rows.tolist()]


def _reopened(before: Array, after: Array, left: npt.NDArray[np.bool_]) -> Array:
    """`after` with other logits in the rows that a sampler ended, as `left` notes: nothing is left but was before."""
    closed = to_numpy((after == _NEVER).all(-1))
    if not closed.any():
        return after
    closed &= to_numpy((before != _NEVER).any(-1))
    left &= ~closed
    changed = after.copy() if isinstance(after, np.ndarray) else after.clone()
    changed[closed if isinstance(after, np.ndarray) else closed.tolist()] = 0.0
    return changed


def _fault(logits: Array) -> str:
    """Why no token can be drawn from logits (B, V); "" where one can."""
    rows = to_numpy(logits)
    if np.isnan(rows).any():
        return "gave NaN logits"
    if (rows == np.inf).any():
        return "gave infinite logits"
    return _NOTHING_LEFT if (rows == -np.inf).all(axis=-1).any() else ""
