"""Executes a run: trains from the start, resumes from a checkpoint or skips training; then generates."""

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
from textgen.contracts.components import Components
from textgen.data import Dataset
from textgen.errors import (
    CorpusError,
    CorruptFileError,
    Fault,
    Interrupted,
    PipelineError,
    RunError,
    UsageError,
)
from textgen.events import Decided, RunFinished, RunSkipped
from textgen.generation.generator import Generator
from textgen.generation.prompts import check_prompt
from textgen.generation.request import check_decoding
from textgen.generation.results import Generation
from textgen.pipeline.options import TextOptions
from textgen.pipeline.pipeline import Pipeline
from textgen.plugin.component import BuildContext
from textgen.processes import Processes
from textgen.protocols import Observer, Tokenizer, Trainer, TrainingContext
from textgen.runs import record as run_record
from textgen.runs.checkpoints import Checkpoint
from textgen.runs.corpus import check_sources
from textgen.runs.directory import RunDirectory
from textgen.runs.encoded_text import EncodedText
from textgen.runs.following import check_trainer
from textgen.runs.formats import Progress
from textgen.runs.loading import load_weights, make_generator
from textgen.runs.observers import Observers
from textgen.runs.progress import ReadingProgress
from textgen.runs.starting import load_start, start_tokenizer
from textgen.runs.training import TrainingLoop

Outcome: TypeAlias = Literal["trained", "resumed", "skipped"]
"""What `run` did: the run was trained, was resumed, or was there already."""


@attrs.frozen
class Execution:
    """A pipeline and the run directory that it runs in. For the other attributes see Engine.run."""

    pipeline: Pipeline
    directory: RunDirectory
    overwrite: bool
    console: TextIO | None
    observers: tuple[Observer, ...]
    cancelled: Callable[[], bool]
    processes: Processes | None = None
    begun: float = attrs.field(factory=time.perf_counter)
    _components: Components = attrs.field(factory=Components, init=False)

    def ensure_trained(self) -> Outcome:
        """Train from the start, resume or skip training, depending on the state of the run directory."""
        if self.pipeline.device != "auto":
            devices.resolve(self.pipeline.device)  # a missing device is an error before any work
        described = run_record.is_written(self.pipeline, self.directory)
        if described and not self.overwrite and self.directory.is_settled():
            with self._components:
                return self._execute()  # it is only read
        made = self.directory.prepare(described=described)
        try:
            with (
                self.directory.locked(remedy="output"),
                devices.threads(self._threads()),
                self._components,
            ):
                self.directory.sweep()
                return self._execute()
        except BaseException as error:
            explained = self._explain(error)
            self.directory.abandon(made)
            if explained is None:
                raise
            raise explained from error

    def _threads(self) -> int | None:
        given = self.pipeline.threads
        return given if self.processes is None else self.processes.threads(given)

    def _explain(self, error: BaseException) -> RunError | None:
        """The error for what cannot be written to the run directory, which says what is left; None for any other."""
        directory = self.directory
        if isinstance(error, OSError):
            is_own = Path(os.fsdecode(error.filename or "")).is_relative_to(directory.path)
            cause = f"{os.fsdecode(error.filename or '')} cannot be written: {error.strerror}"
        else:
            is_damage = isinstance(error, CorruptFileError) and directory.path.is_dir()
            is_own = (
                isinstance(error, RunError)
                and isinstance(error.__cause__, OSError)
                and not is_damage
            )
            cause = str(error)
        return RunError(f"{cause}; {directory.latest().kept()}", directory.path) if is_own else None

    def _execute(self) -> Outcome:
        pipeline, directory = self.pipeline, self.directory
        decision = run_record.Fresh() if self.overwrite else run_record.decide(directory, pipeline)
        record = decision.record
        begins = isinstance(decision, run_record.Fresh | run_record.Extend)
        context = BuildContext(
            folder=pipeline.folder,
            requested_device=pipeline.device,
            seed=pipeline.seed,
            directory=(directory.place_of_new() if begins else directory.latest()).path,
            console=self.console,
            plugins=pipeline.plugins,
        )
        check_sources(pipeline.corpus, pipeline.folder, self.console)
        # A finished run needs its text only to compare it: nothing is fetched, and the text may be gone.
        known = None
        if isinstance(decision, run_record.Skip) and run_record.has_text_of(
            decision.record, pipeline
        ):
            known = decision.record
        corpus = self._components.build(
            pipeline.corpus, attrs.evolve(context, training=known is None)
        )
        tokenizer = self._components.build(pipeline.tokenizer, context)
        if pipeline.start is not None:
            tokenizer = start_tokenizer(tokenizer, pipeline.start, record, directory.latest().path)
        vocabulary = None if pipeline.start is None else tokenizer.to_dict()
        progress = ReadingProgress(self.console, self.cancelled)
        choices = pipeline.corpus, pipeline.tokenizer
        text = EncodedText(corpus, tokenizer, *choices, vocabulary, progress, directory.path)
        try:
            text.prepare(pipeline, self._components, recorded=known)
        except CorpusError as error:
            if record is not None and record["status"] == "finished":
                error.remedy = "generate"
            raise
        run_record.compare(directory, record, pipeline, text.digest)
        context = attrs.evolve(context, tokenizer=text.tokenizer)
        self._check_generation(context, text.tokenizer)
        if self.processes is not None:
            check_trainer(self._components.build(pipeline.trainer, context), pipeline.trainer.name)
        if not isinstance(decision, run_record.Skip):
            return self._train_on(text, decision, context)
        if not run_record.is_written(pipeline, directory):  # samplers and the like have changed
            run_record.write_pipeline(pipeline, directory)
            directory.write_run(run_record.described(pipeline.to_dict(), decision.record))
        self._observers(context).tell(RunSkipped(path=directory.path, step=decision.record["step"]))
        return "skipped"

    def _train_on(
        self,
        text: EncodedText,
        decision: run_record.Fresh | run_record.Resume | run_record.Extend,
        context: BuildContext,
    ) -> Literal["trained", "resumed"]:
        """Train, from a checkpoint if there is one."""
        data, checkpoint = text.dataset(self.pipeline.data), decision.checkpoint
        place = self._place(decision, context)
        if decision.record is not None:
            for remark in run_record.changed_plugin_files(decision.record, self.pipeline.choices()):
                warnings.warn(remark, stacklevel=2)
        extended = isinstance(decision, run_record.Extend)
        loop = self._training_loop(place, context, data, checkpoint, extended=extended)
        device, tokenizer = loop.context.device, text.tokenizer
        record = run_record.begin(
            self.pipeline, place, text.digest, tokenizer, data, device, decision.record or {}
        )
        self._train(loop, record)
        return "trained" if checkpoint is None else "resumed"

    def _place(
        self,
        decision: run_record.Fresh | run_record.Resume | run_record.Extend,
        context: BuildContext,
    ) -> RunDirectory:
        """Make the place for a run ready, after every check that could refuse it."""
        directory, start = self.directory, self.pipeline.start
        match decision:
            case run_record.Resume():
                place = directory.latest()
            case run_record.Extend(checkpoint=checkpoint):
                place = directory.begin_from((checkpoint.step, checkpoint.progress.best_step))
            case run_record.Fresh():
                if start is not None:
                    if start.run == directory.path:
                        fault = Fault("model.start", "a run cannot start from itself")
                        raise PipelineError([fault], self.pipeline.name)
                    trial = attrs.evolve(context, training=False)
                    load_start(self._components.build(self.pipeline.model, trial), self.pipeline)
                place = directory.begin()
        run_record.write_pipeline(self.pipeline, place)  # first: components may read it
        return place

    def _train(self, loop: TrainingLoop, record: dict[str, Any]) -> None:
        """Train, put the model in place, and tell the observers how it ended."""
        status: Literal["finished", "interrupted", "failed"] = "failed"
        cause = "interrupted"
        try:
            loop.run(
                partial(self._decided, loop.directory, record),
                partial(self._plan, loop.directory, record),
            )
            run_record.finish(loop.directory, record, loop.progress, loop.observers.stopped)
            status = "finished"
        except Interrupted:
            status = "interrupted"
            raise
        except Exception as error:
            cause = f"{type(error).__name__}: {error}"
            raise
        finally:
            try:
                if status != "finished":
                    known = (
                        {"steps": loop.progress.steps} if loop.progress.steps is not None else {}
                    )
                    ended = {
                        "status": "unfinished",
                        "step": loop.progress.step,
                        "cause": cause,
                        **known,
                    }
                    with contextlib.suppress(OSError):  # the disk may be why
                        loop.directory.write_run({**record, **ended})
            finally:
                stopped = loop.observers.stopped
                by = stopped.by if stopped is not None and status == "finished" else ""
                loop.observers.tell(
                    RunFinished(step=loop.progress.step, status=status, stopped_by=by)
                )

    def _decided(self, place: RunDirectory, record: dict[str, Any], event: Decided) -> None:
        """Record what the trainer decided."""
        record["decided"] = {**(record.get("decided") or {}), **event.values}
        place.write_run(record)

    def _plan(self, place: RunDirectory, record: dict[str, Any], steps: int) -> None:
        """Record how many steps there are to be, so that a list of runs can say how far this one is."""
        if record.get("steps") != steps:
            record["steps"] = steps
            place.write_run(record)

    def _training_loop(
        self,
        place: RunDirectory,
        context: BuildContext,
        data: Dataset,
        checkpoint: Checkpoint | None,
        *,
        extended: bool,
    ) -> TrainingLoop:
        """Build model, trainer and observers, restored from the checkpoint if there is one."""
        pipeline, components = self.pipeline, self._components
        trainer = components.build(pipeline.trainer, context)  # first: it may say why it cannot be
        model = components.build(pipeline.model, context)
        if checkpoint is not None:
            load_weights(model, pipeline.model, checkpoint.tensors, place.path)
            self._load_state(place, trainer, checkpoint)
        else:
            load_start(model, pipeline)
        context = attrs.evolve(context, training=False)
        generator = make_generator(pipeline.samplers, pipeline.model, model, context, components)
        generator.chain.try_on(model)  # finds what cannot generate before training

        def sample(prompt: str, max_new_tokens: int) -> str:
            return generator.generate(
                prompt, max_new_tokens=max_new_tokens, unknown_characters="skip"
            ).text

        # Without torch nothing computes on a GPU, and asking which there are would load it.
        device = context.device if "torch" in sys.modules or pipeline.device != "auto" else "cpu"
        progress = Progress() if checkpoint is None else checkpoint.progress
        elapsed = time.perf_counter() - self.begun + progress.seconds
        return TrainingLoop(
            directory=place,
            model=model,
            trainer=trainer,
            blame=(pipeline.trainer.offer, pipeline.model.offer),
            data=data,
            context=TrainingContext(
                seed=pipeline.seed,
                device=device,
                elapsed=elapsed,
                threads=self._threads(),
                processes=self.processes,
            ),
            observers=self._observers(attrs.evolve(context, training=True)),
            progress=progress,
            checkpoint_seconds=pipeline.checkpoint.seconds,
            cancelled=self._is_cancelled,
            sample=sample,
            extended=extended,
        )

    def _load_state(self, place: RunDirectory, trainer: Trainer, checkpoint: Checkpoint) -> None:
        try:
            trainer.load_state(checkpoint.trainer)
        except ValueError as error:
            raise place.checkpoints.refused(checkpoint.step, error, loading=True) from error

    def _is_cancelled(self) -> bool:
        return self.cancelled() or (self.processes is not None and self.processes.stop_asked)

    def _observers(self, context: BuildContext) -> Observers:
        """The pipeline's own observers, then the caller's."""
        built = [
            (self._components.build(choice, context), choice.offer)
            for choice in self.pipeline.observers
        ]
        return Observers([*built, *((other, None) for other in self.observers)])

    def _check_generation(self, context: BuildContext, tokenizer: Tokenizer) -> None:
        """Check that the trained model can generate what is asked for, before anything is written or trained."""
        options = self.pipeline.generate
        faults: list[Fault] = []
        for place, choice in enumerate(self.pipeline.samplers):
            try:
                self._components.build(choice, attrs.evolve(context, training=False))
            except PipelineError as error:
                faults += [
                    attrs.evolve(fault, path=f"sampler.{place}.{fault.path}")
                    for fault in error.faults
                ]
        try:
            check_decoding(options, tokenizer.vocab_size)
        except UsageError as error:
            faults += [attrs.evolve(fault, path=f"generate.{fault.path}") for fault in error.faults]
        if faults:
            raise PipelineError(faults, self.pipeline.name)
        check_prompt(tokenizer, options.prompt, options.unknown_characters)


def generate(pipeline: Pipeline, generator: Generator) -> Iterator[Generation]:
    """What the pipeline's `[generate]` table asks for."""
    table = pipeline.generate
    options = {field.name: getattr(table, field.name) for field in attrs.fields(TextOptions)}
    return generator.generate_many(
        [table.prompt], n=table.n, **{k: v for k, v in options.items() if v is not None}
    )
