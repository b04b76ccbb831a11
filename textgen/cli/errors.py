"""What becomes of errors: one line on stderr, and the promised exit code."""

from __future__ import annotations

import os
import signal
import sys
import traceback

import click

from textgen.errors import Interrupted, TextgenError


class ReaderGone(Exception):
    """Nobody reads stdout any more."""


def report(error: BaseException, *, debug: bool) -> int:
    """Say what went wrong and return the exit code. A bug keeps its traceback; with `debug` all errors do."""
    code = 1
    if isinstance(error, BrokenPipeError | ReaderGone):
        _leave_stdout()  # whoever read our output has enough of it
        return 0
    if isinstance(error, click.Abort | KeyboardInterrupt):
        said, code = "interrupted", 128 + signal.SIGINT
    elif isinstance(error, click.ClickException):
        said, code = f"error: {_usage(error)}", error.exit_code
    elif isinstance(error, TextgenError):  # who interrupts a run gets what was asked for
        said, code = (
            f"{'' if isinstance(error, Interrupted) else 'error: '}{error}",
            error.exit_code,
        )
    elif isinstance(error, OSError):
        _leave_stdout()  # which may be on the disk that is full
        said = "error: " + ": ".join(str(e) for e in (error.filename, error.strerror or error) if e)
    elif isinstance(error, MemoryError):
        said = "error: out of memory"
    else:
        debug, said = True, "this is a bug in textgen or a plugin; the traceback above says where"
    if debug and not isinstance(error, click.ClickException | click.Abort | KeyboardInterrupt):
        traceback.print_exception(error)
    click.echo(f"textgen: {said}", err=True)
    return code


def _leave_stdout() -> None:
    """Write nothing more there, at exit either."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115


def _usage(error: click.ClickException) -> str:
    """What click found wrong with the command line, in one line, and where to read on."""
    ctx = getattr(error, "ctx", None)
    message = " ".join(error.format_message().split()).rstrip(".")
    where = "textgen" if ctx is None else ctx.command_path
    return f"{message[:1].lower()}{message[1:]}; see {where} --help"
