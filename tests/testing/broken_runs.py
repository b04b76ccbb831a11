"""Observers, commands and offered runs that break one statement of their contract each."""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path

import click
import good
from checking import NUMBERS, Case, Required, broken, command, linger
from good import (
    Observer,
)

from campaigns.mutations import seal
from textgen import Component, NoOptions
from textgen.events import Evaluation, RunFinished, RunStarted, StepDone


def observing(act):
    """An observer that does something else with every event."""
    return {"observe": lambda self, event: act(self, event)}


def keep_all(self, event):
    """Keep what was written after the step where the run resumes."""
    if not isinstance(event, RunStarted):
        Observer.observe(self, event)


def write_early(self, context):
    Observer.__init__(self, context)
    self.path.touch()


def number_file(self, context):
    Observer.__init__(self, context)
    self.path = self.path.with_name(f"{next(NUMBERS)}.txt")


class DividingObserver(Observer):
    steps = 0

    def observe(self, event):
        self.steps += isinstance(event, StepDone)
        if isinstance(event, RunFinished):
            self.path.write_text(str(1 / self.steps))


class SharedCountObserver(Observer):
    """Numbers its rows from the beginning of whichever run began last."""

    count = 0

    def observe(self, event):
        if isinstance(event, RunStarted):
            SharedCountObserver.count = event.step
        super().observe(event)

    def row(self, event):
        SharedCountObserver.count += 1
        return f"{event.step} {SharedCountObserver.count}\n"


class SlowObserver(Observer):
    def observe(self, event):
        time.sleep(0.4 * isinstance(event, RunStarted))


def spoil(model):
    model.load_tensors({name: array * 2 for name, array in model.tensors().items()})


KNOWN = ("RunStarted", "StepDone", "Evaluation", "Checkpointed", "RunFinished")


OBSERVERS = [
    broken("observer-files", "build made seen.txt", Observer, __init__=write_early),
    broken("observer-apart", "beside another run [", Observer, __init__=number_file),
    broken("observer-run", "must return None or a Stop", Observer, **observing(lambda s, e: True)),
    broken("observer-files", "it changed run.json", Observer, **observing(
           lambda self, event: (self.path.parent / "run.json").write_text("{}") and None)),
    broken("observer-run", "of step 2) raised TypeError", Observer, **observing(lambda self, event:
           f"{event.validation_loss:.3f}" and None if isinstance(event, Evaluation) else None)),
    broken("observer-unknown", "observe(UnknownEvent", Observer,
           **observing(lambda self, event: [KNOWN.index(type(event).__name__)].clear())),
    broken("observer-failed", "raised ZeroDivisionError", DividingObserver),
    broken("observer-resumed", "has the line '6 0.5 692' twice", Observer, observe=keep_all),
    broken("observer-run", "with no console it wrote 'StepDone", Observer, **observing(
           lambda self, event: print(type(event).__name__) if type(event) is StepDone else None)),
    broken("observer-files", "seen.txt, outside the run directory", Observer,
           **observing(lambda self, event: Path("seen.txt").write_text("here") and None)),
    broken("observer-files", "checkpoints/x, a name that textgen", Observer, **observing(
           lambda self, event: (self.path.parent / "checkpoints/x").write_text("x") and None)),
    broken("observer-files", "elsewhere/tmp", Observer,
           **observing(lambda self, event: tempfile.mkstemp() and None)),
    broken("observer-run", "StepDone of step 150) raised", Observer, **observing(
           lambda self, event: 1 / (event.step - 150) and None)),
    broken("observer-files", "seen-late.txt, outside", Observer, **observing(lambda self, event:
           Path("../../seen-late.txt").write_text("here") and None)),
    Case("observer", "observer-run", "kept the training waiting for 0.", good.offered(SlowObserver),
         {"time_limit": 3}),
    broken("observer-run", "of event.model", Observer, **observing(
           lambda self, event: spoil(event.model) if isinstance(event, Evaluation) else None)),
    broken("component-globals", "left the thread", Observer, "observer-run",
           **observing(lambda self, event: linger())),
    broken("observer-apart", "came out otherwise than alone", SharedCountObserver),
]  # fmt: skip


def lenient(config, context):
    made = good.command(config, context)
    made.context_settings = {"ignore_unknown_options": True, "allow_extra_args": True}
    return made


def without_help(config, context):
    made = good.command(config, context)
    made.add_help_option = False
    return made


COMMANDS = [
    command("command-build", "build() gave NoneType", lambda c, x: None),
    command("command-help", "--help exits with 2", without_help),
    command("command-build", "fill in its option size", good.command, Required,
            check="component-record"),
    command("command-help", "its help text is empty", lambda c, x: click.Command("good")),
    command("command-usage", "exits with 0", lenient),
    command("command-runs", "as asked", good.command, arguments=["--fail"]),
]  # fmt: skip


def run(statement, seen, spoil):
    build = partial(good.finished_run, spoil=spoil)
    return Case("run", statement, seen, Component("good", NoOptions, build))


def edited(run, name, before, after):
    """Replace a word in a file, and the checksum of the file."""
    (run / name).write_text((run / name).read_text().replace(before, after))
    seal(run / name, run)


def as_unfinished(run):
    edited(run, "run.json", '"finished"', '"unfinished"')


def with_carriage_returns(run):
    path = run / "tokenizer.json"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


def of_another_plugin(run):
    for name in ("pipeline.toml", "run.json"):
        edited(run, name, '"ngram"', '"textgen-gone:odd"')


RUNS = [
    Case("run", "run-whole", "build() gave str", Component("good", NoOptions, lambda c, x: "run")),
    run("run-whole", "it has no run.json", lambda path: (path / "run.json").unlink()),
    run("run-whole", "its status is 'unfinished'", as_unfinished),
    run("run-whole", "tokenizer.json is damaged", with_carriage_returns),
    run("run-loads", "no model is called 'textgen-gone:odd'", of_another_plugin),
]
