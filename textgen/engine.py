"""The engine: runs a pipeline, from the corpus to generated text.

pipeline.toml -> Pipeline -> corpus -> tokenizer -> token array -> model <-> trainer
-> run directory -> generator -> text
"""

from __future__ import annotations

import base64
import contextlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final, TextIO

import attrs

from textgen import devices, display
from textgen.contracts.checks import read_pieces
from textgen.contracts.components import Components
from textgen.documents import CorpusPiece
from textgen.errors import Fault, Interrupted, RunError, UsageError
from textgen.files.opening import inside
from textgen.files.reading import read_bytes
from textgen.generation.generator import Generator
from textgen.generation.texts.request import check_cancelled
from textgen.generation.texts.results import Generations
from textgen.pipeline.pipeline import Pipeline
from textgen.pipeline.raw_pipeline import Overrides, RawPipeline
from textgen.plugin.component import BuildContext, ComponentSource
from textgen.plugin.config_reader import ConfigReader
from textgen.plugin.registry import PluginSet
from textgen.processes import Processes
from textgen.protocols import Corpus, Ids, Table, Tokenizer, Trainer
from textgen.runs.directory import RunDirectory, no_run, run_directory
from textgen.runs.execute import Execution, Outcome
from textgen.runs.loading import RunComponents, compare_loss, load_generator
from textgen.runs.outside import announce, fetched
from textgen.runs.record import finish_run, keep_changes, save_run
from textgen.runs.starting import Source, offered_run, resolve
from textgen.runs.stored import finite, read_metrics
from textgen.runs.training import AnyObserver


@attrs.frozen(kw_only=True)
class Run:
    """The result of a run. Notebooks display its best loss, loss curve and texts.

    path         the run directory; None for a run in memory
    outcome      "trained", "resumed" (from a checkpoint), "skipped" (the run was finished before),
                 or "interrupted" (a run in memory that was cancelled)
    best_loss    loss of the evaluation that the weights are from, in nats per token of the held-out
                 text, or of the training text if none is held out. It is the lowest one, unless the
                 objective chooses by a measure of its own
    history      rows of metrics.jsonl, one per evaluation
    generator    generates with the trained model
    generations  the texts that the `[generate]` table asks for
    """

    path: Path | None
    pipeline: Pipeline = attrs.field(repr=False)
    outcome: Outcome
    best_loss: float | None = attrs.field(repr=lambda loss: str(loss and round(loss, 4)))
    history: Sequence[Table] = attrs.field(repr=False)
    generator: Generator = attrs.field(repr=False)
    generations: Generations = attrs.field(default=Generations(), repr=False)
    _curve: bytes = attrs.field(default=b"", repr=False)

    def save(self, path: str | Path) -> None:
        """Write a run directory that `textgen.load` reads, without metrics and checkpoints.

        Raises RunError if the directory contains a run or other files.
        """
        save_run(self.generator, path)

    def _repr_html_(self) -> str:
        # As an image, in which nothing runs: the file may be a stranger's.
        curve = base64.b64encode(self._curve).decode()
        image = f'<img alt="losses by step" src="data:image/svg+xml;base64,{curve}"/>'
        shown = display.styled(f"<p>{escape(repr(self))}</p>{image if curve else ''}")
        return shown + (self.generations._repr_html_() if self.generations else "")


class Engine:
    """Runs pipelines with a set of plugins.

    An engine can be used from any thread, and shares nothing with other engines.
    `Engine(plugins)` uses a PluginSet, `Engine()` all installed plugins.
    """

    def __init__(self, plugins: ComponentSource | None = None) -> None:
        self._plugins = plugins

    def pipeline(
        self, source: Source, overrides: Overrides = (), *, output: str | Path | None = None
    ) -> Pipeline:
        """Read and check a pipeline.

        source     the path of a TOML file, or a mapping of the same shape, in which objects may
                   replace the tables of components, as in `train`
        overrides  `{"trainer.batch_size": 8}`, `{"trainer": {"batch_size": 8}}` or
                   `["trainer.batch_size=8"]`
        output     the run directory, in place of the pipeline's

        Raises PipelineError with all faults that were found.
        """
        return resolve(source, overrides, self.plugins(), output)

    def plugins(self) -> ComponentSource:
        """The plugins that this engine uses."""
        return PluginSet.discover() if self._plugins is None else self._plugins

    def run(
        self,
        source: Source,
        overrides: Overrides = (),
        *,
        output: str | Path | None = None,
        overwrite: bool = False,
        update: bool = False,
        console: TextIO | None = None,
        observers: Iterable[AnyObserver] = (),
        cancelled: Callable[[], bool] | None = None,
        processes: Processes | None = None,
    ) -> Run:
        """Train, resume or skip training, depending on the run directory; then generate.

        source, overrides, output   as in `pipeline`
        overwrite  train a new model. Until it is finished, `load` returns the old one, with a
                   warning
        update     if the text has changed since the run was finished, train its model further on
                   the new text, and replace it as `overwrite` does
        console    where progress is written; None for no progress
        observers  functions of an event, or objects with a method `observe(event)`. They are called
                   after the pipeline's observers. An exception in one of them ends the run
        cancelled  called after every step and while a large corpus is read. When it returns true,
                   the run writes a checkpoint and raises Interrupted
        processes  processes that train together; each of them makes this call within
                   `processes.joined()`. The first one writes the run directory, calls the
                   pipeline's observers and generates, and the others read the run directory

        A finished run is not trained again, only read, by any number of threads and processes at
        once. If its samplers, strategy, observers or `[generate]` table have changed, they are
        written to its pipeline.toml.

        Raises PipelineError; RunMismatchError if the directory has a run of another pipeline;
        RunLockedError; RunError; CorpusError; TrainingError; PluginError for a fault of a plugin;
        OSError if a file of the run cannot be written.
        """
        pipeline = self.pipeline(source, overrides, output=output)
        leads = processes is None or processes.leads
        console = console if leads else None
        if output is None:
            known = [pipeline.folder, Path.cwd() / "runs"]
            announce("writing", [pipeline.output], known, console)
        return _executed(
            pipeline,
            cancelled,
            overwrite=overwrite,
            update=update,
            console=console,
            observers=tuple(observers),
            processes=processes,
        )

    def train(
        self,
        *,
        corpus: str | Sequence[str] | Table | Corpus,
        tokenizer: str | Table | Tokenizer | None = None,
        model: Any,
        trainer: str | Table | Trainer,
        sampler: str | Table | Callable[..., Any] | Sequence[Any] = (),
        data: Table | None = None,
        generate: Table | None = None,
        seed: int = 0,
        device: str = "auto",
        threads: int | None = None,
        output: str | Path | None = None,
        overwrite: bool = False,
        console: TextIO | None = None,
        observers: Iterable[AnyObserver] = (),
        cancelled: Callable[[], bool] | None = None,
    ) -> Run:
        """Train a model on a text, in memory unless `output` names a run directory.

        `Run.save` writes a run in memory to a directory.

        corpus     a string, a list of documents, a table as in a pipeline, or an object that
                   follows textgen.protocols
        tokenizer, trainer   the name of a component, a table, or an object. The default tokenizer
                   has one token per character. A tokenizer that is fitted keeps its vocabulary
        sampler    a table, an object or a function of logits and history, or a list of these
        model      a table, such as `{"start": path}` to train the model of a run further with its
                   tokenizer; an object; a torch module with
                   `forward(tokens, state=None) -> (logits, state)`; or a function that makes such
                   a module from a BuildContext, which has the `vocab_size`. A module is trained in
                   place, and the generator gets a copy with the weights of the best evaluation
        data, generate   tables of the pipeline. Without `generate`, no text is generated
        cancelled  as in `run`; but without `output`, training that is cancelled returns a Run with
                   the outcome "interrupted", no generations, and the model as it is, or that of the
                   best evaluation if the loss has risen since. Before the first step, Interrupted
                   is raised

        The other arguments are keys of a pipeline, or those of `run`. Raises the errors of `run`.
        Objects are closed by the caller.
        """
        with tempfile.TemporaryDirectory(prefix="textgen-", ignore_cleanup_errors=True) as folder:
            if tokenizer is None and not (isinstance(model, Mapping) and "start" in model):
                offers = self.plugins().offers("tokenizer")
                tokenizer = next((o.canonical_name for o in offers if o.is_default), None)
            tables = {
                "corpus": corpus,
                "tokenizer": tokenizer,
                "model": model,
                "trainer": trainer,
                "sampler": sampler,
                "data": data,
                "generate": generate,
                "seed": seed,
                "device": device,
                "threads": threads,
            }
            tables = {key: value for key, value in tables.items() if value is not None}
            pipeline = self.pipeline(tables, output=output or Path(folder, "run"))
            return _executed(
                pipeline,
                cancelled,
                generates=generate is not None,
                is_kept=output is not None,
                overwrite=overwrite,
                console=console,
                observers=tuple(observers),
            )

    def load(
        self,
        path: str | Path,
        *,
        device: str = "auto",
        sampler: Any = None,
        model: Any = None,
        tokenizer: str | Table | Tokenizer | None = None,
        corpus: str | Sequence[str] | Table | Corpus | None = None,
    ) -> Generator:
        """Load the generator of a run directory.

        An unfinished run is loaded from a checkpoint (see `finish`), with a warning.

        path       the run directory, or the name of a run that a plugin offers
        device     "auto", "cpu", "cuda", "cuda:N" or "mps"
        sampler    replaces the sampler chain; as in `train`
        model, tokenizer   replace those of the run; as in `train`. They get its weights and its
                   vocabulary
        corpus     the text that the run was trained on, for `copy_finder`; as in `train`

        Raises RunError if there is no run or no checkpoint, CorruptFileError for a damaged file,
        PipelineError if the plugin of a component is missing, UsageError if an object is missing,
        DeviceError.
        """
        if device != "auto":  # also where the model has no use for one
            devices.resolve(device)
        given = {"sampler": sampler, "model": model, "tokenizer": tokenizer, "corpus": corpus}
        given = {kind: value for kind, value in given.items() if value is not None}
        plugins = self.plugins()
        directory = run_directory(path)
        found = None if directory.latest().exists() else offered_run(path, plugins)
        if isinstance(found, Path):
            directory = run_directory(found)
        elif isinstance(found, Fault):
            names = {offer.name for offer in plugins.offers("run")}
            raise no_run(directory.path, names - {path})
        run = found if isinstance(found, Mapping) else directory
        return load_generator(run, plugins, device=device, given=given, source=str(path))

    def finish(self, path: str | Path) -> bool:
        """Finish an unfinished run, without training it further.

        The newest checkpoint becomes the model, or the best one if the loss has risen since.

        Returns False for a run that is finished already. Raises RunError if there is no run or no
        checkpoint, RunLockedError while the run is trained, CorruptFileError for a damaged file.
        """
        return finish_run(run_directory(path))

    def build(self, kind: str, table: Table, context: BuildContext) -> Any:
        """Build a component from a table as in a pipeline.

        kind     such as "corpus" or "strategy", or a kind of a package, such as "metric"
        table    `type` and options; paths are relative to `context.folder`
        context  passed to the component's `build`

        The caller closes the component, if it has a method `close`. Raises PipelineError for a
        fault of the table, ContractError for a fault of the plugin.
        """
        context = attrs.evolve(context, plugins=self.plugins())
        choice = ConfigReader(context.folder, context.plugins, kind, kind).choice(kind, table)
        return RunComponents().build(choice, context)

    @contextlib.contextmanager
    def blaming(self, kind: str, name: str) -> Iterator[None]:
        """Turn exceptions in a block into a ContractError that names the component's plugin.

        Errors of textgen stay as they are. Packages with a kind of their own call the methods of
        its components in such blocks.

        kind  as for `build`
        name  the `type` in the component's table

        Raises UsageError if no plugin offers the component.
        """
        component = self.plugins().find(kind, name)
        if isinstance(component, Fault):
            raise UsageError(str(component), argument=kind)
        with Components().blaming(component):
            yield

    def read_corpus(self, table: Table) -> Iterator[CorpusPiece]:
        """Read the corpus of a `[corpus]` table: strings, with DOCUMENT_END after each document.

        Raises PipelineError and CorpusError.
        """
        context = BuildContext(folder=Path.cwd(), plugins=self.plugins())
        reader = ConfigReader(context.folder, context.plugins, "corpus", "corpus")
        choice = reader.choice("corpus", table)
        with Components() as components:
            yield from read_pieces(components.build(choice, context), choice.offer)


def _executed(
    pipeline: Pipeline,
    cancelled: Callable[[], bool] | None,
    *,
    processes: Processes | None = None,
    generates: bool = True,
    is_kept: bool = True,
    **options: Any,
) -> Run:
    """The run of a pipeline, trained if it has to be, with the texts that its `[generate]` table
    asks for. The other options are those of an Execution.

    is_kept  False for a run directory that will be removed
    """
    check_cancelled(cancelled)
    leads = processes is None or processes.leads
    directory = RunDirectory(pipeline.output)

    def is_cancelled() -> bool:
        if cancelled is not None and cancelled():
            return True
        return processes is not None and processes.is_orphaned()

    with contextlib.nullcontext() if processes is None else processes.in_turn():
        pipeline = fetched(pipeline, options["console"], overwrite=options["overwrite"])
    execution = Execution(pipeline, cancelled=is_cancelled, processes=processes, **options)
    outcome, held_out = _ensure_trained(execution, is_kept=is_kept)
    device = pipeline.device
    if processes is not None:
        processes.barrier()  # the others read what the first has written
        device = processes.device(devices.resolve(device))
    raw = RawPipeline(
        {**pipeline.tables(), "output": "."}, pipeline.name, pipeline.folder, pipeline.name
    )
    generator = load_generator(directory, pipeline.plugins, device=device, given={}, raw=raw)
    try:
        if held_out is not None:
            compare_loss(generator, pipeline.model.offer, held_out)
        if not is_kept:
            generator = attrs.evolve(generator, path=None)
        texts, table = Generations(), pipeline.generate
        if generates and leads and outcome != "interrupted":
            texts = Generations(
                generator.generate_many(
                    [table.prompt], n=table.n, distinct=table.distinct, **table.of_request()
                )
            )
        if outcome == "skipped" and leads:  # only now its new pipeline is recorded
            keep_changes(pipeline, directory, generator.record)
    except BaseException:
        generator.close()
        raise
    folder, curve = directory.latest().path, b""
    with contextlib.suppress(RunError):
        curve = read_bytes(inside(folder, "loss.svg"))
    return Run(
        path=directory.path if is_kept else None,
        pipeline=pipeline,
        outcome=outcome,
        best_loss=finite(generator.record.get("best_loss")),
        history=tuple(read_metrics(folder)),
        generator=generator,
        generations=texts,
        curve=curve,
    )


def _ensure_trained(execution: Execution, *, is_kept: bool) -> tuple[Outcome, Ids | None]:
    """As the execution does, but an interrupted training that nobody could resume is finished."""
    try:
        return execution.ensure_trained()
    except Interrupted as error:
        if is_kept:
            raise
        try:
            finish_run(execution.directory)
        except RunError:  # there is no model yet
            error.step = None
            raise error from None
        return "interrupted", None


_ENGINE: Final = Engine()  # of the installed plugins, which it looks for in each call
run, train, load = _ENGINE.run, _ENGINE.train, _ENGINE.load
