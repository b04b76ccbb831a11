"""The group of subcommands, and the function that runs it."""

from __future__ import annotations

import contextlib
import importlib
import logging
import signal
import sys
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import click

from textgen.cli import terminal
from textgen.cli.context import CommandContext
from textgen.cli.errors import ReaderGone, report
from textgen.errors import PluginWarning
from textgen.plugin.component import COMMANDS, OWN_DISTRIBUTION, Offer
from textgen.processes import is_follower
from textgen.windows import quoted

_ALSO_CALLED: Final = {
    **dict.fromkeys(("train", "fit", "start", "resume", "continue"), "run"),
    **dict.fromkeys(("sample", "write", "chat", "predict", "complete"), "generate"),
    **dict.fromkeys(("test", "score", "perplexity"), "evaluate"),
    **dict.fromkeys(("list", "components"), "plugins"),
    **dict.fromkeys(("config", "validate", "options"), "show"),
    **dict.fromkeys(("new", "create"), "init"),
}


class _Group(click.Group):
    """Built-in subcommands, then those that plugins offer."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *sorted(self._offered(ctx.obj))]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in COMMANDS:
            command = importlib.import_module(f"textgen.cli.{name.replace('-', '_')}").command
            assert isinstance(command, click.Command)
            return command
        offer = ctx.obj.plugins().find("command", name)
        if isinstance(offer, Offer):
            return self._build(offer, ctx.obj)
        if any(
            other.component.name == name for other in ctx.obj.plugins().offers("command")
        ):  # of several plugins
            raise click.UsageError(f"{offer.expected}; {offer.hint}", ctx)
        return None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:  # click would exit with 1
            raise ReaderGone from error

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        try:
            resolved = super().resolve_command(ctx, args)
            ctx.obj.command = resolved[1]
            if resolved[0] != "run" and is_follower():
                ctx.exit()  # one process is enough
            return resolved
        except click.UsageError as error:
            hint = self._meant(ctx, args[0]) if args else ""
            if hint and "did you mean" not in error.message.lower():
                raise click.UsageError(f"{error.message.rstrip('.')}; {hint}", ctx) from error
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own = {name: self.get_command(ctx, name) for name in COMMANDS}
        rows = [
            (name, command.get_short_help_str(200))
            for name, command in own.items()
            if command is not None
        ]
        offered = sorted(self._offered(ctx.obj).items())
        with formatter.section("Commands"):
            formatter.write_dl(
                [*rows, *((name, offer.component.summary) for name, offer in offered)]
            )

    def _offered(self, context: CommandContext) -> dict[str, Offer]:
        """What plugins offer, by the name to write. None of it is built: a command may need large libraries."""
        offers = context.plugins().offers("command")
        names = [offer.name for offer in offers]
        plain = [names.count(name) == 1 and name not in COMMANDS for name in names]
        return {
            o.name if is_plain else o.qualified_name: o
            for o, is_plain in zip(offers, plain, strict=True)
        }

    def _meant(self, ctx: click.Context, word: str) -> str:
        """What somebody may have meant who wrote `word` where a command stands."""
        from textgen.suggest import nearest

        if word.endswith(".toml") or Path(word).is_file():
            return f"did you mean textgen {'run' if word.endswith('.toml') else 'init'} {quoted(word)}?"
        if Path(word, "run.json").is_file():
            return f"did you mean textgen generate {quoted(word)}?"
        known = _ALSO_CALLED.get(word)
        return f"did you mean {known!r}?" if known else nearest(word, self.list_commands(ctx))

    def _build(self, offer: Offer, context: CommandContext) -> click.Command:
        from textgen.contracts.checks import blame
        from textgen.contracts.components import Components
        from textgen.plugin.component import BuildContext
        from textgen.plugin.structure import Choice

        built = BuildContext(folder=Path.cwd(), console=sys.stderr, plugins=context.plugins())
        made = Components().build(Choice(offer.name, offer, offer.component.config()), built)
        if not isinstance(made, click.Command):
            raise blame(offer, f"built {type(made).__name__}, and must build a click.Command")
        return made


def _context_option(*names: str, **attributes: Any) -> Callable[[Any], Any]:
    """An option whose value is an attribute of the CommandContext. It is eager, so that it counts for --help too."""

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
    help="Do without a plugin: the name of its entry point, its package, or package:entry-point.",
)
@_context_option(
    *("--plugin", "plugin_files"),
    multiple=True,
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE.py",
    help="Use a plugin that is a single Python file. May be given several times.",
)
@_context_option(
    "--debug", is_flag=True, help="Show the traceback of an error. A broken plugin is one."
)
@click.version_option(metadata.version(OWN_DISTRIBUTION), prog_name="textgen")
def group() -> None:
    """Train language models on text, and let them write.

    \b
    textgen init my.txt          write a pipeline for a text of yours
    textgen run my.toml          train, then print what the model writes
    textgen generate runs/my     let it write more
    """


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit.

    0 done, 1 the run failed, 2 the command or pipeline is wrong, 129, 130 and 143 a signal (128 + its number).
    """
    try:
        code = _main(sys.argv[1:] if args is None else args)
    except KeyboardInterrupt:
        click.echo("textgen: interrupted", err=True)
        code = 128 + signal.SIGINT
    if code > 128:
        with contextlib.suppress(ValueError):  # not in the main thread
            signal.signal(
                signal.SIGINT, signal.SIG_DFL
            )  # another one ends the process without a word
    sys.exit(code)


def _main(arguments: list[str]) -> int:
    context = CommandContext()
    try:
        terminal.prepare()
        warnings.showwarning = _show_each_once(silent=is_follower())  # this process is ours
        warnings.simplefilter("always", PluginWarning)
        logging.getLogger("textgen").addHandler(_LogHandler(logging.WARNING))
        ended = group.main(arguments, prog_name="textgen", standalone_mode=False, obj=context)
        sys.stdout.flush()
        return ended if isinstance(ended, int) else 0  # what a command gave to click's Context.exit
    except Exception as error:
        return report(error, context, debug="--debug" in arguments)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1


def _show_each_once(*, silent: bool) -> Callable[..., None]:
    """Shows a warning the first time: a command may look for plugins more than once."""
    shown = set()

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        if not silent and str(message) not in shown:
            shown.add(str(message))
            click.echo(f"textgen: warning: {message}", err=True)

    return show


class _LogHandler(logging.Handler):
    """Shows what the library logs like a warning; what it also warns of is shown once."""

    def emit(self, record: logging.LogRecord) -> None:
        warnings.warn(record.getMessage(), PluginWarning, stacklevel=2)
