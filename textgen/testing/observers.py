"""The contract of observers.

An observer prints only to its console, writes only files of its own, goes on after an interruption
without gaps or duplicates, and needs no more memory for more steps.
"""

from __future__ import annotations

import contextlib
import copy
import io
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

import attrs
import tomli_w

from textgen.contracts.checks import FAILURES
from textgen.events import Checkpointed, Evaluation, RunFinished, RunStarted, StepDone, Stop
from textgen.protocols import Table
from textgen.testing.environment import close
from textgen.testing.outcomes import Violation
from textgen.testing.partners import CHARACTERS, DESCENT, SMALL_NETWORK, STORY
from textgen.testing.process import check_memory, no_thread_left, watched
from textgen.testing.suite import Suite
from textgen.testing.training import differing

__tracebackhide__ = True  # pytest shows the test and the code of the component

_STEPS: Final = 12
_MANY_STEPS: Final = 160  # of a long run
_MEMORY_STEPS: Final = 2000  # that an observer is shown while its memory is measured
_CLAIMED_STEPS: Final = 10**6  # the length of the run that they claim to be of
_MAX_KEPT_BYTES: Final = 80.0  # per step: its number and loss, for a plot
_MAX_WAIT: Final = 1 / 12  # share of the time limit that a call may take without computing
_Lines: TypeAlias = dict[str, list[str]]
_PIPELINE: Final[Table] = {
    "device": "cpu",
    "corpus": STORY,
    "tokenizer": CHARACTERS,
    "model": SMALL_NETWORK,
    "trainer": {"type": DESCENT["type"]},
}
_ENGINE_FILES: Final = (
    "pipeline.toml",
    "run.json",
    "tokenizer.json",
    "model.safetensors",
    "tokens.bin",
)


@attrs.frozen
class _UnknownEvent:
    """An event that a later textgen may have."""

    step: int = 1


@attrs.frozen(kw_only=True)
class ObserverSuite(Suite):
    """The checks of an observer. Each shows it the events of runs."""

    def new(self, **context: Any) -> Any:
        """An observer of the run in a directory."""
        if "directory" not in context:
            context["directory"] = self._directory()
        return super().new(**context)

    def observer_run(self) -> None:
        runs: list[dict[str, Any]] = [
            {"last": _MANY_STEPS},
            {"console": io.StringIO()},
            {"held_out": False},
            {"last": 0, "status": "failed"},
        ]
        for run in runs:
            written = io.StringIO()
            with (
                no_thread_left(),
                contextlib.redirect_stdout(written),
                contextlib.redirect_stderr(written),
            ):
                self._run(**run)
            if text := written.getvalue():
                raise Violation(f"it wrote {text[:60]!r}; use context.console")

    def observer_resumed(self) -> None:
        """A run that ends at step 6 and is resumed from the checkpoint of step 4, so that steps 5
        and 6 come twice: its files keep the lines of steps 1 to 4, and have no line twice.
        """
        directory = self._run(last=6, status="interrupted")
        interrupted = _lines(directory)
        self._run(directory, first=4)
        resumed = _lines(directory)
        uninterrupted = _lines(self._run())
        self._check_nothing_lost(resumed, uninterrupted, interrupted)
        self._check_nothing_twice(resumed, uninterrupted)

        self._run(first=4)  # files that were removed in between are no fault

    def _check_nothing_lost(self, resumed: _Lines, *others: _Lines) -> None:
        """Refuse files without lines of steps 1 to 4, if the files of all `others` have them."""
        until_step_4 = _lines(self._run(last=4, status="interrupted"))
        for name, lines in until_step_4.items():
            for line in lines:
                is_kept_elsewhere = all(line in other.get(name, ()) for other in others)
                if is_kept_elsewhere and line not in resumed.get(name, ()):
                    raise Violation(f"{name} lost {line!r}, of before the step where it resumed")

    def _check_nothing_twice(self, resumed: _Lines, uninterrupted: _Lines) -> None:
        """Refuse files with a line twice that an uninterrupted run has once.

        A line about the beginning or end of a run may be there twice.
        """
        without_steps = _lines(self._run(last=0))
        for name, lines in resumed.items():
            expected = Counter(uninterrupted.get(name, ()))
            for line, count in Counter(lines).items():
                is_of_a_step = line not in without_steps.get(name, ())
                if is_of_a_step and expected[line] == 1 and count > 1:
                    raise Violation(f"{name} has {line!r} twice: before and after it resumed")

    def observer_files(self) -> None:
        directory = self._directory()
        before = _files(directory)
        with watched() as deeds:
            close(self.new(directory=directory))
            if early := sorted(_files(directory).keys() - before):
                raise Violation(f"build made {early[0]}, before RunStarted came")
            self._run(directory)
        for path in deeds.written:
            is_own = path.is_relative_to(directory) or "__pycache__" in path.parts
            if not is_own or path.is_relative_to(directory / "checkpoints"):
                raise Violation(f"it wrote {path}, which is not the run's, or is the engine's")
        for name, content in before.items():
            if _files(directory).get(name) != content:
                raise Violation(f"it changed {name}, which is the engine's")

    def observer_memory(self) -> None:
        """Memory of an observer that is shown many steps."""
        directory = self._directory()
        observer = self.new(directory=directory)
        model = self.other("model", SMALL_NETWORK, tokenizer=self.tokenizer)
        begin, _, end = _events(directory, model, 0, 0, True, "finished")
        observer.observe(begin)

        def call(number: int) -> None:
            observer.observe(_step_done(number + 1, _CLAIMED_STEPS, loss=3.0 / (number + 1)))

        check_memory(call, _MEMORY_STEPS, _MAX_KEPT_BYTES)
        observer.observe(end)  # or a thread of its own would go on writing
        close(observer)

    def _directory(self) -> Path:
        """A run directory as the engine leaves it when training begins."""
        directory = Path(tempfile.mkdtemp(dir=self.folder)) / "run"
        (directory / "checkpoints").mkdir(parents=True)
        for name in _ENGINE_FILES:
            pipeline = tomli_w.dumps({**_PIPELINE, **self.pipeline})
            content = pipeline if name == "pipeline.toml" else "the engine's"
            (directory / name).write_text(content, encoding="utf-8")
        return directory

    def _run(
        self,
        directory: Path | None = None,
        *,
        console: Any = None,
        first: int = 0,
        last: int = _STEPS,
        held_out: bool = True,
        status: Any = "finished",
    ) -> Path:
        """Show the events of a run, from the step after `first` to the step `last`, to a new
        observer, and return the run directory.
        """
        directory = directory or self._directory()
        observer = self.new(directory=directory, console=console)
        model = self.other("model", SMALL_NETWORK, tokenizer=self.tokenizer)
        weights = copy.deepcopy(model.tensors())
        for event in _events(directory, model, first, last, held_out, status):
            call = f"observe({type(event).__name__} of step {event.step})"
            begun, used = time.monotonic(), time.process_time()
            try:
                answer = observer.observe(event)
            except FAILURES as error:
                raise Violation(f"{call} raised {type(error).__name__}: {error}") from error
            waited, used = time.monotonic() - begun, time.process_time() - used
            if waited > _MAX_WAIT * self.time_limit > 5 * used:
                raise Violation(f"{call} kept the training waiting for {waited:.1f} s")
            if answer is not None and not isinstance(answer, Stop):
                raise Violation(f"{call} returned {answer!r}, and must return None or a Stop")
            if name := differing(model.tensors(), weights):
                raise Violation(f"{call} changed {name} of event.model", "observer-run")
        close(observer)
        return directory


def _events(
    directory: Path, model: Any, first: int, last: int, held_out: bool, status: Any
) -> Iterator[Any]:
    """The events of a run, an evaluation after every second step, and one that nobody knows."""
    yield RunStarted(
        step=first,
        evaluations=first // 2,
        device="cpu",
        parameters=100,
        vocab_size=20,
        training_tokens=900,
        validation_tokens=100 if held_out else 0,
    )
    yield _UnknownEvent(first)
    rate = 0.5 if held_out else None
    for step in range(first + 1, last + 1):
        loss = 3.0 / step
        yield _step_done(step, max(_STEPS, last), loss, rate)
        if step % 2 == 0:
            yield Evaluation(
                step=step,
                epoch=step,
                training_loss=loss,
                validation_loss=loss + 0.1 if held_out else None,
                perplexity=2.0,
                bits_per_character=1.0,
                characters_per_second=1000.0,
                seconds=step / 10,
                best=True,
                sample=lambda prompt, max_new_tokens: "a text\n"[:max_new_tokens],
                model=model,
            )
            yield Checkpointed(step=step, path=directory / "checkpoints" / f"step-{step:06}")
    yield RunFinished(step=last, status=status)


def _step_done(step: int, steps: int, loss: float, rate: float | None = 0.5) -> StepDone:
    return StepDone(
        step=step,
        steps=steps,
        epoch=step,
        loss=loss,
        tokens=64,
        learning_rate=rate,
        gradient_norm=rate,
    )


def _files(directory: Path) -> dict[str, bytes]:
    """The files below a folder."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def _lines(directory: Path) -> _Lines:
    """The lines of each text file below a folder, without empty ones and without its path."""
    files = {}
    for name, content in _files(directory).items():
        with contextlib.suppress(UnicodeDecodeError):
            text = content.decode().replace(str(directory), "")
            files[name] = [line for line in text.splitlines() if line.strip()]
    return files
