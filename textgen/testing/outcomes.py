"""The outcomes of checks."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Literal

import attrs

from textgen.testing.statements import Statement

__tracebackhide__ = True  # pytest shows the test and the code of the component


class ContractFailure(AssertionError):
    """A component breaks its contract.

    statement   what the contract asks, and what helps
    seen        what was seen instead
    component   whose it is, as "sampler 'loud' of textgen-shout"
    """

    def __init__(self, statement: Statement, seen: str, component: str) -> None:
        self.statement, self.seen, self.component = statement, seen, component
        advice = textwrap.fill(
            statement.advice, 110, initial_indent="  help: ", subsequent_indent="        "
        )
        super().__init__(f"{component}: {statement.sentence}\n  seen: {seen}\n{advice}")


class Violation(AssertionError):
    """Raised by a check: what was `seen` breaks its statement, or the one of the name `anchor`."""

    def __init__(self, seen: str, anchor: str = "") -> None:
        super().__init__(seen)
        self.anchor = anchor


class Skip(BaseException):
    """Raised by a check that cannot be made here. Its text is the reason.

    It is not an Exception, which other code may catch.
    """


@attrs.frozen
class Outcome:
    """The outcome of a check.

    component   as in ContractFailure
    statement   what was checked; None for a component that nothing could check, which has failed
    status      "ok", "failed" or "skipped"
    reason      what was seen, or why it was skipped
    failure     the exception of a failed check
    """

    component: str
    statement: Statement | None
    status: Literal["ok", "failed", "skipped"]
    reason: str = ""
    failure: Exception | None = attrs.field(default=None, repr=False, eq=False)


def raise_first(outcomes: Iterable[Outcome]) -> tuple[Outcome, ...]:
    """The outcomes. Raises the failure that is among them."""
    kept = []
    for outcome in outcomes:
        if outcome.failure is not None:
            raise outcome.failure
        kept.append(outcome)
    return tuple(kept)


def shown(given: object) -> str:
    """The shape and dtype of an array and its type, or the type of anything else."""
    if given is None:
        return "None; is a `return` missing?"
    kind = type(given).__name__
    if (shape := getattr(given, "shape", None)) is None:
        return f"a {kind}"
    dtype, device = (getattr(given, name, None) for name in ("dtype", "device"))
    return f"{tuple(shape)} {dtype}, a {kind} on {device}"
