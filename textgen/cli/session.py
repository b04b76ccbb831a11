"""The interactive session of `textgen generate` on a terminal."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs
import click

from textgen.cli.line_editing import line_editing
from textgen.cli.options import check_state_output
from textgen.cli.prompts import as_path, as_text, check_utf8
from textgen.cli.request_options import parse_value
from textgen.cli.stop_switch import StopSwitch
from textgen.cli.terminal import print_stream, report_seed
from textgen.errors import TextgenError, UsageError
from textgen.generation.generator import Generator
from textgen.generation.results import GenerationState
from textgen.generation.streams import TextStream
from textgen.plugin.structure import plain
from textgen.suggest import nearest
from textgen.tools.commented import inline_toml

_HELP: Final = """\
Type a prompt, and the model continues it. Ctrl-C stops a text.
  /set KEY=VALUE   change an option: /set temperature=0.5, /set stop="\\n"
  /set seed=N      another seed; each prompt gets the next index of the seed,
                   and /set seed=N begins at the first
                   /set seed=random draws one for each prompt, and shows it
  /unset KEY       back to the run's own
  /options         show what is set, what is the run's own, and what else can be
  /more            continue the last text
  /save FILE       save where it ends, for --load-state FILE
  /help            this text
  /quit            end the session; so does Ctrl-D"""
_TAKING: Final = ("/set", "/unset", "/save")  # something after them
_INSTEAD: Final = {
    "greedy": "/set temperature=0 is greedy",
    "n": "a session writes one text per prompt; for several, give --n with a --prompt",
    "index": "each prompt gets the next index; /set seed=N begins at the first",
    "prompt": "type the prompt itself",
}


class Session:
    """Reads prompts with history and line editing, and streams their continuations.

    options  those set so far, of those in `table`
    index    that of a seed's first text
    """

    def __init__(
        self,
        generator: Generator,
        options: dict[str, Any],
        table: Mapping[str, attrs.Attribute[Any]],
        *,
        index: int,
    ) -> None:
        self._generator, self._options, self._table = generator, options, table
        self._index = self._first = index
        self._state: GenerationState | None = None
        self._own = {"echo": generator.tables.get("generate", {}).get("echo", True)}
        self._own |= {"seed": generator.seed, **generator.defaults}
        self._commands: dict[str, Callable[[str], None]] = {
            "/set": self._set,
            "/unset": self._unset,
            "/options": self._show,
            "/more": self._more,
            "/save": self._save,
            "/help": lambda _: click.echo(_HELP, err=True),
        }

    def run(self) -> None:
        """Until the end of input. Raises UsageError at once for options that are wrong."""
        self._check(self._options)
        commands = [
            f"{name} " if name in _TAKING else name for name in (*self._commands, "/quit", "/exit")
        ]
        with line_editing(commands, list(self._table)):
            click.echo(_HELP, err=True)
            while True:
                try:
                    line = as_text(input("> "))
                except EOFError:
                    click.echo(err=True)
                    return
                except KeyboardInterrupt:  # often the second of two that were meant for the text
                    click.echo("\n/quit or Ctrl-D ends the session", err=True)
                    continue
                except UnicodeDecodeError:
                    click.echo("error: what was typed is not valid UTF-8", err=True)
                    continue
                if line.split(maxsplit=1)[:1] in (["/quit"], ["/exit"]):
                    return
                self._answer(line)
                if line.strip() in ("quit", "exit", "help"):
                    click.echo(f"that was a prompt; the command is /{line.strip()}", err=True)

    def _answer(self, line: str) -> None:
        try:
            check_utf8(line, "what was typed")
            if line.startswith("/"):
                word, rest = (*line.split(maxsplit=1), "")[:2]
                if word not in self._commands:
                    raise UsageError(f"there is no {word}; /help lists the commands")
                self._commands[word](rest.strip())
            elif line:  # Enter alone asks for nothing
                self._continue(line)
        except TextgenError as error:
            click.echo(f"error: {error}", err=True)
        except KeyboardInterrupt:
            click.echo()

    def _continue(self, prompt: str) -> None:
        self._write(prompt, index=self._index)
        if self._options.get("seed") != "random":
            self._index += 1  # another prompt, another text, even if it is the same prompt

    def _more(self, _: str) -> None:
        state = self._last_state()
        # What samples from here on is what /options shows, not what sampled before.
        state = attrs.evolve(state, values={**state.values, "sampling": {}})
        self._write(
            "", state=state, **({"seed": None} if self._options.get("seed") == "random" else {})
        )

    def _save(self, file: str) -> None:
        state, file = self._last_state(), as_path(file)
        check_state_output("/save", file)
        state.save(file)

    def _last_state(self) -> GenerationState:
        if self._state is None:
            raise UsageError("there is no text yet; type a prompt first")
        return self._state

    def _write(self, prompt: str, **changes: Any) -> None:
        with StopSwitch(
            (signal.SIGINT,)
        ) as switch:  # Ctrl-C ends the text in good order, so that /more continues it
            arguments = {"echo": self._own["echo"], **self._options, **changes}
            stream = self._generator.stream(
                prompt, keep_state=True, cancelled=switch.is_on, **arguments
            )
            report_seed(arguments, stream.seed)
            print_stream(stream)
        self._state = stream.state

    def _set(self, rest: str) -> None:
        given = re.fullmatch(r"([\w-]+)(?:\s*=\s*|\s+)(\S.*)", rest)
        if given is None:
            if not re.fullmatch(r"[\w-]+", rest):
                raise UsageError("expected /set KEY=VALUE, as in /set temperature=0.5")
            name = self._name(rest)
            now = f"it is {self._options[name]}" if name in self._options else "it is not set"
            raise UsageError(f"expected /set {name}=VALUE; {now}")
        name = self._name(given[1])
        self._use(
            name, {**self._options, name: parse_value(name, self._table[name].type, given[2])}
        )

    def _unset(self, key: str) -> None:
        if not key:
            raise UsageError("expected /unset KEY, as in /unset temperature")
        name = self._name(key)
        if name not in self._options:
            raise UsageError(f"{name} is not set")
        self._use(name, {key: value for key, value in self._options.items() if key != name})

    def _name(self, key: str) -> str:
        """The name of an option as the API has it, given as that or as the command has it. Raises UsageError."""
        name = key.lstrip("-").replace("-", "_")
        if name in self._table:
            return name
        hint = _INSTEAD.get(name) or nearest(name, self._table) or "/options lists what can be set"
        raise UsageError(f"there is no option {key}; {hint}")

    def _check(self, options: dict[str, Any]) -> TextStream:
        """A stream that is never started: what is wrong is refused."""
        return self._generator.stream("", index=self._first, **options)

    def _use(self, name: str, options: dict[str, Any]) -> None:
        """Write with other options, of which `name` has changed."""
        self._check(options)
        self._options = options
        if name == "seed":
            self._index = self._first

    def _show(self, _: str) -> None:
        options, own = self._options, self._own
        lines = ["set here:" if options else "nothing is set here"]
        lines += [f"  {name} = {_shown(value)}" for name, value in options.items()]
        lines += ["the run's own:"]
        lines += [
            f"  {name} = {_shown(value)}" for name, value in own.items() if name not in options
        ]
        samplers = self._check(options).samplers
        lines += ["samplers: " + (", ".join(map(_shown, samplers)) or "none")]
        lines += [
            f"not set: {', '.join(name for name in self._table if name not in {**own, **options})}"
        ]
        lines += [f"the next text: --seed {options.get('seed', own['seed'])} --index {self._index}"]
        click.echo("\n".join(lines), err=True)


def _shown(value: Any) -> str:
    """A value as it can be typed after /set."""
    return "none" if value is None else inline_toml(plain(value))
