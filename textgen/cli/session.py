"""The interactive session of `textgen generate` on a terminal."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Mapping
from typing import Any, Final

import attrs
import click

from textgen.cli.output import write_stream
from textgen.cli.request_options import parse_value
from textgen.cli.signal_switch import SignalSwitch
from textgen.errors import TextgenError, UsageError
from textgen.generation.generator import Generator
from textgen.generation.texts.results import GenerationState
from textgen.messages import nearest

_HELP: Final = """\
Type a prompt, and the model continues it. Enter alone begins a new text, and
Ctrl-C ends one. A prompt that begins with "/" is written with "//".
  /set KEY=VALUE   change an option: /set max_new_tokens=50, /set stop="\\n"
  /set KEY=        back to the run's own
  /set seed=N      another seed; each prompt gets the next index of the seed,
                   and /set seed=N begins at the first
                   /set seed=random draws one for each prompt, and shows it
  /more            continue the last text
  /help            this text
  /quit            end the session; so does Ctrl-D"""


@attrs.define
class Session:
    """Reads prompts with history and line editing, and streams their continuations.

    options  those set so far, of those in `table`
    index    that of a seed's first text
    """

    generator: Generator
    options: dict[str, Any]
    table: Mapping[str, attrs.Attribute[Any]]
    index: int
    _written: int = 0  # texts of the seed
    _state: GenerationState | None = None

    def run(self) -> None:
        """Until the end of input. Raises UsageError at once for options that are wrong."""
        self._check(self.options)
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  # which gives `input` line editing and a history
        click.echo(_HELP, err=True)
        while True:
            try:
                line = input("> ")
                if line.split()[:1] == ["/quit"]:
                    return
                self._answer(line)
            except EOFError:  # Ctrl-D
                click.echo(err=True)
                return
            except KeyboardInterrupt:  # often the second of two that were meant for the text
                click.echo("\n/quit or Ctrl-D ends the session", err=True)
            except (TextgenError, OSError, UnicodeDecodeError) as error:
                click.echo(f"error: {error}", err=True)

    def _answer(self, line: str) -> None:
        """Do what a line asks for."""
        command, _, rest = line.partition(" ")
        if command == "/help":
            click.echo(_HELP, err=True)
        elif command == "/set":
            self._set(rest)
        elif command == "/more":
            if self._state is None:
                raise UsageError("there is no text yet; type a prompt first")
            drawn = {"seed": None} if self.options.get("seed") == "random" else {}
            self._write("", state=self._state, **drawn)
        elif line.startswith("/") and not line.startswith("//"):
            cause = (
                f"there is no {command}; /help lists the commands, and // begins a prompt with /"
            )
            raise UsageError(cause)
        else:
            prompt = line.removeprefix("/")
            self._write(prompt, index=self.index + self._written)
            # Another prompt gets another text, even if it is the same prompt.
            self._written += self.options.get("seed") != "random"

    def _set(self, rest: str) -> None:
        """Set an option, as KEY=VALUE, or take it back, as KEY=.

        Another seed begins with its first text.
        """
        key, equals, text = (part.strip() for part in rest.partition("="))
        name = key.replace("-", "_")  # as the API or as the command has it
        if not equals or name not in self.table:
            hint = nearest(name, self.table) or "textgen generate --help lists what can be set"
            raise UsageError(f"expected /set OPTION=VALUE, as in /set max_new_tokens=50; {hint}")
        options = {each: value for each, value in self.options.items() if each != name}
        if text:
            options[name] = parse_value(name, self.table[name].type, text)
        self._check(options)
        self.options = options
        if name == "seed":
            self._written = 0

    def _write(self, prompt: str, **changes: Any) -> None:
        # Ctrl-C ends the text in good order, so that /more continues it.
        with SignalSwitch((signal.SIGINT,)) as switch:
            options = {"echo": True, **self.options, **changes}
            how = {"keep_state": True, "cancelled": switch.is_on}
            self._state = write_stream(self.generator, prompt, **how, **options).state

    def _check(self, options: dict[str, Any]) -> None:
        """Raise UsageError for options that are wrong, by a stream that is never started."""
        self.generator.stream("", index=self.index, **options)
