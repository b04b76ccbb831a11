"""The group of subcommands, and the function that runs it."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from textgen.cli import terminal
from textgen.cli.context import CommandContext
from textgen.cli.errors import ReaderGone, report
from textgen.errors import PluginWarning
from textgen.messages import nearest
from textgen.plugin.component import COMMANDS, OWN_DISTRIBUTION, RegisteredComponent


class _Group(click.Group):
    """Built-in subcommands, then those that plugins offer."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *sorted(self._offered(ctx.obj))]

    def get_command(self, ctx: click.Context, name: str) -> click.Command:
        if name in COMMANDS:
            module = importlib.import_module(f"textgen.cli.{name}")
            command: click.Command = module.command
            return command
        offer = ctx.obj.plugins().find("command", name)
        if isinstance(offer, RegisteredComponent):
            return self._build(offer, ctx.obj)
        raise click.UsageError(f"{offer.expected}; {nearest(name, COMMANDS) or offer.hint}", ctx)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:  # click would exit with 1
            raise ReaderGone from error
        except (click.ClickException, click.Abort, click.exceptions.Exit, OSError, MemoryError):
            raise
        except Exception:
            with ctx.obj.components or contextlib.nullcontext():
                raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, self.get_command(ctx, name).get_short_help_str(200)) for name in COMMANDS]
        offered = sorted(self._offered(ctx.obj).items())
        with formatter.section("Commands"):
            formatter.write_dl(
                [*rows, *((name, offer.component.summary) for name, offer in offered)]
            )

    def _offered(self, context: CommandContext) -> dict[str, RegisteredComponent]:
        """Commands of plugins by the name to type.

        None of it is built: a command may need large libraries.
        """
        offers = context.plugins().offers("command")
        names = [*COMMANDS, *(offer.name for offer in offers)]
        return {o.name if names.count(o.name) == 1 else o.qualified_name: o for o in offers}

    def _build(self, offer: RegisteredComponent, context: CommandContext) -> click.Command:
        from textgen.contracts.components import Components
        from textgen.errors import ContractError
        from textgen.plugin.component import BuildContext
        from textgen.plugin.structure import ConfiguredComponent

        built = BuildContext(folder=Path.cwd(), console=sys.stderr, plugins=context.plugins())
        context.components = Components()
        made = context.components.build(
            ConfiguredComponent(offer.name, offer, offer.component.config()), built
        )
        if not isinstance(made, click.Command):
            raise ContractError(
                offer, f"built {type(made).__name__}, and must build a click.Command"
            )
        return made


def _context_option(*names: str, **attributes: Any) -> Callable[[Any], Any]:
    """An option whose value is an attribute of the CommandContext.

    It is eager, so that it counts for --help too.
    """

    def keep(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
        setattr(ctx.obj, str(parameter.name), value)

    return click.option(*names, is_eager=True, callback=keep, expose_value=False, **attributes)


@click.command(
    cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@_context_option(
    *("--no-plugin", "disable"),
    multiple=True,
    metavar="NAME",
    help="Leave out a plugin, by the name of its entry point, its package, or package:entry-point.",
)
@_context_option(
    *("--plugin", "plugin_files"),
    multiple=True,
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE.py",
    help="Use a plugin that is a single Python file. May be given several times.",
)
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
@click.version_option(metadata.version(OWN_DISTRIBUTION), prog_name="textgen")
def group() -> None:
    """Train language models on text, and generate text.

    \b
    textgen init my.txt          write a pipeline for your text
    textgen run my.toml          train, then print a text
    textgen generate runs/my     generate more
    """


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit.

    0 done, 1 the run failed, 2 the command or pipeline is wrong, 129, 130 and 143 a signal (128 +
    its number).
    """
    arguments = sys.argv[1:] if args is None else args
    try:
        terminal.prepare()
        _show_warnings()
        ended = group.main(
            arguments or ["--help"], "textgen", standalone_mode=False, obj=CommandContext()
        )
        sys.stdout.flush()
        code = ended if isinstance(ended, int) else 0  # what a command gave to click's Context.exit
    except (Exception, KeyboardInterrupt) as error:
        code = report(error, debug="--debug" in arguments)
    if code > 128:
        with contextlib.suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # another one ends the process at once
    sys.exit(code)


def _show_warnings() -> None:
    """Show each warning, and what the library logs like one, once: a command may look for plugins
    more than once.
    """
    shown = set()

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        if os.environ.get("RANK", "0") == "0" and str(message) not in shown:
            shown.add(str(message))
            click.echo(f"textgen: warning: {message}", err=True)

    warnings.showwarning = show  # this process is ours
    warnings.simplefilter("always", PluginWarning)
    logging.getLogger("textgen").addHandler(_LogHandler(logging.WARNING))


class _LogHandler(logging.Handler):
    """Shows what the library logs as a warning."""

    def emit(self, record: logging.LogRecord) -> None:
        warnings.warn(record.getMessage(), PluginWarning, stacklevel=2)
