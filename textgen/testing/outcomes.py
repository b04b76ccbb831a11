"""What comes of a check, and the running of a suite of them."""

from __future__ import annotations

import contextlib
import io
import textwrap
from collections.abc import Callable, Generator, Iterable
from typing import Final, Literal

import attrs

from textgen.contracts.checks import FAILURES
from textgen.plugin.tracebacks import shown_line
from textgen.testing.environment import Subject
from textgen.testing.statements import Statement, statement_of
from textgen.testing.time_limit import TimeUpError, not_ended, within

__tracebackhide__ = True  # what pytest shows is the test, and the code of the component

NOT_CHECKED: Final = "not checked: see "
NO_DEFAULT: Final = "it has no default for "
UNREAD: Final = "its text is not to be had here: "
_SHOWN: Final = 500  # characters of what was seen


class ContractFailure(AssertionError):
    """A component does not do what its contract asks.

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
    """Raised by a check for what was `seen`, which breaks its statement; or another, of which `anchor` is the name."""

    def __init__(self, seen: str, anchor: str = "") -> None:
        super().__init__(seen)
        self.anchor = anchor


class Skip(Exception):
    """Raised by a check that cannot be made here. Its text is the reason."""


def _statements(anchors: Iterable[str]) -> tuple[Statement, ...]:
    return tuple(map(statement_of, anchors))


@attrs.frozen
class Check:
    """One check of a suite: what it is about, by the anchor of the statement, and what raises Violation or Skip.

    trial   it only tries what every other check needs: where it fails nothing after it is checked, and where it does
            not it leaves no outcome. An exception in it breaks no sentence but the one that nothing is raised
    whole   a trial that checks all that its statement asks, and so leaves an outcome too
    after   what has to hold for it to mean anything; where one of these failed, or was not checked, neither is it
    timed   whether it has to end within the time limit; False for one that sees to that itself
    """

    statement: Statement = attrs.field(converter=statement_of)
    run: Callable[[], object]
    trial: bool = attrs.field(default=False, kw_only=True)
    whole: bool = attrs.field(default=False, kw_only=True)
    after: tuple[Statement, ...] = attrs.field(default=(), kw_only=True, converter=_statements)
    timed: bool = attrs.field(default=True, kw_only=True)


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


def run_checks(checks: Iterable[Check], subject: Subject) -> Generator[Outcome, None, None]:
    """Make the checks one after the other; whatever a component raises in one is its failure.

    Where one takes longer than the time limit, nothing after it is checked. What the component prints to stdout
    meanwhile is kept, and is a failure of its own where nothing else was.
    """
    component = subject.label
    cause: Statement | None = None
    causes: dict[
        Statement, Statement
    ] = {}  # of what failed, and of what was not checked for that reason
    printed = io.StringIO()
    for check in checks:
        only_tries = check.trial and not check.whole
        if cause is not None and only_tries:
            continue
        root = cause or next(
            (causes[statement] for statement in check.after if statement in causes), None
        )
        if root is not None:
            if check.statement != root:
                causes.setdefault(check.statement, root)
                yield Outcome(component, check.statement, "skipped", f"{NOT_CHECKED}{root.anchor}")
            continue
        with contextlib.redirect_stdout(printed):
            outcome = _made(check, subject)
        if only_tries and outcome.failure is None:
            continue
        yield outcome
        if outcome.failure is not None:
            causes[check.statement] = causes[outcome.failure.statement] = outcome.failure.statement
            if check.trial or outcome.failure.statement.anchor == "component-ends":
                cause = outcome.failure.statement
    quiet = statement_of("component-quiet")
    if causes:
        first = next(iter(causes.values()))
        yield Outcome(component, quiet, "skipped", f"{NOT_CHECKED}{first.anchor}")
    elif written := printed.getvalue():
        yield failed(ContractFailure(quiet, f"it wrote {written[:80]!r} to stdout", component))
    else:
        yield Outcome(component, quiet, "ok")


def _made(check: Check, subject: Subject) -> Outcome:
    subject.announce(f"{subject.label}: {check.statement.anchor}")
    try:
        within(subject.time_limit, check.run) if check.timed else check.run()
    except TimeUpError as error:
        return failed(out_of_time(f"the check {check.statement.anchor}", subject, error))
    except ContractFailure as failure:
        return failed(failure)
    except Skip as skip:
        return Outcome(subject.label, check.statement, "skipped", str(skip))
    except FAILURES as error:
        return failed(_failure(error, check, subject))
    return Outcome(subject.label, check.statement, "ok")


def out_of_time(what: str, subject: Subject, error: TimeUpError) -> ContractFailure:
    """The failure of something that takes too long."""
    seen = f"{what} {not_ended(subject.time_limit, error.computed)}"
    return _placed(statement_of("component-ends"), seen, subject, error)


def raise_first(outcomes: Generator[Outcome, None, None]) -> tuple[Outcome, ...]:
    """The outcomes, unless one is a failure, which is raised; nothing is checked after it."""
    kept = []
    with contextlib.closing(outcomes):
        for outcome in outcomes:
            if outcome.failure is not None:
                raise outcome.failure
            kept.append(outcome)
    return tuple(kept)


def shown(given: object) -> str:
    """The shape of an array, or what was given in place of one."""
    if given is None:
        return "None; is a `return` missing?"
    shape = getattr(given, "shape", None)
    return f"a {type(given).__name__}" if shape is None else str(tuple(shape))


def shorten(text: str) -> str:
    """The beginning of a text that is too long to show."""
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def failed(failure: ContractFailure) -> Outcome:
    """The outcome of a check that failed."""
    return Outcome(failure.component, failure.statement, "failed", failure.seen, failure)


def _placed(
    statement: Statement, seen: str, subject: Subject, cause: BaseException
) -> ContractFailure:
    """A failure, with the last line of the component's own code in what was seen if an exception led to it."""
    place = shown_line(cause, subject.packages)
    failure = ContractFailure(statement, seen + place, subject.label)
    failure.__cause__ = cause
    return failure


def _failure(error: BaseException, check: Check, subject: Subject) -> ContractFailure:
    """The failure that `error` stands for."""
    from hypothesis.errors import (
        Flaky,
    )  # loads hypothesis, which a command that lists plugins does without

    # A group is hypothesis's, when a component gives one thing now and another then.
    several = error.exceptions if isinstance(error, ExceptionGroup) else (error,)
    if violation := next((each for each in several if isinstance(each, Violation)), None):
        statement = statement_of(violation.anchor) if violation.anchor else check.statement
        cause = violation.__cause__ or violation.__context__
        failure = _placed(statement, shorten(str(violation)), subject, cause or violation)
        failure.__cause__ = cause
        for note in getattr(violation, "__notes__", ()):  # hypothesis's, of the example
            failure.add_note(note)
        return failure.with_traceback(violation.__traceback__)
    once = several[0]
    text = f"{type(once).__name__}: {once}" if str(once) else type(once).__name__
    if isinstance(error, Flaky):
        raised = "" if once is error else f"; once it raised {text}"
        again = f"the check {check.statement.anchor} did not give the same twice"
        text = f"{again}: the component, or the machine, is not deterministic{raised}"
    statement = statement_of("component-raises") if check.trial else check.statement
    return _placed(statement, shorten(text), subject, once)
