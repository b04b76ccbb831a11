"""The group of subcommands, and what becomes of errors: one line on stderr and the promised exit code."""

from __future__ import annotations

import errno
import importlib
import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import click

from textgen.cli import streams
from textgen.errors import Interrupted, PluginWarning, TextgenError
from textgen.plugins import OWN_DISTRIBUTION, Offer, PluginSet

COMMANDS: Final = ("run", "generate", "evaluate", "show", "init", "plugins", "new-plugin", "doctor", "completion")

_PATIENCE_SECONDS: Final = 0.5
_ALSO_CALLED: Final = {
    **dict.fromkeys(("train", "fit", "start", "resume", "continue"), "run"),
    **dict.fromkeys(("sample", "write", "chat", "predict", "complete"), "generate"),
    **dict.fromkeys(("test", "score", "perplexity"), "evaluate"),
    **dict.fromkeys(("list", "components"), "plugins"),
    **dict.fromkeys(("config", "validate", "options"), "show"),
    **dict.fromkeys(("new", "create"), "init"),
}
_ONE_ARGUMENT: Final = {
    "generate": "a prompt is given with --prompt TEXT, in quotes",
    "init": "for several texts, give the folder that they are in",
    **dict.fromkeys(("run", "show"), "a key of the pipeline is changed with --set KEY=VALUE"),
}
_NO_OPTIONS: Final = {"echo", "cancelled", "stop_tokens"}  # what only the Python API takes, or takes otherwise


class _ReaderGone(Exception):
    """Nobody reads stdout any more."""


class _Group(click.Group):
    """Built-in subcommands, then those that plugins offer."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        offers = ctx.obj.plugins().offers("command")
        names = [offer.component.name for offer in offers]
        offered = []
        for offer in offers:
            bare = offer.component.name
            name = bare if names.count(bare) == 1 and bare not in COMMANDS else offer.qualified_name
            try:
                self._build(offer, ctx.obj)
            except TextgenError as error:  # a broken command is left out, like any broken plugin
                warnings.warn(str(error), PluginWarning, stacklevel=2)
            else:
                offered.append(name)
        return [*COMMANDS, *sorted(offered)]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in COMMANDS:
            command = importlib.import_module(f"textgen.cli.{name.replace('-', '_')}").command
            assert isinstance(command, click.Command)
            return command
        offer = ctx.obj.plugins().find("command", name)
        if isinstance(offer, Offer):
            return self._build(offer, ctx.obj)
        if "plugins offer" in offer.expected:  # a clash says what to write instead
            raise click.UsageError(f"{offer.expected}; {offer.hint}", ctx)
        return None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:  # click would exit with 1
            raise _ReaderGone from error

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            hint = self._meant(ctx, args[0]) if args else ""
            if hint and "did you mean" not in error.message.lower():
                raise click.UsageError(f"{error.message.rstrip('.')}; {hint}", ctx) from error
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, command.get_short_help_str(200)) for name, command in commands if command is not None]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def _meant(self, ctx: click.Context, word: str) -> str:
        """What somebody may have meant who wrote `word` where a command stands."""
        from textgen.suggest import nearest

        if word.endswith(".toml") or Path(word).is_file():
            return f"did you mean 'textgen {'run' if word.endswith('.toml') else 'init'} {word}'?"
        if Path(word, "run.json").is_file():
            return f"did you mean 'textgen generate {word}'?"
        known = _ALSO_CALLED.get(word)
        return f"did you mean {known!r}?" if known else nearest(word, self.list_commands(ctx))

    def _build(self, offer: Offer, settings: Settings) -> click.Command:
        from textgen import contracts
        from textgen.component import BuildContext
        from textgen.config import Choice

        context = BuildContext(folder=Path.cwd(), console=sys.stderr, plugins=settings.plugins())
        made = contracts.build(Choice(offer.component.name, offer, offer.component.config()), context)
        if not isinstance(made, click.Command):
            raise contracts.blame(offer, f"built {type(made).__name__}, and must build a click.Command")
        return made


class Settings:
    """What the options before the subcommand say."""

    def __init__(self) -> None:
        self.disable: tuple[str, ...] = ()
        self.patience = _PATIENCE_SECONDS
        self._plugins: PluginSet | None = None

    def plugins(self) -> PluginSet:
        """The plugins, discovered once per command."""
        if self._plugins is None:
            self._plugins = PluginSet.discover(disable=self.disable, patience=self.patience)
        return self._plugins


@click.command(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--no-plugin",
    "disable",
    multiple=True,
    metavar="NAME",
    is_eager=True,  # so that it counts for --help too
    callback=lambda ctx, _, names: setattr(ctx.obj, "disable", names),
    expose_value=False,
    help="Do without a plugin: the name of its entry point, its package, or package:entry-point.",
)
@click.option(
    "--patience",
    type=click.FloatRange(min=0),
    default=_PATIENCE_SECONDS,
    show_default=True,
    metavar="SECONDS",
    is_eager=True,
    callback=lambda ctx, _, seconds: setattr(ctx.obj, "patience", seconds),
    expose_value=False,
    help="How long a list of all plugins waits for those that are slow to import.",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(metadata.version(OWN_DISTRIBUTION), prog_name="textgen")
def group(debug: bool) -> None:  # main reads --debug
    """Train language models on text, and let them write.

    \b
    textgen init my.txt          write a pipeline for a text of yours
    textgen run my.toml          train, then print what the model writes
    textgen generate runs/my     let it write more
    """


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 the run failed, 2 the command or pipeline is wrong, 130/143 a signal."""
    arguments = sys.argv[1:] if args is None else args
    try:
        streams.prepare()
        warnings.showwarning = _show_each_once()  # this process is ours
        warnings.simplefilter("always", PluginWarning)
        ended = group.main(arguments, prog_name="textgen", standalone_mode=False, obj=Settings())
        sys.stdout.flush()
        code = ended if isinstance(ended, int) else 0  # what a command gave to click's Context.exit
    except Exception as error:
        code = _report(error, arguments)
    except KeyboardInterrupt:
        click.echo("textgen: interrupted", err=True)
        code = 128 + signal.SIGINT
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    sys.exit(code)


def _report(error: Exception, arguments: list[str]) -> int:
    """Say what went wrong and return the exit code. A bug keeps its traceback."""
    debug = "--debug" in arguments
    if isinstance(error, BrokenPipeError | _ReaderGone):
        # Whoever read our output has enough of it. Nothing may be written there again, at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if debug and not isinstance(error, click.ClickException | click.exceptions.Exit):
        traceback.print_exception(error)
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, click.Abort):
        click.echo("textgen: interrupted", err=True)
        return 128 + signal.SIGINT
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return error.exit_code
    if isinstance(error, click.ClickException):
        click.echo(f"textgen: error: {_usage(error, arguments)}", err=True)
        return error.exit_code
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EIO, errno.EISDIR, errno.EACCES):
        click.echo(f"textgen: error: cannot write {error.filename or 'the output'}: {error.strerror}", err=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is left to flush at exit
        return 1
    if isinstance(error, TextgenError):
        kind = "" if isinstance(error, Interrupted) else "error: "  # it did what it was asked to
        if not debug:
            click.echo(f"textgen: {kind}{_with_options(str(error), arguments)}", err=True)
        return error.exit_code
    if not debug:
        traceback.print_exception(error)
        click.echo("textgen: this is a bug in textgen or a plugin; the traceback above says where", err=True)
    return 1


def _usage(error: click.ClickException, arguments: list[str]) -> str:
    """What click found wrong with the command line, in one line, and where to read on."""
    command = next((argument for argument in arguments if argument in COMMANDS), "")
    known = [name for parameter in group.params for name in parameter.opts]
    if isinstance(error, click.NoSuchOption) and command and error.option_name in known:
        return f"{error.option_name} goes before the command: textgen {error.option_name} {command} …"
    message = " ".join(error.format_message().split()).rstrip(".")
    message = message[:1].lower() + message[1:]
    if isinstance(error, click.NoSuchOption):
        message = _no_such_option(error)
    if isinstance(error, click.NoSuchOption) and command in ("run", "show") and not message.endswith("?"):
        message += "; a key of the pipeline is changed with --set KEY=VALUE"
    if "unexpected extra argument" in message and command in _ONE_ARGUMENT:
        message += f"; {_ONE_ARGUMENT[command]}"
    if isinstance(error, click.BadParameter) and command == "generate" and "'--output'" in message:
        message += "; the text goes to a file by > FILE"
    ctx = getattr(error, "ctx", None)
    where = ctx.command_path if ctx is not None else f"textgen {command}".rstrip()
    return f"{message}{'' if message.endswith('?') else ';'} see {where} --help"


def _no_such_option(error: click.NoSuchOption) -> str:
    """Which option there is not, and the one that may have been meant: click's own list of those is no sentence."""
    from textgen.suggest import nearest

    message, ctx = f"there is no option {error.option_name}", error.ctx
    if ctx is None:
        return message
    options = [
        name for parameter in ctx.command.get_params(ctx) for name in (*parameter.opts, *parameter.secondary_opts)
    ]
    known = [name.removeprefix("--") for name in options if name.startswith("--")]
    hint = nearest(error.option_name.lstrip("-"), known).replace("'", "'--", 1)
    return f"{message}; {hint}" if hint else message


def _with_options(text: str, arguments: list[str]) -> str:
    """An error's text with the command's options where it names arguments of the Python API."""
    of_prompt = "--unknown-characters" if "generate" in arguments else "generate.unknown_characters"
    options = {
        "device": "--device",
        "output": "--output",
        "overwrite": "--overwrite",
        "unknown_characters": of_prompt,
    }
    text = re.sub("`(" + "|".join(options) + ")`", lambda name: options[name[1]], text)
    if "generate" not in arguments or "numpy" not in sys.modules:
        return text
    from textgen.arguments import GenerateArguments

    known = "|".join({"n", "batch_size", "logprobs", *GenerateArguments.__annotations__} - _NO_OPTIONS)
    text = re.sub(rf"^sampler: (?=(\d+ faults\n  )?({known}): )", "", text)
    return re.sub(rf"(^|; |\n  )({known})(?=: | must )", lambda name: name[1] + "--" + name[2].replace("_", "-"), text)


def _show_each_once() -> Callable[..., None]:
    """Shows a warning the first time: a command may look for plugins more than once."""
    shown = set()

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        if str(message) not in shown:
            shown.add(str(message))
            click.echo(f"textgen: warning: {message}", err=True)

    return show
