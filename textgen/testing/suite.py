"""The suites of all kinds: which checks they have, and how these are run."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final, TypedDict

import attrs

from textgen.contracts.checks import FAILURES
from textgen.plugin.component import Component
from textgen.plugin.registry import PluginSet
from textgen.plugin.tracebacks import shown_line
from textgen.protocols import Table
from textgen.testing.environment import Subject, subject
from textgen.testing.general import general_checks
from textgen.testing.outcomes import (
    Check,
    ContractFailure,
    Outcome,
    Skip,
    Violation,
    raise_first,
)
from textgen.testing.process_state import unchanged
from textgen.testing.statements import STATEMENTS, Statement, statement_of
from textgen.testing.time_limit import TimeUpError, within

__tracebackhide__ = True  # pytest shows the test and the code of the component

_SHOWN: Final = 500  # characters of what was seen


class Given(TypedDict, total=False):
    """What every check_* takes beside a component.

    options     its TOML table; what has no default must be in it
    plugin      the module it comes from, or its name; found from the component if not given
    plugins     what its context offers; the built-in set if not given
    time_limit  seconds for each check
    """

    options: Mapping[str, Any] | None
    plugin: object | str | None
    plugins: PluginSet | None
    time_limit: float


class Setting(TypedDict, total=False):
    """What the checks of models and trainers take besides.

    tokenizer   the table of a tokenizer; that of characters if not given
    corpus      the table of a corpus, whose beginning stands for the text
    start       a finished run, whose vocabulary is used, and whose model a trainer trains
    """

    tokenizer: Table | None
    corpus: Table | None
    start: str | Path | None


class GivenData(Given, Setting, total=False):
    """What check_model and check_trainer take."""


@attrs.frozen
class Suite:
    """The checks of one component.

    Each statement of its kind in contracts.md has a method: `take_join` checks model-take-join.
    They are called in the order of that file.
    """

    kind: ClassVar[str] = ""  # of a package, whose contract is its own
    subject: Subject

    def new(self, **context: Any) -> Any:
        """The component, newly built."""
        return self.subject.build(self.subject.fitted_context(**context))

    def checks(self) -> list[Check]:
        """The checks of every component, and those of its kind."""
        checks = general_checks(self.subject, self.new)
        for statement in self.statements():
            name = statement.anchor.partition("-")[2]
            checks.append(Check(statement, self.find(name.replace("-", "_"))))
        return checks

    def statements(self) -> list[Statement]:
        """What is asked of its kind."""
        return [each for each in STATEMENTS if each.anchor.partition("-")[0] == self.kind]

    def find(self, name: str) -> Callable[[], object]:
        """The check of this name."""
        method: Callable[[], object] = getattr(self, name)
        return method


def check(
    suite: type[Suite], component: Component, given: Given, **more: Any
) -> tuple[Outcome, ...]:
    """Run a suite; `more` is what it takes beside its subject. Raises ContractFailure."""
    with subject(suite.kind, component, **given) as made:
        return raise_first(run_checks(suite(made, **more).checks(), made))


def run_checks(checks: Iterable[Check], subject: Subject) -> Iterator[Outcome]:
    """Make the checks one after the other, up to the first that fails.

    Any check fails where the component raises something unexpected, prints, or changes a global
    state.
    """
    for check in checks:
        printed = io.StringIO()
        try:
            with unchanged(), contextlib.redirect_stdout(printed):
                within(subject.time_limit, check.run)
            if written := printed.getvalue():
                raise Violation(f"it wrote {written[:80]!r} to stdout", "component-quiet")
        except Skip as skip:
            yield Outcome(subject.label, check.statement, "skipped", str(skip))
        except (TimeUpError, *FAILURES) as error:
            failure = _failure(error, check, subject)
            yield Outcome(subject.label, failure.statement, "failed", failure.seen, failure)
            return
        else:
            yield Outcome(subject.label, check.statement, "ok")


def _failure(error: BaseException, check: Check, subject: Subject) -> ContractFailure:
    name, anchor = check.statement.anchor, "component-raises"
    cause: BaseException | None = error
    if isinstance(error, Violation):
        anchor, seen = error.anchor or name, str(error)
        cause = error.__cause__ or error.__context__
    elif isinstance(error, TimeUpError):
        anchor, seen = (
            "component-ends",
            f"the check {name} had not ended after {subject.time_limit:g} s",
        )
    else:
        text = f": {error}" if str(error) else ""
        seen = f"the check {name} raised {type(error).__name__}{text}"
    seen = seen[:_SHOWN] + shown_line(cause or error, subject.packages)
    failure = ContractFailure(statement_of(anchor), seen, subject.label)
    failure.__cause__ = cause
    return failure
