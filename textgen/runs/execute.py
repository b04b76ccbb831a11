"""Executes a run: trains from the start, resumes from a checkpoint or skips training; then
generates.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, TextIO, TypeAlias

import attrs

from textgen import devices
from textgen.data import Dataset
from textgen.errors import (
    CorpusError,
    CorruptFileError,
    PipelineError,
    PluginWarning,
    RunError,
    UsageError,
)
from textgen.events import RunSkipped
from textgen.generation.chain import Chain
from textgen.generation.generator import Generator
from textgen.generation.prompts import check_prompt
from textgen.generation.request import check_decoding
from textgen.generation.results import Generation
from textgen.generation.scoring import windows_loss
from textgen.pipeline.options import TextOptions
from textgen.pipeline.pipeline import Pipeline
from textgen.plugin.component import BuildContext
from textgen.processes import Processes
from textgen.protocols import Ids, Table, Tokenizer, TrainingContext
from textgen.runs import record as run_record
from textgen.runs.directory import RunDirectory
from textgen.runs.encoded_text import EncodedText
from textgen.runs.formats import Progress
from textgen.runs.loading import RunComponents, build_chain, load_weights, make_generator
from textgen.runs.observers import AnyObserver, Observers
from textgen.runs.outside import announce_sources
from textgen.runs.priming import priming_ids
from textgen.runs.progress import ReadingProgress
from textgen.runs.record import Decision, decide
from textgen.runs.starting import load_start, start_in, start_tokenizer
from textgen.runs.training import TrainingLoop

Outcome: TypeAlias = Literal["trained", "resumed", "skipped"]
"""What `run` did: the run was trained, was resumed, or was there already."""

_WORSE, _NOISE = 1.3, 0.15  # times and nats that a few windows may be above all of a text


@attrs.frozen
class Execution:
    """A pipeline that runs. For the other attributes see Engine.run."""

    pipeline: Pipeline
    overwrite: bool = False
    console: TextIO | None = None
    observers: tuple[AnyObserver, ...] = ()
    cancelled: Callable[[], bool] = lambda: False
    processes: Processes | None = None
    update: bool = False
    begun: float = attrs.field(factory=time.perf_counter)
    _components: RunComponents = attrs.field(factory=RunComponents, init=False)
    _held_out: list[Ids] = attrs.field(factory=list, init=False)  # what was evaluated, if anything

    @property
    def directory(self) -> RunDirectory:
        """The run directory of the pipeline, which the first of several processes writes."""
        is_written = self.processes is None or self.processes.leads
        return RunDirectory(self.pipeline.output, is_written)

    def ensure_trained(self) -> tuple[Outcome, Chain | None]:
        """Train from the start, resume or skip training, depending on the state of the run
        directory.

        Returns what was done, and after training the chain that it made samples with: its
        components are the caller's to close.
        """
        directory = self.directory
        if self.pipeline.device != "auto":
            devices.resolve(self.pipeline.device)  # a missing device is an error before any work
        described = run_record.is_written(self.pipeline, directory)
        if described and not (self.overwrite or self.update) and directory.is_settled():
            with self._components:
                return self._execute()  # it is only read
        with (
            directory.prepared(described=described),
            self._explaining(),
            directory.locked(),
            devices.threads(self._thread_count()),
            self._components,
        ):
            return self._execute()

    def compare(self, generator: Generator) -> None:
        """Warn if the model that was read back predicts the held-out text far worse than training
        said.
        """
        expected = generator.record.get("best_loss")
        for tokens in self._held_out:
            with generator.components.blaming():
                loss = windows_loss(generator.model, tokens)
            if expected is not None and loss is not None and loss > _WORSE * expected + _NOISE:
                warnings.warn(
                    f"{self.pipeline.model.offer} predicts held-out text with {loss:.2f} nats a "
                    f"token, and training said {expected:.2f}: it does not generate as it was "
                    "trained; `textgen plugins check` looks for the cause",
                    PluginWarning,
                    stacklevel=2,
                )

    def _thread_count(self) -> int | None:
        given = self.pipeline.threads
        return given if self.processes is None else self.processes.threads(given)

    @contextlib.contextmanager
    def _explaining(self) -> Iterator[None]:
        """Say what is left where a file of the run cannot be written, or its directory is gone.

        Raises RunError.
        """
        path = self.directory.path
        try:
            yield
        except (OSError, RunError) as error:
            if isinstance(error, OSError):
                name = os.fsdecode(error.filename or "")
                is_own = Path(name).is_relative_to(path)
                cause = f"{name} cannot be written: {error.strerror}"
            else:
                is_damage = isinstance(error, CorruptFileError) and path.is_dir()
                is_own = isinstance(error.__cause__, OSError) and not is_damage
                cause = str(error)
            if not is_own:
                raise
            raise RunError(f"{cause}; {self.directory.latest().kept()}", path) from error

    def _execute(self) -> tuple[Outcome, Chain | None]:
        announce_sources(self.pipeline, self.console)
        processes = self.processes
        with contextlib.nullcontext() if processes is None else processes.in_turn():
            decision, text, context, data = self._read()
        if data is None:
            skipped = RunSkipped(path=self.directory.path, step=decision.record["step"])
            self._observers(context, self.directory).tell(skipped)
            return "skipped", None
        own = attrs.evolve(context, training=False), RunComponents(self._components)
        pipeline = self.pipeline
        chain = build_chain(pipeline.decoding, pipeline.model.offer, *own, pipeline.name)
        self._training_loop(text, data, decision, context, chain).run()
        self._held_out.append(data.validation)
        chain.components.detach()
        return "trained" if decision.checkpoint is None else "resumed", chain

    def _read(self) -> tuple[Decision, EncodedText, BuildContext, Dataset | None]:
        """Decide what to do, and read the text; without its tokens where training is skipped."""
        pipeline, directory = self.pipeline, self.directory
        decision = Decision() if self.overwrite else decide(directory, pipeline)
        record = decision.record
        try:
            text, context = self._text(record)
        except CorpusError as error:
            if record.get("status") == "finished":
                advice = "the run is finished, and `textgen generate RUN` writes without the text"
                error.advice = advice
            raise
        is_skipped = decision.skips
        if self.update and is_skipped:
            is_skipped = record["fingerprint"]["corpus"] == attrs.asdict(text.digest)
            if not is_skipped:
                decision = Decision(start=start_in(directory.current(), "model"))
        run_record.compare(directory, decision.record, pipeline, text.digest)
        self._check_generation(text.tokenizer)
        return decision, text, context, None if is_skipped else text.dataset(pipeline.data)

    def _text(self, record: Table) -> tuple[EncodedText, BuildContext]:
        """The text with its fitted tokenizer, and the context in which the other components are
        built.

        record  that of this run, if it was begun before
        """
        pipeline, build, device = self.pipeline, self._components.build, self.pipeline.device
        if self.processes is not None:
            device = self.processes.device(devices.resolve(device))
        context = BuildContext(
            folder=pipeline.folder,
            requested_device=device,
            seed=pipeline.seed,
            console=self.console,
            cancelled=self._is_cancelled,
            plugins=pipeline.plugins,
        )
        corpus = build(pipeline.corpus, context)
        tokenizer, vocabulary = build(pipeline.tokenizer, context), None
        if pipeline.tokenizer.start is not None:
            own = self.directory.latest().path
            tokenizer = start_tokenizer(tokenizer, pipeline.tokenizer.start, record, own)
            vocabulary = tokenizer.to_dict()
        progress = ReadingProgress(self.console, self._is_cancelled)
        choices = pipeline.corpus, pipeline.tokenizer
        text = EncodedText(corpus, tokenizer, *choices, vocabulary, progress, self.directory.path)
        text.prepare(pipeline, self._components)
        return text, attrs.evolve(context, tokenizer=text.tokenizer)

    def _training_loop(
        self,
        text: EncodedText,
        data: Dataset,
        decision: Decision,
        context: BuildContext,
        chain: Chain,
    ) -> TrainingLoop:
        """Build model, trainer and observers, restored from the checkpoint if there is one; begin
        the run. Its model makes samples with the chain.
        """
        pipeline, components, checkpoint = self.pipeline, self._components, decision.checkpoint
        trainer = components.build(pipeline.trainer, context)  # first: it may say why it cannot be
        if self.processes is not None and not getattr(trainer, "distributed", False):
            cause = f"the trainer {pipeline.trainer.name!r} does not train in several processes"
            raise UsageError(f"{cause}; run it without torchrun", argument="trainer")
        model = self._model(trainer, decision, context)
        context = attrs.evolve(context, training=False)
        priming = priming_ids(text.tokenizer, data.training)
        generator = attrs.evolve(
            make_generator(pipeline.decoding, chain, pipeline.model, model, context),
            record={"priming": priming},
        )
        generator.chain.try_on(model)  # finds what cannot generate before training

        def sample(prompt: str, max_new_tokens: int) -> str:
            return generator.generate(
                prompt, max_new_tokens=max_new_tokens, unknown_characters="skip"
            ).text

        # Without torch nothing computes on a GPU, and asking which there are would load it.
        device = context.device if "torch" in sys.modules or pipeline.device != "auto" else "cpu"
        progress = Progress() if checkpoint is None else checkpoint.progress
        # After every check that could refuse the run, and before the observers, which may read it.
        directory = self.directory
        place = directory.begin() if checkpoint is None else directory.go_on(progress.step)
        record = run_record.begin(pipeline, place, text, data, device, progress, priming, model)
        observers = self._observers(attrs.evolve(context, training=True), place)
        if checkpoint is not None:
            observers.load_state(checkpoint.observers)
        return TrainingLoop(
            pipeline=pipeline,
            directory=place,
            record=record,
            model=model,
            trainer=trainer,
            components=components,
            data=data,
            context=TrainingContext(
                seed=pipeline.seed,
                device=device,
                elapsed=time.perf_counter() - self.begun + progress.seconds,
                threads=self._thread_count(),
                processes=self.processes,
            ),
            observers=observers,
            progress=progress,
            cancelled=self._is_cancelled,
            sample=sample,
            saved=None if checkpoint is None else checkpoint.step,
        )

    def _model(self, trainer: Any, decision: Decision, context: BuildContext) -> Any:
        """The model, and the trainer, as the checkpoint has them or the run to start from."""
        pipeline, components, directory = self.pipeline, self._components, self.directory
        checkpoint, choice = decision.checkpoint, pipeline.model
        if checkpoint is None:
            components.load_start = partial(load_start, source=pipeline.name)
        if decision.start is not None:
            choice = attrs.evolve(choice, start=decision.start)
        model = components.build(choice, context)
        if checkpoint is not None:
            load_weights(model, pipeline.model, checkpoint.tensors, directory.path)
            try:
                trainer.load_state(checkpoint.trainer)
            except ValueError as error:
                raise directory.latest().checkpoints.refused(checkpoint.step, error) from error
        return model

    def _is_cancelled(self) -> bool:
        return self.cancelled() or (self.processes is not None and self.processes.is_orphaned())

    def _observers(self, context: BuildContext, place: RunDirectory) -> Observers:
        """The pipeline's own observers, unless another process writes, then the caller's."""
        context = attrs.evolve(context, directory=place.path)
        built = [
            (self._components.build(choice, context), choice.offer)
            for choice in self.pipeline.observer
            if place.is_written
        ]
        return Observers([*built, *((other, None) for other in self.observers)], self._components)

    def _check_generation(self, tokenizer: Tokenizer) -> None:
        """Check that the trained model can generate what is asked for, before anything is written
        or trained.
        """
        options = self.pipeline.generate
        try:
            check_decoding(options, tokenizer.vocab_size)
        except UsageError as error:
            faults = [fault.below("generate") for fault in error.faults]
            raise PipelineError(faults, self.pipeline.name) from error
        check_prompt(tokenizer, options.prompt, options.unknown_characters)


def generate(pipeline: Pipeline, generator: Generator) -> Iterator[Generation]:
    """The texts that the `[generate]` table of a pipeline asks for."""
    table = pipeline.generate
    options = {field.name: getattr(table, field.name) for field in attrs.fields(TextOptions)}
    return generator.generate_many(
        [table.prompt],
        n=table.n,
        distinct=table.distinct,
        **{k: v for k, v in options.items() if v is not None},
    )
