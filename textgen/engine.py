"""The engine: the flow of a run, from a pipeline to text.

pipeline.toml -> Pipeline -> corpus -> tokenizer -> token array -> model <-> trainer
-> run directory -> generator -> text
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO, TypeAlias

import attrs

from textgen import devices
from textgen.contracts import checks
from textgen.contracts.guards import read_pieces
from textgen.contracts.lifetime import Components
from textgen.documents import CorpusPiece
from textgen.errors import UsageError
from textgen.generation.arguments import Event
from textgen.generation.generator import Generator
from textgen.generation.results import Generation
from textgen.pipeline.document import Overrides, read_document
from textgen.pipeline.pipeline import Pipeline, make_choice, make_pipeline
from textgen.pipeline.structure import Reader
from textgen.plugin.component import BuildContext, ComponentSource
from textgen.plugin.registry import PluginSet
from textgen.protocols import Observer
from textgen.runs.directory import RunDirectory
from textgen.runs.execute import Execution, Outcome, generate
from textgen.runs.loading import load_generator

Source: TypeAlias = str | Path | Mapping[str, Any] | Pipeline


@attrs.frozen(kw_only=True)
class Run:
    """A finished run.

    path         its run directory
    outcome      "trained", "resumed" (trained on from a checkpoint) or "skipped" (it was finished already)
    generations  what the pipeline's `[generate]` table asked for
    """

    path: Path
    pipeline: Pipeline = attrs.field(repr=False)
    outcome: Outcome
    generator: Generator = attrs.field(repr=False)
    generations: tuple[Generation, ...] = attrs.field(repr=lambda texts: f"<{len(texts)} texts>")


class Engine:
    """Runs pipelines with one set of plugins. Engines share nothing, and any thread may use one.

    Without `plugins`, all installed ones are discovered. Those that `disable` or the pipeline names take no part.
    """

    def __init__(self, plugins: ComponentSource | None = None, *, disable: Iterable[str] = ()) -> None:
        self._plugins = plugins
        self._disable = frozenset(disable)

    def pipeline(self, source: Source, overrides: Overrides = ()) -> Pipeline:
        """Check a pipeline: a TOML file's path, or a mapping of the same shape. Raises PipelineError.

        `overrides` are as `{"trainer.epochs": 5}`, `{"trainer": {"epochs": 5}}` or `["trainer.epochs=5"]`.
        """
        if isinstance(source, Pipeline):
            if list(overrides):
                raise UsageError("a checked Pipeline takes none; give what it was made from", argument="overrides")
            return source
        document = read_document(source, overrides)
        return make_pipeline(document, self.plugins(document.disabled_plugins()))

    def plugins(self, disable: Iterable[str] = ()) -> ComponentSource:
        """The plugins this engine uses, less those of the given names."""
        names = self._disable | set(disable)
        if self._plugins is not None:
            return self._plugins.without(names) if names else self._plugins
        return PluginSet.discover(disable=names)

    def run(
        self,
        source: Source,
        overrides: Overrides = (),
        *,
        output: str | Path | None = None,
        overwrite: bool = False,
        console: TextIO | None = None,
        observers: Iterable[Observer] = (),
        cancelled: Callable[[], bool] | Event = lambda: False,
    ) -> Run:
        """Train, resume or skip, as the run directory stands; then generate.

        overrides  as `pipeline` takes them
        output     the run directory, in place of the pipeline's
        overwrite  train anew. A finished run that is there stays, and is what `load` gives with a warning, until the
                   new one is finished
        console    where progress may be written; without it, silence
        observers  beside the pipeline's own, told after them. What they raise ends the run
        cancelled  a function that is asked after every step, or an event such as threading.Event; once true, the run
                   stops after a checkpoint and raises Interrupted

        A finished run that is skipped is only read, so any number of threads and processes may do so at once.
        """
        observers, stop = _checked(observers, cancelled)
        pipeline = self.pipeline(source, overrides)
        if output is not None:
            pipeline = attrs.evolve(pipeline, output=Path(output).absolute())
        directory = RunDirectory(pipeline.output)
        outcome = Execution(pipeline, directory, overwrite, console, observers, stop).ensure_trained()
        samplers = [choice.table() for choice in pipeline.samplers]
        with contextlib.ExitStack() as stack:
            generator = load_generator(directory, lambda _: pipeline.plugins, device=pipeline.device, samplers=samplers)
            stack.enter_context(generator)
            generations = tuple(generate(pipeline, generator))
            stack.pop_all()
        return Run(
            path=directory.path, pipeline=pipeline, outcome=outcome, generator=generator, generations=generations
        )

    def load(
        self, path: str | Path, *, device: str = "auto", sampler: Sequence[Mapping[str, Any]] | None = None
    ) -> Generator:
        """The generator of a finished run directory.

        sampler  a list of tables as `[[sampler]]` has them, in place of the run's own chain

        Raises RunError when there is no finished run, CorruptFileError when a file is not what the run wrote, and
        PipelineError when a component's plugin is missing.
        """
        devices.check_name(device)
        if not isinstance(sampler, list | tuple | None):
            raise UsageError("expected a list of tables", argument="sampler", value=sampler)
        return load_generator(RunDirectory(Path(path).absolute()), self.plugins, device=device, samplers=sampler)

    def build(self, kind: str, table: Mapping[str, Any], context: BuildContext) -> Any:
        """A component from its table, as a pipeline holds it; for programs, and components, made of others.

        kind     "corpus", "tokenizer", "model", "trainer", "sampler" or "observer"
        table    `type` and options; paths are relative to `context.folder`
        context  what the component is told

        The caller closes it, where it has a method `close`. Raises PipelineError for a table that is wrong,
        ContractError where the plugin is.
        """
        return checks.build(make_choice(kind, table, Reader(context.folder, self.plugins()), source=kind), context)

    def read_corpus(self, table: Mapping[str, Any]) -> Iterator[CorpusPiece]:
        """The pieces of a corpus given as a `[corpus]` table: text, and DOCUMENT_END where documents are marked.

        Raises PipelineError and CorpusError.
        """
        plugins = self.plugins()
        choice = make_choice("corpus", table, Reader(Path.cwd(), plugins), source="corpus")
        components = Components()
        corpus = components.build(choice, BuildContext(folder=Path.cwd(), plugins=plugins))

        def pieces() -> Iterator[CorpusPiece]:
            with components:
                yield from read_pieces(corpus, choice.offer)

        return pieces()


def _checked(
    observers: Iterable[Observer], cancelled: Callable[[], bool] | Event
) -> tuple[tuple[Observer, ...], Callable[[], bool]]:
    """Arguments of `run` that would fail only in the middle of it."""
    observers = tuple(observers)
    for observer in observers:
        if not callable(getattr(observer, "observe", None)):
            raise UsageError("expected objects with a method observe(event)", argument="observers", value=observer)
    stop = getattr(cancelled, "is_set", cancelled)
    if not callable(stop):
        raise UsageError("expected a function or an event", argument="cancelled", value=cancelled)
    return observers, stop


def run(
    source: Source,
    overrides: Overrides = (),
    *,
    output: str | Path | None = None,
    overwrite: bool = False,
    observers: Iterable[Observer] = (),
    cancelled: Callable[[], bool] | Event = lambda: False,
) -> Run:
    """Run a pipeline with the installed plugins, silently: `Engine().run`, whose arguments it takes."""
    return Engine().run(source, overrides, output=output, overwrite=overwrite, observers=observers, cancelled=cancelled)


def load(path: str | Path, *, device: str = "auto", sampler: Sequence[Mapping[str, Any]] | None = None) -> Generator:
    """The generator of a finished run directory: `Engine().load`, whose arguments it takes."""
    return Engine().load(path, device=device, sampler=sampler)
