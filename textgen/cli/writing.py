"""What `textgen generate` writes, by which options it was given."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import click

from textgen.errors import UsageError
from textgen.generation import Generation, Generator


def write(
    generator: Generator,
    sampling: dict[str, Any],
    *,
    prompt: str | None,
    prompts_file: str | None,
    n: int,
    batch_size: int,
    as_stream: bool,
    form: str,
    logprobs: int | None,
    novelty: bool,
    save_state: str | None,
    load_state: str | None,
    **options: Any,
) -> None:
    """Generate as told and write to stdout."""
    arguments = {key: value for key, value in options.items() if value not in (None, ())} | sampling
    arguments["max_new_tokens"] = options["max_new_tokens"]
    single = {"--stream": as_stream, "--logprobs": logprobs is not None, "--save-state": save_state is not None}
    single |= {"--load-state": load_state is not None}
    asked = [name for name, given in single.items() if given]
    if asked and (n != 1 or prompts_file is not None):
        raise UsageError(f"{', '.join(asked)} works on one text; leave --n and --prompts-file out")
    if prompt is not None and prompts_file is not None:
        raise UsageError("--prompt and --prompts-file exclude each other")
    if prompt is None and prompts_file is None and load_state is None and sys.stdin.isatty() and sys.stdout.isatty():
        from textgen.cli.session import Session

        Session(generator, arguments).run()
        return
    if arguments["max_new_tokens"] is None and not asked:
        as_stream = True
    if as_stream:
        _stream(generator, prompt or "", load_state, save_state, form, arguments)
        return
    if asked:
        generations: Iterator[Generation] = iter(
            [_single(generator, prompt or "", logprobs, load_state, save_state, arguments)]
        )
    else:
        prompts = [prompt or ""] if prompts_file is None else _lines(prompts_file)
        generations = generator.generate_many(prompts, n=n, batch_size=batch_size, **arguments)
        if prompts_file is not None and sys.stderr.isatty():
            from tqdm.auto import tqdm

            generations = iter(tqdm(generations, file=sys.stderr, unit="text"))
    reporter = generator.copy_index() if novelty else None
    for generation in generations:
        report = reporter.report(generation.text.removeprefix(prompt or "")) if reporter else None
        click.echo(_as_json(generation, report) if form == "jsonl" else generation.text)
        if report is not None and form == "text":
            click.echo(report.describe(), err=True)


def _single(
    generator: Generator,
    prompt: str,
    logprobs: int | None,
    load_state: str | None,
    save_state: str | None,
    arguments: Any,
) -> Generation:
    from textgen.state import GenerationState

    state = GenerationState.load(load_state) if load_state is not None else None
    generation = generator.generate(
        prompt, logprobs=logprobs, state=state, keep_state=save_state is not None, **arguments
    )
    if save_state is not None and generation.state is not None:
        generation.state.save(save_state)
    return generation


def _stream(
    generator: Generator, prompt: str, load_state: str | None, save_state: str | None, form: str, arguments: Any
) -> None:
    from textgen.state import GenerationState

    if save_state is not None or form != "text":
        raise UsageError("--stream prints text as it comes; leave --save-state and --output out")
    state = GenerationState.load(load_state) if load_state is not None else None
    for piece in generator.stream(prompt, state=state, **arguments):
        click.echo(piece, nl=False)
        sys.stdout.flush()
    click.echo()


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
