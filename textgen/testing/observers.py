"""The contract of observers."""

from __future__ import annotations

import contextlib
import copy
import io
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

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
_MANY_STEPS: Final = 160  # steps of a long run
_MEMORY_STEPS, _LAST_STEP = 2000, 10**6  # steps to measure memory with, of a run of so many
_KEPT_BYTES: Final = 80.0  # that may be kept of a step: its number and loss, for a plot
_PATIENCE: Final = 1 / 12  # of the time limit: what training may wait for one that computes nothing
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
    """The checks of an observer, which is shown runs."""

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
        """No row of the steps 5 and 6, which come twice, is there twice, and all rows of the steps
        before them are still there.
        """
        directory = self._run(last=6, status="interrupted")
        interrupted = _texts(directory)
        self._run(directory, first=4)
        self._run(first=4)
        whole, bare = _texts(self._run()), _texts(self._run(last=0))
        resumed, early = _texts(directory), _texts(self._run(last=4, status="interrupted"))
        for name, text in early.items():
            others = [texts.get(name, "").splitlines() for texts in (whole, interrupted)]
            left = resumed.get(name, "").splitlines()
            for line in text.splitlines():
                if line.strip() and line not in left and all(line in lines for lines in others):
                    raise Violation(f"{name} lost {line!r}, of before the step where it resumed")
        for name, text in resumed.items():
            once = Counter(whole.get(name, "").splitlines())
            ends = bare.get(name, "").splitlines()  # written of beginning and end, twice by right
            for line, count in Counter(text.splitlines()).items():
                if line.strip() and once[line] == 1 and count > 1 and line not in ends:
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
            observer.observe(_step_done(number + 1, _LAST_STEP, loss=3.0 / (number + 1)))

        check_memory(call, _MEMORY_STEPS, _KEPT_BYTES)
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
            if waited > _PATIENCE * self.time_limit > 5 * used:
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


def _texts(directory: Path) -> dict[str, str]:
    """The text files below a folder that are not the engine's."""
    texts = {}
    for name, content in _files(directory).items():
        with contextlib.suppress(UnicodeDecodeError):
            texts[name] = content.decode().replace(str(directory), "")
    return texts
