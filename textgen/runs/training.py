"""The training loop: iterates a trainer, measures, notifies observers, writes checkpoints, stops on request."""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import attrs

from textgen.contracts.checks import explain_training
from textgen.contracts.guards import FAILURES, blame, out_of_memory, raise_failure, shown_where
from textgen.data import Dataset
from textgen.errors import Interrupted, PluginWarning, RunError, TextgenError, TrainingError
from textgen.events import Checkpointed, Evaluated, Evaluation, Event, RunFinished, RunStarted, StepDone
from textgen.generation.scoring import perplexity
from textgen.plugin.component import OWN_DISTRIBUTION, Offer
from textgen.protocols import Observer, Trainer, TrainerState, TrainingContext
from textgen.runs.checkpoints import Checkpoint, Progress
from textgen.runs.directory import RunDirectory

logger = logging.getLogger("textgen")


@attrs.frozen
class ObserverEntry:
    """An observer, and whose it is; None for one of the caller's."""

    observer: Observer
    offer: Offer | None


@attrs.define(kw_only=True)
class TrainingLoop:
    """One training of `model` by `trainer`, from wherever `progress` stands.

    blame                the offers of trainer and model
    checkpoint_seconds   seconds between checkpoints
    cancelled            asked after every step; true stops the run after a checkpoint
    sample               continues a prompt with the model as it is
    """

    directory: RunDirectory
    model: Any
    trainer: Trainer
    blame: tuple[Offer, ...]
    data: Dataset
    context: TrainingContext
    observers: list[ObserverEntry]
    progress: Progress
    checkpoint_seconds: float
    cancelled: Callable[[], bool]
    sample: Callable[[str, int], str]
    _best: Checkpoint | None = None
    _written: set[int] = attrs.field(factory=set)

    def run(self) -> None:
        """Train to the end. Raises Interrupted, TrainingError, or whatever the components raise."""
        logger.info("training in %s on %s after step %d", self.directory.path, self.context.device, self.progress.step)
        self._tell(
            RunStarted(
                step=self.progress.step,
                evaluations=self.progress.evaluations,
                device=self.context.device,
                parameters=sum(array.size for array in self.model.tensors().values()),
                vocab_size=self.data.vocab_size,
                training_tokens=len(self.data.training),
                validation_tokens=len(self.data.validation),
            )
        )
        status: Any = "failed"
        try:
            self._iterate()
            self._checkpoint()
            status = "finished"
        except Interrupted:
            status = "interrupted"
            raise
        except Exception as error:
            self._explain(error)
        finally:
            self._tell(RunFinished(step=self.progress.step, status=status))

    def _explain(self, error: BaseException) -> NoReturn:
        """Raise an error of trainer or model as the error to report."""
        if isinstance(error, TextgenError):
            raise error
        if (explained := out_of_memory(error, f"after step {self.progress.step}")) is not None:
            raise explained from error
        error.add_note("at work were " + " and ".join(map(str, self.blame)))
        foreign = [offer for offer in self.blame if offer.distribution != OWN_DISTRIBUTION]
        if not foreign:
            raise error
        explain_training(self.model, self.blame[1], self.data.vocab_size, self.context.device, error)
        raise_failure(foreign[0], "training", error)

    def _events(self) -> Iterator[Any]:
        """The events of the trainer. A SystemExit is blamed on it only here: observers may raise one on purpose."""
        try:
            events = self.trainer.train(self.model, self.data, self.context)
            if events is None:
                raise blame(self.blame[0], "gave None from train; is a `yield` missing?")
            yield from events
        except SystemExit as error:
            self._explain(error)

    def _iterate(self) -> None:
        begun = earlier = time.perf_counter()
        training_seconds, tokens = 0.0, 0
        before = self.progress.seconds
        written = begun
        for event in self._events():
            now = time.perf_counter()
            self.progress.seconds = before + now - begun
            if isinstance(event, StepDone):
                self._check_loss(event)
                self.progress.step = event.step
                training_seconds += now - earlier
                tokens += event.tokens
                self._tell(event)
            elif isinstance(event, Evaluated):
                self._evaluated(event, tokens * self.data.characters_per_token / max(training_seconds, 1e-9))
                training_seconds, tokens = 0.0, 0
            else:
                what = type(event).__name__
                raise blame(self.blame[0], f"yielded {what} from train, and must yield StepDone and Evaluated")
            if self.cancelled():
                self._checkpoint()
                step = self.progress.step
                raise Interrupted(f"stopped after step {step} and a checkpoint", step=step)
            if time.perf_counter() - written >= self.checkpoint_seconds:
                self._checkpoint()
                written = time.perf_counter()
            earlier = time.perf_counter()

    def _check_loss(self, event: StepDone) -> None:
        if math.isfinite(event.loss):
            return
        self._write_best()
        rate = event.learning_rate
        advice = f" with learning rate {rate:g}; lower it, or clip the gradient" if rate is not None else ""
        raise TrainingError(
            f"the loss is {event.loss} at step {event.step}{advice}; the last good checkpoint is kept",
            step=event.step,
            learning_rate=rate,
        )

    def _evaluated(self, event: Evaluated, characters_per_second: float) -> None:
        loss = event.training_loss if event.validation_loss is None else event.validation_loss
        self.progress.evaluations += 1
        self._written.discard(event.step)  # evaluating may have changed the model since its step
        # One batch's training loss is too noisy to choose by: with nothing held out, the latest is the best.
        best = event.validation_loss is None or self.progress.best_loss is None or loss < self.progress.best_loss
        if best:
            self.progress.best_loss, self.progress.best_step = loss, event.step
            self._best = self._snapshot()
        self._tell(
            Evaluation(
                step=event.step,
                epoch=event.epoch,
                training_loss=event.training_loss,
                validation_loss=event.validation_loss,
                perplexity=perplexity(loss),
                bits_per_character=loss / math.log(2) / self.data.characters_per_token,
                characters_per_second=characters_per_second,
                seconds=self.progress.seconds,
                best=best,
                sample=self.sample,
            )
        )

    def _snapshot(self) -> Checkpoint:
        state = self.trainer.state()
        if not isinstance(state, TrainerState):
            raise blame(self.blame[0], f"gave {type(state).__name__} from state, and must give a TrainerState")
        return Checkpoint(
            tensors={name: array.copy() for name, array in self.model.tensors().items()},
            trainer=TrainerState({name: array.copy() for name, array in state.arrays.items()}, dict(state.values)),
            progress=attrs.evolve(self.progress),
        )

    def _checkpoint(self) -> None:
        """Write checkpoints of the best and the current state, and remove all others."""
        self._write_best()
        if self.progress.step not in self._written:
            self._write(self._snapshot())
        keep = {self.progress.step, self.progress.best_step}
        self.directory.checkpoints.keep({step for step in keep if step is not None})

    def _write_best(self) -> None:
        if self._best is not None and self._best.step not in self._written:
            self._write(self._best)

    def _write(self, checkpoint: Checkpoint) -> None:
        try:
            path = self.directory.checkpoints.write(checkpoint)
        except OSError as error:
            raise RunError(
                f"the checkpoint of step {checkpoint.step} cannot be written to {self.directory.path}: "
                f"{error.strerror or error}; earlier checkpoints are intact",
                self.directory.path,
            ) from error
        self._written.add(checkpoint.step)
        logger.info("checkpoint of step %d written to %s", checkpoint.step, path)
        self._tell(Checkpointed(step=checkpoint.step, path=path))

    def _tell(self, event: Event) -> None:
        for entry in tuple(self.observers):
            try:
                entry.observer.observe(event)
            except FAILURES as error:
                if entry.offer is None or isinstance(error, TextgenError):
                    raise
                # A failing observer must not cost hours of training.
                self.observers.remove(entry)
                cause = f"{type(error).__name__}: {error} {shown_where(error, entry.offer)}"
                warnings.warn(f"{entry.offer} failed and is left out: {cause}", PluginWarning, stacklevel=2)
