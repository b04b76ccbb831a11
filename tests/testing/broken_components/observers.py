"""Observers: one that keeps the contract, and some that break one statement of it each."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, ClassVar

from broken_components.cases import Case, offered
from textgen.events import Evaluation, RunFinished, RunStarted, StepDone


class GoodObserver:
    def __init__(self, context: Any) -> None:
        self.path: Path = context.directory / "seen.txt"
        self.console = context.console

    def observe(self, event: Any) -> None:
        if isinstance(event, RunStarted):
            rows = self.path.read_text().splitlines(keepends=True) if self.path.exists() else []
            self.path.write_text("".join(row for row in rows if int(row.split()[0]) <= event.step))
        if isinstance(event, Evaluation):
            with self.path.open("a") as file:
                file.write(self.row(event))

    def row(self, event: Any) -> str:
        parameters = sum(array.size for array in event.model.tensors().values())
        return f"{event.step} {event.training_loss} {parameters}\n"


class HeldOutObserver(GoodObserver):
    def observe(self, event: Any) -> None:
        if isinstance(event, Evaluation):
            self.path.write_text(f"{event.validation_loss:.3f}")


class AnsweringObserver(GoodObserver):
    def observe(self, event: Any) -> Any:
        super().observe(event)
        return isinstance(event, Evaluation) or None


class KnowingObserver(GoodObserver):
    def observe(self, event: Any) -> None:
        {"RunStarted": 0, "StepDone": 0, "Evaluation": 0, "Checkpointed": 0, "RunFinished": 0}[
            type(event).__name__
        ]


class FromTheStartObserver(GoodObserver):
    def observe(self, event: Any) -> None:
        if isinstance(event, RunStarted) and event.step:
            self.path.read_text()


class DividingObserver(GoodObserver):
    steps = 0

    def observe(self, event: Any) -> None:
        self.steps += isinstance(event, StepDone)
        if isinstance(event, RunFinished):
            self.path.write_text(str(1 / self.steps))


class PrintingObserver(GoodObserver):
    def observe(self, event: Any) -> None:
        print(type(event).__name__)


class ConsoleObserver(GoodObserver):
    def observe(self, event: Any) -> None:
        if self.console is not None:
            self.console.write(event)


class StrayObserver(GoodObserver):
    def observe(self, event: Any) -> None:
        Path("seen.txt").write_text("here")


class TidyingObserver(GoodObserver):
    def observe(self, event: Any) -> None:
        (self.path.parent / "run.json").write_text("{}")


class OneFileObserver(GoodObserver):
    """All observers write to the file that the first of their runs has opened."""

    file: ClassVar[Any] = None

    def observe(self, event: Any) -> None:
        if isinstance(event, RunStarted) and OneFileObserver.file is None:
            OneFileObserver.file = self.path
        if isinstance(event, StepDone) and OneFileObserver.file is not None:
            OneFileObserver.file.write_text("seen")
        if isinstance(event, RunFinished):
            OneFileObserver.file = None


class AppendingObserver(GoodObserver):
    """Keeps what it wrote after the step where the run goes on."""

    def observe(self, event: Any) -> None:
        if isinstance(event, Evaluation):
            with self.path.open("a") as file:
                file.write(self.row(event))


class MetricsObserver(GoodObserver):
    def __init__(self, context: Any) -> None:
        super().__init__(context)
        self.path = context.directory / "metrics.jsonl"


class EarlyObserver(GoodObserver):
    def __init__(self, context: Any) -> None:
        super().__init__(context)
        self.path.touch()


class CountingObserver(GoodObserver):
    """Numbers its rows for as long as the process lives."""

    count: ClassVar[int] = 0

    def row(self, event: Any) -> str:
        CountingObserver.count += 1
        return f"{event.step} {CountingObserver.count}\n"


class SharedCountObserver(GoodObserver):
    """Numbers its rows from the beginning of whichever run began last."""

    count: ClassVar[int] = 0

    def observe(self, event: Any) -> None:
        if isinstance(event, RunStarted):
            SharedCountObserver.count = event.step
        super().observe(event)

    def row(self, event: Any) -> str:
        SharedCountObserver.count += 1
        return f"{event.step} {SharedCountObserver.count}\n"


class SeedingObserver(GoodObserver):
    def observe(self, event: Any) -> None:
        random.seed(0)


OBSERVERS = [
    Case(
        "observer", "observer-resumed", "has the line '6 0.5 692' twice", offered(AppendingObserver)
    ),
    Case(
        "observer",
        "observer-files",
        "it wrote metrics.jsonl, a name that textgen",
        offered(MetricsObserver),
    ),
    Case("observer", "observer-files", "build made seen.txt", offered(EarlyObserver)),
    Case(
        "observer",
        "observer-apart",
        "CountingObserver.count had changed",
        offered(CountingObserver, "counting"),
    ),
    Case(
        "observer",
        "observer-apart",
        "seen.txt came out otherwise than alone",
        offered(SharedCountObserver),
    ),
    Case("observer", "component-calls", "the random state of `random`", offered(SeedingObserver)),
    Case(
        "observer",
        "observer-run",
        "observe(Evaluation of step 2) raised TypeError",
        offered(HeldOutObserver),
    ),
    Case(
        "observer",
        "observer-run",
        "observe(RunStarted of step 0) raised TypeError",
        offered(ConsoleObserver),
    ),
    Case(
        "observer",
        "observer-run",
        "of step 2) returned True, and must return None",
        offered(AnsweringObserver),
    ),
    Case("observer", "observer-unknown", "observe(UnknownEvent", offered(KnowingObserver)),
    Case("observer", "observer-resumed", "raised FileNotFoundError", offered(FromTheStartObserver)),
    Case("observer", "observer-failed", "raised ZeroDivisionError", offered(DividingObserver)),
    Case(
        "observer",
        "observer-console",
        "with no console it wrote 'RunStarted",
        offered(PrintingObserver),
    ),
    Case(
        "observer", "observer-files", "seen.txt, outside the run directory", offered(StrayObserver)
    ),
    Case("observer", "observer-files", "it changed run.json", offered(TidyingObserver)),
    Case("observer", "observer-apart", "beside another run", offered(OneFileObserver)),
]
