"""Writes the texts of `textgen generate` and `textgen run` to stdout: as they come, whole, or as
JSON lines.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Iterator
from typing import Any

import attrs
import click
import numpy as np

from textgen.cli.prompts import read_prompts
from textgen.cli.terminal import print_stream, print_text, report_seed
from textgen.documents import end_id
from textgen.errors import UsageError
from textgen.generation.generator import Generator
from textgen.generation.results import Generation
from textgen.pipeline.raw_pipeline import inline_toml
from textgen.plugin.structure import plain
from textgen.protocols import Tokenizer


@attrs.frozen
class OutputOptions:
    """Options for the number and the form of texts."""

    prompts: tuple[str, ...]
    prompts_file: str | None
    n: int
    distinct: bool
    index: int
    batch_size: int
    form: str
    logprobs: int | None
    novelty: bool

    def is_interactive(self) -> bool:
        """Whether nothing is asked for but a text, and a person can type prompts."""
        asked = (*self.prompts, self.prompts_file)
        is_plain = self.n == 1 and self.form == "text" and not (self.novelty or self.distinct)
        is_typed = sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
        return is_typed and is_plain and all(each is None for each in asked)

    def is_several(self) -> bool:
        """Whether more than one text may come."""
        return self.n != 1 or len(self.prompts) > 1 or self.prompts_file is not None

    def check(self) -> None:
        """Raise UsageError for options that exclude each other."""
        for is_wrong, said in (
            (self.prompts and self.prompts_file, "--prompt and --prompts-file exclude each other"),
            (
                self.logprobs is not None and self.form != "jsonl",
                "--logprobs goes with --output jsonl",
            ),
        ):
            if is_wrong:
                raise UsageError(said)


def write(generator: Generator, output: OutputOptions, options: dict[str, Any]) -> None:
    """Generate with the options of a request, and write to stdout."""
    arguments = {"echo": True, **options}
    prompts = read_prompts(output.prompts, output.prompts_file)
    is_compared = output.novelty or output.distinct
    with _line_named(prompts):
        if output.is_several() or is_compared or output.form != "text":
            _write_whole(generator, output, prompts, arguments)
        else:
            stream = generator.stream(prompts[0][0], index=output.index or None, **arguments)
            report_seed(arguments, stream.seed)
            print_stream(stream)


def write_text(text: str, number: int = 0) -> None:
    """Write a text to stdout; one of several below a line with its number, from 1, and an empty
    line.
    """
    heading = "\n" * (number > 1) + f"=== text {number} ===\n" if number else ""
    print_text(f"{heading}{text}\n")


def _generations(
    generator: Generator,
    output: OutputOptions,
    prompts: list[tuple[str, str]],
    arguments: dict[str, Any],
) -> Iterator[Generation]:
    """The texts, in batches."""
    generations = generator.generate_many(
        [prompt for prompt, _ in prompts],
        n=output.n,
        distinct=output.distinct,
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
) -> None:
    """Write each text when it is whole, with all that can be known of it."""
    has_documents = end_id(generator.tokenizer) is not None
    if "corpus" in generator.tables and (output.novelty or (output.distinct and has_documents)):
        # The run, and so the corpus that is read, may be a stranger's.
        corpus = inline_toml(plain(generator.tables["corpus"]))
        option = "novelty" if output.novelty else "distinct"
        click.echo(f"{option}: reading the corpus {corpus}", err=True)
    finder = generator.copy_finder() if output.novelty else None
    for number, generation in enumerate(_generations(generator, output, prompts, arguments), 1):
        added = generation.text[len(generation.prompt) if generation.echo else 0 :]
        report = None if finder is None else finder.report(added, generation.prompt)
        if output.form == "jsonl":
            row = _as_row(generation, generator.tokenizer)
            row |= {} if report is None else {"novelty": attrs.asdict(report)}
            print_text(json.dumps(row, ensure_ascii=False) + "\n")
        else:
            if number == 1:
                report_seed(arguments, generation.seed)
            if output.form == "lines":
                write_text(" ".join(generation.text.splitlines()))
            else:
                write_text(generation.text, number if output.is_several() else 0)
            if report is not None:
                click.echo(report.describe(), err=True)


@contextlib.contextmanager
def _line_named(prompts: list[tuple[str, str]]) -> Iterator[None]:
    """Say in which line of a file a prompt is that is refused."""
    try:
        yield
    except UsageError as error:
        if place := re.fullmatch(r"prompts\[(\d+)\]", error.source):
            error.source = prompts[int(place[1])][1]
        raise


def _as_row(generation: Generation, tokenizer: Tokenizer) -> dict[str, Any]:
    def named(token: int, logprob: float | None) -> dict[str, Any]:
        return {"token": token, "text": tokenizer.decode(np.array([token])), "logprob": logprob}

    kept = ("prompt", "text", "finish_reason", "seed", "index")
    row = {name: getattr(generation, name) for name in kept}
    row |= {"prompt_tokens": len(generation.prompt_ids), "tokens": len(generation.tokens)}
    row["token_ids"] = generation.tokens
    if generation.logprobs:
        row["logprobs"] = [
            {**named(entry.token, entry.logprob), "top": [named(*likely) for likely in entry.top]}
            for entry in generation.logprobs
        ]
    return row
