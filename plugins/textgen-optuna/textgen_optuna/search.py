"""A search: trials that are runs, in a study that may be interrupted and shared."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import attrs
import filelock
import optuna
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from textgen import (
    Engine,
    Fault,
    Interrupted,
    Pipeline,
    PipelineError,
    RunError,
    RunSummary,
    TextgenError,
    UsageError,
    summarize,
)
from textgen.events import Evaluation, Event, RunSkipped, RunStarted, Stop
from textgen_optuna.space import Dimension

JOURNAL: Final = "study.journal"
_LOCKS: Final = ".locks"
_NAME: Final = "textgen"
_STUDY: Final = "study"
_WARM_UP: Final = 2  # the first evaluation at which a trial may be pruned
_SAME: Final = (
    "seed",
    "tokenizer",
    "data",
    "model",
    "trainer",
)  # what trials share, but for what is searched
_DIRECTORY: Final = "directory"

SamplerName: TypeAlias = Literal["tpe", "random"]


@attrs.frozen
class TrialResult:
    """A trial as the study knows it.

    status               "finished", "pruned", "failed" or "unfinished"
    loss                 the lowest, in nats per token; None of a trial that has not finished, in a
                         search by bits
    bits_per_character   the fewest, in a search by them; else None
    unknown_share        of a finished trial: the share of its tokens that stand for text outside
                         the vocabulary
    """

    name: str
    settings: dict[str, Any]
    status: str
    loss: float | None
    evaluations: int
    error: str = ""
    bits_per_character: float | None = None
    unknown_share: float = 0.0

    @property
    def figure(self) -> float | None:
        """The figure that the search goes by."""
        return self.loss if self.bits_per_character is None else self.bits_per_character


@attrs.frozen
class Pruning:
    """Reports the loss of each evaluation, by its number, and ends a run that will hardly be the
    best.

    earlier   what an interrupted part of the run has reported
    in_bits   whether bits per character are reported in place of the loss
    """

    trial: optuna.Trial
    earlier: Mapping[int, float]
    in_bits: bool = False
    _seen: list[int] = attrs.field(factory=lambda: [0])

    def observe(self, event: Event) -> Stop | None:
        """Report, and ask for the end."""
        if isinstance(event, RunStarted | RunSkipped):
            self._seen[0] = (
                event.evaluations if isinstance(event, RunStarted) else len(self.earlier)
            )
            for number, loss in sorted(self.earlier.items()):
                if number <= self._seen[0]:
                    self.trial.report(loss, number)
        elif isinstance(event, Evaluation) and event.validation_loss is not None:
            self._seen[0] += 1
            self.trial.report(
                event.bits_per_character if self.in_bits else event.validation_loss, self._seen[0]
            )
            if self.trial.should_prune():
                better = "fewer bits per character" if self.in_bits else "a lower loss"
                return Stop(f"others had {better} at evaluation {self._seen[0]}")
        return None


@attrs.frozen(kw_only=True)
class Search:
    """A search of a space for a pipeline, in a folder that holds the runs and the journal of the
    study.
    """

    engine: Engine
    pipeline: str
    space: Sequence[Dimension]
    folder: Path
    seed: int = 0
    sampler: SamplerName = "tpe"
    is_pruned: bool = True
    cancelled: Callable[[], bool] = lambda: False

    @property
    def in_bits(self) -> bool:
        """Whether it goes by bits per character, since trials have other tokens, whose losses
        cannot be compared.
        """
        return any(
            dimension.key.partition(".")[0].strip() == "tokenizer" for dimension in self.space
        )

    def check(self) -> Pipeline:
        """Check the pipeline at the corners of the space. Raises PipelineError with every fault."""
        first = {dimension.key: dimension.corners[0] for dimension in self.space}
        settings = [{**first, each.key: value} for each in self.space for value in each.corners]
        faults: dict[Fault, None] = {}
        made: list[Pipeline] = []
        for values in settings:
            try:
                made.append(self.engine.pipeline(self.pipeline, values))
            except PipelineError as error:
                faults |= dict.fromkeys(error.faults)
        if faults:
            raise PipelineError(list(faults), self.pipeline)
        data = made[0].data
        if not (data.validation if data.windows is None else data.windows[1]):
            raise UsageError(
                "nothing is held out, and the loss of the held-out text is what is searched by"
            )
        return made[0]

    def run(self, number: int, tell: Callable[[TrialResult, int], None]) -> None:
        """Run trials until the study has `number` of them. `tell` hears of each that is over.

        Raises Interrupted, with the trial resumed by the next search in this folder.
        """
        pipeline = self.check()
        with self._locked(_STUDY):
            study = self._study(pipeline)
        while (claimed := self._next(study, number)) is not None:
            trial, name, lock = claimed
            try:
                tell(self._run_trial(study, trial, name), int(name.rpartition("-")[2]) + 1)
            finally:
                lock.release()

    def results(self) -> list[TrialResult]:
        """Results of the study's trials, the best first."""
        study = optuna.load_study(study_name=_NAME, storage=self._storage())
        by_name = {
            _name_of(trial): trial for trial in study.get_trials(deepcopy=False)
        }  # the last attempt at each
        found = [self._result(trial) for trial in by_name.values()]
        order = ("finished", "pruned", "unfinished", "failed")
        return sorted(
            found,
            key=lambda result: (order.index(result.status), result.figure is None, result.figure),
        )

    def _study(self, pipeline: Pipeline) -> optuna.Study:
        study = optuna.create_study(
            study_name=_NAME,
            storage=self._storage(),
            pruner=optuna.pruners.MedianPruner(n_warmup_steps=_WARM_UP)
            if self.is_pruned
            else optuna.pruners.NopPruner(),
            direction="minimize",
            load_if_exists=True,
        )
        tables = pipeline.to_dict()
        now = {
            "space": json.loads(json.dumps([attrs.asdict(dimension) for dimension in self.space])),
            "pipeline": json.loads(json.dumps({key: tables[key] for key in _SAME}, default=str)),
        }
        for what, value in now.items():
            if study.user_attrs.get(what, value) != value:
                whole = "search space" if what == "space" else "pipeline"
                cause = f"{self.folder} holds a study of another {whole}"
                raise UsageError(f"{cause}; choose another folder with --output", argument="output")
            study.set_user_attr(what, value)
        return study

    def _storage(self) -> optuna.storages.JournalStorage:
        backend = JournalFileBackend(str(self.folder / JOURNAL), _JournalLock(self._lock(JOURNAL)))
        return optuna.storages.JournalStorage(backend)

    def _next(
        self, study: optuna.Study, number: int
    ) -> tuple[optuna.Trial, str, filelock.BaseFileLock] | None:
        """A trial to run, its name, and a lock that says that it is being run; None if there are
        enough of them.
        """
        with self._locked(_STUDY):
            self._recover(study)
            trials = study.get_trials(deepcopy=False)
            started = len({_name_of(trial) for trial in trials})
            if started >= number and not any(trial.state == TrialState.WAITING for trial in trials):
                return None
            # Seeded by the trial, so that an interrupted search suggests what an uninterrupted one
            # does.
            study.sampler = self._sampler(started)
            trial = study.ask()
            name = trial.user_attrs.get(_DIRECTORY) or f"trial-{started:04d}"
            trial.set_user_attr(_DIRECTORY, name)
            lock = self._lock(name)
            lock.acquire(timeout=0)
            return trial, name, lock

    def _recover(self, study: optuna.Study) -> None:
        """Trials whose process is gone are tried again: their runs resume."""
        for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            lock = self._lock(_name_of(trial))
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                continue
            try:
                study.tell(trial.number, state=TrialState.FAIL)
                study.enqueue_trial(trial.params, user_attrs={_DIRECTORY: _name_of(trial)})
            finally:
                lock.release()

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        digest = hashlib.sha256(f"{self.seed} {number}".encode()).digest()
        seed = int.from_bytes(digest[:4], "little")
        return (
            optuna.samplers.TPESampler(seed=seed)
            if self.sampler == "tpe"
            else optuna.samplers.RandomSampler(seed=seed)
        )

    def _run_trial(self, study: optuna.Study, trial: optuna.Trial, name: str) -> TrialResult:
        settings = {dimension.key: dimension.suggest(trial) for dimension in self.space}
        trial.set_user_attr("settings", settings)
        observer = Pruning(trial, _reported(study, name), self.in_bits)
        path = self.folder / name
        try:
            run = self.engine.run(
                self.pipeline, settings, output=path, observers=[observer], cancelled=self.cancelled
            )
            run.generator.close()
        except Interrupted:
            raise
        except TextgenError as error:
            trial.set_user_attr("error", str(error))
            return self._result(study.tell(trial, state=TrialState.FAIL))
        summary = summarize(path)
        stopped = summary.record.get("stopped") or {}
        if stopped.get("by") == Pruning.__name__:
            return self._result(study.tell(trial, state=TrialState.PRUNED))
        if (figure := self._figure(summary)) is None:
            what = (
                "bits per character in metrics.jsonl, which the observer metrics writes"
                if self.in_bits
                else "loss"
            )
            raise RunError(f"the run in {path} has no {what}", path)
        trial.set_user_attr("loss", summary.best_loss)
        trial.set_user_attr(
            "unknown_share", (summary.record.get("data") or {}).get("unknown_share") or 0.0
        )
        return self._result(study.tell(trial, figure))

    def _figure(self, summary: RunSummary) -> float | None:
        """The figure that ranks a finished run, at its best evaluation."""
        if not self.in_bits:
            return summary.best_loss
        best = (row for row in summary.metrics() if row["step"] == summary.best_step)
        return next(
            (float(row["bits_per_character"]) for row in best if "bits_per_character" in row), None
        )

    def _result(self, trial: FrozenTrial) -> TrialResult:
        statuses = {
            TrialState.COMPLETE: "finished",
            TrialState.PRUNED: "pruned",
            TrialState.FAIL: "failed",
        }
        reported = trial.intermediate_values
        figure = (
            trial.value
            if trial.state == TrialState.COMPLETE
            else min(reported.values(), default=None)
        )
        return TrialResult(
            name=_name_of(trial),
            settings=trial.user_attrs.get("settings", dict(trial.params)),
            status=statuses.get(trial.state, "unfinished"),
            loss=trial.user_attrs.get("loss") if self.in_bits else figure,
            evaluations=max(reported, default=0),
            error=trial.user_attrs.get("error", ""),
            bits_per_character=figure if self.in_bits else None,
            unknown_share=trial.user_attrs.get("unknown_share", 0.0),
        )

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        with self._lock(name):
            yield

    def _lock(self, name: str) -> filelock.BaseFileLock:
        """A lock that the operating system releases when the process ends, however it ends."""
        folder = self.folder / _LOCKS
        folder.mkdir(parents=True, exist_ok=True)
        return filelock.FileLock(folder / name)


class _JournalLock(JournalFileOpenLock):
    """Optuna's own locks are files that a killed process leaves behind, and that others then wait
    for.
    """

    def __init__(self, lock: filelock.BaseFileLock) -> None:
        self._lock = lock

    def acquire(self) -> bool:
        """Wait for the lock."""
        self._lock.acquire()
        return True

    def release(self) -> None:
        """Release it."""
        self._lock.release()


def _name_of(trial: FrozenTrial) -> str:
    """The name of a trial's run directory."""
    return str(trial.user_attrs.get(_DIRECTORY, f"trial-{trial.number:04d}"))


def _reported(study: optuna.Study, name: str) -> dict[int, float]:
    """Reports of earlier attempts at a trial."""
    trials = study.get_trials(deepcopy=False)
    return {
        step: loss
        for trial in trials
        if _name_of(trial) == name
        for step, loss in trial.intermediate_values.items()
    }
