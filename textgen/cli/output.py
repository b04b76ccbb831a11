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

from textgen.cli.prompts import read_prompts
from textgen.cli.terminal import print_stream, print_text, report_seed
from textgen.documents import end_id
from textgen.errors import UsageError
from textgen.generation.generator import Generator
from textgen.generation.results import Generation
from textgen.pipeline.raw_pipeline import inline_toml
from textgen.plugin.structure import plain


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
    novelty: bool

    def is_interactive(self) -> bool:
        """Whether nothing is asked for but a text, and a person can type prompts."""
        is_typed = sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
        return is_typed and self.is_plain() and not self.prompts

    def is_several(self) -> bool:
        """Whether more than one text may come."""
        return self.n != 1 or len(self.prompts) > 1 or self.prompts_file is not None

    def is_plain(self) -> bool:
        """Whether one text is written, as it comes."""
        is_compared = self.novelty or self.distinct
        return self.form == "text" and not is_compared and not self.is_several()

    def check(self) -> None:
        """Raise UsageError for options that exclude each other."""
        if self.prompts and self.prompts_file:
            raise UsageError("--prompt and --prompts-file exclude each other")


def write(generator: Generator, output: OutputOptions, options: dict[str, Any]) -> None:
    """Generate with the options of a request, and write to stdout."""
    arguments = {"echo": True, **options}
    prompts = read_prompts(output.prompts, output.prompts_file)
    with _line_named(prompts):
        if output.is_plain():
            stream = generator.stream(prompts[0][0], index=output.index or None, **arguments)
            report_seed(arguments, stream.seed)
            print_stream(stream)
        else:
            _write_whole(generator, output, prompts, arguments)


def write_text(text: str, number: int = 0) -> None:
    """Write a text to stdout; one of several below a line with its number, from 1, and an empty
    line.
    """
    heading = "\n" * (number > 1) + f"=== text {number} ===\n" if number else ""
    print_text(f"{heading}{text}\n")


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
    generations = generator.generate_many(
        [prompt for prompt, _ in prompts],
        n=output.n,
        distinct=output.distinct,
        index=output.index,
        batch_size=output.batch_size,
        **arguments,
    )
    for number, generation in enumerate(generations, 1):
        added = generation.text[len(generation.prompt) if generation.echo else 0 :]
        report = None if finder is None else finder.report(added, generation.prompt)
        if output.form == "jsonl":
            row = _as_row(generation)
            if generation.ranked:
                row["ranked"] = [attrs.asdict(each) for each in generation.ranked]
            row |= {} if report is None else {"novelty": attrs.asdict(report)}
            print_text(json.dumps(row, ensure_ascii=False) + "\n")
            continue
        if number == 1:
            report_seed(arguments, generation.seed)
        if output.form == "lines":
            print_text(" ".join(generation.text.splitlines()) + "\n")
        else:
            write_text(generation.text, number * output.is_several())
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


def _as_row(generation: Generation) -> dict[str, Any]:
    kept = ("prompt", "text", "finish_reason", "seed", "index")
    row = {name: getattr(generation, name) for name in kept}
    counts = {"prompt_tokens": len(generation.prompt_ids), "tokens": len(generation.tokens)}
    return {**row, **counts, "token_ids": generation.tokens}
