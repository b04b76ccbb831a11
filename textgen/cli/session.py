"""The interactive session of `textgen generate` on a terminal."""

from __future__ import annotations

import cmd
import contextlib
import re
import signal
import sys
from collections.abc import Mapping
from typing import Any, Final

import attrs
import click

from textgen.cli.request_options import parse_value
from textgen.cli.stop_switch import StopSwitch
from textgen.cli.terminal import print_stream, report_seed
from textgen.documents import end_id
from textgen.errors import TextgenError, UsageError
from textgen.generation.generator import Generator
from textgen.generation.results import GenerationState
from textgen.generation.streams import TextStream
from textgen.messages import nearest
from textgen.pipeline.raw_pipeline import inline_toml
from textgen.plugin.structure import plain

_HELP: Final = """\
Type a prompt, and the model continues it. Ctrl-C stops a text.
  /set KEY=VALUE   change an option: /set temperature=0.5, /set stop="\\n"
  /set seed=N      another seed; each prompt gets the next index of the seed,
                   and /set seed=N begins at the first
                   /set seed=random draws one for each prompt, and shows it
  /unset KEY       back to the run's own
  /options         show what is set, what is the run's own, and what else can be
  /more            continue the last text
  /help            this text
  /quit            end the session; so does Ctrl-D"""
_NEW_TEXT: Final = "\nEnter alone begins a new text."


class Session(cmd.Cmd):
    """Reads prompts with history and line editing, and streams their continuations.

    options  those set so far, of those in `table`
    index    that of a seed's first text
    """

    prompt = "> "

    def __init__(
        self,
        generator: Generator,
        options: dict[str, Any],
        table: Mapping[str, attrs.Attribute[Any]],
        *,
        index: int,
    ) -> None:
        super().__init__(stdout=sys.stderr)
        self._generator, self._options, self._table = generator, options, table
        self._index = self._first = index
        self._state: GenerationState | None = None
        self._own = {"echo": True, "seed": generator.seed, **generator.defaults}
        self._has_documents = end_id(generator.tokenizer) is not None
        self.intro = _HELP + _NEW_TEXT * self._has_documents

    def run(self) -> None:
        """Until the end of input. Raises UsageError at once for options that are wrong."""
        self._check(self._options)
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  # which gives `input` line editing and a history
        click.echo(self.intro, err=True)
        has_ended = False
        while not has_ended:
            try:
                has_ended = self.onecmd(input(self.prompt))
            except EOFError:  # Ctrl-D
                click.echo(err=True)
                return
            except KeyboardInterrupt:  # often the second of two that were meant for the text
                click.echo("\n/quit or Ctrl-D ends the session", err=True)
            except UnicodeDecodeError:
                click.echo("error: what was typed is not valid UTF-8", err=True)

    def onecmd(self, line: str) -> bool:
        """Do what a line asks for; True ends the session."""
        try:
            if line.startswith("/"):
                return bool(super().onecmd(line[1:]))
            if line or self._has_documents:
                self._write(line, index=self._index)
                # Another prompt gets another text, even if it is the same prompt.
                self._index += self._options.get("seed") != "random"
        except (TextgenError, OSError) as error:
            click.echo(f"error: {error}", err=True)
        except KeyboardInterrupt:
            click.echo()
        return False

    def default(self, line: str) -> None:
        """Refuse a command that there is not."""
        raise UsageError(f"there is no /{line.split()[0]}; /help lists the commands")

    def emptyline(self) -> bool:
        """Refuse a slash alone."""
        raise UsageError("there is no /; /help lists the commands")

    def do_set(self, rest: str) -> None:
        """Set an option, as KEY=VALUE or as KEY VALUE."""
        key, text, *_ = (*re.split(r"\s*=\s*|\s+", rest, maxsplit=1), "")
        if not text:
            raise UsageError("expected /set KEY=VALUE, as in /set temperature=0.5")
        name = self._name(key)
        self._use({**self._options, name: parse_value(name, self._table[name].type, text)}, name)

    def do_unset(self, rest: str) -> None:
        """Take an option back."""
        name = self._name(rest)
        self._use({key: value for key, value in self._options.items() if key != name}, name)

    def do_options(self, _: str) -> None:
        """Show the options."""
        now = {**self._own, **self._options}
        lines = [
            f"{name} = {_shown(value)}{'' if name in self._options else '  # of the run'}"
            for name, value in now.items()
        ]
        lines += ["samplers: " + ", ".join(map(_shown, self._check(self._options).samplers))]
        lines += ["not set: " + ", ".join(name for name in self._table if name not in now)]
        lines += [f"the next text: --seed {now['seed']} --index {self._index}"]
        click.echo("\n".join(lines), err=True)

    def do_more(self, _: str) -> None:
        """Continue the last text."""
        drawn = {"seed": None} if self._options.get("seed") == "random" else {}
        self._write("", state=self._last_state(), **drawn)

    def do_help(self, _: str) -> None:
        """Show the commands."""
        click.echo(_HELP + _NEW_TEXT * self._has_documents, err=True)

    def do_quit(self, _: str) -> bool:
        """End the session."""
        return True

    def _last_state(self) -> GenerationState:
        if self._state is None:
            raise UsageError("there is no text yet; type a prompt first")
        return self._state

    def _write(self, prompt: str, **changes: Any) -> None:
        # Ctrl-C ends the text in good order, so that /more continues it.
        with StopSwitch((signal.SIGINT,)) as switch:
            arguments = {"echo": True, **self._options, **changes}
            stream = self._generator.stream(
                prompt, keep_state=True, cancelled=switch.is_on, **arguments
            )
            report_seed(arguments, stream.seed)
            print_stream(stream)
        self._state = stream.state

    def _name(self, key: str) -> str:
        """The name of an option as the API has it, given as that or as the command has it.

        Raises UsageError.
        """
        name = key.lstrip("-").replace("-", "_")
        if name in self._table:
            return name
        hint = nearest(name, self._table) or "/options lists what can be set"
        raise UsageError(f"there is no option {key or 'without a name'}; {hint}")

    def _check(self, options: dict[str, Any]) -> TextStream:
        """A stream that is never started: what is wrong is refused."""
        return self._generator.stream("", index=self._first, **options)

    def _use(self, options: dict[str, Any], changed: str) -> None:
        """Write with other options; with another seed, from its first text."""
        self._check(options)
        self._options = options
        if changed == "seed":
            self._index = self._first


def _shown(value: Any) -> str:
    """A value as it can be typed after /set."""
    return "none" if value is None else inline_toml(plain(value))
