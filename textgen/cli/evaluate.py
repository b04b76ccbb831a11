"""textgen evaluate."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from textgen.cli.options import check_output, check_run, device_option, json_option, write_output
from textgen.cli.terminal import print_text
from textgen.errors import CorpusError, PipelineError, UsageError
from textgen.plugin.component import Address

if TYPE_CHECKING:
    from textgen.documents import CorpusPiece
    from textgen.engine import Engine


class _TextPath(click.Path):
    """A path, or a web address."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if Address.matches(value) else super().convert(value, param, ctx)


@click.command("evaluate")
@click.argument("run", type=click.Path())
@click.argument("file", type=_TextPath(exists=True, allow_dash=True))
@click.option(
    "--encoding", default="auto", show_default=True, help="How the file is encoded; auto finds out."
)
@click.option(
    "--documents",
    type=click.Choice(["none", "file", "line", "jsonl"]),
    help="What a document of FILE is; that of the run's own corpus if not given.",
)
@click.option("--field", metavar="NAME", help="Key of the text in JSON lines.")
@click.option(
    "--html",
    "page",
    type=click.Path(),
    metavar="PAGE",
    help="Also write the text, coloured by surprise; - writes it to stdout, and the numbers to stderr.",
)
@json_option
@device_option
@click.pass_obj
def command(
    context: Any,
    /,
    run: str,
    file: str,
    page: str | None,
    as_json: bool,
    device: str,
    **options: str | None,
) -> None:
    """Measure how well the model of a run predicts a text file.

    RUN is a run directory, such as runs/my; FILE is a text that the model was not trained on, a folder of texts, which
    are read one after the other, the address of a text, or - for stdin.
    """
    check_run(run)
    _check(file, page)
    from textgen.engine import Engine

    engine = Engine(context.plugins())
    name = "stdin" if file == "-" else file
    # Without samplers: a score is the model's own.
    with engine.load(run, device=device, sampler=[]) as generator, _readable_twice(file) as path:
        pieces = partial(_read, engine, path, name, _reading(generator.tables["corpus"], options))
        try:
            score = generator.score(_with_progress(pieces(), path))
        except UsageError as error:
            error.source = name
            raise
        if page is not None:
            from textgen.tools.surprise import surprise_page

            blocks = generator.score_tokens(pieces())
            html = surprise_page(blocks, generator.tokenizer, Path(name).name, pieces())
            if page == "-":
                print_text(html)
            else:
                write_output(page, html)
    bound = (
        " at least: the spelling of what is outside the vocabulary is not counted"
        if score.unknown_tokens
        else ""
    )
    lines = (
        f"loss                {score.loss:.4f} nats per token",
        f"perplexity          {score.perplexity:.4f}",
        f"bits per character  {score.bits_per_character:.4f}{bound}",
        f"tokens              {score.tokens:,} ({score.unknown_tokens:,} outside the vocabulary)",
    )
    click.echo(json.dumps(attrs.asdict(score)) if as_json else "\n".join(lines), err=page == "-")


def _check(file: str, page: str | None) -> None:
    """Raise UsageError for a text that cannot be read, and for a page that would take the place of something else."""
    if file == "-" and sys.stdin is None:  # it was closed before the process began
        raise UsageError("- reads stdin, which is closed")
    if page in (None, "-"):
        return
    from textgen.tools.surprise import is_page

    check_output("--html", page, "page of textgen evaluate", is_page)
    if Path(file).exists() and Path(page).exists() and Path(page).samefile(file):
        raise UsageError(f"--html {page} is the text itself; give another name")


@contextlib.contextmanager
def _readable_twice(file: str) -> Iterator[str]:
    """A file, folder or address itself; of stdin or a pipe, a copy, since a page reads the text again."""
    if Address.matches(file) or (file != "-" and (Path(file).is_file() or Path(file).is_dir())):
        yield file
        return
    if file != "-" and (Path(file).is_char_device() or Path(file).is_block_device()):
        raise UsageError(f"{file} is a device, which may have no end; give a file, or - for stdin")
    with tempfile.TemporaryDirectory(prefix="textgen-", ignore_cleanup_errors=True) as folder:
        with (
            Path(folder, "stdin" if file == "-" else "text").open("wb") as copy,
            click.open_file(file, "rb") as read,
        ):
            shutil.copyfileobj(read, copy)
        yield copy.name


def _reading(corpus: Mapping[str, Any], options: Mapping[str, str | None]) -> dict[str, str]:
    """How to read the text: documents as in the run's corpus, if that is of files, and as the options say."""
    own = {
        key: corpus[key]
        for key in ("documents", "field")
        if corpus["type"] == "file" and key in corpus
    }
    return own | {key: value for key, value in options.items() if value is not None}


def _with_progress(pieces: Iterator[CorpusPiece], file: str) -> Iterator[CorpusPiece]:
    """The same pieces, with a bar on a terminal."""
    from tqdm import tqdm

    size = Path(file).stat().st_size if Path(file).is_file() else None
    hidden = not sys.stderr.isatty()
    with tqdm(
        total=size, file=sys.stderr, unit="B", unit_scale=True, leave=False, disable=hidden
    ) as bar:
        for piece in pieces:
            yield piece
            if isinstance(piece, str):
                bar.update(len(piece.encode("utf-8", "replace")))


def _read(
    engine: Engine, path: str, name: str, options: Mapping[str, str]
) -> Iterator[CorpusPiece]:
    """The text at a path in pieces, with errors that name what was given and the options of this command."""
    try:
        yield from engine.read_corpus({"type": "file", "path": path, **options})
    except PipelineError as error:
        faults = [
            attrs.evolve(fault, path=fault.path.removeprefix("corpus.")) for fault in error.faults
        ]
        raise UsageError(faults=faults) from error
    except CorpusError as error:
        if error.path == Path(path):  # of stdin, that is the copy
            error.path = Path(name)
        raise
