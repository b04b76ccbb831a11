"""The interactive session of `textgen generate` on a terminal."""

from __future__ import annotations

import cmd
import contextlib
import re
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import click

from textgen.cli.options import check_state_output
from textgen.cli.prompts import as_path, as_text, check_utf8
from textgen.cli.request_options import parse_value
from textgen.cli.stop_switch import StopSwitch
from textgen.cli.terminal import print_stream, report_seed
from textgen.errors import TextgenError, UsageError
from textgen.generation.generator import Generator
from textgen.generation.prompts import end_id
from textgen.generation.results import GenerationState
from textgen.generation.streams import TextStream
from textgen.plugin.structure import plain
from textgen.suggest import nearest
from textgen.tools.commented import inline_toml
from textgen.windows import quoted

_HELP: Final = """\
Type a prompt, and the model continues it. Ctrl-C stops a text.
  /set KEY=VALUE   change options: /set temperature=0.5 top_k=20, /set stop="\\n"
  /set seed=N      another seed; each prompt gets the next index of the seed,
                   and /set seed=N begins at the first
                   /set seed=random draws one for each prompt, and shows it
  /unset KEY       back to the run's own
  /options         show what is set, what is the run's own, and what else can be
  /more            continue the last text
  /save FILE       save where it ends, for --load-state FILE
  /help            this text
  /quit            end the session; so does Ctrl-D"""
_NEW_TEXT: Final = "\nEnter alone begins a new text."
_COMMANDS: Final = ("/set ", "/unset ", "/options", "/more", "/save ", "/help", "/quit", "/exit")
_HISTORY: Final = 1000  # lines
_INSTEAD: Final = {
    "greedy": "/set temperature=0 is greedy",
    "n": "a session writes one text per prompt; for several, give --n with a --prompt",
    "index": "each prompt gets the next index; /set seed=N begins at the first",
    "prompt": "type the prompt itself",
}


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
        with _line_editing():
            while True:
                try:
                    self.cmdloop()
                    return
                except KeyboardInterrupt:  # often the second of two that were meant for the text
                    click.echo("\n/quit or Ctrl-D ends the session", err=True)
                except UnicodeDecodeError:
                    click.echo("error: what was typed is not valid UTF-8", err=True)
                self.intro = None

    def onecmd(self, line: str) -> bool:
        """Do what a line asks for; True ends the session."""
        try:
            line = as_text(line)
            check_utf8(line, "what was typed")
            if line == "EOF":  # which is what Ctrl-D is here
                click.echo(err=True)
                return True
            if line.startswith("/"):
                return bool(super().onecmd(line[1:]))
            if line or self._has_documents:
                self._continue(line)
        except TextgenError as error:
            click.echo(f"error: {error}", err=True)
        except KeyboardInterrupt:
            click.echo()
        if line.strip() in ("quit", "exit", "help"):
            click.echo(f"that was a prompt; the command is /{line.strip()}", err=True)
        return False

    def default(self, line: str) -> None:
        """Refuse a command that there is not."""
        raise UsageError(f"there is no /{line.split()[0]}; /help lists the commands")

    def emptyline(self) -> bool:
        """Refuse a slash alone."""
        raise UsageError("there is no /; /help lists the commands")

    def do_set(self, rest: str) -> None:
        """Set options, each as KEY=VALUE; a single one also as KEY VALUE."""
        given = self._assignments(rest)
        changed = dict(self._options)
        for key, text in given:
            name = self._name(key)
            changed[name] = parse_value(name, self._table[name].type, text)
        self._use(changed, begins="seed" in (self._name(key) for key, _ in given))

    def do_unset(self, rest: str) -> None:
        """Take an option back."""
        if not rest:
            raise UsageError("expected /unset KEY, as in /unset temperature")
        name = self._name(rest)
        if name not in self._options:
            raise UsageError(f"{name} is not set")
        left = {key: value for key, value in self._options.items() if key != name}
        self._use(left, begins=name == "seed")

    def do_options(self, _: str) -> None:
        """Show the options."""
        options, own = self._options, self._own
        lines = ["set here:" if options else "nothing is set here"]
        lines += [f"  {name} = {_shown(value)}" for name, value in options.items()]
        lines += ["the run's own:"]
        lines += [
            f"  {name} = {_shown(value)}" for name, value in own.items() if name not in options
        ]
        samplers = self._check(options).samplers
        lines += ["samplers: " + (", ".join(map(_shown, samplers)) or "none")]
        rest = (name for name in self._table if name not in {**own, **options})
        lines += [f"not set: {', '.join(rest)}"]
        lines += [f"the next text: --seed {options.get('seed', own['seed'])} --index {self._index}"]
        click.echo("\n".join(lines), err=True)

    def do_more(self, _: str) -> None:
        """Continue the last text."""
        drawn = {"seed": None} if self._options.get("seed") == "random" else {}
        self._write("", state=self._last_state(), **drawn)

    def do_save(self, rest: str) -> None:
        """Save where the last text ends."""
        state, file = self._last_state(), as_path(rest)
        check_state_output("/save", file)
        state.save(file)
        click.echo(f"saved; --load-state {quoted(rest)} continues from there", err=True)

    def do_help(self, _: str) -> None:
        """Show the commands."""
        click.echo(_HELP + _NEW_TEXT * self._has_documents, err=True)

    def do_quit(self, _: str) -> bool:
        """End the session."""
        return True

    do_exit = do_quit

    def completenames(self, text: str, *_: Any) -> list[str]:
        """The commands that begin so."""
        return [name for name in _COMMANDS if text and name.startswith(text)]

    def completedefault(self, text: str, line: str, *_: Any) -> list[str]:
        """The options that begin so, after /set and /unset."""
        takes_options = line.split(" ")[0].strip() in ("/set", "/unset")
        begun = text.replace("-", "_")
        return [name for name in self._table if takes_options and name.startswith(begun)]

    def _assignments(self, rest: str) -> list[tuple[str, str]]:
        """Keys and values; a value may have spaces, and ends before the next KEY= of a known option."""
        key, text, *_ = (*re.split(r"\s*=\s*|\s+", rest, maxsplit=1), "")
        if not rest:
            raise UsageError("expected /set KEY=VALUE, as in /set temperature=0.5")
        if not text:
            name = self._name(key)
            now = f"it is {self._options[name]}" if name in self._options else "it is not set"
            raise UsageError(f"expected /set {name}=VALUE; {now}")
        for match in re.finditer(r"\s([\w-]+)\s*=", text):
            if match[1].replace("-", "_") in self._table:
                return [(key, text[: match.start()]), *self._assignments(text[match.start(1) :])]
        return [(key, text)]

    def _continue(self, prompt: str) -> None:
        self._write(prompt, index=self._index)
        if self._options.get("seed") != "random":
            self._index += 1  # another prompt, another text, even if it is the same prompt

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
        """The name of an option as the API has it, given as that or as the command has it. Raises UsageError."""
        name = key.lstrip("-").replace("-", "_")
        if name in self._table:
            return name
        hint = _INSTEAD.get(name) or nearest(name, self._table) or "/options lists what can be set"
        raise UsageError(f"there is no option {key}; {hint}")

    def _check(self, options: dict[str, Any]) -> TextStream:
        """A stream that is never started: what is wrong is refused."""
        return self._generator.stream("", index=self._first, **options)

    def _use(self, options: dict[str, Any], *, begins: bool) -> None:
        """Write with other options; `begins` at the seed's first text."""
        self._check(options)
        self._options = options
        if begins:
            self._index = self._first


@contextlib.contextmanager
def _line_editing() -> Iterator[None]:
    """Within it `input` has line editing where the platform has it, and the lines of earlier sessions."""
    try:
        import readline
    except ImportError:
        yield
        return
    import platformdirs

    readline.set_completer_delims(" \t=")
    # libedit, which some platforms have in place of readline, binds keys in its own words.
    if "libedit" in (readline.__doc__ or ""):
        readline.parse_and_bind("bind ^I rl_complete")
    # In a C locale, bytes of UTF-8 are no keys.
    for setting in ("input-meta on", "output-meta on", "convert-meta off"):
        readline.parse_and_bind(f"set {setting}")
    file = Path(platformdirs.user_state_path("textgen", appauthor=False), "history")
    with contextlib.suppress(OSError):  # there is none yet, or it cannot be read
        readline.read_history_file(file)
    try:
        yield
    finally:
        readline.set_history_length(_HISTORY)
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(file)


def _shown(value: Any) -> str:
    """A value as it can be typed after /set."""
    return "none" if value is None else inline_toml(plain(value))
