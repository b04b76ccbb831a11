"""Writes the texts of `textgen generate` and `textgen run` to stdout: as they come, whole, or as
JSON lines.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import attrs
import click

from textgen.cli.terminal import print_text
from textgen.documents import end_id
from textgen.generation.generator import Generator
from textgen.generation.scheduling.streams import TextStream
from textgen.generation.texts.results import Generation
from textgen.pipeline.raw_pipeline import inline_toml
from textgen.plugin.configured import plain


def write_stream(generator: Generator, prompt: str, **options: Any) -> TextStream:
    """Write one text as it comes."""
    stream = generator.stream(prompt, **options)
    _report_seed(options, stream.seed)
    for piece in stream:
        print_text(piece)
    print_text("\n")
    return stream


def write_text(text: str, number: int = 0) -> None:
    """Write a text to stdout; one of several below a line with its number, from 1, and an empty
    line.
    """
    if number > 1:
        print_text("\n")
    if number:
        print_text(f"=== text {number} ===\n")
    print_text(f"{text}\n")


def write_texts(
    generator: Generator, prompts: list[str], *, form: str, novelty: bool, **options: Any
) -> None:
    """Write each text when it is whole, with all that can be known of it."""
    is_distinct = options["distinct"] and end_id(generator.tokenizer) is not None
    if "corpus" in generator.tables and (novelty or is_distinct):
        # The run, and so the corpus that is read, may be a stranger's.
        corpus = inline_toml(plain(generator.tables["corpus"]))
        click.echo(f"{'novelty' if novelty else 'distinct'}: reading the corpus {corpus}", err=True)
    finder = generator.copy_finder() if novelty else None
    is_several = options["n"] != 1 or len(prompts) > 1
    for number, generation in enumerate(generator.generate_many(prompts, **options), 1):
        added = generation.text[len(generation.prompt) if generation.echo else 0 :]
        report = None if finder is None else finder.report(added, generation.prompt)
        if form == "jsonl":
            row = _as_row(generation)
            row |= {} if report is None else {"novelty": attrs.asdict(report)}
            print_text(json.dumps(row, ensure_ascii=False) + "\n")
            continue
        if number == 1:
            _report_seed(options, generation.seed)
        if form == "lines":
            print_text(" ".join(generation.text.splitlines()) + "\n")
        else:
            write_text(generation.text, number if is_several else 0)
        if report is not None:
            click.echo(report.describe(), err=True)


def _report_seed(options: Mapping[str, Any], seed: int) -> None:
    """Say on stderr which seed was drawn, where one was."""
    if options.get("seed") == "random":
        click.echo(f"seed {seed}", err=True)


def _as_row(generation: Generation) -> dict[str, Any]:
    kept = ("prompt", "text", "finish_reason", "seed", "index")
    row = {name: getattr(generation, name) for name in kept}
    row |= {"prompt_tokens": len(generation.prompt_ids), "tokens": len(generation.tokens)}
    if generation.ranked:
        row["ranked"] = [attrs.asdict(each) for each in generation.ranked]
    return {**row, "token_ids": generation.tokens}
