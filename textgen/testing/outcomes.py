"""The outcomes of checks, and the running of a suite of them."""

from __future__ import annotations

import contextlib
import io
import os
import random
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Final, Literal

import attrs

from textgen.contracts.checks import FAILURES
from textgen.plugin.tracebacks import shown_line
from textgen.testing.environment import Subject
from textgen.testing.statements import Statement, statement_of
from textgen.testing.time_limit import TimeUpError, within

__tracebackhide__ = True  # pytest shows the test and the code of the component

NO_DEFAULT: Final = "it has no default for "
_SHOWN: Final = 500  # characters of what was seen


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


class Skip(Exception):
    """Raised by a check that cannot be made here. Its text is the reason."""


@attrs.frozen
class Check:
    """One check of a suite: the anchor of its statement, and a function that raises Violation or
    Skip.
    """

    statement: Statement = attrs.field(converter=statement_of)
    run: Callable[[], object]


@attrs.frozen
class Outcome:
    """The outcome of a check.

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


def run_checks(checks: Iterable[Check], subject: Subject) -> Iterator[Outcome]:
    """Make the checks one after the other, up to the first that fails.

    Any check fails where the component raises something unexpected, prints, or changes a global
    state.
    """
    for check in checks:
        subject.announce(f"{subject.label}: {check.statement.anchor}")
        try:
            within(subject.time_limit, partial(_watched, check.run))
        except Skip as skip:
            yield Outcome(subject.label, check.statement, "skipped", str(skip))
        except (TimeUpError, *FAILURES) as error:
            failure = _failure(error, check, subject)
            yield Outcome(subject.label, failure.statement, "failed", failure.seen, failure)
            return
        else:
            yield Outcome(subject.label, check.statement, "ok")


def raise_first(outcomes: Iterable[Outcome]) -> tuple[Outcome, ...]:
    """The outcomes. Raises the failure that is among them."""
    kept = []
    for outcome in outcomes:
        if outcome.failure is not None:
            raise outcome.failure
        kept.append(outcome)
    return tuple(kept)


def shown(given: object) -> str:
    """The shape of an array, or the type of anything else."""
    if given is None:
        return "None; is a `return` missing?"
    shape = getattr(given, "shape", None)
    return f"a {type(given).__name__}" if shape is None else str(tuple(shape))


def _watched(run: Callable[[], object]) -> None:
    printed, before = io.StringIO(), _global_state()
    with contextlib.redirect_stdout(printed):
        run()
    if written := printed.getvalue():
        raise Violation(f"it wrote {written[:80]!r} to stdout", "component-quiet")
    after = _global_state()
    if changed := [name for name, value in before.items() if after[name] != value]:
        raise Violation(f"it changed {', '.join(changed)}", "component-globals")


def _global_state() -> dict[str, Any]:
    """States that all code of the process shares, of the libraries that are loaded."""
    state: dict[str, Any] = {
        "the random state of `random`": hash(random.getstate()),
        "the current folder": os.getcwd(),
    }
    if numpy := sys.modules.get("numpy"):
        kind, keys, *rest = numpy.random.get_state()
        state["the random state of NumPy"] = (kind, keys.tobytes(), rest)
    if torch := sys.modules.get("torch"):
        state["the random state of torch"] = torch.random.get_rng_state().numpy().tobytes()
        state["the number of torch's threads"] = torch.get_num_threads()
    return state


def _failure(error: BaseException, check: Check, subject: Subject) -> ContractFailure:
    # A group is hypothesis's: the component gives one thing now and another then.
    several = error.exceptions if isinstance(error, BaseExceptionGroup) else (error,)
    cause = next((each for each in several if isinstance(each, Violation)), several[0])
    if isinstance(cause, Violation):
        anchor, seen = cause.anchor or check.statement.anchor, str(cause)
        cause = cause.__cause__ or cause.__context__ or cause
    elif isinstance(cause, TimeUpError):
        anchor = "component-ends"
        seen = f"the check {check.statement.anchor} had not ended after {subject.time_limit:g} s"
    else:
        anchor = "component-raises"
        text = f": {cause}" if str(cause) else ""
        seen = f"the check {check.statement.anchor} raised {type(cause).__name__}{text}"
    seen = seen[:_SHOWN] + shown_line(cause, subject.packages)
    failure = ContractFailure(statement_of(anchor), seen, subject.label)
    failure.__cause__ = None if isinstance(cause, Violation) else cause
    return failure
