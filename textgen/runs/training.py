"""The training loop: iterates a trainer, measures, notifies observers, writes checkpoints, stops on request."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import Any, Final, NoReturn

import attrs

from textgen.contracts.checks import FAILURES, blame
from textgen.contracts.components import suspect
from textgen.data import Dataset
from textgen.errors import Interrupted, ProcessesError, RunError, TextgenError, TrainingError
from textgen.events import Checkpointed, Decided, Evaluated, Evaluation, RunStarted, StepDone
from textgen.generation.scoring import perplexity
from textgen.plugin.component import OWN_DISTRIBUTION, Offer
from textgen.protocols import Trainer, TrainerState, TrainingContext
from textgen.runs.checkpoints import Checkpoint
from textgen.runs.directory import RunDirectory
from textgen.runs.formats import Progress
from textgen.runs.observers import Observers

logger = logging.getLogger("textgen")
_WRITING: Final = 1 / 20  # share of the time that checkpoints may take, those not early
_HELD: Final = 64_000_000  # bytes of a state that may wait in memory for the next checkpoint; a larger one is written
_UNREAD: Final = 8  # steps whose losses may stay on the device


@attrs.define(kw_only=True)
class TrainingLoop:
    """One training of `model` by `trainer`, from wherever `progress` stands.

    blame                the offers of trainer and model
    checkpoint_seconds   seconds between checkpoints, or twenty times what writing one takes if that is more
    observers            may end the run early; then `observers.stopped` says which did
    cancelled            asked after every step; true stops the run after a checkpoint
    sample               continues a prompt with the model as it is
    extended             whether a finished run goes on
    """

    directory: RunDirectory
    model: Any
    trainer: Trainer
    blame: tuple[Offer, ...]
    data: Dataset
    context: TrainingContext
    observers: Observers
    progress: Progress
    checkpoint_seconds: float
    cancelled: Callable[[], bool]
    sample: Callable[[str, int], str]
    extended: bool = False
    _unread: deque[StepDone] = attrs.field(factory=deque)
    _best: Checkpoint | None = None
    _written: set[int] = attrs.field(factory=set)
    _writing_seconds: float = 0.0

    def run(self, decided: Callable[[Decided], None], plan: Callable[[int], None]) -> None:
        """Train to the end and write a checkpoint.

        `decided` records what the trainer decides, and `plan` how many steps there are to be, once that is known.

        Raises Interrupted, TrainingError, or what the components raise.
        """
        logger.info(
            "training in %s on %s after step %d",
            self.directory.path,
            self.context.device,
            self.progress.step,
        )
        self.observers.tell(
            RunStarted(
                step=self.progress.step,
                evaluations=self.progress.evaluations,
                device=self.context.device,
                parameters=self._parameters(),
                vocab_size=self.data.vocab_size,
                training_tokens=len(self.data.training),
                validation_tokens=len(self.data.validation),
                since_best=self.progress.since_best,
                extended=self.extended,
            )
        )
        if self.observers.stopped is None:
            if self.context.processes is not None:  # which begin where this one does
                kind = self.context.device.partition(":")[0]
                self.context.processes.tell({"device": kind, "step": self.progress.step})
            with contextlib.closing(self._events()) as events:
                self._iterate(events, decided, plan)
        self._checkpoint()

    def _parameters(self) -> int | None:
        """The size of the weights, where there are any to train: of counts, some are there only when it resumes."""
        if not hasattr(self.model, "parameters"):
            return None
        return sum(int(array.size) for array in self.model.tensors().values())

    def _explain(self, error: BaseException) -> NoReturn:
        """Raise an error of trainer or model as the error to report."""
        if isinstance(error, ProcessesError):
            self._write_best()
            steps = self.directory.checkpoints.steps()
            again = ", from which the same command resumes" if steps else ""
            step = steps[-1] if steps else None
            raise ProcessesError(f"{error}; {self.directory.kept()}{again}", step=step) from error
        if isinstance(error, TrainingError) and error.refuses_state:
            raise self.directory.checkpoints.refused(self.progress.step, error) from error
        if not isinstance(error, TextgenError | MemoryError):
            for offer in self.blame:
                if offer.distribution != OWN_DISTRIBUTION:
                    suspect(error, offer)
                    break
        raise error

    def _events(self) -> Generator[Any]:
        """The events of the trainer. Only what fails here is blamed on it: observers may raise on purpose."""
        try:
            events = self.trainer.train(self.model, self.data, self.context)
            if events is None:
                raise blame(self.blame[0], "gave None from train; is a `yield` missing?")
            yield from events
        except FAILURES as error:
            self._explain(error)

    def _iterate(
        self, events: Iterable[Any], decided: Callable[[Decided], None], plan: Callable[[int], None]
    ) -> None:
        begun = earlier = time.perf_counter()
        training_seconds, tokens, planned = 0.0, 0, False
        before = self.progress.seconds
        wait = self.checkpoint_seconds
        due = begun + wait
        for event in events:
            now = time.perf_counter()
            self.progress.seconds = before + now - begun
            if isinstance(event, StepDone):
                self._check_losses(event)
                if (
                    not planned and event.steps == self.progress.steps
                ):  # what is only estimated changes
                    plan(event.steps)
                    planned = True
                training_seconds += now - earlier
                tokens += event.tokens
                self._stepped(event)
            elif isinstance(event, Decided):
                decided(event)
                planned = False
                self.observers.tell(event)
            elif isinstance(event, Evaluated):
                self._check_losses()
                self._evaluated(
                    event, tokens * self.data.characters_per_token / max(training_seconds, 1e-9)
                )
                training_seconds, tokens = 0.0, 0
            else:
                what = type(event).__name__
                raise blame(
                    self.blame[0],
                    f"yielded {what} from train, and must yield StepDone, Evaluated and Decided",
                )
            if self.observers.stopped is None and self.cancelled():
                self._interrupt()
            # Early after an evaluation, whose state may be the best and so have to be written as well.
            if time.perf_counter() >= due - (wait / 2 if isinstance(event, Evaluated) else 0.0):
                wait, planned = self._wait_after_checkpoint(), False
                due = time.perf_counter() + wait
            if self.observers.stopped is not None:
                return
            earlier = time.perf_counter()
        if self.context.processes is not None and self.context.processes.stop_asked:
            self._interrupt()

    def _interrupt(self) -> NoReturn:
        """Stop after a checkpoint."""
        self._checkpoint()
        step = self.progress.step
        raise Interrupted(f"stopped after step {step} and a checkpoint", step=step)

    def _stepped(self, event: StepDone) -> None:
        self._check_steps(event)
        self.progress.step, self.progress.steps = event.step, event.steps
        self.observers.tell(event)
        self._keep_stable(event)

    def _check_steps(self, event: StepDone) -> None:
        """Blame a trainer whose numbers of steps could not be read back from a checkpoint."""
        for name in ("step", "steps", "stable_steps"):
            value: Any = getattr(event, name)
            if type(value) is not int and not (name == "stable_steps" and value is None):
                kind = type(value).__name__
                raise blame(
                    self.blame[0],
                    f"yielded a StepDone whose {name} is of type {kind}, and must be an int",
                )

    def _keep_stable(self, event: StepDone) -> None:
        """Write the state that a run with more steps would reach as well, where the next step is another than its."""
        self.progress.stable_steps = event.stable_steps
        if event.step == event.stable_steps and event.step < event.steps:
            self._checkpoint()

    def _check_losses(self, event: StepDone | None = None) -> None:
        """Check the loss of a step: at once if it was read, else some steps later, so that the device is not awaited.

        Without `event`, all that were not checked.
        """
        if event is not None:
            self._unread.append(event)
        try:
            while self._unread and (event is None or event.is_read or len(self._unread) > _UNREAD):
                self._check_loss(self._unread.popleft())
        except FAILURES as error:  # a device reports some of its errors only when something is read
            self._explain(error)

    def _check_loss(self, event: StepDone) -> None:
        if math.isfinite(event.loss):
            return
        self._write_best()
        rate = event.learning_rate
        if event.step == 1:  # nothing was updated yet
            advice = ", before the first update, so the model is at fault, or its text"
        else:
            advice = (
                f" with learning rate {rate:g}; lower it, or clip the gradient"
                if rate is not None
                else ""
            )
        raise TrainingError(
            f"the loss is {event.loss} at step {event.step}{advice}; {self.directory.kept()}",
            step=event.step,
            learning_rate=rate,
        )

    def _evaluated(self, event: Evaluated, characters_per_second: float) -> None:
        loss = event.training_loss if event.validation_loss is None else event.validation_loss
        self.progress.evaluations += 1
        self._written.discard(
            event.step
        )  # what was written after this step knows nothing of the evaluation
        # One batch's training loss is too noisy to choose by: with nothing held out, the latest is the best.
        before = self.progress.best_loss
        best = (
            event.validation_loss is None or before is None or loss < before or math.isnan(before)
        )
        self.progress.since_best = 0 if best else self.progress.since_best + 1
        if best:
            self.progress.best_loss, self.progress.best_step = loss, event.step
            self._best = self._held_snapshot()
        self.observers.tell(
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
                since_best=self.progress.since_best,
                sample=self.sample,
                model=self.model,
            )
        )
        if best and self._best is None:  # after the observers: what they wrote is counted
            self._write(self._snapshot())
            self._keep()

    def _held_snapshot(self) -> Checkpoint | None:
        """A copy of the current state, to be written later; None if that would take too much memory."""
        now = self._snapshot()
        arrays = now.trainer.arrays
        if sum(array.nbytes for array in (*now.tensors.values(), *arrays.values())) > _HELD:
            return None
        return attrs.evolve(
            now,
            tensors={name: array.copy() for name, array in now.tensors.items()},
            trainer=TrainerState(
                {name: array.copy() for name, array in arrays.items()}, now.trainer.values
            ),
        )

    def _snapshot(self) -> Checkpoint:
        """The current state. Its arrays change with the next step, where they are in the memory of the CPU."""
        try:
            state = self.trainer.state()
            if not isinstance(state, TrainerState):
                raise blame(
                    self.blame[0],
                    f"gave {type(state).__name__} from state, and must give a TrainerState",
                )
            return Checkpoint(
                tensors=self.model.tensors(),
                trainer=TrainerState(state.arrays, dict(state.values)),
                progress=attrs.evolve(self.progress),
            )
        except FAILURES as error:
            self._explain(error)

    def _checkpoint(self) -> None:
        """Write checkpoints of the best and the current state, and remove all others."""
        self._check_losses()
        self._write_best()
        if self.progress.step not in self._written:
            self._write(self._snapshot())
        self._keep()

    def _keep(self) -> None:
        """Remove all checkpoints but those of the current and the best state, and the one to train on from."""
        now = self.progress
        self.directory.checkpoints.keep({now.step, now.best_step, now.stable_steps})

    def _wait_after_checkpoint(self) -> float:
        """Write a checkpoint, and return for how many seconds to write no other."""
        self._checkpoint()
        spent, self._writing_seconds = self._writing_seconds, 0.0
        return max(self.checkpoint_seconds, spent / _WRITING) if self.checkpoint_seconds else 0.0

    def _write_best(self) -> None:
        if self._best is not None and self._best.step not in self._written:
            self._write(self._best)
        self._best = None

    def _write(self, checkpoint: Checkpoint) -> None:
        begun = time.perf_counter()
        try:
            path = self.directory.checkpoints.write(checkpoint)
        except OSError as error:
            cause = f"the checkpoint of step {checkpoint.step} cannot be written to {self.directory.path}"
            raise RunError(f"{cause}: {error.strerror or error}", self.directory.path) from error
        self._writing_seconds += time.perf_counter() - begun
        self._written.add(checkpoint.step)
        logger.info("checkpoint of step %d written to %s", checkpoint.step, path)
        self.observers.tell(Checkpointed(step=checkpoint.step, path=path))
