"""What comes of a check, and the running of a suite of them."""

from __future__ import annotations

import contextlib
import io
import textwrap
from collections.abc import Callable, Collection, Generator, Iterable
from typing import Final, Literal, NoReturn

import attrs

from textgen.contracts.guards import FAILURES
from textgen.plugin.places import last_line
from textgen.testing.statements import COMPONENT_ENDS, COMPONENT_QUIET, COMPONENT_RAISES, Statement
from textgen.testing.time_limit import TIME_LIMIT, TimeUpError, not_ended, within

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
        advice = textwrap.fill(statement.advice, 110, initial_indent="  help: ", subsequent_indent="        ")
        super().__init__(f"{component}: {statement.sentence}\n  seen: {seen}\n{advice}")


class Skip(Exception):
    """Raised by a check that cannot be made here. Its text is the reason."""


@attrs.frozen
class Check:
    """One check of a suite: what it is about, and what raises ContractFailure or Skip.

    trial   it only tries what every other check needs: where it fails nothing after it is checked, and where it does
            not it leaves no outcome. An exception in it breaks no sentence but the one that nothing is raised
    after   what has to hold for it to mean anything; where one of these failed, or was not checked, neither is it
    timed   whether it has to end within the time limit; False for one that sees to that itself
    """

    statement: Statement
    run: Callable[[], object]
    trial: bool = attrs.field(default=False, kw_only=True)
    after: tuple[Statement, ...] = attrs.field(default=(), kw_only=True)
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


def run_checks(
    checks: Iterable[Check], component: str, packages: Collection[str] = (), time_limit: float = TIME_LIMIT
) -> Generator[Outcome, None, None]:
    """Make the checks one after the other; whatever a component raises in one is its failure.

    packages     the top-level modules that are the component's own: what was seen says where in them it was raised
    time_limit   seconds for each check. Where one takes longer nothing after it is checked

    What it prints to stdout meanwhile is kept, and is a failure of its own where nothing else was.
    """
    cause: Statement | None = None
    causes: dict[Statement, Statement] = {}  # of what failed, and of what was not checked for that reason
    printed = io.StringIO()
    for check in checks:
        if cause is not None and check.trial:
            continue
        root = cause or next((causes[statement] for statement in check.after if statement in causes), None)
        if root is not None:
            if check.statement != root:
                causes.setdefault(check.statement, root)
                yield Outcome(component, check.statement, "skipped", f"{NOT_CHECKED}{root.anchor}")
            continue
        with contextlib.redirect_stdout(printed):
            outcome = _made(check, component, packages, time_limit)
        if check.trial and outcome.failure is None:
            continue
        yield outcome
        if outcome.failure is not None:
            causes[check.statement] = causes[outcome.failure.statement] = outcome.failure.statement
            if check.trial or outcome.failure.statement == COMPONENT_ENDS:
                cause = outcome.failure.statement
    if causes:
        first = next(iter(causes.values()))
        yield Outcome(component, COMPONENT_QUIET, "skipped", f"{NOT_CHECKED}{first.anchor}")
    elif written := printed.getvalue():
        yield _failed(ContractFailure(COMPONENT_QUIET, f"it wrote {written[:80]!r} to stdout", component))
    else:
        yield Outcome(component, COMPONENT_QUIET, "ok")


def _made(check: Check, component: str, packages: Collection[str], time_limit: float) -> Outcome:
    try:
        within(time_limit, check.run) if check.timed else check.run()
    except TimeUpError as error:
        return _failed(out_of_time(f"the check {check.statement.anchor}", time_limit, component, packages, error))
    except ContractFailure as failure:
        return _failed(_placed(failure, packages))
    except Skip as skip:
        return Outcome(component, check.statement, "skipped", str(skip))
    except FAILURES as error:
        statement = COMPONENT_RAISES if check.trial else check.statement
        return _failed(_placed(_explained(error, statement, component), packages))
    return Outcome(component, check.statement, "ok")


def out_of_time(
    what: str, time_limit: float, component: str, packages: Collection[str], error: TimeUpError
) -> ContractFailure:
    """The failure of something that takes too long."""
    failure = ContractFailure(COMPONENT_ENDS, f"{what} {not_ended(time_limit, error.computed)}", component)
    failure.__cause__ = error
    return _placed(failure, packages)


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


def shown(given: object) -> str:
    """The shape of an array, or what was given in place of one."""
    if given is None:
        return "None; is a `return` missing?"
    shape = getattr(given, "shape", None)
    return f"a {type(given).__name__}" if shape is None else str(tuple(shape))


def shorten(text: str) -> str:
    """The beginning of a text that is too long to show."""
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _failed(failure: ContractFailure) -> Outcome:
    return Outcome(failure.component, failure.statement, "failed", failure.seen, failure)


def _placed(failure: ContractFailure, packages: Collection[str]) -> ContractFailure:
    """The failure, with the last line of the component's own code in what was seen if an exception led to it."""
    error = failure.__cause__ or failure.__context__
    place = last_line(error, packages)
    if not place:
        return failure
    placed = ContractFailure(failure.statement, f"{failure.seen} ({place})", failure.component)
    placed.__cause__ = error
    return placed.with_traceback(failure.__traceback__)


def _explained(error: BaseException, statement: Statement, component: str) -> ContractFailure:
    """The failure that `error` stands for."""
    from hypothesis.errors import Flaky  # loads hypothesis, which a command that lists plugins does without

    if isinstance(error, ExceptionGroup):  # hypothesis, when a component gives one thing now and another then
        for inner in error.exceptions:
            if isinstance(inner, ContractFailure):
                return inner
    once = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
    text = f"{type(once).__name__}: {once}" if str(once) else type(once).__name__
    if isinstance(error, Flaky):
        raised = "" if once is error else f"; once it raised {text}"
        again = f"the check {statement.anchor} did not give the same twice"
        text = f"{again}: the component, or the machine, is not deterministic{raised}"
    failure = ContractFailure(statement, shorten(text), component)
    failure.__cause__ = once
    return failure
