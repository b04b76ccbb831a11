"""The interactive session of `textgen generate` on a terminal."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from typing import Any, Final

import attrs
import click

from textgen.cli.line_editing import line_editing
from textgen.cli.options import check_prompt, check_state_output, token_table
from textgen.cli.stop_switch import StopSwitch
from textgen.cli.streams import print_stream, report_seed
from textgen.errors import Fault, TextgenError, UsageError
from textgen.generation.arguments import SAMPLING, Options
from textgen.generation.generator import Generator
from textgen.generation.results import GenerationState
from textgen.generation.streams import TextStream
from textgen.pipeline.document import toml_value
from textgen.pipeline.structure import plain
from textgen.suggest import nearest
from textgen.tools.commented import inline_toml

_OWN: Final = ("cancelled", "logprobs", "sampling")
OPTIONS: Final = tuple(name for name in attrs.fields_dict(Options) if name not in _OWN)
COMMANDS: Final = ("/set", "/unset", "/options", "/more", "/save", "/help", "/quit", "/exit")

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
_INSTEAD: Final = {
    "greedy": "/set temperature=0 is greedy",
    "n": "a session writes one text per prompt; for several, give --n with a --prompt",
    "index": "each prompt gets the next index; /set seed=N begins at the first",
    "prompt": "type the prompt itself",
}


class Session:
    """Reads prompts with history and line editing, and streams their continuations."""

    def __init__(self, generator: Generator, arguments: dict[str, Any], *, echo: bool, index: int) -> None:
        """`echo` holds where it is not set, and `index` is that of a seed's first text."""
        self._generator, self._arguments, self._echo, self._first = generator, arguments, echo, index
        self._index = index
        self._state: GenerationState | None = None

    def run(self) -> None:
        """Until the end of input. Raises UsageError at once for arguments that are wrong."""
        self._check(self._arguments)
        with line_editing(COMMANDS, OPTIONS):
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
                except UnicodeDecodeError:
                    click.echo("error: what was typed is not valid UTF-8", err=True)
                    continue
                if line.split(maxsplit=1)[:1] in (["/quit"], ["/exit"]):
                    return
                self._answer(line)

    def _answer(self, line: str) -> None:
        try:
            if line.startswith("/"):
                self._command(line)
            elif line:  # Enter alone asks for nothing
                self._continue(line)
        except TextgenError as error:
            click.echo(f"error: {error}", err=True)
        except KeyboardInterrupt:
            click.echo()

    def _continue(self, prompt: str) -> None:
        check_prompt(prompt)
        self._write(prompt, index=self._index)
        if self._arguments.get("seed") != "random":
            self._index += 1  # another prompt, another text, even if it is the same prompt

    def _more(self, _: str) -> None:
        state = self._last_state()
        # What samples from here on is what /options shows, not what sampled before.
        state = attrs.evolve(state, values={**state.values, "sampling": {}})
        self._write("", state=state, **({"seed": None} if self._arguments.get("seed") == "random" else {}))

    def _save(self, file: str) -> None:
        state = self._last_state()
        check_state_output("/save", file)
        state.save(file)

    def _last_state(self) -> GenerationState:
        if self._state is None:
            raise UsageError("there is no text yet; type a prompt first")
        return self._state

    def _write(self, prompt: str, **changes: Any) -> None:
        with StopSwitch((signal.SIGINT,)) as switch:  # Ctrl-C ends the text in good order, so that /more continues it
            arguments = {**self._requested(self._arguments), **changes}
            stream = self._generator.stream(prompt, keep_state=True, cancelled=switch.is_on, **arguments)
            report_seed(arguments, stream.seed)
            print_stream(stream)
        self._state = stream.state

    def _requested(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Arguments as those of a request: sampling options by name, of plugins too, in `sampling`."""
        sampling = {name: value for name, value in arguments.items() if name in SAMPLING or name not in OPTIONS}
        return {"echo": self._echo, "sampling": sampling} | {
            name: value for name, value in arguments.items() if name not in sampling
        }

    def _command(self, line: str) -> None:
        word, rest = (*line.split(maxsplit=1), "")[:2]
        commands: dict[str, Callable[[str], None]] = {
            "/set": self._set,
            "/unset": self._unset,
            "/options": self._show,
            "/more": self._more,
            "/save": self._save,
            "/help": lambda _: click.echo(_HELP, err=True),
        }
        if word not in commands:
            raise UsageError(f"there is no {word}; /help lists the commands")
        commands[word](rest.strip())

    def _set(self, rest: str) -> None:
        given = re.fullmatch(r"([\w-]+)(?:\s*=\s*|\s+)(\S.*)", rest)
        if given is None:
            raise UsageError("expected /set KEY=VALUE, as in /set temperature=0.5")
        name = _option(given[1])
        changed = {**self._arguments, name: _value(name, given[2])}
        self._check(changed)
        self._change(name, changed)

    def _unset(self, key: str) -> None:
        if not key:
            raise UsageError("expected /unset KEY, as in /unset temperature")
        name = _option(key)
        if name not in self._arguments:
            raise UsageError(f"{name} is not set")
        self._change(name, {key: value for key, value in self._arguments.items() if key != name})

    def _check(self, arguments: dict[str, Any]) -> TextStream:
        """A stream that is never started: what is wrong is refused."""
        return self._generator.stream("", index=self._first, **self._requested(arguments))

    def _change(self, name: str, arguments: dict[str, Any]) -> None:
        self._arguments = arguments
        if name == "seed":
            self._index = self._first

    def _show(self, _: str) -> None:
        generator, arguments = self._generator, self._arguments
        own = {"seed": generator.seed, **generator.defaults, "echo": self._echo}
        lines = ["set here:" if arguments else "nothing is set here"]
        lines += [f"  {name} = {_shown(value)}" for name, value in arguments.items()]
        lines += ["the run's own:"]
        lines += [f"  {name} = {_shown(value)}" for name, value in own.items() if name not in arguments]
        samplers = self._check(arguments).samplers
        lines += ["samplers: " + (", ".join(map(_shown, samplers)) or "none")]
        lines += [f"not set: {', '.join(name for name in OPTIONS if name not in {**own, **arguments})}"]
        lines += [f"the next text: --seed {arguments.get('seed', own['seed'])} --index {self._index}"]
        click.echo("\n".join(lines), err=True)


def _option(key: str) -> str:
    """The name of an option as the API has it, given as that or as the command writes it. Raises UsageError."""
    name = key.lstrip("-").replace("-", "_")
    if name in OPTIONS:
        return name
    raise UsageError(
        f"there is no option {key}; {_INSTEAD.get(name) or nearest(name, OPTIONS) or '/options lists what can be set'}"
    )


def _value(name: str, text: str) -> Any:
    if text == "none":  # as in --max-new-tokens none
        return None
    if name == "logit_bias" and not text.startswith("{"):
        return token_table("logit_bias", [text])
    value = text if (name, text) == ("seed", "random") else toml_value(text)
    if isinstance(value, Fault):
        raise UsageError(f"{name}: {value}" + "; write {e = -5}" * (name == "logit_bias"))
    return value


def _shown(value: Any) -> str:
    """A value as it can be typed after /set."""
    return "none" if value is None else inline_toml(plain(value))
