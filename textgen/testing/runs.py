"""The contract of runs that are offered by name."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from textgen.engine import Engine
from textgen.errors import TextgenError
from textgen.generation.generator import Generator
from textgen.plugin.component import Component
from textgen.plugin.registry import PluginSet
from textgen.runs.loading import build_generator
from textgen.runs.stored import verify
from textgen.testing import outcomes
from textgen.testing.environment import Subject, subject
from textgen.testing.general import general_checks
from textgen.testing.outcomes import Check, Outcome, Skip, Violation
from textgen.testing.time_limit import TIME_LIMIT

__tracebackhide__ = True  # pytest shows the test and the code of the component


def check_run(
    component: Component,
    *,
    plugin: object | str | None = None,
    plugins: PluginSet | None = None,
    time_limit: float = TIME_LIMIT,
) -> tuple[Outcome, ...]:
    """Hold a run that is offered by name to its contract. Raises ContractFailure.

    plugin      the module it comes from, or its name; found from the component if not given
    plugins     where the components of the run are found; the built-in set if not given
    time_limit  seconds for each check
    """
    with subject("run", component, None, plugin, plugins, time_limit=time_limit) as made:
        return outcomes.raise_first(outcomes.run_checks(run_checks(made), made))


def run_checks(subject: Subject) -> list[Check]:
    """The suite."""
    suite = _Suite(subject)
    return [
        *general_checks(subject, subject.build),
        Check("run-whole", suite.whole),
        Check("run-loads", suite.loads),
    ]


@attrs.frozen
class _Suite:
    subject: Subject

    def whole(self) -> None:
        path = self.subject.build()
        if isinstance(path, Mapping):
            raise Skip("it has no files of its own: its tables load themselves")
        if not isinstance(path, Path):
            raise Violation(f"build() gave {type(path).__name__}")
        try:
            report = verify(path)
        except TextgenError as error:
            raise Violation(str(error)) from error
        if report.status != "finished":
            raise Violation(f"its status is {report.status!r}")
        for file in report.files:
            if file.state != "whole":
                raise Violation(f"{file.name} is {file.state}: {file.cause}")

    def loads(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                with self._load(self.subject.build()) as generator:
                    generator.generate("", max_new_tokens=3, unknown_characters="skip")
            except (TextgenError, UserWarning) as error:
                raise Violation(str(error)) from error

    def _load(self, made: Path | Mapping[str, Any]) -> Generator:
        if isinstance(made, Path):
            return Engine(self.subject.plugins).load(made)
        return build_generator(made, self.subject.plugins, device="cpu", given={}, source="build")
