"""The contract of commands."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from typing import Any

import attrs

from textgen.plugin.component import Component
from textgen.plugin.registry import PluginSet
from textgen.testing.environment import Subject, required_options, subject
from textgen.testing.general import general_checks, loaded_by
from textgen.testing.outcomes import Check, Outcome, Skip, Violation, raise_first, run_checks
from textgen.testing.time_limit import TIME_LIMIT

__tracebackhide__ = True  # pytest shows the test and the code of the component


def check_command(
    component: Component,
    *,
    arguments: Sequence[str] | None = None,
    plugin: object | str | None = None,
    plugins: PluginSet | None = None,
    time_limit: float = TIME_LIMIT,
) -> tuple[Outcome, ...]:
    """Hold a subcommand to its contract. Raises ContractFailure.

    arguments   a command line, without the command's name, that must succeed
    plugin      the module it comes from, or its name; found from the component if not given
    plugins     what its context offers; the built-in set if not given
    time_limit  seconds for each check
    """
    with subject("command", component, None, plugin, plugins, time_limit=time_limit) as made:
        return raise_first(run_checks(command_checks(made, arguments), made))


def command_checks(subject: Subject, arguments: Sequence[str] | None = None) -> list[Check]:
    """The suite."""
    suite = _Suite(subject, arguments)
    return [
        Check("command-build", suite.is_a_command),
        *general_checks(subject, subject.build),
        Check("command-light", suite.light),
        Check("command-help", suite.help),
        Check("command-usage", suite.usage),
        Check("command-runs", suite.runs),
    ]


@attrs.frozen
class _Suite:
    subject: Subject
    arguments: Sequence[str] | None

    def is_a_command(self) -> None:
        import click

        if required := required_options(self.subject.component):
            raise Violation(f"nothing can fill in its option {required[0]}")
        made = self.subject.build()
        if not isinstance(made, click.Command):
            raise Violation(f"build() gave {type(made).__name__}")

    def light(self) -> None:
        parts = (self.subject.module or "").split(".")
        parents = [".".join(parts[: len(parts) - cut]) for cut in range(len(parts))]
        offering = (p for p in parents if hasattr(sys.modules.get(p), "textgen_commands"))
        if (module := next(offering, None)) is None:
            raise Skip("no importable module is known that offers it")
        command, limit = self.subject.component.name, self.subject.time_limit
        every = [component.name for component in sys.modules[module].textgen_commands()]
        with contextlib.suppress(Violation):  # one interpreter for all commands of a module
            if not loaded_by(module, every, limit):
                return
        if heavy := loaded_by(module, [command], limit):
            raise Violation(f"building it loads {' and '.join(heavy)}")

    def help(self) -> None:
        made = self.subject.build()
        code, output = self._invoke(made, ["--help"])
        if code != 0:
            raise Violation(f"--help exits with {code}: {output[-200:]}")
        if not made.get_short_help_str().strip():
            raise Violation("its help text is empty; give the function a docstring")

    def usage(self) -> None:
        code, output = self._invoke(self.subject.build(), ["--no-such-option-at-all"])
        if code != 2:
            raise Violation(f"--no-such-option-at-all exits with {code}: {output[-200:]}")

    def runs(self) -> None:
        if self.arguments is None:
            raise Skip("no arguments were given that must succeed (argument arguments)")
        code, output = self._invoke(self.subject.build(), list(self.arguments))
        if code != 0:
            raise Violation(f"{' '.join(self.arguments)} exits with {code}: {output[-300:]}")

    def _invoke(self, command: Any, arguments: list[str]) -> tuple[int, str]:
        """Exit code and output."""
        from click.testing import CliRunner

        done = CliRunner().invoke(command, arguments, prog_name=self.subject.component.name)
        raised = isinstance(done.exception, Exception)  # and is not the SystemExit of a command
        return done.exit_code, done.output + repr(done.exception) * raised
