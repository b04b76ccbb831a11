"""What becomes of errors: one line on stderr, and the promised exit code."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import traceback
from typing import Final

import click

from textgen.cli.context import CommandContext
from textgen.errors import Interrupted, TextgenError

_ONE_ARGUMENT: Final = {
    "generate": "a prompt is given with --prompt TEXT, in quotes",
    "init": "for several texts, give the folder that they are in",
    **dict.fromkeys(("run", "show"), "a key of the pipeline is changed with --set KEY=VALUE"),
}
_UNWRITABLE: Final = (
    *(
        errno.EACCES,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EIO,
        errno.EISDIR,
        errno.EMFILE,
        errno.ENAMETOOLONG,
    ),
    *(errno.ENFILE, errno.ENOSPC, errno.EPERM, errno.EROFS),
)


class ReaderGone(Exception):
    """Nobody reads stdout any more."""


def report(error: Exception, context: CommandContext, *, debug: bool) -> int:
    """Say what went wrong and return the exit code. A bug keeps its traceback; with `debug` all errors do."""
    if isinstance(error, BrokenPipeError | ReaderGone):
        _leave_stdout()  # whoever read our output has enough of it
        return 0
    if isinstance(error, click.Abort):
        click.echo("textgen: interrupted", err=True)
        return 128 + signal.SIGINT
    if isinstance(error, click.ClickException):
        if type(error).__name__ == "NoArgsIsHelpError":  # which click has from 8.2 on
            error.show()
            return error.exit_code
        click.echo(f"textgen: error: {_usage(error, context)}", err=True)
        return error.exit_code
    if debug:
        traceback.print_exception(error)
    if isinstance(error, OSError) and error.errno in _UNWRITABLE:
        click.echo(
            f"textgen: error: cannot write {error.filename or 'the output'}: {error.strerror}",
            err=True,
        )
        _leave_stdout()
        return 1
    if (
        isinstance(error, UnicodeEncodeError)
        and error.encoding == sys.getfilesystemencoding() != "utf-8"
    ):
        name = f"{error.object!r} cannot be a file's name where those are {error.encoding}, as in this locale"
        click.echo(f"textgen: error: {name}; set PYTHONUTF8=1", err=True)
        return 2
    if isinstance(error, MemoryError):
        click.echo("textgen: error: out of memory", err=True)
        return 1
    if isinstance(error, TextgenError):
        kind = "" if isinstance(error, Interrupted) else "error: "  # it did what it was asked to
        click.echo(f"textgen: {kind}{error}", err=True)
        return error.exit_code
    if not debug:
        traceback.print_exception(error)
    click.echo(
        "textgen: this is a bug in textgen or a plugin; the traceback above says where", err=True
    )
    return 1


def _leave_stdout() -> None:
    """Write nothing more there, at exit either."""
    with contextlib.suppress(OSError):  # too many open files
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _usage(error: click.ClickException, context: CommandContext) -> str:
    """What click found wrong with the command line, in one line, and where to read on."""
    ctx = getattr(error, "ctx", None)
    command = context.command.name if context.command is not None and context.command.name else ""
    message = " ".join(error.format_message().split()).rstrip(".")
    message = message[:1].lower() + message[1:]
    if isinstance(error, click.NoSuchOption):
        if ctx is not None and command and error.option_name in _option_names(ctx.find_root()):
            return f"{error.option_name} goes before the command: textgen {error.option_name} {command} …"
        message = _no_such_option(error)
        if command in ("run", "show") and not message.endswith("?"):
            message += "; a key of the pipeline is changed with --set KEY=VALUE"
        if command == "generate" and error.option_name == "--set":
            message += "; each setting of it is an option of its own, such as --temperature 0.5"
    if "unexpected extra argument" in message and command in _ONE_ARGUMENT:
        message += f"; {_ONE_ARGUMENT[command]}"
    if isinstance(error, click.BadParameter) and command == "generate" and "'--output'" in message:
        message += "; the text goes to a file by > FILE"
    where = ctx.command_path if ctx is not None else f"textgen {command}".rstrip()
    return f"{message}{'' if message.endswith('?') else ';'} see {where} --help"


def _no_such_option(error: click.NoSuchOption) -> str:
    """Which option there is not, and the one that may have been meant: click's own list of those is not a sentence."""
    from textgen.suggest import nearest

    known = (
        []
        if error.ctx is None
        else [name[2:] for name in _option_names(error.ctx) if name.startswith("--")]
    )
    hint = nearest(error.option_name.lstrip("-"), known).replace("'", "'--", 1)
    return f"there is no option {error.option_name}" + (f"; {hint}" if hint else "")


def _option_names(ctx: click.Context) -> list[str]:
    return [name for p in ctx.command.get_params(ctx) for name in (*p.opts, *p.secondary_opts)]
