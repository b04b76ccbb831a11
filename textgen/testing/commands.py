"""The contract of commands."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from typing import Any, ClassVar, Unpack

import attrs

from textgen.plugin.component import Component
from textgen.testing.general import loaded_by
from textgen.testing.outcomes import Outcome, Skip, Violation
from textgen.testing.suite import Given, Suite, check

__tracebackhide__ = True  # pytest shows the test and the code of the component


def check_command(
    component: Component, *, arguments: Sequence[str] | None = None, **given: Unpack[Given]
) -> tuple[Outcome, ...]:
    """Hold a subcommand to its contract. Raises ContractFailure.

    arguments   a command line, without the command's name, that must succeed
    """
    return check(CommandSuite, component, given, arguments=arguments)


@attrs.frozen
class CommandSuite(Suite):
    """The checks of a command."""

    kind: ClassVar[str] = "command"
    arguments: Sequence[str] | None = None

    def new(self, **context: Any) -> Any:
        return self.subject.build()

    def build(self) -> None:
        import click

        if not isinstance(made := self.new(), click.Command):
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
        self._invoke(["--help"], 0)
        if not self.new().get_short_help_str().strip():
            raise Violation("its help text is empty; give the function a docstring")

    def usage(self) -> None:
        self._invoke(["--no-such-option-at-all"], 2)

    def runs(self) -> None:
        if self.arguments is None:
            raise Skip("no arguments were given that must succeed (argument arguments)")
        self._invoke(self.arguments, 0)

    def _invoke(self, arguments: Sequence[str], expected: int) -> None:
        """Raise a Violation for another exit code."""
        from click.testing import CliRunner

        done = CliRunner().invoke(self.new(), arguments, prog_name=self.subject.component.name)
        if done.exit_code != expected:
            is_raised = isinstance(done.exception, Exception)  # not the SystemExit of a command
            said = (done.output + repr(done.exception) * is_raised)[-300:]
            raise Violation(f"{' '.join(arguments)} exits with {done.exit_code}: {said}")
