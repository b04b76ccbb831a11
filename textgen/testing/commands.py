"""The contract of commands."""

from __future__ import annotations

import attrs

from textgen.testing.outcomes import Violation
from textgen.testing.suite import Suite

__tracebackhide__ = True  # pytest shows the test and the code of the component


@attrs.frozen(kw_only=True)
class CommandSuite(Suite):
    """The checks of a command."""

    def command_build(self) -> None:
        import click

        if not isinstance(made := self.new(), click.Command):
            raise Violation(f"build() gave {type(made).__name__}")

    def command_help(self) -> None:
        self._invoke("--help", 0)
        if not self.new().get_short_help_str().strip():
            raise Violation("its help text is empty; give the function a docstring")

    def command_usage(self) -> None:
        self._invoke("--no-such-option-at-all", 2)

    def _invoke(self, argument: str, expected: int) -> None:
        """Raise a Violation for another exit code."""
        from click.testing import CliRunner

        done = CliRunner().invoke(self.new(), [argument], prog_name=self.component.name)
        if done.exit_code != expected:
            said = f"{done.output}{done.exception!r}"[-300:]
            raise Violation(f"{argument} exits with {done.exit_code}: {said}")
