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
        from click.testing import CliRunner

        done = CliRunner().invoke(self.new(), ["--help"], prog_name=self.component.name)
        if done.exit_code:
            raise Violation(f"--help gives {done.output}{done.exception!r}")
        if not self.new().get_short_help_str().strip():
            raise Violation("its help text is empty; give the function a docstring")
