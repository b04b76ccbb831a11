"""The group of subcommands, and the function that runs it."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import sys
import warnings
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from textgen.cli import terminal
from textgen.cli.errors import ReaderGone, report
from textgen.errors import ContractError, PluginWarning
from textgen.messages import nearest
from textgen.plugin.component import COMMANDS, OWN_DISTRIBUTION, RegisteredComponent
from textgen.plugin.registry import PluginSet

if TYPE_CHECKING:
    from textgen.contracts.components import Components


class CommandContext:
    """The plugins, and the components with a subcommand of one; subcommands have it as `obj`."""

    components: Components | None = None

    @cached_property
    def plugins(self) -> PluginSet:
        """The installed plugins but those of --no-plugin, and the files of --plugin."""
        context = click.get_current_context(silent=True)  # none while a shell completes a word
        given = {} if context is None else context.find_root().params
        plugins = PluginSet.discover(disable=given.get("disable", ()))
        for path in given.get("plugin_files", ()):
            plugins.register_file(path)
        return plugins


class _Commands(click.Group):
    """Built-in subcommands, then those that plugins offer."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *(offer.name for offer in ctx.obj.plugins.offers("command"))]

    def get_command(self, ctx: click.Context, name: str) -> click.Command:
        if name in COMMANDS:
            module = importlib.import_module(f"textgen.cli.{name}")
            command: click.Command = module.command
            return command
        offer = ctx.obj.plugins.find("command", name)
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
            if ctx.obj.components is None:
                raise
            with ctx.obj.components:  # which says whose error it is
                raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, self.get_command(ctx, name).get_short_help_str(200)) for name in COMMANDS]
        # None of a plugin is built: it may need large libraries.
        offers = ctx.obj.plugins.offers("command")
        rows += [(offer.name, offer.component.summary) for offer in offers]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def _build(self, offer: RegisteredComponent, context: CommandContext) -> click.Command:
        from textgen.contracts.components import Components
        from textgen.plugin.component import BuildContext
        from textgen.plugin.configured import ConfiguredComponent

        built = BuildContext(folder=Path.cwd(), console=sys.stderr, plugins=context.plugins)
        context.components = Components()
        choice = ConfiguredComponent(offer.name, offer, offer.component.config())
        command = context.components.build(choice, built)
        if not isinstance(command, click.Command):
            what = type(command).__name__
            raise ContractError(offer, f"gave {what} from build, and must give a click.Command")
        return command


@click.command(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    *("--no-plugin", "disable"),
    multiple=True,
    is_eager=True,  # it counts for --help too
    metavar="NAME",
    help="Leave out a plugin, by the name of its entry point, its package, or package:entry-point.",
)
@click.option(
    *("--plugin", "plugin_files"),
    multiple=True,
    is_eager=True,
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE.py",
    help="Use a plugin that is a single Python file. May be given several times.",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(metadata.version(OWN_DISTRIBUTION), prog_name="textgen")
def group(**_: Any) -> None:
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
    """Show each warning once, and what the library logs like one, in the first of processes."""
    logger, handler = logging.getLogger("textgen"), logging.StreamHandler()
    handler.setLevel(logging.WARNING if os.environ.get("RANK", "0") == "0" else logging.ERROR)
    handler.setFormatter(logging.Formatter("textgen: warning: %(message)s"))
    logger.addHandler(handler)
    # This process is ours.
    warnings.showwarning = lambda message, *_, **__: logger.warning("%s", message)
    warnings.simplefilter("once", PluginWarning)
