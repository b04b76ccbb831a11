"""The contract of observers."""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TextIO

import attrs
import tomli_w

from textgen.contracts.checks import FAILURES
from textgen.errors import TextgenError
from textgen.events import Checkpointed, Evaluation, RunFinished, RunStarted, StepDone, Stop
from textgen.plugin.component import BuildContext, Component
from textgen.plugin.registry import PluginSet
from textgen.testing.environment import Subject, build_from_table, subject
from textgen.testing.general import general_checks
from textgen.testing.outcomes import Check, Outcome, Skip, Violation, raise_first, run_checks
from textgen.testing.time_limit import TIME_LIMIT
from textgen.testing.trainers import SMALL_RNN

__tracebackhide__ = True  # pytest shows the test and the code of the component

_STEPS: Final = 12
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
    component: Component,
    *,
    options: Mapping[str, Any] | None = None,
    pipeline: Mapping[str, Any] = PIPELINE,
    plugin: object | str | None = None,
    plugins: PluginSet | None = None,
    time_limit: float = TIME_LIMIT,
) -> tuple[Outcome, ...]:
    """Hold an observer to its contract: show it runs, whole, resumed and failed.

    Raises ContractFailure.

    options     its TOML table; what has no default must be in it
    pipeline    the pipeline that the run directory holds, for an observer that needs a certain one
    plugin      the module it comes from, or its name; found from the component if not given
    plugins     what its context offers; the built-in set if not given
    time_limit  seconds for each check
    """
    with subject("observer", component, options, plugin, plugins, time_limit=time_limit) as made:
        return raise_first(run_checks(observer_checks(made, pipeline), made))


def observer_checks(subject: Subject, pipeline: Mapping[str, Any] = PIPELINE) -> list[Check]:
    """The suite. An observer that refuses the run with an error of textgen is skipped."""
    suite = _Suite(subject, tomli_w.dumps(pipeline))
    return [
        *general_checks(subject, lambda: suite.build(suite.run_directory())),
        Check("observer-run", suite.whole_run),
        Check("observer-unknown", suite.unknown),
        Check("observer-failed", lambda: suite.run(last=0, status="failed")),
        Check("observer-resumed", suite.resumed),
        Check("observer-console", suite.console),
        Check("observer-files", suite.files),
        Check("observer-apart", suite.apart),
    ]


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
            steps=_STEPS,
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


class _Model:
    """A small recurrent network, which is made when something of it is asked for."""

    def __init__(self, context: BuildContext) -> None:
        self._context = context

    def __getattr__(self, name: str) -> Any:
        assert isinstance(self._context.plugins, PluginSet)
        return getattr(
            build_from_table(self._context.plugins, "model", SMALL_RNN, self._context), name
        )


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


@attrs.define
class _Suite:
    subject: Subject
    pipeline: str

    def run_directory(self) -> Path:
        """A run directory as the engine leaves it when training begins."""
        directory = self.subject.fresh_folder() / "run"
        (directory / "checkpoints").mkdir(parents=True)
        for name in _ENGINE_FILES:
            (directory / name).write_text(self.content(name), encoding="utf-8")
        return directory

    def content(self, name: str) -> str:
        """What one of the engine's files holds."""
        return self.pipeline if name == "pipeline.toml" else "the engine's"

    def build(self, directory: Path, **changes: Any) -> Any:
        """An observer of the run in `directory`."""
        try:
            return self.subject.build(self.subject.fitted_context(directory=directory, **changes))
        except TextgenError as error:
            raise Skip(f"it refuses this run: {error}") from error

    def show(self, events: Any, directory: Path, observer: Any = None, **changes: Any) -> Any:
        """Show events to an observer, a new one if none is given."""
        made = self.build(directory, **changes) if observer is None else observer
        for event in events:
            call = f"observe({type(event).__name__} of step {event.step})"
            if isinstance(event, Evaluation):
                event = attrs.evolve(
                    event, model=_Model(self.subject.fitted_context(directory=directory))
                )
            try:
                answer = made.observe(event)
            except FAILURES as error:
                raise Violation(f"{call} raised {type(error).__name__}: {error}") from error
            if answer is not None and not isinstance(answer, Stop):
                raise Violation(f"{call} returned {answer!r}, and must return None or a Stop")
        return made

    def run(
        self, directory: Path | None = None, *, console: TextIO | None = None, **which: Any
    ) -> Path:
        """Show the events of a run to a new observer, and return the run directory."""
        directory = directory or self.run_directory()
        self.show(run_events(directory, **which), directory, console=console)
        return directory

    def whole_run(self) -> None:
        for held_out in (True, False):
            for console in (None, io.StringIO()):
                self.run(held_out=held_out, console=console)

    def unknown(self) -> None:
        directory = self.run_directory()
        started, *others = run_events(directory)
        self.show([started, UnknownEvent(), *others, UnknownEvent()], directory)

    def resumed(self) -> None:
        directory = self.run(last=6, status="interrupted")
        self.run(directory, first=4)
        self.run(first=4)
        self._rows_dropped(_texts(directory))

    def _rows_dropped(self, resumed: dict[str, str]) -> None:
        """Check that no row of the steps 5 and 6, which came twice, is there twice."""
        whole, bare = _texts(self.run()), _texts(self.run(last=0))
        for name, text in resumed.items():
            once = Counter(whole.get(name, "").splitlines())
            ends = bare.get(name, "").splitlines()  # written of beginning and end, twice by right
            for line, count in Counter(text.splitlines()).items():
                if line.strip() and once[line] == 1 < count and line not in ends:
                    before = "once from before the run resumed at step 4"
                    raise Violation(f"{name} has the line {line!r} twice, {before}")

    def console(self) -> None:
        for console in (None, io.StringIO()):
            written = io.StringIO()
            with contextlib.redirect_stdout(written), contextlib.redirect_stderr(written):
                self.run(console=console)
            if text := written.getvalue():
                given = "no console" if console is None else "a console"
                raise Violation(f"with {given} it wrote {text[:60]!r}; use context.console")

    def files(self) -> None:
        directory = self.run_directory()
        elsewhere = directory.parent / "cwd"
        elsewhere.mkdir()
        with contextlib.chdir(elsewhere):
            before = _names(directory)
            observer = self.build(directory)
            if early := sorted(_names(directory) - before):
                raise Violation(f"build made {', '.join(early[:3])}, before RunStarted came")
            self.show(run_events(directory), directory, observer)
        if strangers := [name for name in _names(directory.parent) if not name.startswith("run/")]:
            raise Violation(f"it wrote {strangers[0]}, outside the run directory")
        for name in _ENGINE_FILES:
            path = directory / name
            if not path.is_file() or path.read_bytes() != self.content(name).encode():
                raise Violation(f"it changed {name}, which is the engine's")
        theirs = sorted(n for n in _names(directory) - before if n.startswith("checkpoints/"))
        if theirs:
            raise Violation(f"it wrote {theirs[0]}, a name that textgen itself writes to")

    def apart(self) -> None:
        """Show an observer a run beside the run of another; its files are those of a run alone.

        A file that differs between two runs alone, by a clock perhaps, is not compared.
        """
        alone, again = _texts(self.run()), _texts(self.run())
        first, second = self.run_directory(), self.run_directory()
        one, other = self.build(first), self.build(second)
        pairs = zip(run_events(first), run_events(second, held_out=False), strict=True)
        for ours, theirs in pairs:
            self.show([ours], first, one)
            self.show([theirs], second, other)
        if (names := sorted(_texts(second))) != sorted(alone):
            raise Violation(f"alone it left {sorted(alone)}, and beside another run {names}")
        for name, text in _texts(first).items():
            if text != alone.get(name) and alone.get(name) == again.get(name):
                raise Violation(f"beside another run, {name} came out otherwise than alone")


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
