"""What `textgen generate` writes, by which options it was given."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click
import numpy as np

from textgen.cli.options import check_file, check_output, check_prompt
from textgen.cli.stop_switch import StopSwitch
from textgen.errors import Interrupted, RunError, TextgenError, UsageError
from textgen.generation.generator import Generator
from textgen.generation.results import Generation
from textgen.generation.state import GenerationState
from textgen.protocols import Tokenizer

if TYPE_CHECKING:
    from textgen.generation.novelty import CopyIndex


def write(generator: Generator, output: OutputOptions, sampling: dict[str, Any], **options: Any) -> None:
    """Generate as the options of `textgen generate` say, and write to stdout."""
    arguments = {key: value for key, value in options.items() if value not in (None, ())} | sampling
    if options["max_new_tokens"] == "none":
        arguments["max_new_tokens"] = None
    echo = generator.tables.get("generate", {}).get("echo", True)
    if output.interactive():
        from textgen.cli.session import Session

        Session(generator, arguments, echo=echo, index=output.index).run()
        return
    arguments.setdefault("echo", echo)
    if output.unasked() and _waiting_on_stdin():
        click.echo("textgen: warning: stdin is not read; --prompts-file - continues each line of it", err=True)
    endless = arguments.get("max_new_tokens", 0) is None
    if output.as_stream or (endless and output.streams_alone()):
        _stream(generator, output, arguments)
    elif endless and not any((generator.defaults | arguments).get(key) for key in ("stop", "time_limit")):
        never = "--max-new-tokens none never ends, so only the text of one prompt can be streamed"
        raise UsageError(f"{never}; give --stop, --time-limit or a number")
    else:
        _all(generator, output, arguments)


@attrs.frozen
class OutputOptions:
    """What is written, and in which form."""

    prompts: tuple[str, ...]
    prompts_file: str | None
    n: int
    index: int
    batch_size: int
    as_stream: bool
    form: str
    logprobs: int | None
    novelty: bool
    save_state: str | None
    load_state: str | None

    @classmethod
    def of(cls, options: dict[str, Any]) -> OutputOptions:
        """Take what is of this kind out of the options of the command."""
        return cls(**{field.name: options.pop(field.name) for field in attrs.fields(cls)})

    def alone(self) -> list[str]:
        """The options given that work on one text."""
        given = {
            "--stream": self.as_stream,
            "--save-state": self.save_state is not None,
            "--load-state": self.load_state is not None,
        }
        return [name for name, is_given in given.items() if is_given]

    def several(self) -> bool:
        """Whether more than one text may come."""
        return self.n != 1 or len(self.prompts) > 1 or self.prompts_file is not None

    def streams_alone(self) -> bool:
        """Whether one text is asked for, and nothing that only a whole one has."""
        return not (self.several() or self.novelty or self.form != "text")

    def prompt(self) -> str:
        """The prompt of one text."""
        return self.prompts[0] if self.prompts else ""

    def check(self) -> None:
        """Raise UsageError for options that exclude each other."""
        alone = self.alone()
        if self.interactive():
            self._check_session()
        if alone and self.several():
            raise UsageError(f"{', '.join(alone)} works on one text; leave --n, --prompts-file and more prompts out")
        if self.prompts and self.prompts_file is not None:
            raise UsageError("--prompt and --prompts-file exclude each other")
        if self.as_stream and (self.form != "text" or self.novelty):
            raise UsageError("--stream prints text as it comes; leave --output and --novelty out")
        if self.logprobs is not None and self.form != "jsonl":
            raise UsageError("--logprobs goes with --output jsonl")
        for prompt in self.prompts:
            check_prompt(prompt)
        if self.load_state is not None:
            check_file("--load-state", self.load_state)
        if self.prompts_file not in (None, "-"):
            check_file("--prompts-file", self.prompts_file)
        if self.save_state is not None:
            check_output("--save-state", self.save_state, "saved state", _is_state, in_run=True)

    def interactive(self) -> bool:
        """Whether nothing says what to continue, and a person is there to ask."""
        return self.unasked() and sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()

    def unasked(self) -> bool:
        """Whether nothing says what to continue."""
        return not self.prompts and self.prompts_file is None and self.load_state is None

    def _check_session(self) -> None:
        given = {
            "--n": self.n != 1,
            "--output": self.form != "text",
            "--logprobs": self.logprobs is not None,
            "--novelty": self.novelty,
            "--save-state": self.save_state is not None,
        }
        refused = [name for name, is_given in given.items() if is_given]
        if refused:
            raise UsageError(
                f"{', '.join(refused)} needs a prompt, and without one a session opens; "
                "give --prompt TEXT, or --prompt '' to start from nothing"
            )


def _is_state(beginning: bytes) -> bool:
    """Whether a file begins as a saved state does: with a safetensors header that has its two arrays."""
    header = beginning[8 : 8 + int.from_bytes(beginning[:8], "little")]
    return header.startswith(b"{") and b'"checksum":' in header and b'"values":' in header


def _waiting_on_stdin() -> bool:
    """Whether somebody piped something here."""
    if sys.stdin is None or sys.stdin.isatty():
        return False
    try:
        import fcntl
        import termios

        count = fcntl.ioctl(sys.stdin.fileno(), termios.FIONREAD, bytes(4))
    except (ImportError, OSError):  # no such platform, or nothing that can be asked
        return False
    return int.from_bytes(count, sys.byteorder) > 0


def print_texts(texts: Iterable[str], *, several: bool) -> None:
    """Write texts to stdout; several of them under a line with the number of each, parted by an empty line."""
    for number, text in enumerate(texts, 1):
        click.echo(_heading(number, several) + text)


def _heading(number: int, several: bool) -> str:
    return "\n" * (number > 1) + f"=== text {number} ===\n" if several else ""


def _all(generator: Generator, output: OutputOptions, arguments: dict[str, Any]) -> None:
    """One text with all that can be known of it, or many in batches."""
    unknown_characters = (generator.defaults | arguments).get("unknown_characters", "error")
    if output.alone():
        generations = _single(generator, output, arguments)
    else:
        prompts = output.prompts or ("",) if output.prompts_file is None else _lines(output.prompts_file)
        if not prompts:
            click.echo(
                f"textgen: warning: {output.prompts_file} has no line, so there is nothing to continue", err=True
            )
        _check_prompts(generator, output, prompts, unknown_characters)
        generations = generator.generate_many(
            iter(prompts),
            n=output.n,
            index=output.index,
            batch_size=output.batch_size,
            logprobs=output.logprobs,
            **arguments,
        )
        if output.several() and sys.stderr.isatty() and not sys.stdout.isatty():
            from tqdm.auto import tqdm

            generations = iter(tqdm(generations, total=len(prompts) * output.n, file=sys.stderr, unit="text"))
    index, missing = _copy_index(generator) if output.novelty else (None, None)
    for number, generation in enumerate(generations, 1):
        added = generation.text[len(generation.prompt) if generation.echo else 0 :]
        report = index.report(added) if index is not None else None
        if output.form == "jsonl":
            prompt_tokens = len(generator.encode_prompt(generation.prompt, unknown_characters))
            row = _as_row(generation, prompt_tokens, generator.tokenizer)
            if output.novelty:
                row["novelty"] = None if report is None else attrs.asdict(report)
            click.echo(json.dumps(row, ensure_ascii=False))
            continue
        click.echo(_heading(number, output.several()) + generation.text)
        if report is not None:
            click.echo(report.describe(), err=True)
    if missing is not None:
        raise RunError(f"there is no report on what is copied: {missing}", generator.path or Path()) from missing


def _copy_index(generator: Generator) -> tuple[CopyIndex | None, TextgenError | None]:
    """What tells what is copied, or why there is nothing: the corpus may have stayed on another machine."""
    try:
        return generator.copy_index(), None
    except TextgenError as error:
        return None, error


def _single(generator: Generator, output: OutputOptions, arguments: dict[str, Any]) -> Iterator[Generation]:
    with _saving(output, arguments) as save:
        generation = generator.generate(
            output.prompt(),
            index=output.index,
            logprobs=output.logprobs,
            state=_state(output),
            keep_state=output.save_state is not None,
            **arguments,
        )
        try:
            yield generation
        finally:  # after the text, which a state that cannot be written must not cost
            save(generation.state)


def _stream(generator: Generator, output: OutputOptions, arguments: dict[str, Any]) -> None:
    with _saving(output, arguments) as save:
        keep_state = output.save_state is not None
        stream = generator.stream(
            output.prompt(), index=output.index, state=_state(output), keep_state=keep_state, **arguments
        )
        for piece in stream:
            click.echo(piece, nl=False)
            sys.stdout.flush()
        click.echo()
        save(stream.state)


@contextlib.contextmanager
def _saving(output: OutputOptions, arguments: dict[str, Any]) -> Iterator[Callable[[GenerationState | None], None]]:
    """Something to save the state with, where that is asked for. A signal then ends the text, and loses nothing."""
    path = output.save_state
    if path is None:
        yield lambda state: None
        return
    with StopSwitch() as switch:
        arguments["cancelled"] = switch.is_on

        def save(state: GenerationState | None) -> None:
            assert state is not None
            state.save(path)

        yield save
    if switch.signal_number is not None:
        raise Interrupted(
            f"stopped; --load-state {shlex.quote(path)} goes on from there", signal_number=switch.signal_number
        )


def _state(output: OutputOptions) -> GenerationState | None:
    return GenerationState.load(output.load_state) if output.load_state is not None else None


def _lines(path: str) -> Sequence[str]:
    """The lines of a file. Only a line's end ends one: a form feed, say, is a character like any other."""
    try:
        data = _stdin() if path == "-" else Path(path).read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}:{line}: not UTF-8; save the prompts as UTF-8 text") from error
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines if lines[-1] else lines[:-1]


def _stdin() -> bytes:
    if sys.stdin is None:  # it was closed before the process began
        raise UsageError("--prompts-file - reads stdin, which is closed")
    return sys.stdin.buffer.read()


def _check_prompts(
    generator: Generator, output: OutputOptions, prompts: Sequence[str], unknown_characters: Any
) -> None:
    """Refuse what the vocabulary lacks before any text is made, and say in which line of a file it is."""
    for number, prompt in enumerate(prompts, 1):
        try:
            generator.encode_prompt(prompt, unknown_characters)
        except UsageError as error:
            if output.prompts_file is not None:
                error.args = (f"{output.prompts_file}:{number}: {error}",)
            raise


def _as_row(generation: Generation, prompt_tokens: int, tokenizer: Tokenizer) -> dict[str, Any]:
    row: dict[str, Any] = {
        "prompt": generation.prompt,
        "text": generation.text,
        "finish_reason": generation.finish_reason,
        "prompt_tokens": prompt_tokens,
        "tokens": len(generation.tokens),
        "seed": generation.seed,
        "index": generation.index,
    }

    def named(token: int, logprob: float) -> dict[str, Any]:
        return {"token": token, "text": tokenizer.decode(np.array([token])), "logprob": logprob}

    if generation.logprobs is not None:
        row["logprobs"] = [
            {**named(entry.token, entry.logprob), "top": [named(*likely) for likely in entry.top]}
            for entry in generation.logprobs
        ]
    return row
