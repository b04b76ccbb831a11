"""Writes the texts of `textgen generate` and `textgen run` to stdout: as they come, whole, or as JSON lines."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import attrs
import click
import numpy as np

from textgen.cli.options import check_state_output
from textgen.cli.prompts import check_utf8, read_prompts
from textgen.cli.stop_switch import StopSwitch
from textgen.cli.terminal import print_stream, print_text, report_seed
from textgen.errors import Interrupted, RunError, TextgenError, UsageError
from textgen.generation.generator import Generator
from textgen.generation.prompts import end_id
from textgen.generation.results import Generation, GenerationState
from textgen.plugin.structure import plain
from textgen.protocols import Tokenizer
from textgen.tools.commented import inline_toml
from textgen.windows import quoted

_Save: TypeAlias = Callable[[GenerationState | None], None]
_ENDS: Final = ("stop", "stop_tokens", "time_limit")


@attrs.frozen
class OutputOptions:
    """Which texts are written, and in which form."""

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

    def is_interactive(self) -> bool:
        """Whether no prompt is given, and a person can type some."""
        has_none = not self.prompts and (self.prompt_file, self.prompts_file, self.load_state) == (
            None,
            None,
            None,
        )
        return has_none and sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()

    def is_several(self) -> bool:
        """Whether more than one text may come."""
        return self.n != 1 or len(self.prompts) > 1 or self.prompts_file is not None

    def of_one(self) -> list[str]:
        """The options given that work on one text."""
        options = {
            "--stream": self.as_stream,
            "--save-state": self.save_state,
            "--load-state": self.load_state,
        }
        return [name for name, value in options.items() if value not in (None, False)]

    def check(self) -> None:
        """Raise UsageError for options that exclude each other."""
        refused = {
            "--n": self.n != 1,
            "--output": self.form != "text",
            "--logprobs": self.logprobs is not None,
        }
        refused |= {"--novelty": self.novelty, "--save-state": self.save_state is not None}
        if self.is_interactive() and any(refused.values()):
            given = ", ".join(name for name, is_given in refused.items() if is_given)
            raise UsageError(
                f"{given} needs a prompt, and without one a session opens; "
                "give --prompt TEXT, or --prompt '' to start from nothing"
            )
        if self.is_several() and (one := self.of_one()):
            raise UsageError(
                f"{', '.join(one)} works on one text; leave --n, --prompts-file and more prompts out"
            )
        if (
            bool(self.prompts) + (self.prompt_file is not None) + (self.prompts_file is not None)
            > 1
        ):
            raise UsageError("--prompt, --prompt-file and --prompts-file exclude each other")
        if self.as_stream and (self.form != "text" or self.novelty):
            raise UsageError("--stream prints text as it comes; leave --output and --novelty out")
        if self.logprobs is not None and self.form != "jsonl":
            raise UsageError("--logprobs goes with --output jsonl")
        for prompt in self.prompts:
            check_utf8(prompt)
        if self.save_state is not None:
            check_state_output("--save-state", self.save_state)


def write(generator: Generator, output: OutputOptions, options: dict[str, Any]) -> None:
    """Generate with the options of a request, and write to stdout."""
    arguments = {"echo": True, **options}
    is_new = output.load_state is None  # else the text has its beginning
    prompts = read_prompts(
        output.prompts, output.prompt_file, output.prompts_file, may_be_piped=is_new
    )
    endless = arguments.get("max_new_tokens", 0) is None
    is_plain = not (output.is_several() or output.novelty or output.form != "text")
    with (
        _state_named(output.load_state),
        _line_named(prompts),
        _saving(output, arguments) as save,
    ):
        if output.as_stream or (endless and is_plain):
            stream = generator.stream(**_one(output, prompts), **arguments)
            report_seed(arguments, stream.seed)
            print_stream(stream)
            save(stream.state)
        elif endless and not _ends(generator, generator.defaults | arguments):
            never = (
                "--max-new-tokens none never ends, so only the text of one prompt can be streamed"
            )
            raise UsageError(f"{never}; give --stop, --time-limit or a number")
        else:
            _write_whole(generator, output, prompts, arguments, save)


def _ends(generator: Generator, options: Mapping[str, Any]) -> bool:
    """Whether something may end a text that has no limit."""
    by_itself = end_id(generator.tokenizer) is not None and not options.get("ignore_end")
    return by_itself or any(options.get(key) for key in _ENDS)


def write_texts(texts: list[str]) -> None:
    """Write texts to stdout; several of them under a line with the number of each, separated by an empty line."""
    for number, text in enumerate(texts, 1):
        _write_text(text, number, is_several=len(texts) > 1)


def _write_text(text: str, number: int, *, is_several: bool) -> None:
    heading = "\n" * (number > 1) + f"=== text {number} ===\n" if is_several else ""
    print_text(f"{heading}{text}\n")


def _one(output: OutputOptions, prompts: list[tuple[str, str]]) -> dict[str, Any]:
    """What a request for one text says beside its options."""
    state = None if output.load_state is None else GenerationState.load(output.load_state)
    keep = output.save_state is not None
    return {"prompt": prompts[0][0], "index": output.index, "state": state, "keep_state": keep}


def _generations(
    generator: Generator,
    output: OutputOptions,
    prompts: list[tuple[str, str]],
    arguments: dict[str, Any],
) -> Iterator[Generation]:
    """One text with all that can be known of it, or many in batches."""
    if output.of_one():
        return iter(
            [generator.generate(**_one(output, prompts), logprobs=output.logprobs, **arguments)]
        )
    if not prompts:
        click.echo(f"textgen: warning: {output.prompts_file} has no prompt to continue", err=True)
    generations = generator.generate_many(
        [prompt for prompt, _ in prompts],
        n=output.n,
        index=output.index,
        batch_size=output.batch_size,
        logprobs=output.logprobs,
        **arguments,
    )
    if output.is_several() and sys.stderr.isatty() and not sys.stdout.isatty():
        from tqdm import tqdm

        return iter(tqdm(generations, total=len(prompts) * output.n, file=sys.stderr, unit="text"))
    return generations


def _write_whole(
    generator: Generator,
    output: OutputOptions,
    prompts: list[tuple[str, str]],
    arguments: dict[str, Any],
    save: _Save,
) -> None:
    """Write each text when it is whole, with all that can be known of it."""
    generations = _generations(generator, output, prompts, arguments)
    finder, missing = None, None
    if output.novelty:
        _announce(generator)
        try:
            finder = generator.copy_finder()
        except TextgenError as error:  # the corpus may have stayed on another machine
            missing = error
    for number, generation in enumerate(generations, 1):
        added = generation.text[len(generation.prompt) if generation.echo else 0 :]
        report = finder.report(added) if finder is not None else None
        try:
            if output.form == "jsonl":
                fed = generator.encode_prompt(
                    generation.prompt, arguments.get("unknown_characters")
                )
                row = _as_row(generation, len(fed), generator.tokenizer)
                row |= {"novelty": report and attrs.asdict(report)} if output.novelty else {}
                print_text(json.dumps(row, ensure_ascii=False) + "\n")
                continue
            if number == 1:
                report_seed(arguments, generation.seed)
            if output.form == "lines":
                print_text(" ".join(generation.text.splitlines()) + "\n")
            else:
                _write_text(generation.text, number, is_several=output.is_several())
            if report is not None:
                click.echo(report.describe(), err=True)
        finally:  # after the text, which a state that cannot be written must not cost
            save(generation.state)
    if missing is not None:
        raise RunError(
            f"there is no report on what is copied: {missing}", generator.path or Path()
        ) from missing


def _announce(generator: Generator) -> None:
    """Say which corpus is going to be read: the run may be a stranger's."""
    if generator.path is not None:
        table = inline_toml(plain(generator.tables["corpus"]))
        click.echo(f"novelty: reading the corpus of {generator.path}, {table}", err=True)


@contextlib.contextmanager
def _state_named(path: str | None) -> Iterator[None]:
    """Say which file a saved state that is refused is from."""
    try:
        yield
    except UsageError as error:
        if path is None or error.argument != "state":
            raise
        raise UsageError(error.faults[0].expected, source=path) from error


@contextlib.contextmanager
def _line_named(prompts: list[tuple[str, str]]) -> Iterator[None]:
    """Say in which line of a file a prompt is that is refused."""
    try:
        yield
    except UsageError as error:
        if place := re.fullmatch(r"prompts\[(\d+)\]", error.source):
            error.source = prompts[int(place[1])][1]
        raise


@contextlib.contextmanager
def _saving(output: OutputOptions, arguments: dict[str, Any]) -> Iterator[_Save]:
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
            f"stopped; --load-state {quoted(path)} resumes from there",
            signal_number=switch.signal_number,
        )


def _as_row(generation: Generation, prompt_tokens: int, tokenizer: Tokenizer) -> dict[str, Any]:
    def named(token: int, logprob: float | None) -> dict[str, Any]:
        return {"token": token, "text": tokenizer.decode(np.array([token])), "logprob": logprob}

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
    if generation.logprobs:
        row["logprobs"] = [
            {**named(entry.token, entry.logprob), "top": [named(*likely) for likely in entry.top]}
            for entry in generation.logprobs
        ]
    return row
