"""The contract of observers."""

from __future__ import annotations

import contextlib
import io
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final, TextIO

import attrs
import tomli_w

from textgen.contracts.checks import FAILURES
from textgen.errors import TextgenError
from textgen.events import Checkpointed, Evaluation, RunFinished, RunStarted, StepDone, Stop
from textgen.plugin.component import OWN_DISTRIBUTION, BuildContext, Component
from textgen.plugin.registry import PluginSet
from textgen.testing.environment import Subject, build_from_table, close, subject
from textgen.testing.examples import in_threads
from textgen.testing.general import calls_check, general_checks
from textgen.testing.other_process import process_check
from textgen.testing.outcomes import Check, Outcome, Skip, Violation, raise_first, run_checks
from textgen.testing.time_limit import TIME_LIMIT
from textgen.testing.trainers import SMALL_RNN

__tracebackhide__ = True  # what pytest shows is the test, and the code of the component

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
_BUILT_IN_FILES: Final = ("metrics.jsonl", "loss.svg", "samples.txt")


def check_observer(
    component: Component,
    *,
    options: Mapping[str, Any] | None = None,
    pipeline: Mapping[str, Any] = PIPELINE,
    plugin: object | str | None = None,
    plugins: PluginSet | None = None,
    time_limit: float = TIME_LIMIT,
) -> tuple[Outcome, ...]:
    """Hold an observer to its contract: show it runs, whole, resumed and failed. Raises ContractFailure.

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
        *general_checks(
            subject, lambda: suite.build(suite.run_directory()), pipeline=dict(pipeline)
        ),
        Check("observer-run", suite.whole_run, trial=True, whole=True),
        Check("observer-unknown", suite.unknown),
        Check("observer-failed", suite.failed),
        Check("observer-resumed", suite.resumed, after=("observer-failed",)),
        Check("observer-console", suite.console),
        Check("observer-files", suite.files),
        calls_check(lambda: written_files(subject, pipeline)),
        process_check(subject, pipeline=dict(pipeline)),
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
    """The events of a run from the step after `first` to the step `last`, an evaluation after every second step."""
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
        """See that no row of the steps 5 and 6, which came twice, is there twice."""
        bare = self.run(last=0)
        for name, text in self._reproducible(self.run()).items():
            once = Counter(text.splitlines())
            for line, count in Counter(resumed.get(name, "").splitlines()).items():
                # What is written of beginning and end comes twice by right.
                if (
                    line.strip()
                    and once[line] == 1 < count
                    and line not in _texts(bare).get(name, "").splitlines()
                ):
                    raise Violation(
                        f"{name} has the line {line!r} twice, once from before the run went on from step 4"
                    )

    def failed(self) -> None:
        self.run(last=0, status="failed")

    def console(self) -> None:
        for console in (None, io.StringIO()):
            out, err = io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                self.run(console=console)
            for name, stream in (("stdout", out), ("stderr", err)):
                if written := stream.getvalue():
                    given = "no console" if console is None else "a console"
                    raise Violation(
                        f"with {given} it wrote {written[:60]!r} to {name}; use context.console"
                    )

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
        strangers = [
            path for path in directory.parent.rglob("*") if not path.is_relative_to(directory)
        ]
        strangers = [path for path in strangers if path != elsewhere]
        if strangers:
            names = ", ".join(str(path.relative_to(directory.parent)) for path in strangers[:3])
            raise Violation(f"it wrote {names}, outside the run directory")
        for name in _ENGINE_FILES:
            path = directory / name
            if not path.is_file() or path.read_text(
                encoding="utf-8", errors="replace"
            ) != self.content(name):
                raise Violation(f"it changed {name}, which is the engine's")
        theirs = {name for name in _names(directory) - before if name.startswith("checkpoints/")}
        if not self._is_built_in():
            theirs |= _names(directory) & set(_BUILT_IN_FILES)
        if theirs:
            raise Violation(f"it wrote {min(theirs)}, a name that textgen itself writes to")

    def _is_built_in(self) -> bool:
        offers = self.subject.plugins.offers("observer")
        own = [offer.component for offer in offers if offer.distribution == OWN_DISTRIBUTION]
        return self.subject.component in own

    def apart(self) -> None:
        first, second = self.run_directory(), self.run_directory()
        one, other = self.build(first), self.build(second)
        pairs = zip(run_events(first), run_events(second, held_out=False), strict=True)
        for ours, theirs in pairs:
            self.show([ours], first, one)
            self.show([theirs], second, other)
        kept = _globals(self.subject.packages)
        alone = self.run()
        expected = len(_names(alone))
        for directory in (first, second):
            if (count := len(_names(directory))) != expected:
                raise Violation(f"alone it left {expected} files, and beside another run {count}")
        changed = next(
            (
                name
                for name, value in _globals(self.subject.packages).items()
                if kept[name] != value
            ),
            "",
        )
        for name, text in self._reproducible(alone, changed).items():
            if _texts(first).get(name, text) != text:
                raise Violation(f"beside another run, {name} came out otherwise than alone")
        in_threads(lambda _: self.run(), 4)

    def _reproducible(self, directory: Path, changed: str = "") -> dict[str, str]:
        """The files of a whole run in `directory` that come out the same of another one; a clock may be in others.

        Where one does not, and a global that each run changes is there (its name in `changed`), that is a fault.
        """
        texts, others = _texts(directory), _texts(self.run())
        for name, text in texts.items():
            if changed and name in others and others[name] != text:
                fault = f"{changed} had changed: a global is shared by all runs"
                raise Violation(f"a second run gave another {name}, and {fault}")
        return {name: text for name, text in texts.items() if others.get(name) == text}


def written_files(subject: Subject, pipeline: Mapping[str, Any]) -> dict[str, str]:
    """The text files that an observer leaves of a run, by name."""
    suite = _Suite(subject, tomli_w.dumps(pipeline))
    directory = suite.run_directory()
    close(suite.show(run_events(directory), directory))
    return {f"the file {name}": text for name, text in _texts(directory).items()}


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


def _globals(packages: Collection[str]) -> dict[str, str]:
    """What the modules of these packages, and their classes, hold of numbers, texts and collections."""
    kept: dict[str, str] = {}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in packages:
            holders = {
                name: module,
                **{f"{name}.{key}": value for key, value in _own_classes(module)},
            }
            for path, holder in holders.items():
                values = {
                    f"{path}.{key}": value
                    for key, value in vars(holder).items()
                    if not key.startswith("__")
                }
                kept |= {
                    key: repr(v)
                    for key, v in values.items()
                    if isinstance(v, int | float | str | list | dict | set)
                }
    return kept


def _own_classes(module: ModuleType) -> Iterator[tuple[str, type]]:
    for key, value in list(vars(module).items()):
        if isinstance(value, type) and value.__module__ == module.__name__:
            yield key, value
