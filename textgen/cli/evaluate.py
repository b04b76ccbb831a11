"""textgen evaluate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import click

from textgen.cli.options import check_folder, device_option, json_option


@click.command("evaluate")
@click.argument("run", type=click.Path())
@click.argument("file", type=click.Path())
@click.option("--encoding", default="utf-8", show_default=True, help="How the file is encoded.")
@click.option("--html", "page", type=click.Path(), metavar="PAGE", help="Also write the text, coloured by surprise.")
@json_option
@device_option
@click.pass_obj
def command(settings: Any, run: str, file: str, encoding: str, page: str | None, as_json: bool, device: str) -> None:
    """Measure how well the model of a run directory predicts a text file."""
    from textgen.engine import Engine

    check_folder(page)
    engine = Engine(disable=settings.disable)
    generator = engine.load(run, device=device)
    corpus = {"type": "file", "path": file, "encoding": encoding}
    score = generator.score(engine.read_corpus(corpus))
    if page is not None:
        from textgen.rundir import write_atomic
        from textgen.surprise import surprise_page

        blocks = generator.score_tokens(engine.read_corpus(corpus))
        write_atomic(Path(page), surprise_page(blocks, generator.tokenizer, Path(file).name).encode())
    if as_json:
        click.echo(json.dumps(attrs.asdict(score)))
        return
    click.echo(f"loss                {score.loss:.4f} nats per token")
    click.echo(f"perplexity          {score.perplexity:.4f}")
    click.echo(f"bits per character  {score.bits_per_character:.4f}")
    click.echo(f"tokens              {score.tokens:,} ({score.unknown_tokens:,} outside the vocabulary)")
