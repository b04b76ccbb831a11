"""The interactive session of `textgen generate` on a terminal."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import click

from textgen.arguments import GenerateArguments
from textgen.document import toml_value
from textgen.errors import Fault, TextgenError, UsageError
from textgen.generation import Generator

_HELP = """\
Type a prompt, and the model goes on from it. Ctrl-C stops a text.
  /set KEY=VALUE   change an option, as in /set temperature=0.5 or /set max_new_tokens=100
  /unset KEY       back to the run's own
  /options         show what is set, and what else can be
  /help            this text
  /quit            end the session; so does Ctrl-D"""


class Session:
    """Reads prompts with history and line editing, and streams their continuations."""

    def __init__(self, generator: Generator, arguments: dict[str, Any]) -> None:
        self._generator, self._arguments, self._index = generator, arguments, 0

    def run(self) -> None:
        """Until the end of input."""
        with contextlib.suppress(ImportError):  # line editing and history, where the platform has them
            import readline  # noqa: F401
        click.echo(_HELP, err=True)
        while True:
            try:
                line = input("> ")
            except EOFError:
                click.echo(err=True)
                return
            except KeyboardInterrupt:  # often the second of two that were meant for the text
                click.echo("\n/quit or Ctrl-D ends the session", err=True)
                continue
            if line.strip() in ("/quit", "/exit"):
                return
            try:
                self._command(line) if line.startswith("/") else self._continue(line)
            except TextgenError as error:
                click.echo(f"error: {error}", err=True)
            except KeyboardInterrupt:
                click.echo()

    def _continue(self, prompt: str) -> None:
        for piece in self._generator.stream(prompt, index=self._index, **self._arguments):
            click.echo(piece, nl=False)
            sys.stdout.flush()
        click.echo()
        self._index += 1  # another prompt, another text, even if it is the same prompt

    def _command(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        key, given, text = rest.strip().partition("=" if "=" in rest else " ")
        key = key.strip().replace("-", "_")  # as the command writes it, or as the API does
        if word == "/set" and given:
            changed = {**self._arguments, key: _value(text.strip())}
            self._generator.stream("", **changed)  # refuses what is wrong, and is never started
            self._arguments = changed
        elif word == "/unset" and key:
            if key not in self._arguments:
                raise UsageError(f"{key} is not set")
            del self._arguments[key]
        elif word == "/options":
            for name, value in self._arguments.items():
                click.echo(f"{name} = {value}", err=True)
            others = [name for name in GenerateArguments.__annotations__ if name not in {*self._arguments, "cancelled"}]
            click.echo(f"not set: {', '.join(others)}", err=True)
        else:
            if word not in ("/help", "/set", "/unset"):
                click.echo(f"there is no {word}; a prompt cannot begin with /", err=True)
            click.echo(_HELP, err=True)


def _value(text: str) -> Any:
    if text == "none":  # as in --max-new-tokens none
        return None
    value = toml_value(text)
    if isinstance(value, Fault):
        raise UsageError(str(value))
    return value
