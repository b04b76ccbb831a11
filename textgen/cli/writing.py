"""What `textgen generate` writes, by which options it was given."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import click

from textgen.cli.options import check_folder
from textgen.errors import UsageError
from textgen.generation import Generation, Generator
from textgen.state import GenerationState


def write(generator: Generator, sampling: dict[str, Any], **options: Any) -> None:
    """Generate as the options of `textgen generate` say, and write to stdout."""
    how = How(**{field.name: options.pop(field.name) for field in attrs.fields(How)})
    how.check()
    arguments = {key: value for key, value in options.items() if value not in (None, ())} | sampling
    arguments["max_new_tokens"] = options["max_new_tokens"]
    if how.interactive():
        from textgen.cli.session import Session

        Session(generator, arguments).run()
    elif how.as_stream or (options["max_new_tokens"] is None and not how.alone()):
        _stream(generator, how, arguments)
    else:
        _all(generator, how, arguments)


@attrs.frozen
class How:
    """What is written, and in which form."""

    prompt: str | None
    prompts_file: str | None
    n: int
    batch_size: int
    as_stream: bool
    form: str
    logprobs: int | None
    novelty: bool
    save_state: str | None
    load_state: str | None

    def alone(self) -> list[str]:
        """The options given that work on one text."""
        given = {
            "--stream": self.as_stream,
            "--logprobs": self.logprobs is not None,
            "--save-state": self.save_state is not None,
            "--load-state": self.load_state is not None,
        }
        return [name for name, is_given in given.items() if is_given]

    def check(self) -> None:
        """Raise UsageError for options that exclude each other."""
        alone = self.alone()
        if alone and (self.n != 1 or self.prompts_file is not None):
            raise UsageError(f"{', '.join(alone)} works on one text; leave --n and --prompts-file out")
        if self.prompt is not None and self.prompts_file is not None:
            raise UsageError("--prompt and --prompts-file exclude each other")
        if self.as_stream and (self.save_state is not None or self.form != "text" or self.novelty):
            raise UsageError("--stream prints text as it comes; leave --save-state, --output and --novelty out")
        if self.logprobs is not None and self.form != "jsonl":
            raise UsageError("--logprobs goes with --output jsonl")
        check_folder(self.save_state)

    def interactive(self) -> bool:
        """Whether nothing says what to continue, and a person is there to ask."""
        asked = self.prompt is not None or self.prompts_file is not None or self.load_state is not None
        return not asked and sys.stdin.isatty() and sys.stdout.isatty()


def _all(generator: Generator, how: How, arguments: dict[str, Any]) -> None:
    """One text with all that can be known of it, or many in batches."""
    if how.alone():
        generations = iter([_single(generator, how, arguments)])
    else:
        prompts = [how.prompt or ""] if how.prompts_file is None else _lines(how.prompts_file)
        generations = generator.generate_many(prompts, n=how.n, batch_size=how.batch_size, **arguments)
        if how.prompts_file is not None and sys.stderr.isatty():
            from tqdm.auto import tqdm

            generations = iter(tqdm(generations, file=sys.stderr, unit="text"))
    index = generator.copy_index() if how.novelty else None
    for generation in generations:
        added = generation.text[len(generation.prompt) if generation.echo else 0 :]
        report = index.report(added) if index is not None else None
        click.echo(_as_json(generation, report) if how.form == "jsonl" else generation.text)
        if report is not None and how.form == "text":
            click.echo(report.describe(), err=True)


def _single(generator: Generator, how: How, arguments: dict[str, Any]) -> Generation:
    generation = generator.generate(
        how.prompt or "",
        logprobs=how.logprobs,
        state=_state(how),
        keep_state=how.save_state is not None,
        **arguments,
    )
    if how.save_state is not None and generation.state is not None:
        generation.state.save(how.save_state)
    return generation


def _stream(generator: Generator, how: How, arguments: dict[str, Any]) -> None:
    for piece in generator.stream(how.prompt or "", state=_state(how), **arguments):
        click.echo(piece, nl=False)
        sys.stdout.flush()
    click.echo()


def _state(how: How) -> GenerationState | None:
    return GenerationState.load(how.load_state) if how.load_state is not None else None


def _lines(path: str) -> Iterator[str]:
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    return iter(text.splitlines())


def _as_json(generation: Generation, report: Any) -> str:
    row = {
        "prompt": generation.prompt,
        "text": generation.text,
        "finish_reason": generation.finish_reason,
        "tokens": len(generation.tokens),
        "seed": generation.seed,
        "index": generation.index,
    }
    if generation.logprobs is not None:
        row["logprobs"] = [attrs.asdict(entry) for entry in generation.logprobs]
    if report is not None:
        row["novelty"] = attrs.asdict(report)
    return json.dumps(row, ensure_ascii=False)
