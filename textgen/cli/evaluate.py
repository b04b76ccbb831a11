"""textgen evaluate."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from textgen.cli.options import check_folder, check_run, device_option, json_option
from textgen.errors import CorpusError, PipelineError, UsageError

if TYPE_CHECKING:
    from textgen.engine import Engine


@click.command("evaluate")
@click.argument("run", type=click.Path())
@click.argument("file", type=click.Path())
@click.option("--encoding", default="utf-8", show_default=True, help="How the file is encoded.")
@click.option("--html", "page", type=click.Path(), metavar="PAGE", help="Also write the text, coloured by surprise.")
@json_option
@device_option
@click.pass_obj
def command(settings: Any, run: str, file: str, encoding: str, page: str | None, as_json: bool, device: str) -> None:
    """Measure how well the model of a run predicts a text file.

    RUN is a run directory, such as runs/my; FILE is a text that the model was not trained on.
    """
    check_run(run, "evaluate")
    check_folder(page)
    from textgen.engine import Engine

    engine = Engine(disable=settings.disable)
    generator = engine.load(run, device=device, sampler=[])  # a score is the model's own
    pieces = partial(_read, engine, file, encoding)
    try:
        score = generator.score(_with_progress(pieces(), file, encoding))
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from error
    if page is not None:
        from textgen.files import write_atomic
        from textgen.surprise import surprise_page

        blocks = generator.score_tokens(pieces())
        write_atomic(Path(page), surprise_page(blocks, generator.tokenizer, Path(file).name, pieces()).encode())
    if as_json:
        click.echo(json.dumps(attrs.asdict(score)))
        return
    click.echo(f"loss                {score.loss:.4f} nats per token")
    click.echo(f"perplexity          {score.perplexity:.4f}")
    click.echo(f"bits per character  {score.bits_per_character:.4f}")
    click.echo(f"tokens              {score.tokens:,} ({score.unknown_tokens:,} outside the vocabulary)")


def _with_progress(pieces: Iterator[str], file: str, encoding: str) -> Iterator[str]:
    """The same pieces, with a bar on a terminal."""
    if not sys.stderr.isatty():
        yield from pieces
        return
    from tqdm.auto import tqdm

    size = Path(file).stat().st_size if Path(file).is_file() else None
    with tqdm(total=size, file=sys.stderr, unit="B", unit_scale=True, leave=False) as bar:
        for piece in pieces:
            yield piece
            bar.update(len(piece.encode(encoding, "replace")))


def _read(engine: Engine, file: str, encoding: str) -> Iterator[str]:
    """The text of a file in pieces, with errors that name the options of this command."""
    try:
        yield from engine.read_corpus({"type": "file", "path": file, "encoding": encoding})
    except PipelineError as error:
        faults = "; ".join(f"--encoding {fault.expected}, given {fault.given}" for fault in error.faults)
        raise UsageError(faults) from error
    except CorpusError as error:
        if not isinstance(error.__cause__, UnicodeDecodeError):
            raise
        where = str(error).rpartition(";")[0]
        raise CorpusError(f"{where}; say how it is encoded, as in --encoding cp1252", error.path) from error
