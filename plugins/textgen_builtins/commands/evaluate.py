"""textgen evaluate."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from textgen import Address, BuildContext, CorpusError, UsageError
from textgen.cli import (
    check_page,
    device_option,
    json_option,
    parse_value,
    write_page,
)
from textgen_builtins.commands import page

if TYPE_CHECKING:
    from textgen import Engine, Generator, TokenScores
    from textgen.documents import CorpusPiece


@click.command("evaluate")
@click.argument("run", type=click.Path())
@click.argument("file", type=click.Path())
@click.option(
    "--encoding", default="auto", show_default=True, help="Encoding of the file; auto detects it."
)
@click.option(
    "--documents",
    type=click.Choice(["none", "file", "line", "paragraph", "part", "jsonl"]),
    help="What a document of FILE is; by default, as in the run's corpus.",
)
@click.option("--field", metavar="NAME", help="Key of the text in JSON lines.")
@click.option(
    "--html",
    type=click.Path(),
    metavar="PAGE",
    help="Also write the text, coloured by surprise.",
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="TYPE",
    help="Also compute a metric of a plugin: a name or a table. May be given several times.",
)
@json_option
@device_option
@click.pass_obj
def evaluate(
    context: Any,
    /,
    run: str,
    file: str,
    html: str | None,
    metrics: tuple[str, ...],
    as_json: bool,
    device: str,
    **options: str | None,
) -> None:
    """Measure how well the model of a run predicts a text file.

    RUN is a run directory, such as runs/my; FILE is a text that the model was not trained on, a
    folder of texts, which are read one after the other, the address of a text, or - for stdin.
    """
    if file != "-" and not Address.matches(file) and not Path(file).exists():
        raise UsageError(f"{file} does not exist")
    from tqdm import tqdm

    from textgen import Engine, TextScore

    if html is not None:
        check_page(html)
    engine = Engine(context.plugins)
    name = "stdin" if file == "-" else file
    # Without samplers: a score is the model's own.
    with engine.load(run, device=device, sampler=[]) as generator, _readable(file) as path:
        corpus = generator.tables.get("corpus", {})
        own = corpus if corpus.get("type") == "file" else {}
        kept = ("documents", "field", *(["wrapped_at"] if options["documents"] is None else []))
        table = {key: own[key] for key in kept if key in own}
        table |= {key: value for key, value in options.items() if value is not None}
        built = _metrics(metrics, engine, generator)
        bar = tqdm(unit=" characters", unit_scale=True, leave=False, disable=None)
        try:
            with bar:
                read = partial(_read, engine, {"path": path, **table}, name, bar.update)
                blocks = _shown_to(built.values(), generator.score_tokens(read()))
                score = TextScore.from_tokens(blocks, generator.tokenizer)
                figures = {name: metric.value() for name, metric in built.items()}
        except UsageError as error:
            error.source = name
            raise
    if html is not None:
        write_page(html, page.page(Path(name).name, score._repr_html_() or ""))
    lower = " at least: the spelling of what is outside the vocabulary is not counted"
    lines = (
        f"loss                {score.loss:.4f} nats per token",
        f"perplexity          {score.perplexity:.4f}",
        f"bits per character  {score.bits_per_character:.4f}{lower * bool(score.unknown_tokens)}",
        f"tokens              {score.tokens:,} ({score.unknown_tokens:,} outside the vocabulary)",
        *(f"{metric:<18}  {figure:.4f}" for metric, figure in figures.items()),
    )
    found = attrs.asdict(score) | ({"metrics": figures} if metrics else {})
    click.echo(json.dumps(found) if as_json else "\n".join(lines))


@attrs.frozen
class _Metric:
    """A metric of a plugin, which is blamed for what fails in it.

    component  its `type`
    made       what its plugin built
    """

    component: str
    made: Any
    engine: Engine

    @classmethod
    def build(cls, given: str, engine: Engine, generator: Generator) -> _Metric:
        """The metric of a name, or of a table in TOML."""
        value = parse_value("--metric", Any, given)
        table = {"type": value} if isinstance(value, str) else value
        context = BuildContext(folder=Path.cwd(), tokenizer=generator.tokenizer)
        made = engine.build("metric", table, context)
        return cls(table["type"], made, engine)

    def add(self, scores: TokenScores) -> None:
        """Show it a block of the text."""
        with self.engine.blaming("metric", self.component):
            self.made.add(scores)

    def value(self) -> float:
        """The figure, once the text is over."""
        with self.engine.blaming("metric", self.component):
            return float(self.made.value())


def _metrics(tables: Iterable[str], engine: Engine, generator: Generator) -> dict[str, _Metric]:
    """Metrics by the names of their figures: their types; of a second one of a type, its table."""
    built: dict[str, _Metric] = {}
    for table in tables:
        metric = _Metric.build(table, engine, generator)
        built[table if metric.component in built else metric.component] = metric
    return built


def _shown_to(metrics: Iterable[_Metric], blocks: Iterable[TokenScores]) -> Iterator[TokenScores]:
    """Blocks of scores, each of which all metrics see."""
    for block in blocks:
        for metric in metrics:
            metric.add(block)
        yield block


@contextlib.contextmanager
def _readable(file: str) -> Iterator[str]:
    """A file, folder or address itself; of stdin or a pipe, a copy, since its encoding is found out
    first.
    """
    if file != "-" and not Path(file).is_fifo():
        yield file
        return
    with tempfile.TemporaryDirectory(prefix="textgen-", ignore_cleanup_errors=True) as folder:
        copy = Path(folder, "text")
        with copy.open("wb") as written, click.open_file(file, "rb") as read:
            shutil.copyfileobj(read, written)
        yield str(copy)


def _read(
    engine: Engine, table: Mapping[str, str], name: str, progress: Callable[[int], Any]
) -> Iterator[CorpusPiece]:
    """The text of a corpus table in pieces, with errors that name what was given. `progress` gets
    the number of characters of each piece.
    """
    try:
        for piece in engine.read_corpus({"type": "file", **table}):
            yield piece
            progress(len(piece) if isinstance(piece, str) else 0)
    except CorpusError as error:
        if error.path == Path(table["path"]):  # of stdin, that is the copy
            error.path = Path(name)
        raise
