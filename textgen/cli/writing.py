"""What `textgen generate` writes, by which options it was given."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shlex
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import click
import numpy as np

from textgen.cli.options import check_file, check_prompt, check_state_output
from textgen.cli.stop_switch import StopSwitch
from textgen.cli.streams import print_stream, report_seed
from textgen.errors import Interrupted, RunError, TextgenError, UsageError
from textgen.generation.generator import Generator
from textgen.generation.prompts import end_id
from textgen.generation.results import Generation, GenerationState
from textgen.protocols import Tokenizer

if TYPE_CHECKING:
    from textgen.generation.novelty import CopyIndex


_PATIENCE_SECONDS: Final = 1.0


def write(generator: Generator, output: OutputOptions, sampling: dict[str, Any], **options: Any) -> None:
    """Generate as the options of `textgen generate` say, and write to stdout."""
    arguments = {key: value for key, value in options.items() if value not in (None, ())}
    if options["max_new_tokens"] == "none":
        arguments["max_new_tokens"] = None
    echo = generator.tables.get("generate", {}).get("echo", True)
    if output.interactive():
        from textgen.cli.session import Session

        Session(generator, arguments | sampling, echo=echo, index=output.index).run()
        return
    arguments.setdefault("echo", echo)
    arguments["sampling"] = sampling
    output = output.with_prompt_read()
    endless = arguments.get("max_new_tokens", 0) is None
    if output.as_stream or (endless and output.streams_alone()):
        _stream(generator, output, arguments)
    elif endless and not _ends(generator, generator.defaults | arguments):
        never = "--max-new-tokens none never ends, so only the text of one prompt can be streamed"
        raise UsageError(f"{never}; give --stop, --time-limit or a number")
    else:
        _all(generator, output, arguments)


def _ends(generator: Generator, options: Mapping[str, Any]) -> bool:
    """Whether something may end a text that has no limit."""
    by_itself = end_id(generator.tokenizer) is not None and not options.get("ignore_end")
    return by_itself or any(options.get(key) for key in ("stop", "time_limit"))


@attrs.frozen
class OutputOptions:
    """What is written, and in which form."""

    prompts: tuple[str, ...]
    prompt_file: str | None
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
        return _given({"--stream": self.as_stream, "--save-state": self.save_state, "--load-state": self.load_state})

    def several(self) -> bool:
        """Whether more than one text may come."""
        return self.n != 1 or len(self.prompts) > 1 or self.prompts_file is not None

    def streams_alone(self) -> bool:
        """Whether one text is asked for, and nothing that only a whole one has."""
        return not (self.several() or self.novelty or self.form != "text")

    def prompt(self) -> str:
        """The prompt of one text."""
        return self.prompts[0] if self.prompts else ""

    def state(self) -> GenerationState | None:
        """What --load-state resumes from."""
        return None if self.load_state is None else GenerationState.load(self.load_state)

    def check(self) -> None:
        """Raise UsageError for options that exclude each other."""
        alone = self.alone()
        if self.interactive():
            self._check_session()
        if alone and self.several():
            raise UsageError(f"{', '.join(alone)} works on one text; leave --n, --prompts-file and more prompts out")
        if bool(self.prompts) + (self.prompt_file is not None) + (self.prompts_file is not None) > 1:
            raise UsageError("--prompt, --prompt-file and --prompts-file exclude each other")
        if self.as_stream and (self.form != "text" or self.novelty):
            raise UsageError("--stream prints text as it comes; leave --output and --novelty out")
        if self.logprobs is not None and self.form != "jsonl":
            raise UsageError("--logprobs goes with --output jsonl")
        for prompt in self.prompts:
            check_prompt(prompt)
        if self.load_state is not None:
            check_file("--load-state", self.load_state)
        for option, file in (("--prompt-file", self.prompt_file), ("--prompts-file", self.prompts_file)):
            if file not in (None, "-"):
                check_file(option, file)
        if self.save_state is not None:
            check_state_output("--save-state", self.save_state)

    def interactive(self) -> bool:
        """Whether no prompt is given, and a person can type some."""
        return self.unasked() and sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()

    def unasked(self) -> bool:
        """Whether no prompt is given."""
        return not self.prompts and (self.prompt_file, self.prompts_file, self.load_state) == (None, None, None)

    def with_prompt_read(self) -> OutputOptions:
        """The same with the prompt of --prompt-file read, or what is piped in where no prompt is given."""
        file = "-" if self.unasked() and _is_piped_in() else self.prompt_file
        if file is None:
            return self
        text = _read(file).removesuffix("\n")
        return attrs.evolve(self, prompts=(text,) if text else (), prompt_file=None)

    def _check_session(self) -> None:
        refused = _given({"--n": self.n != 1, "--output": self.form != "text", "--logprobs": self.logprobs is not None})
        if refused := [*refused, *_given({"--novelty": self.novelty, "--save-state": self.save_state})]:
            raise UsageError(
                f"{', '.join(refused)} needs a prompt, and without one a session opens; "
                "give --prompt TEXT, or --prompt '' to start from nothing"
            )


def _given(options: dict[str, Any]) -> list[str]:
    return [name for name, value in options.items() if value not in (None, False)]


def _is_piped_in() -> bool:
    """Whether stdin is a file, or a pipe with something to read; one may be open that nobody ever writes to."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
        if not stat.S_ISFIFO(mode) or select.select([sys.stdin], [], [], _PATIENCE_SECONDS)[0]:
            return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)
    except (AttributeError, OSError, ValueError):  # it is closed, or nothing that can be asked
        return False
    click.echo("textgen: warning: nothing came on stdin yet; --prompt-file - waits for it", err=True)
    return False


def print_texts(texts: Iterable[str], *, several: bool) -> None:
    """Write texts to stdout; several of them under a line with the number of each, separated by an empty line."""
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
        prompts = _checked_prompts(generator, output, unknown_characters)
        if not prompts:
            click.echo(f"textgen: warning: {output.prompts_file} has no prompt to continue", err=True)
        generations = generator.generate_each(
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
        if number == 1:
            report_seed(arguments, generation.seed)
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
            state=output.state(),
            keep_state=output.save_state is not None,
            **arguments,
        )
        try:
            yield generation
        finally:  # after the text, which a state that cannot be written must not cost
            save(generation.state)


def _stream(generator: Generator, output: OutputOptions, arguments: dict[str, Any]) -> None:
    with _saving(output, arguments) as save:
        stream = generator.stream(
            output.prompt(),
            index=output.index,
            state=output.state(),
            keep_state=output.save_state is not None,
            **arguments,
        )
        report_seed(arguments, stream.seed)
        print_stream(stream)
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
        yield lambda state: None if state is None else state.save(path)
    if switch.signal_number is not None:
        raise Interrupted(
            f"stopped; --load-state {shlex.quote(path)} resumes from there", signal_number=switch.signal_number
        )


def _read(path: str) -> str:
    """The text of a file, or of stdin for "-", with line breaks as \\n. Raises UsageError."""
    if path == "-" and sys.stdin is None:  # it was closed before the process began
        raise UsageError("- reads stdin, which is closed")
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}:{line}: not UTF-8; save the prompts as UTF-8 text") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _checked_prompts(generator: Generator, output: OutputOptions, unknown_characters: Any) -> list[str]:
    """The prompts. What the vocabulary lacks is refused before any text is made, with the line of a file it is in.

    Only a line's end ends one: a form feed, say, is a character like any other.
    """
    file = output.prompts_file
    prompts = (output.prompts or ("",)) if file is None else _read(file).split("\n")
    checked = []
    for number, prompt in enumerate(prompts, 1):
        if file is None or prompt:
            try:
                generator.encode_prompt(prompt, unknown_characters)
            except UsageError as error:
                error.source = "" if file is None else f"{file}:{number}"
                raise
            checked.append(prompt)
    return checked


def _as_row(generation: Generation, prompt_tokens: int, tokenizer: Tokenizer) -> dict[str, Any]:
    row: dict[str, Any] = {
        "prompt": generation.prompt,
        "text": generation.text,
        "finish_reason": generation.finish_reason,
        "prompt_tokens": prompt_tokens,
        "tokens": len(generation.tokens),
        "token_ids": generation.tokens,
        "seed": generation.seed,
        "index": generation.index,
    }

    def named(token: int, logprob: float) -> dict[str, Any]:
        return {"token": token, "text": tokenizer.decode(np.array([token])), "logprob": logprob}

    if generation.logprobs:
        row["logprobs"] = [
            {**named(entry.token, entry.logprob), "top": [named(*likely) for likely in entry.top]}
            for entry in generation.logprobs
        ]
    return row
