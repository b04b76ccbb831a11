"""The training loop: iterates a trainer, measures, notifies observers, writes checkpoints, stops on
request.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import attrs

from textgen.contracts.checks import FAILURES
from textgen.contracts.components import Components, described
from textgen.data import Dataset
from textgen.errors import (
    ContractError,
    DeviceError,
    Interrupted,
    PluginError,
    PluginWarning,
    ProcessesError,
    TextgenError,
    TrainingError,
)
from textgen.events import (
    Checkpointed,
    Evaluated,
    Evaluation,
    Event,
    RunFinished,
    RunStarted,
    StepDone,
    Stop,
)
from textgen.files.tensors import with_nan
from textgen.generation.scoring import perplexity
from textgen.gradient.options import GradientOptions, Length
from textgen.messages import byte_count
from textgen.pipeline.pipeline import Pipeline
from textgen.plugin.component import OWN_DISTRIBUTION, RegisteredComponent
from textgen.protocols import (
    Observer,
    StatefulObserver,
    Table,
    Trainer,
    TrainerState,
    TrainingContext,
)
from textgen.runs.checkpoints import Checkpoint
from textgen.runs.directory import RunDirectory
from textgen.runs.formats import Progress, Stopped
from textgen.runs.record import finish

_WRITING: Final = 1 / 20  # share of the time that checkpoints may take
_DIVERGED: Final = 1.0  # nats that a loss rises where the model is worse than before training
_LEAST_READ: Final = 1 / 3  # of a text, by a model that is tuned to it
_UNREAD_LOSSES: Final = 8  # steps whose losses may stay on the device


AnyObserver: TypeAlias = Observer | Callable[[Event], Stop | None]
"""An observer of a program: a function of events is one too."""


class Observers:
    """Tells observers of events, in order: each comes with its offer, or None for one of the
    caller's.

    One of the pipeline's that fails, or whose sample does, is left out with a warning, for it must
    not cost hours of training. What one of the caller's raises ends the run. `stopped` is the first
    that asked for the end of the run. `components` are those of the run.
    """

    def __init__(
        self,
        entries: Iterable[tuple[AnyObserver, RegisteredComponent | None]],
        components: Components,
    ) -> None:
        self._entries, self._components = list(entries), components
        self.stopped: Stopped | None = None

    def state(self) -> dict[str, Any]:
        """The states of those of the pipeline that have one, JSON values by their names."""
        states = {}
        for name, entry in self._stateful():
            with self._sparing(*entry):
                states[name] = json.loads(json.dumps(entry[0].state()))
        return states

    def load_state(self, states: Table) -> None:
        """Give them the states of a checkpoint."""
        for name, entry in self._stateful():
            if name in states:
                with self._sparing(*entry):
                    entry[0].load_state(states[name])

    def _stateful(self) -> list[tuple[str, tuple[StatefulObserver, RegisteredComponent]]]:
        names, found = Counter[str](), []
        for observer, offer in self._entries:
            if offer is not None and isinstance(observer, StatefulObserver):
                found.append((f"{offer.name}-{names[offer.name]}", (observer, offer)))
                names[offer.name] += 1
        return found

    def tell(self, event: Event) -> None:
        """Tell all of them."""
        for observer, offer in tuple(self._entries):
            with self._sparing(observer, offer):
                observe: Any = getattr(observer, "observe", observer)
                answer: object = observe(event)
                if answer is not None and not isinstance(answer, Stop):
                    raise TypeError(
                        "observe must return None or a textgen.events.Stop, and returned "
                        f"{answer!r}"
                    )
                if answer is not None and self.stopped is None:
                    name = getattr(observer, "__name__", type(observer).__name__)
                    self.stopped = Stopped(
                        name if offer is None else offer.name, str(answer.reason)
                    )

    @contextlib.contextmanager
    def _sparing(self, observer: AnyObserver, offer: RegisteredComponent | None) -> Iterator[None]:
        """A block that calls an observer."""
        try:
            yield
        except FAILURES as error:
            if offer is None:
                self._components.spared = error
            is_of_sample = isinstance(error, PluginError | DeviceError)
            if offer is None or (isinstance(error, TextgenError) and not is_of_sample):
                raise
            self._entries.remove((observer, offer))
            said = f"{offer} failed and is left out: {described(error, offer)}"
            warnings.warn(said, PluginWarning, stacklevel=4)


@attrs.define(kw_only=True)
class TrainingLoop:
    """One training of `model` by `trainer`, from wherever `progress` stands.

    record               run.json, which gets the progress with each checkpoint
    components           those of the run
    observers            may stop the run early; then `observers.stopped` says which did
    cancelled            asked after every step; true stops the run after a checkpoint
    sample               continues a prompt with the model as it is
    """

    pipeline: Pipeline
    directory: RunDirectory
    record: dict[str, Any]
    model: Any
    trainer: Trainer
    components: Components
    data: Dataset
    context: TrainingContext
    observers: Observers
    progress: Progress
    cancelled: Callable[[], bool]
    sample: Callable[[str, int], str]
    _saved: int | None = attrs.field(  # the step of the newest checkpoint
        default=attrs.Factory(lambda self: self.progress.step or None, takes_self=True), init=False
    )
    _due: float = attrs.field(default=0.0, init=False)
    _step_tokens: int = attrs.field(default=0, init=False)
    _unread: deque[StepDone] = attrs.field(factory=deque, init=False)

    def run(self) -> None:
        """Train to the end, put the model in place, and tell the observers how it ended.

        Raises Interrupted, TrainingError, or what the components raise.
        """
        status: Literal["finished", "interrupted", "failed"] = "failed"
        cause, by = "interrupted", ""
        try:
            self._train()
            stopped = self.observers.stopped
            finish(self.directory, self.record, self.progress, stopped)
            status, by = "finished", stopped.by if stopped else ""
        except Interrupted:
            status = "interrupted"
            raise
        except Exception as error:
            cause = f"{type(error).__name__}: {error}"
            raise
        finally:
            step = self.progress.step
            if status != "finished":
                ended = {"status": "unfinished", "step": step, "cause": cause}
                with contextlib.suppress(OSError):  # the disk may be why
                    self.directory.write_run({**self.record, **ended})
            failed = cause if status == "failed" else ""
            self.observers.tell(RunFinished(step=step, status=status, stopped_by=by, cause=failed))

    def _train(self) -> None:
        """Train to the end and write a checkpoint."""
        progress = self.progress
        self.observers.tell(
            RunStarted(
                step=progress.step,
                evaluations=progress.evaluations,
                device=self.context.device,
                parameters=self.record["parameters"],
                vocab_size=self.data.vocab_size,
                training_tokens=len(self.data.training),
                validation_tokens=len(self.data.validation),
                since_best=progress.since_best,
            )
        )
        try:
            if not any(self._in_any(self.observers.stopped is not None)):
                with contextlib.closing(self._events()) as events:
                    self._iterate(events)
            self._checkpoint()
        except ProcessesError as error:
            error.step = self._saved
            raise
        first, last, best = progress.first_loss, progress.last_loss, progress.best_loss
        if first is None or best is None:
            return
        # Finite losses may have risen all the same. Where the text held out is all that is
        # predicted worse, it is overfitted.
        rise = min(last, best) - first
        if math.isnan(rise) or rise > _DIVERGED:
            raise TrainingError(
                f"training diverged: the loss was {first:.4g} at step 1 and is {last:.4g} at step "
                f"{progress.step}; lower the learning rate, or clip the gradient",
                step=progress.step,
            )
        self._warn_of_little_read()

    def _warn_of_little_read(self) -> None:
        """Warn where the time was over before a model that is tuned had read a third of the text,
        as it is on a slow machine, or beside other programs.
        """
        options, progress = self.pipeline.trainer.options, self.progress
        if not isinstance(options, GradientOptions) or not self._is_tuned():
            return
        is_by_time = Length.of(options.length).seconds < math.inf
        share = progress.step * self._step_tokens / max(1, len(self.data.training))
        if not is_by_time or self.observers.stopped is not None or not 0 < share < _LEAST_READ:
            return
        steps = "1 step" if progress.step == 1 else f"{progress.step} steps"
        a_pass = progress.seconds / share
        warnings.warn(
            f"the time was over after {steps}, in which {share:.1%} of the text was read once; the "
            f"model has hardly learnt from it. All of it takes about {a_pass:.0f} seconds here: a "
            "greater trainer.length trains the run on, and `textgen init --start` takes another "
            "start",
            stacklevel=2,
        )

    def _is_tuned(self) -> bool:
        """Whether the model began with what another had learnt: it names it, or has its weights
        frozen.
        """
        parameters = self.model.parameters() if hasattr(self.model, "parameters") else ()
        is_adapted = any(not each.requires_grad for each in parameters)
        return is_adapted or self.pipeline.model.start is not None

    def _in_any(self, *facts: bool) -> Sequence[bool]:
        """The facts; of several processes, whether each is true in any of them."""
        processes = self.context.processes
        return facts if processes is None else [count > 0 for count in processes.sums(*facts)]

    @contextlib.contextmanager
    def _blaming(self) -> Iterator[None]:
        """Raise an error of trainer or model as the error to report."""
        both = self.pipeline.trainer.offer, self.pipeline.model.offer
        foreign = (offer for offer in both if offer.distribution != OWN_DISTRIBUTION)
        try:
            with self.components.blaming(next(foreign, None)):
                yield
        except TrainingError as error:
            if not error.refuses_state:
                raise
            raise self.directory.checkpoints.refused(self.progress.step, error) from error

    def _events(self) -> Generator[Any]:
        """The events of the trainer.

        Only what fails here is blamed on it: observers may raise on purpose.
        """
        with self._blaming():
            yield from self.trainer.train(self.model, self.data, self.context)

    def _iterate(self, events: Iterable[Any]) -> None:
        clock, before = time.perf_counter, self.progress.seconds
        begun = earlier = clock()
        self._due = begun + self.pipeline.checkpoint.seconds
        seconds, tokens = 0.0, 0  # of training since the last evaluation
        for event in events:
            now = clock()
            self.progress.seconds = before + now - begun
            if not isinstance(event, Evaluated):
                seconds += now - earlier
            if isinstance(event, StepDone):
                tokens += event.tokens
                self._stepped(event)
            elif isinstance(event, Evaluated):
                characters = tokens * self.data.characters_per_token
                self._evaluated(event, characters / max(seconds, 1e-9))
                seconds, tokens = 0.0, 0
            else:
                what = type(event).__name__
                raise ContractError(
                    self.pipeline.trainer.offer,
                    f"yielded {what} from train, and must yield StepDone and Evaluated",
                )
            if not (isinstance(event, StepDone) and event.evaluates):
                if clock() >= self._due:
                    self._checkpoint()
                is_stopped = self.observers.stopped is not None
                is_stopped, is_cancelled = self._in_any(is_stopped, self.cancelled())
                if is_stopped:
                    return
                if is_cancelled:
                    self._checkpoint()
                    step = self.progress.step
                    raise Interrupted(f"interrupted after step {step}", step=step)
            earlier = clock()

    def _stepped(self, event: StepDone) -> None:
        self._unread.append(event)
        self._check_losses(unread=_UNREAD_LOSSES)
        progress = self.progress
        self._step_tokens = event.tokens
        progress.step, progress.steps = event.step, event.steps
        progress.steps_before_decay = event.steps_before_decay
        self.observers.tell(event)
        if event.step == event.steps_before_decay and event.step < event.steps:
            self._due = -math.inf  # the state that a run of more steps would reach as well

    def _check_losses(self, unread: int = 0) -> None:
        """Check the losses of steps.

        The last `unread` may wait, so that the device is not awaited.
        """
        with self._blaming():  # a device reports some of its errors only when something is read
            while self._unread and (len(self._unread) > unread or self._unread[0].is_read):
                self._check_loss(self._unread.popleft())

    def _check_loss(self, event: StepDone) -> None:
        progress, loss = self.progress, float(event.loss)
        if math.isfinite(loss):
            progress.first_loss = loss if progress.first_loss is None else progress.first_loss
            progress.last_loss = loss
            return
        rate = event.learning_rate
        if event.step == 1:  # nothing was updated yet
            choices = (self.pipeline.model, *self.pipeline.trainer.flattened())
            makers = " or ".join(str(choice.offer) for choice in choices)
            advice = f", before the first update: by {makers}, or by the text"
        elif rate is not None:
            advice = f" with learning rate {rate:g}; lower it, or clip the gradient"
        else:
            advice = ""
        raise TrainingError(
            f"the loss is {event.loss} at step {event.step}{self._makers}{advice}", step=event.step
        )

    @property
    def _makers(self) -> str:
        """The trainer, and what it is made of, in an error: what comes with textgen needs no
        name.
        """
        offers = [choice.offer for choice in self.pipeline.trainer.flattened()]
        foreign = [str(offer) for offer in offers if offer.distribution != OWN_DISTRIBUTION]
        return f" of {' and '.join(foreign)}" if foreign else ""

    def _evaluated(self, event: Evaluated, characters_per_second: float) -> None:
        self._check_losses()
        progress, before = self.progress, self.progress.best_objective
        loss = event.training_loss if event.validation_loss is None else event.validation_loss
        # One batch's training loss is too noisy to choose by: with nothing held out, the latest is
        # the best.
        objective = loss if event.objective is None else event.objective
        is_measured = event.objective is not None or event.validation_loss is not None
        if is_measured and math.isnan(objective + loss):
            cause = f"the loss or objective of the text held out is nan at step {event.step}"
            raise TrainingError(cause, step=event.step)
        best = not is_measured or before is None or objective < before
        progress.evaluations += 1
        progress.since_best = 0 if best else progress.since_best + 1
        if best:
            progress.best_loss, progress.best_step = loss, event.step
            progress.best_objective = objective
        self.observers.tell(
            Evaluation(
                step=event.step,
                epoch=event.epoch,
                training_loss=event.training_loss,
                validation_loss=event.validation_loss,
                perplexity=perplexity(loss),
                bits_per_character=loss / math.log(2) / self.data.characters_per_token,
                characters_per_second=characters_per_second,
                seconds=progress.seconds,
                best=best,
                since_best=progress.since_best,
                figures=event.figures,
                sample=self.sample,
                model=self.model,
            )
        )
        if best:  # after the observers: what they wrote is counted
            self._checkpoint()

    def _checkpoint(self) -> None:
        """Write a checkpoint of the current state, unless there is one, and remove those that no
        run needs.

        An evaluation after it is made again by a run that resumes from it.
        """
        self._check_losses()
        if not self.directory.may_write:
            return
        now, checkpoints = self.progress, self.directory.checkpoints
        if now.step != self._saved:
            begun = time.perf_counter()
            path = self._written(self._snapshot())
            self._saved = now.step
            self.observers.tell(Checkpointed(step=now.step, path=path))
            taken = time.perf_counter() - begun
            seconds = self.pipeline.checkpoint.seconds
            wait = max(seconds, taken / _WRITING) if seconds else 0
            self._due = time.perf_counter() + wait
        checkpoints.keep({now.step, now.best_step, now.steps_before_decay})
        self.record |= attrs.asdict(now)
        self.directory.write_run(self.record)

    def _written(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint. An error that the disk is full says how much room is needed."""
        try:
            return self.directory.checkpoints.write(checkpoint)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                parts = (checkpoint.tensors, checkpoint.trainer.arrays, checkpoint.published)
                size = sum(array.nbytes for arrays in parts for array in arrays.values())
                needed = (
                    f"a checkpoint takes {byte_count(size)}, and the one before stays meanwhile"
                )
                error.strerror = f"{error.strerror}; {needed}"
            raise

    def _snapshot(self) -> Checkpoint:
        """The current state.

        Its arrays change with the next step, where they are in the memory of the CPU.
        """
        with self._blaming():
            state = self.trainer.state()
            if not isinstance(state, TrainerState):
                raise ContractError(
                    self.pipeline.trainer.offer,
                    f"gave {type(state).__name__} from state, and must give a TrainerState",
                )
            progress, tensors = attrs.evolve(self.progress), self.model.tensors()
            if name := with_nan(tensors):
                cause = (
                    f"{name} has values that are not numbers (NaN) after step {progress.step}"
                    f"{self._makers}"
                )
                raise TrainingError(cause, step=progress.step)
            return Checkpoint(
                tensors,
                state,
                progress,
                self.observers.state(),
                getattr(self.trainer, "published", dict)(),
            )
