"""The engine: the flow of a run, from a pipeline to text.

pipeline.toml -> Pipeline -> corpus -> tokenizer -> token array -> model <-> trainer
-> run directory -> generator -> text
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, TextIO, TypeAlias

import attrs

from textgen import devices
from textgen.contracts import checks
from textgen.contracts.guards import changed_text, read_pieces
from textgen.data import Dataset
from textgen.errors import CorpusError, CorruptFileError, UsageError
from textgen.events import RunSkipped
from textgen.generation.arguments import Event
from textgen.generation.generator import Generator
from textgen.generation.results import Generation
from textgen.pipeline.document import Overrides, read_document
from textgen.pipeline.pipeline import Pipeline, make_choice, make_pipeline
from textgen.plugin.component import BuildContext, ComponentSource
from textgen.plugin.registry import PluginSet
from textgen.protocols import Corpus, Observer, Tokenizer, TrainingContext
from textgen.runs import record as run_record
from textgen.runs.corpus import CorpusDigest, CorpusHasher, encode_corpus, split_tokens
from textgen.runs.directory import Checkpoint, RunDirectory
from textgen.runs.loading import load_generator, load_weights, make_generator
from textgen.runs.run_texts import check_generation, generate, sample_with
from textgen.runs.training import Progress, TrainingLoop, Watcher

logger = logging.getLogger("textgen")
_TOKENS: Final = "tokens.bin"

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
    outcome: Literal["trained", "resumed", "skipped"]
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
        observers  beside the pipeline's own, and told of a run that is skipped. What they raise ends the run
        cancelled  a function that is asked after every step, or an event such as threading.Event; once true, the run
                   stops after a checkpoint and raises Interrupted

        A finished run that is skipped is only read, so any number of threads and processes may do so at once.
        """
        observers, stop = _checked(observers, cancelled)
        pipeline = self.pipeline(source, overrides)
        if output is not None:
            pipeline = attrs.evolve(pipeline, output=Path(output).absolute())
        if pipeline.device != "auto":
            devices.resolve(pipeline.device)  # a missing device is an error before any work
        directory = RunDirectory(pipeline.output)
        bring = partial(_bring_to_finished, pipeline, directory, overwrite, console, observers, stop)
        if not overwrite and directory.is_settled() and run_record.is_written(pipeline, directory):
            outcome = bring()
        else:
            made = directory.prepare(described=run_record.is_written(pipeline, directory))
            try:
                with directory.locked(), devices.threads(pipeline.threads):
                    directory.sweep()
                    outcome = bring()
            except BaseException:
                directory.abandon(made)
                raise
        samplers = [choice.table() for choice in pipeline.samplers]
        generator = load_generator(directory, lambda _: pipeline.plugins, device=pipeline.device, samplers=samplers)
        return Run(
            path=directory.path,
            pipeline=pipeline,
            outcome=outcome,
            generator=generator,
            generations=tuple(generate(pipeline, generator)),
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

        Raises PipelineError for a table that is wrong, ContractError where the plugin is.
        """
        return checks.build(make_choice(kind, table, self.plugins(), context.folder, source=kind), context)

    def read_corpus(self, table: Mapping[str, Any]) -> Iterator[str]:
        """The text of a corpus given as a `[corpus]` table, piece by piece. Raises PipelineError and CorpusError."""
        plugins = self.plugins()
        choice = make_choice("corpus", table, plugins, Path.cwd(), source="corpus")
        return read_pieces(checks.build(choice, BuildContext(folder=Path.cwd(), plugins=plugins)), choice.offer)


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


def _bring_to_finished(
    pipeline: Pipeline,
    directory: RunDirectory,
    overwrite: bool,
    console: TextIO | None,
    observers: Iterable[Observer],
    cancelled: Callable[[], bool],
) -> Literal["trained", "resumed", "skipped"]:
    """Train from the start, from a checkpoint or not at all, as the run directory stands."""
    record = directory.read_run() if directory.exists() and not overwrite else None
    if record is not None and record["status"] != "finished" and not directory.checkpoint_steps():
        record = None  # it failed before there was anything to keep
    run_record.compare(directory, record, run_record.fingerprint(pipeline))
    context = BuildContext(
        folder=pipeline.folder,
        requested_device=pipeline.device,
        seed=pipeline.seed,
        directory=directory.path,
        console=console,
        plugins=pipeline.plugins,
    )
    corpus = checks.build(pipeline.corpus, context)
    tokenizer = checks.build(pipeline.tokenizer, context)
    digest = _fit(corpus, tokenizer, pipeline)
    run_record.compare(directory, record, run_record.fingerprint(pipeline, digest))
    context = attrs.evolve(context, tokenizer=tokenizer)
    check_generation(pipeline, context)
    if record is not None and record["status"] == "finished":
        if not run_record.is_written(pipeline, directory):  # samplers and the like have changed
            run_record.write_pipeline(pipeline, directory)
        for observer in observers:
            observer.observe(RunSkipped(path=directory.path, step=record["step"]))
        return "skipped"
    with _encoded(corpus, tokenizer, pipeline, digest, directory) as data:
        if overwrite:  # only now that nothing is left that could refuse the new run
            directory.clear(spare=directory.path / _TOKENS)
        checkpoint = _last_checkpoint(directory) if record is not None else None
        run_record.write_pipeline(pipeline, directory)  # first of all: a component may look up what the run is
        loop = _training_loop(pipeline, directory, context, data, checkpoint, observers, cancelled)
        _train(pipeline, digest, context, directory, loop)
    return "trained" if checkpoint is None else "resumed"


def _fit(corpus: Corpus, tokenizer: Tokenizer, pipeline: Pipeline) -> CorpusDigest:
    """Fit the tokenizer, and compute the digest of the text on the way."""
    hasher = CorpusHasher()
    beginning: list[str] = []

    def noted() -> Iterator[str]:
        for piece in hasher.update(read_pieces(corpus, pipeline.corpus.offer)):
            if not beginning and piece:
                beginning.append(piece)
            yield piece

    pieces = noted()
    tokenizer.fit(pieces)
    for _ in pieces:  # what a tokenizer that needs no fitting has left unread counts too
        pass
    digest = hasher.digest()
    if not digest.characters:
        raise CorpusError("the corpus is empty: it has 0 characters, and training needs at least a window of text")
    checks.check_tokenizer(tokenizer, pipeline.tokenizer.offer, beginning[0])
    return digest


@contextlib.contextmanager
def _encoded(
    corpus: Corpus, tokenizer: Tokenizer, pipeline: Pipeline, digest: CorpusDigest, directory: RunDirectory
) -> Iterator[Dataset]:
    """The corpus as tokens in a file, mapped into memory, for as long as training needs it."""
    path = directory.path / _TOKENS
    try:
        hasher = CorpusHasher()
        tokens = encode_corpus(hasher.update(read_pieces(corpus, pipeline.corpus.offer)), tokenizer, path)
        if hasher.digest() != digest:
            raise CorpusError(changed_text(pipeline.corpus.offer))
        yield split_tokens(tokens, pipeline.data, tokenizer)
    finally:
        with contextlib.suppress(PermissionError):  # Windows keeps what is still mapped; the next run sweeps it
            path.unlink(missing_ok=True)


def _train(
    pipeline: Pipeline, digest: CorpusDigest, context: BuildContext, directory: RunDirectory, loop: TrainingLoop
) -> None:
    """Train to the end and publish the model."""
    assert context.tokenizer is not None
    record = run_record.begin(pipeline, directory, digest, context.tokenizer, loop.data, loop.context.device)
    try:
        loop.run()
    except BaseException:
        directory.write_run({**record, "status": "unfinished", "step": loop.progress.step})
        raise
    run_record.finish(directory, record, loop.progress)


def _training_loop(
    pipeline: Pipeline,
    directory: RunDirectory,
    context: BuildContext,
    data: Dataset,
    checkpoint: Checkpoint | None,
    observers: Iterable[Observer],
    cancelled: Callable[[], bool],
) -> TrainingLoop:
    """Model and trainer, where the checkpoint left them, and who watches."""
    model = checks.build(pipeline.model, context)
    trainer = checks.build(pipeline.trainer, context)
    if checkpoint is not None:
        load_weights(model, pipeline.model, checkpoint.tensors)
        trainer.load_state(checkpoint.trainer)
    generator = make_generator(pipeline.samplers, pipeline.model, model, attrs.evolve(context, training=False))
    generator.chain.try_on(model)  # what cannot generate is found before training, and not by its first sample
    # Without torch nothing computes on a GPU, and asking which there are would load it.
    device = context.device if "torch" in sys.modules or pipeline.device != "auto" else "cpu"
    own = [Watcher(checks.build(choice, context), choice.offer) for choice in pipeline.observers]
    return TrainingLoop(
        directory=directory,
        model=model,
        trainer=trainer,
        blame=(pipeline.trainer.offer, pipeline.model.offer),
        data=data,
        context=TrainingContext(seed=pipeline.seed, device=device),
        watchers=[*own, *(Watcher(observer, None) for observer in observers)],
        progress=Progress(**checkpoint.progress) if checkpoint is not None else Progress(),
        checkpoint_seconds=pipeline.checkpoint.seconds,
        cancelled=cancelled,
        sample=sample_with(generator),
    )


def _last_checkpoint(directory: RunDirectory) -> Checkpoint | None:
    """The newest checkpoint that is whole; None where none was written. Raises when all of them are damaged."""
    error = None
    for step in reversed(directory.checkpoint_steps()):
        try:
            return directory.read_checkpoint(step)
        except CorruptFileError as damaged:
            error = error or damaged
            logger.warning("checkpoint of step %d is damaged (%s); trying the one before", step, damaged)
    if error is not None:
        cause = f"no checkpoint of this run is intact (the newest: {error})"
        raise CorruptFileError(error.path, cause, expected=error.expected, actual=error.actual, remedy="overwrite")
    return None


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
