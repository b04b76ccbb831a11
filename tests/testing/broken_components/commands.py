"""Commands: one that keeps the contract, and some that break one statement of it each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from broken_components.cases import Case
from broken_components.records import RequiredConfig
from textgen import Component, NoOptions


def commanded(build: Any, config: type = NoOptions) -> Component:
    """A command."""
    return Component("good", config, build)


def good_command(config: Any, context: Any) -> Any:
    @click.command("good")
    @click.option("--fail", is_flag=True)
    def command(fail: bool) -> None:
        """Do nothing in particular."""
        if fail:
            raise RuntimeError("as asked")

    return command


def silent_command(config: Any, context: Any) -> Any:
    return click.Command("good", callback=lambda: None)


def function_command(config: Any, context: Any) -> Any:
    return lambda: None


def lenient_command(config: Any, context: Any) -> Any:
    made = good_command(config, context)
    made.context_settings = {"ignore_unknown_options": True, "allow_extra_args": True}
    return made


def talking_command(config: Any, context: Any) -> Any:
    print("built")
    return good_command(config, context)


def writing_command(config: Any, context: Any) -> Any:
    Path("log.txt").write_text("built")
    return good_command(config, context)


def helpless_command(config: Any, context: Any) -> Any:
    return click.Command("good", help="Cannot say what it does.", add_help_option=False)


def counting_command(config: Any, context: Any, numbers: Any = iter(range(10**6))) -> Any:  # noqa: B008
    return click.Command("good", help=f"Number {next(numbers)}.", callback=lambda: None)


COMMANDS = [
    Case(
        "command",
        "command-build",
        "fill in its option size",
        commanded(good_command, RequiredConfig),
    ),
    Case("command", "command-build", "build() gave function", commanded(function_command)),
    Case("command", "component-build", "it wrote 'built", commanded(talking_command)),
    Case("command", "command-help", "its help text is empty", commanded(silent_command)),
    Case("command", "command-help", "--help exits with 2", commanded(helpless_command)),
    Case("command", "command-usage", "exits with 0", commanded(lenient_command)),
    Case("command", "command-files", "it wrote log.txt", commanded(writing_command)),
    Case("command", "command-again", "another help", commanded(counting_command)),
    Case("command", "command-runs", "as asked", commanded(good_command), {"arguments": ["--fail"]}),
]
