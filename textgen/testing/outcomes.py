"""What comes of a check, and the running of a suite of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable
from typing import Final, Literal, NoReturn

import attrs

from textgen.testing.statements import Statement

_SHOWN: Final = 500  # characters of what was seen


class ContractFailure(AssertionError):
    """A component does not do what its contract asks.

    statement   what the contract asks: a sentence, and its place in the docs
    seen        what was seen instead
    component   whose it is, as "sampler 'loud' of textgen-shout"
    """

    def __init__(self, statement: Statement, seen: str, component: str) -> None:
        self.statement, self.seen, self.component = statement, seen, component
        super().__init__(f"{component}: {statement.sentence}\n  seen: {seen}\n  see: {statement.link}")


class Skip(Exception):
    """Raised by a check that cannot be made here. Its text is the reason."""


@attrs.frozen
class Check:
    """One check of a suite: what it is about, and what raises ContractFailure or Skip."""

    statement: Statement
    run: Callable[[], None]


@attrs.frozen
class Outcome:
    """What came of a check.

    component   as in ContractFailure
    statement   what was checked; None where a component was skipped as a whole
    status      "ok", "failed" or "skipped"
    reason      what was seen, or why it was skipped
    failure     the exception of a failed check
    """

    component: str
    statement: Statement | None
    status: Literal["ok", "failed", "skipped"]
    reason: str = ""
    failure: ContractFailure | None = attrs.field(default=None, repr=False, eq=False)


def run_checks(checks: Iterable[Check], component: str) -> Generator[Outcome, None, None]:
    """Make the checks one after the other; whatever a component raises in one is its failure."""
    for check in checks:
        try:
            check.run()
        except ContractFailure as failure:
            yield _failed(failure)
        except Skip as skip:
            yield Outcome(component, check.statement, "skipped", str(skip))
        except Exception as error:
            yield _failed(_explained(error, check.statement, component))
        else:
            yield Outcome(component, check.statement, "ok")


def raise_first(outcomes: Generator[Outcome, None, None]) -> tuple[Outcome, ...]:
    """The outcomes, unless one is a failure, which is raised; nothing is checked after it."""
    kept = []
    with contextlib.closing(outcomes):
        for outcome in outcomes:
            if outcome.failure is not None:
                raise outcome.failure
            kept.append(outcome)
    return tuple(kept)


def fail(statement: Statement, seen: str, component: str) -> NoReturn:
    """Raise the ContractFailure, with a text of bearable length."""
    raise ContractFailure(statement, shorten(seen), component)


def shorten(text: str) -> str:
    """The beginning of a text that is too long to show."""
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _failed(failure: ContractFailure) -> Outcome:
    return Outcome(failure.component, failure.statement, "failed", failure.seen, failure)


def _explained(error: Exception, statement: Statement, component: str) -> ContractFailure:
    """The failure that `error` stands for."""
    if isinstance(error, ExceptionGroup):  # hypothesis, when a component gives one thing now and another then
        for inner in error.exceptions:
            if isinstance(inner, ContractFailure):
                return inner
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    failure = ContractFailure(statement, shorten(text), component)
    failure.__cause__ = error
    return failure
