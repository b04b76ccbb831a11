"""The engine: the flow of a run, from a pipeline to text.

pipeline.toml -> Pipeline -> corpus -> tokenizer -> token array -> model <-> trainer
-> run directory -> generator -> text
"""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TextIO, TypeAlias

import attrs
import numpy as np
import tomli_w

from textgen import contracts, devices
from textgen.component import BuildContext
from textgen.config import (
    Choice,
    DecodingOptions,
    Pipeline,
    make_choice,
    make_pipeline,
    standard_sampler,
)
from textgen.data import Dataset, Survey, Surveyor, encode_corpus, split_tokens
from textgen.document import read_document
from textgen.errors import CorpusError, CorruptFileError, RunError, RunMismatchError
from textgen.events import RunStarted
from textgen.generation import Generation, Generator
from textgen.plugins import PluginSet
from textgen.protocols import Corpus, Ids, Observer, Tokenizer, TrainingContext
from textgen.rundir import Checkpoint, RunDirectory, dump_tensors, load_tensors, read_json, write_json
from textgen.sampling import Chain
from textgen.training import Progress, TrainingLoop

logger = logging.getLogger("textgen")

Source: TypeAlias = str | Path | Mapping[str, Any] | Pipeline


@attrs.frozen(kw_only=True)
class Run:
    """A finished run.

    path         its run directory
    outcome      "trained", "resumed" (trained on from a checkpoint) or "skipped" (it was finished already)
    generations  what the pipeline's `[generate]` table asked for
    """

    path: Path
    pipeline: Pipeline
    outcome: Literal["trained", "resumed", "skipped"]
    generator: Generator
    generations: tuple[Generation, ...]


class Engine:
    """Runs pipelines with one set of plugins. Engines share nothing, and any thread may use one.

    Without `plugins`, all installed ones are discovered, less those that `disable` or the pipeline names.
    """

    def __init__(self, plugins: PluginSet | None = None, *, disable: Iterable[str] = ()) -> None:
        self._plugins = plugins
        self._disable = frozenset(disable)

    def pipeline(self, source: Source, overrides: Iterable[str] = ()) -> Pipeline:
        """Check a pipeline: a TOML file's path, or a mapping of the same shape. Raises PipelineError."""
        if isinstance(source, Pipeline):
            return source
        document = read_document(source, overrides)
        return make_pipeline(document, self.plugins(document.disabled_plugins()))

    def plugins(self, disable: Iterable[str] = ()) -> PluginSet:
        """The plugins this engine uses, less those of the given names."""
        if self._plugins is not None:
            return self._plugins
        return PluginSet.discover(disable=self._disable | set(disable))

    def run(
        self,
        source: Source,
        overrides: Iterable[str] = (),
        *,
        output: str | Path | None = None,
        overwrite: bool = False,
        console: TextIO | None = None,
        observers: Iterable[Observer] = (),
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Run:
        """Train, resume or skip, as the run directory stands; then generate.

        output     the run directory, in place of the pipeline's
        overwrite  replace a run of another pipeline
        console    where progress may be written; without it, silence
        observers  more spectators than the pipeline's own
        cancelled  asked after every step; once true, the run stops after a checkpoint and raises Interrupted
        """
        pipeline = self.pipeline(source, overrides)
        if output is not None:
            pipeline = attrs.evolve(pipeline, output=Path(output).absolute())
        if pipeline.device != "auto":
            devices.resolve(pipeline.device)  # a missing device is an error before any work
        directory = RunDirectory(pipeline.output)
        directory.prepare()
        with directory.locked():
            directory.sweep()
            outcome = _train(pipeline, directory, overwrite, console, observers, cancelled)
        generator = self.load(directory.path, device=pipeline.device)
        return Run(
            path=directory.path,
            pipeline=pipeline,
            outcome=outcome,
            generator=generator,
            generations=tuple(_generate(pipeline, generator)),
        )

    def read_corpus(self, table: Mapping[str, Any]) -> Iterator[str]:
        """The text of a corpus given as a `[corpus]` table, piece by piece. Raises PipelineError and CorpusError."""
        plugins = self.plugins()
        choice = make_choice("corpus", table, plugins, Path.cwd(), source="corpus")
        corpus = contracts.build(choice, BuildContext(folder=Path.cwd(), plugins=plugins))
        pieces: Iterator[str] = corpus.read()
        return pieces

    def load(self, path: str | Path, *, device: str = "auto", sampler: Any = None) -> Generator:
        """The generator of a finished run directory.

        sampler  a list of tables as `[[sampler]]` has them, in place of the run's own chain

        Raises RunError when there is no finished run, CorruptFileError when a file is not what the run wrote, and
        PipelineError when a component's plugin is missing.
        """
        directory = RunDirectory(Path(path))
        record = directory.read_run()
        if record["status"] != "finished":
            raise RunError(
                f"the run in {path} is not finished ({record['status']}); `textgen run` goes on with it",
                directory.path,
            )
        tables = read_document(directory.inside("pipeline.toml")).tables
        plugins = self.plugins(tables.get("plugins", {}).get("disable", ()))
        folder = directory.path.absolute()

        def choose(kind: str, table: Any) -> Choice:
            return make_choice(kind, table, plugins, folder, source=_needs(directory, record, kind, table))

        context = BuildContext(
            folder=folder, requested_device=device, seed=record["seed"], training=False, plugins=plugins
        )
        unfitted = contracts.build(choose("tokenizer", tables["tokenizer"]), context)
        directory.read_artifact("tokenizer.json", record["files"]["tokenizer.json"])
        tokenizer = unfitted.from_dict(read_json(directory.inside("tokenizer.json")))
        context = attrs.evolve(context, tokenizer=tokenizer)
        model_choice = choose("model", tables["model"])
        model = contracts.build(model_choice, context)
        data = directory.read_artifact("model.safetensors", record["files"]["model.safetensors"])
        _load_model(model, model_choice, load_tensors(directory.path / "model.safetensors", data))
        chain = [choose("sampler", t) for t in (tables.get("sampler", []) if sampler is None else sampler)]
        return attrs.evolve(
            _generator(chain, model_choice, model, context),
            path=directory.path,
            model_id=record["files"]["model.safetensors"],
            training_tokens=partial(self._training_tokens, directory, tokenizer),
        )

    def _training_tokens(self, directory: RunDirectory, tokenizer: Tokenizer, file: Path) -> Ids:
        """The tokens (N,) that the model of a run directory was trained on, written to `file`."""
        document = read_document(directory.inside("pipeline.toml"))
        pipeline = make_pipeline(document, self.plugins(document.disabled_plugins()))
        context = BuildContext(folder=document.folder, seed=pipeline.seed, plugins=pipeline.plugins)
        corpus = contracts.build(pipeline.corpus, context)
        surveyor = Surveyor()
        tokens = encode_corpus(surveyor.watch(corpus.read()), tokenizer, file)
        if attrs.asdict(surveyor.result()) != directory.read_run()["fingerprint"]["corpus"]:
            raise CorpusError("the corpus is no longer the one that the model was trained on")
        return split_tokens(tokens, pipeline.data, tokenizer).training


def _train(
    pipeline: Pipeline,
    directory: RunDirectory,
    overwrite: bool,
    console: TextIO | None,
    observers: Iterable[Observer],
    cancelled: Callable[[], bool],
) -> Literal["trained", "resumed", "skipped"]:
    """Bring the run directory to "finished", doing no more than is left to do."""
    record = directory.read_run() if directory.exists() and not overwrite else None
    _compare(directory, record, _shape(pipeline))
    context = BuildContext(
        folder=pipeline.folder,
        requested_device=pipeline.device,
        seed=pipeline.seed,
        directory=directory.path,
        console=console,
        plugins=pipeline.plugins,
    )
    corpus = contracts.build(pipeline.corpus, context)
    tokenizer = contracts.build(pipeline.tokenizer, context)
    survey = _fit(corpus, tokenizer, pipeline)
    shape = {**_shape(pipeline), "corpus": attrs.asdict(survey)}
    _compare(directory, record, shape)
    if record is not None and record["status"] == "finished":
        return "skipped"

    context = attrs.evolve(context, tokenizer=tokenizer)
    tokens_path = directory.path / "tokens.bin"
    try:
        data = _encode(corpus, tokenizer, pipeline, survey, tokens_path)
        model = contracts.build(pipeline.model, context)
        trainer = contracts.build(pipeline.trainer, context)
        if overwrite:  # only now that nothing is left that could refuse the new run
            directory.clear(spare=tokens_path)
        checkpoint = _last_checkpoint(directory) if record is not None else None
        progress = Progress()
        if checkpoint is not None:
            _load_model(model, pipeline.model, checkpoint.tensors)
            trainer.load_state(checkpoint.trainer)
            progress = Progress(**checkpoint.progress)
        record = _begin(pipeline, directory, shape, tokenizer, data, context.device)
        watchers = [*(contracts.build(choice, context) for choice in pipeline.observers), *observers]
        loop = TrainingLoop(
            directory=directory,
            model=model,
            trainer=trainer,
            data=data,
            context=TrainingContext(seed=pipeline.seed, device=context.device),
            observers=watchers,
            progress=progress,
            checkpoint_seconds=pipeline.checkpoint.seconds,
            cancelled=cancelled,
            sample=_sampler(pipeline, context, model),
        )
        started = RunStarted(
            step=progress.step,
            evaluations=progress.evaluations,
            device=context.device,
            parameters=sum(array.size for array in model.tensors().values()),
            vocab_size=tokenizer.vocab_size,
            training_tokens=len(data.training),
            validation_tokens=len(data.validation),
        )
        try:
            loop.run(started)
        except BaseException:
            directory.write_run({**record, "status": "unfinished", "step": progress.step})
            raise
        _finish(directory, record, progress)
    finally:
        data = None  # type: ignore[assignment]  # Windows removes no file that is mapped
        tokens_path.unlink(missing_ok=True)
    return "trained" if checkpoint is None else "resumed"


def _fit(corpus: Corpus, tokenizer: Tokenizer, pipeline: Pipeline) -> Survey:
    """Fit the tokenizer, and survey the text on the way."""
    surveyor = Surveyor()
    beginning: list[str] = []

    def watched() -> Iterator[str]:
        for piece in surveyor.watch(corpus.read()):
            if not beginning and piece:
                beginning.append(piece)
            yield piece

    tokenizer.fit(watched())
    survey = surveyor.result()
    if not survey.characters:
        raise CorpusError("the corpus is empty: it has 0 characters, and training needs at least a window of text")
    contracts.check_tokenizer(tokenizer, pipeline.tokenizer.offer, beginning[0])
    return survey


def _encode(corpus: Corpus, tokenizer: Tokenizer, pipeline: Pipeline, survey: Survey, path: Path) -> Dataset:
    surveyor = Surveyor()
    tokens = encode_corpus(surveyor.watch(corpus.read()), tokenizer, path)
    if surveyor.result() != survey:
        raise CorpusError("the corpus changed while it was being read; run again once it is complete")
    return split_tokens(tokens, pipeline.data, tokenizer)


def _shape(pipeline: Pipeline) -> dict[str, Any]:
    """What of the pipeline shapes the model. The corpus counts by its text, not by where it lies."""
    tables = pipeline.to_dict()
    return {key: tables[key] for key in ("seed", "tokenizer", "data", "model", "trainer")}


def _compare(directory: RunDirectory, record: Mapping[str, Any] | None, shape: Mapping[str, Any]) -> None:
    """Refuse to go on in a run directory that another pipeline made. Raises RunMismatchError."""
    if record is None:
        return
    before, now = _flat(record["fingerprint"]), _flat(shape)
    if "corpus.sha256" not in now:
        before = {key: value for key, value in before.items() if not key.startswith("corpus.")}
    differences = [
        f"{key}: {before.get(key, 'not set')} there, {now.get(key, 'not set')} here"
        for key in dict.fromkeys([*before, *now])
        if before.get(key) != now.get(key)
    ]
    if differences:
        raise RunMismatchError(directory.path, differences)


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


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
        raise CorruptFileError(
            error.path,
            f"no checkpoint of this run is whole (the newest: {error}); start again with --overwrite",
            expected=error.expected,
            actual=error.actual,
        )
    return None


def _begin(
    pipeline: Pipeline,
    directory: RunDirectory,
    shape: Mapping[str, Any],
    tokenizer: Tokenizer,
    data: Dataset,
    device: str,
) -> dict[str, Any]:
    """Write what the run is before it trains: pipeline, tokenizer, provenance."""
    tables = {**pipeline.to_dict(), "output": "."}
    directory.write_artifact("pipeline.toml", tomli_w.dumps(tables).encode())
    write_json(directory.path / "tokenizer.json", tokenizer.to_dict())
    record = {
        "status": "training",
        "step": 0,
        "seed": pipeline.seed,
        "fingerprint": dict(shape),
        "data": {
            "training_tokens": len(data.training),
            "validation_tokens": len(data.validation),
            "vocab_size": tokenizer.vocab_size,
        },
        "components": [
            {
                "kind": choice.offer.kind,
                "name": choice.offer.component.name,
                "plugin": choice.offer.plugin.name,
                "distribution": choice.offer.plugin.distribution,
                "version": choice.offer.plugin.version,
            }
            for choice in pipeline.choices()
        ],
        "environment": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "device": device,
            **{name: metadata.version(name) for name in ("textgen-engine", "numpy", "torch")},
        },
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    directory.write_run(record)
    return record


def _finish(directory: RunDirectory, record: Mapping[str, Any], progress: Progress) -> None:
    """Publish the best weights and mark the run finished, last of all."""
    step = progress.best_step if progress.best_step is not None else progress.step
    tensors = directory.read_checkpoint(step).tensors
    tokenizer = directory.inside("tokenizer.json").read_bytes()
    files = {
        "model.safetensors": directory.write_artifact("model.safetensors", dump_tensors(tensors)),
        "tokenizer.json": directory.write_artifact("tokenizer.json", tokenizer),
    }
    directory.write_run({**record, "status": "finished", **attrs.asdict(progress), "files": files})


def _sampler(pipeline: Pipeline, context: BuildContext, model: Any) -> Callable[[str, int], str]:
    """Continues prompts with the model as it is at the moment of the call."""
    generator = _generator(pipeline.samplers, pipeline.model, model, attrs.evolve(context, training=False))

    def sample(prompt: str, max_new_tokens: int) -> str:
        return generator.generate(prompt, max_new_tokens=max_new_tokens, unknown_characters="skip").text

    return sample


def _generator(samplers: Iterable[Choice], model_choice: Choice, model: Any, context: BuildContext) -> Generator:
    tokenizer = context.tokenizer
    assert tokenizer is not None

    def chain_of(choices: Iterable[Choice]) -> Chain:
        built = [(choice, contracts.build(choice, context)) for choice in choices]
        return Chain.of(built, model_choice.offer, tokenizer.vocab_size, tokenizer.unknown_id)

    def make_chain(options: Mapping[str, Any]) -> Chain:
        assert context.plugins is not None
        return chain_of([standard_sampler(options, context.plugins)])

    return Generator(
        tokenizer=tokenizer, model=model, chain=chain_of(samplers), make_chain=make_chain, seed=context.seed
    )


def _load_model(model: Any, choice: Choice, tensors: Mapping[str, np.ndarray]) -> None:
    try:
        model.load_tensors(dict(tensors))
    except ValueError as error:
        raise contracts.blame(choice.offer, f"refuses the weights of the run: {error}") from error


def _needs(directory: RunDirectory, record: Mapping[str, Any], kind: str, table: Any) -> str:
    """Where a component of a run directory came from, to say what to install when it is missing."""
    name = str(table.get("type", "")).rpartition(":")[2] if isinstance(table, Mapping) else ""
    for entry in record.get("components", ()):
        if entry["kind"] == kind and entry["name"] == name:
            return f"{directory.path} (its {kind} came with {entry['distribution']} {entry['version']})"
    return str(directory.path)


def _generate(pipeline: Pipeline, generator: Generator) -> Iterator[Generation]:
    options = {
        field.name: getattr(pipeline.generate, field.name)
        for field in attrs.fields(DecodingOptions)
        if getattr(pipeline.generate, field.name) is not None
    }
    return generator.generate_many([pipeline.generate.prompt], n=pipeline.generate.n, **options)


def run(
    source: Source,
    overrides: Iterable[str] = (),
    *,
    output: str | Path | None = None,
    overwrite: bool = False,
    observers: Iterable[Observer] = (),
    cancelled: Callable[[], bool] = lambda: False,
) -> Run:
    """Run a pipeline with the installed plugins, silently: `Engine().run`, whose arguments it takes."""
    return Engine().run(source, overrides, output=output, overwrite=overwrite, observers=observers, cancelled=cancelled)


def load(path: str | Path, *, device: str = "auto", sampler: Any = None) -> Generator:
    """The generator of a finished run directory: `Engine().load`, whose arguments it takes."""
    return Engine().load(path, device=device, sampler=sampler)
