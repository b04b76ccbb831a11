"""A sampler of a chain: what it asks of the engine, and what it sees of the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Self, TypeAlias

import attrs
import numpy as np
import numpy.typing as npt

from textgen.contracts.checks import blame
from textgen.generation.sampling import SequenceHistory, step_numbers
from textgen.plugin.component import Offer
from textgen.protocols import Array, History, Ids, Sampler, Tensors

_Form: TypeAlias = "dict[str, tuple[np.dtype[Any], tuple[int, ...]]]"
LEVELS: Final = ("none", "lengths", "counts", "tokens")


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
        if level == "none" and (start or random or ends):
            level = "lengths"
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
