"""Executes a run: trains from the start, resumes from a checkpoint or skips training; then
generates.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal, TextIO, TypeAlias

import attrs

from textgen import devices
from textgen.data import Dataset
from textgen.errors import CorpusError, UsageError
from textgen.events import RunSkipped
from textgen.pipeline.pipeline import Pipeline
from textgen.plugin.component import BuildContext
from textgen.processes import Processes
from textgen.protocols import Ids, TrainingContext
from textgen.runs.decision import Decision, decide, resumable_record
from textgen.runs.directory import RunDirectory
from textgen.runs.encoded_text import EncodedText
from textgen.runs.formats import Progress
from textgen.runs.loading import RunComponents, load_weights, make_generator
from textgen.runs.outside import announce_sources
from textgen.runs.priming import priming_ids
from textgen.runs.reading_progress import ReadingProgress
from textgen.runs.record import pipeline_is_on_disk, write_initial_record
from textgen.runs.starting import load_start, start_tokenizer
from textgen.runs.training import AnyObserver, Observers, TrainingLoop
from textgen.threads import torch_threads

Outcome: TypeAlias = Literal["trained", "resumed", "skipped", "interrupted"]
"""What `run` did: the run was trained, was resumed, or was there already. A training in memory may
also be interrupted."""


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

    @property
    def directory(self) -> RunDirectory:
        """The run directory of the pipeline, which the first of several processes writes."""
        may_write = self.processes is None or self.processes.leads
        return RunDirectory(self.pipeline.output, may_write)

    def ensure_trained(self) -> tuple[Outcome, Ids | None]:
        """Train from the start, resume or skip training, depending on the state of the run
        directory.

        Returns what was done, and after training the tokens that it was evaluated on.
        """
        directory, processes, count = self.directory, self.processes, self.pipeline.threads
        threads = count if processes is None else processes.threads(count)
        if self.pipeline.device != "auto":
            devices.resolve(self.pipeline.device)  # a missing device is an error before any work
        described = pipeline_is_on_disk(self.pipeline, directory)
        with contextlib.ExitStack() as stack:
            if not described or self.overwrite or self.update or not directory.is_settled():
                if directory.may_write:
                    stack.enter_context(directory.prepared(described=described))
                    stack.enter_context(self._naming_errors())
                    stack.enter_context(directory.locked())
                stack.enter_context(torch_threads(threads))
            # else it is only read
            stack.enter_context(self._components)
            with contextlib.nullcontext() if processes is None else processes.in_turn():
                decision, text, context, data = self._read()
            if data is None:
                skipped = RunSkipped(path=directory.path, step=decision.record["step"])
                self._observers(context, directory).tell(skipped)
                return "skipped", None
            self._train(text, data, decision, context, threads)
            return "trained" if decision.checkpoint is None else "resumed", data.validation

    @contextlib.contextmanager
    def _naming_errors(self) -> Iterator[None]:
        """Name the run directory in an error of the disk that names no file."""
        try:
            yield
        except OSError as error:
            if error.errno and not error.filename:
                error.filename = str(self.directory.path)
            raise

    def _read(self) -> tuple[Decision, EncodedText, BuildContext, Dataset | None]:
        """Decide what to do, and read the text with its fitted tokenizer; without its tokens where
        training is skipped. The other components are built in the context.
        """
        pipeline, directory, build = self.pipeline, self.directory, self._components.build
        record, device = {} if self.overwrite else resumable_record(directory), pipeline.device
        if self.processes is not None:
            device = self.processes.device(devices.resolve(device))
        context = BuildContext(
            folder=pipeline.folder,
            requested_device=device,
            seed=pipeline.seed,
            console=self.console,
            cancelled=self.cancelled,
            plugins=pipeline.plugins,
        )
        try:
            corpus = build(pipeline.corpus, context)
            announce_sources(pipeline, corpus, self.console)
            tokenizer, vocabulary = build(pipeline.tokenizer, context), None
            if pipeline.tokenizer.start is not None:
                own = directory.latest().path
                tokenizer = start_tokenizer(tokenizer, pipeline.tokenizer.start, record, own)
                vocabulary = tokenizer.to_dict()
            progress = ReadingProgress(self.console, self.cancelled)
            choices = pipeline.corpus, pipeline.tokenizer
            text = EncodedText(corpus, tokenizer, *choices, vocabulary, progress, directory.path)
            text.prepare(pipeline, self._components)
        except CorpusError as error:
            if record.get("status") == "finished":
                advice = "the run is finished, and `textgen generate RUN` writes without the text"
                error.advice = advice
            raise
        decision = decide(directory, record, pipeline, text.digest, update=self.update)
        context = attrs.evolve(context, tokenizer=text.tokenizer)
        if decision.skips:
            return decision, text, context, None
        return decision, text, context, text.dataset(pipeline.data, decision.held_out)

    def _train(
        self,
        text: EncodedText,
        data: Dataset,
        decision: Decision,
        context: BuildContext,
        threads: int | None,
    ) -> None:
        """Build model, trainer, chain and observers, restored from the checkpoint if there is one;
        begin the run and train.
        """
        pipeline, components, checkpoint = self.pipeline, self._components, decision.checkpoint
        trainer, model = self._built(decision, context)
        context = attrs.evolve(context, training=False)
        priming = priming_ids(text.tokenizer, data.training)
        generator = make_generator(
            pipeline.decoding, pipeline.model, model, context, components, pipeline.name
        )
        generator = attrs.evolve(generator, record={"priming": priming})
        generator.chain.try_on(model)  # finds what cannot generate before training
        generator.prepare(pipeline.generate.prompt, **pipeline.generate.of_request())

        def sample(prompt: str, max_new_tokens: int) -> str:
            return generator.generate(
                prompt, max_new_tokens=max_new_tokens, unknown_characters="skip"
            ).text

        # Without torch nothing computes on a GPU, and asking which there are would load it.
        device = context.device if "torch" in sys.modules or pipeline.device != "auto" else "cpu"
        progress = Progress() if checkpoint is None else checkpoint.progress
        # After every check that could refuse the run, and before the observers, which may read it.
        own = self.directory
        directory = own.begin() if checkpoint is None else own.go_on(progress.step)
        record = write_initial_record(
            pipeline, directory, text, data, device, progress, priming, model
        )
        observers = self._observers(attrs.evolve(context, training=True), directory)
        if checkpoint is not None:
            observers.load_state(checkpoint.observers)
        TrainingLoop(
            pipeline=pipeline,
            directory=directory,
            record=record,
            model=model,
            trainer=trainer,
            components=components,
            data=data,
            context=TrainingContext(
                seed=pipeline.seed,
                device=device,
                elapsed=time.perf_counter() - self.begun + progress.seconds,
                threads=threads,
                processes=self.processes,
            ),
            observers=observers,
            progress=progress,
            cancelled=self.cancelled,
            sample=sample,
        ).run()

    def _built(self, decision: Decision, context: BuildContext) -> tuple[Any, Any]:
        """Trainer and model, as the checkpoint has them or the run to start from."""
        pipeline, components, directory = self.pipeline, self._components, self.directory
        trainer = components.build(pipeline.trainer, context)  # first: it may say why it cannot be
        if self.processes is not None and not getattr(trainer, "distributed", False):
            cause = f"the trainer {pipeline.trainer.name!r} does not train in several processes"
            raise UsageError(f"{cause}; run it without torchrun", argument="trainer")
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
        return trainer, model

    def _observers(self, context: BuildContext, directory: RunDirectory) -> Observers:
        """The pipeline's own observers, unless another process writes, then the caller's."""
        context = attrs.evolve(context, directory=directory.path)
        built = [
            (self._components.build(choice, context), choice.offer)
            for choice in self.pipeline.observer
            if directory.may_write
        ]
        return Observers([*built, *((other, None) for other in self.observers)], self._components)
