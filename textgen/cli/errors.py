"""Reports errors in one line on stderr, with the promised exit code."""

from __future__ import annotations

import os
import re
import signal
import sys
import traceback
from typing import Final

import click

from textgen.errors import Interrupted, TextgenError

_LENGTHS: Final = ("--length", "--max-length", "--tokens", "--words")  # that are often tried


class ReaderGone(Exception):
    """Nobody reads stdout any more."""


def report(error: BaseException, *, debug: bool) -> int:
    """Say what went wrong and return the exit code.

    A bug keeps its traceback; with `debug` all errors do.
    """
    code, is_traced = 1, debug
    match error:
        case BrokenPipeError() | ReaderGone():
            _leave_stdout()  # whoever read our output has enough of it
            return 0
        case click.Abort() | KeyboardInterrupt():
            said, code, is_traced = "interrupted", 128 + signal.SIGINT, False
        case click.ClickException():
            said, code, is_traced = f"error: {_usage(error)}", error.exit_code, False
        case Interrupted():  # who interrupts a run gets what was asked for
            said, code = _with_options(error), error.exit_code
        case TextgenError():
            said, code = f"error: {_with_options(error)}", error.exit_code
        case OSError():
            _leave_stdout()  # which may be on the disk that is full
            facts = (error.filename, error.strerror or error)
            said = "error: " + ": ".join(str(fact) for fact in facts if fact)
        case MemoryError():
            said = "error: out of memory"
        case _:
            said = "this is a bug in textgen or a plugin; the traceback above says where"
            is_traced = True
    if is_traced:
        traceback.print_exception(error)
    click.echo(f"textgen: {said}", err=True)
    return code


def _with_options(error: TextgenError) -> str:
    """The error with options as they are written here: `overwrite` is --overwrite."""
    return re.sub(r"`(device|output|overwrite|update)`", r"--\1", str(error))


def _leave_stdout() -> None:
    """Write nothing more there, at exit either."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115


def _usage(error: click.ClickException) -> str:
    """A usage error of click in one line, with the help to read."""
    ctx = getattr(error, "ctx", None)
    message = " ".join(error.format_message().split()).rstrip(".")
    if ctx is not None and ctx.info_name == "generate":
        if "unexpected extra argument" in message:
            message += '; a text of several words is quoted, as in --prompt "The door"'
        if isinstance(error, click.NoSuchOption) and error.option_name in _LENGTHS:
            message += "; did you mean --max-new-tokens?"
    where = "textgen" if ctx is None else ctx.command_path
    return f"{message[:1].lower()}{message[1:]}; see {where} --help"
