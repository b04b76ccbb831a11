"""The contract of observers."""

from __future__ import annotations

import contextlib
import copy
import io
import itertools
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Final, Unpack

import attrs
import tomli_w

from textgen.contracts.checks import FAILURES
from textgen.errors import TextgenError
from textgen.events import Checkpointed, Evaluation, RunFinished, RunStarted, StepDone, Stop
from textgen.plugin.component import Component
from textgen.protocols import Tensors
from textgen.testing.environment import build_from_table, close
from textgen.testing.outcomes import Outcome, Skip, Violation
from textgen.testing.process_state import no_thread_left
from textgen.testing.suite import Given, Suite, check
from textgen.testing.trainers import SMALL_RNN
from textgen.testing.training_data import differing
from textgen.testing.watching import watched

__tracebackhide__ = True  # pytest shows the test and the code of the component

_STEPS: Final = 12
_MANY: Final = 160  # steps of a long run
_PATIENCE: Final = 1 / 12  # of the time limit: what training may wait for one that computes nothing
PIPELINE: Final[Mapping[str, Any]] = {
    "device": "cpu",
    "corpus": {"type": "story"},
    "tokenizer": {"type": "char"},
    "model": {"type": "rnn", "hidden_size": 8},
    "trainer": {"type": "sgd"},
}
_ENGINE_FILES: Final = (
    "pipeline.toml",
    "run.json",
    "tokenizer.json",
    "model.safetensors",
    "tokens.bin",
)


def check_observer(
    component: Component, *, pipeline: Mapping[str, Any] = PIPELINE, **given: Unpack[Given]
) -> tuple[Outcome, ...]:
    """Hold an observer to its contract: show it runs, whole, resumed and failed.

    Raises ContractFailure.

    pipeline    the pipeline that the run directory holds, for an observer that needs a certain one
    """
    return check(ObserverSuite, component, given, pipeline=pipeline)


@attrs.frozen
class UnknownEvent:
    """An event that a later textgen may have."""

    step: int = 1


def run_events(
    directory: Path,
    *,
    first: int = 0,
    last: int = _STEPS,
    held_out: bool = True,
    status: Any = "finished",
) -> Iterator[Any]:
    """The events of a run from the step after `first` to the step `last`, an evaluation after every
    second step.
    """
    yield RunStarted(
        step=first,
        evaluations=first // 2,
        device="cpu",
        parameters=100,
        vocab_size=20,
        training_tokens=900,
        validation_tokens=100 if held_out else 0,
    )
    for step in range(first + 1, last + 1):
        loss = 3.0 / step
        rate = 0.5 if held_out else None
        yield StepDone(
            step=step,
            steps=max(_STEPS, last),
            epoch=step,
            loss=loss,
            tokens=64,
            learning_rate=rate,
            gradient_norm=rate,
        )
        if step % 2 == 0:
            yield _evaluation(step, loss, loss + 0.1 if held_out else None)
            yield Checkpointed(step=step, path=directory / "checkpoints" / f"step-{step:06}")
    yield RunFinished(step=last, status=status)


def _evaluation(step: int, loss: float, validation_loss: float | None) -> Evaluation:
    return Evaluation(
        step=step,
        epoch=step,
        training_loss=loss,
        validation_loss=validation_loss,
        perplexity=2.0,
        bits_per_character=1.0,
        characters_per_second=1000.0,
        seconds=step / 10,
        best=True,
        sample=lambda prompt, max_new_tokens: ("a sample, of text\n" * max_new_tokens)[
            :max_new_tokens
        ],
    )


@attrs.frozen
class ObserverSuite(Suite):
    """The checks of an observer. One that refuses the run with an error of textgen is skipped."""

    kind: ClassVar[str] = "observer"
    pipeline: Mapping[str, Any] = PIPELINE

    def new(self, directory: Path | None = None, **context: Any) -> Any:
        """An observer of the run in a directory."""
        context["directory"] = directory or self._directory()
        try:
            return super().new(**context)
        except TextgenError as error:
            raise Skip(f"it refuses this run: {error}") from error

    def run(self) -> None:
        for held_out, console in itertools.product((True, False), (None, io.StringIO())):
            last = _MANY if held_out and console is None else _STEPS
            written = io.StringIO()
            with (
                no_thread_left(),
                contextlib.redirect_stdout(written),
                contextlib.redirect_stderr(written),
            ):
                self._run(held_out=held_out, console=console, last=last)
            if text := written.getvalue():
                given = "no console" if console is None else "a console"
                raise Violation(f"with {given} it wrote {text[:60]!r}; use context.console")

    def unknown(self) -> None:
        directory = self._directory()
        started, *others = run_events(directory)
        self._show(self.new(directory), [started, UnknownEvent(), *others, UnknownEvent()])

    def failed(self) -> None:
        self._run(last=0, status="failed")

    def resumed(self) -> None:
        """No row of the steps 5 and 6, which come twice, is there twice."""
        directory = self._run(last=6, status="interrupted")
        self._run(directory, first=4)
        self._run(first=4)
        whole, bare = _texts(self._run()), _texts(self._run(last=0))
        for name, text in _texts(directory).items():
            once = Counter(whole.get(name, "").splitlines())
            ends = bare.get(name, "").splitlines()  # written of beginning and end, twice by right
            for line, count in Counter(text.splitlines()).items():
                if line.strip() and once[line] == 1 < count and line not in ends:
                    before = "once from before the run resumed at step 4"
                    raise Violation(f"{name} has the line {line!r} twice, {before}")

    def files(self) -> None:
        directory, usual = self._directory(), tempfile.tempdir
        elsewhere = directory.parent / "elsewhere"
        elsewhere.mkdir()
        before = _names(directory)
        tempfile.tempdir = str(elsewhere)
        try:
            with contextlib.chdir(elsewhere), watched() as deeds:
                observer = self.new(directory)
                if early := sorted(_names(directory) - before):
                    raise Violation(f"build made {', '.join(early[:3])}, before RunStarted came")
                self._show(observer, run_events(directory))
                close(observer)
        finally:
            tempfile.tempdir = usual
        strangers = [name for name in _names(directory.parent) if not name.startswith("run/")]
        strangers += [
            str(path)
            for path in deeds.written
            if not path.is_relative_to(directory.parent) and "__pycache__" not in path.parts
        ]
        if strangers:
            raise Violation(f"it wrote {strangers[0]}, outside the run directory")
        for name in _ENGINE_FILES:
            path = directory / name
            if not path.is_file() or path.read_bytes() != self._content(name).encode():
                raise Violation(f"it changed {name}, which is the engine's")
        theirs = sorted(n for n in _names(directory) - before if n.startswith("checkpoints/"))
        if theirs:
            raise Violation(f"it wrote {theirs[0]}, a name that textgen itself writes to")

    def apart(self) -> None:
        """A run shown beside the run of another; its files are those of a run alone.

        A file that differs between two runs alone, by a clock perhaps, is not compared.
        """
        alone, again = _texts(self._run()), _texts(self._run())
        first, second = self._directory(), self._directory()
        one, other = self.new(first), self.new(second)
        pairs = zip(run_events(first), run_events(second, held_out=False), strict=True)
        for ours, theirs in pairs:
            self._show(one, [ours])
            self._show(other, [theirs])
        if (names := sorted(_texts(first))) != sorted(alone):
            raise Violation(f"alone it left {sorted(alone)}, and beside another run {names}")
        for name, text in _texts(first).items():
            if text != alone.get(name) and alone.get(name) == again.get(name):
                raise Violation(f"beside another run, {name} came out otherwise than alone")

    def _directory(self) -> Path:
        """A run directory as the engine leaves it when training begins."""
        directory = self.subject.fresh_folder() / "run"
        (directory / "checkpoints").mkdir(parents=True)
        for name in _ENGINE_FILES:
            (directory / name).write_text(self._content(name), encoding="utf-8")
        return directory

    def _content(self, name: str) -> str:
        """What one of the engine's files holds."""
        return tomli_w.dumps(self.pipeline) if name == "pipeline.toml" else "the engine's"

    def _model(self) -> Any:
        """A small recurrent network, always the same."""
        context = self.subject.fitted_context()
        return build_from_table(self.subject.plugins, "model", SMALL_RNN, context)

    @cached_property
    def _weights(self) -> Tensors:
        """The weights that it has."""
        return copy.deepcopy(self._model().tensors())

    def _show(self, observer: Any, events: Iterable[Any]) -> None:
        """Show events to an observer."""
        model = self._model()
        for event in events:
            call = f"observe({type(event).__name__} of step {event.step})"
            if isinstance(event, Evaluation):
                event = attrs.evolve(event, model=model)
            begun, used = time.monotonic(), time.process_time()
            try:
                answer = observer.observe(event)
            except FAILURES as error:
                raise Violation(f"{call} raised {type(error).__name__}: {error}") from error
            waited, used = time.monotonic() - begun, time.process_time() - used
            if waited > _PATIENCE * self.subject.time_limit > 5 * used:
                raise Violation(f"{call} kept the training waiting for {waited:.1f} s")
            if answer is not None and not isinstance(answer, Stop):
                raise Violation(f"{call} returned {answer!r}, and must return None or a Stop")
            if name := differing(model.tensors(), self._weights):
                raise Violation(f"{call} changed {name} of event.model", "observer-run")

    def _run(self, directory: Path | None = None, *, console: Any = None, **which: Any) -> Path:
        """Show the events of a run to a new observer, and return the run directory."""
        directory = directory or self._directory()
        observer = self.new(directory, console=console)
        self._show(observer, run_events(directory, **which))
        close(observer)
        return directory


def _names(directory: Path) -> set[str]:
    """The files below a folder."""
    return {
        path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()
    }


def _texts(directory: Path) -> dict[str, str]:
    """The text files below a folder that are not the engine's."""
    texts = {}
    for name in sorted(_names(directory) - set(_ENGINE_FILES)):
        with contextlib.suppress(UnicodeDecodeError):
            texts[name] = (directory / name).read_text(encoding="utf-8").replace(str(directory), "")
    return texts
