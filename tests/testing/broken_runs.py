"""Observers, commands and offered runs that break one statement of their contract each."""

import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import attrs
import click
import good
from broken_texts import linger
from checking import Case, broken, doing
from good import Observer
from sealing import seal

from textgen import Component, NoOptions, option
from textgen.events import Evaluation, RunFinished, RunStarted, StepDone


def at(event_class, act):
    """An observer that does something with an event of this class."""
    return {"observe": doing(lambda self, event: isinstance(event, event_class)
                             and act(self, event))}  # fmt: skip


def keep_all(self, event):
    """Keep what was written after the step where the run resumes."""
    if not isinstance(event, RunStarted):
        Observer.observe(self, event)


def write_early(self, context):
    Observer.__init__(self, context)
    self.path.touch()


def spoil(self, event):
    tensors = event.model.tensors()
    event.model.load_tensors({name: array * 2 for name, array in tensors.items()})


def write_to(path):
    return at(StepDone, lambda self, event: (self.path.parent / path).write_text("{}"))


def keep_events(self, event):
    """Keeps all events, for the end."""
    self.__dict__.setdefault("events", []).append(event)
    Observer.observe(self, event)


def begin_anew(self, event):
    """Begins its file anew whenever a run begins, and so when one resumes."""
    if isinstance(event, RunStarted):
        self.path.write_text("")
    else:
        Observer.observe(self, event)


OBSERVERS = [
    broken("observer-resumed", "begins its file anew", Observer, observe=begin_anew),
    broken("observer-memory", "all events", Observer, observe=keep_events),
    broken("observer-run", "SystemExit", Observer, **at(StepDone, lambda *_: sys.exit())),
    broken("observer-run", "step 150", Observer, **at(StepDone, lambda s, e: 1 / (e.step - 150))),
    broken("observer-run", "no validation loss", Observer,
           **at(Evaluation, lambda self, event: f"{event.validation_loss:.3f}")),
    broken("observer-run", "an unknown event", Observer, **at(object, lambda self, event:
           {"RunStarted", "StepDone", "Evaluation", "Checkpointed", "RunFinished"}
           .remove(type(event).__name__))),
    broken("observer-run", "no step", Observer, **at(RunFinished, lambda s, e: 1 / e.step)),
    broken("observer-run", "True", Observer, observe=lambda self, event: True),
    broken("observer-run", "stdout", Observer, **at(StepDone, lambda *_: print("here"))),
    broken("observer-run", "other weights", Observer, **at(Evaluation, spoil)),
    Case("observer-run", "sleep", "observer", good.offered(type("Slow", (Observer,), at(
         RunStarted, lambda *_: time.sleep(0.4)))), {"time_limit": 3}),
    broken("component-globals", "a thread", Observer, **at(RunStarted, linger)),
    broken("observer-resumed", "keeps all", Observer, observe=keep_all),
    broken("observer-files", "in the current folder", Observer,
           **at(StepDone, lambda self, event: Path("log.txt").write_text(f"{event.step}"))),
    broken("observer-files", "early", Observer, __init__=write_early),
    broken("observer-files", "run.json", Observer, **write_to("run.json")),
    broken("observer-files", "a checkpoint", Observer, **write_to("checkpoints/x")),
    broken("observer-files", "a temporary file", Observer,
           **at(RunStarted, lambda *_: tempfile.mkstemp())),
]  # fmt: skip


@attrs.frozen
class Required:
    """Needs an option."""

    size: int = option(help="how many")


def command(statement, wrong, build=good.command, config=NoOptions):
    return Case(statement, wrong, "command", Component("good", config, build))


def helpless(config, context):
    made = good.command(config, context)
    made.add_help_option = False
    return made


COMMANDS = [
    command("command-build", "None", lambda c, x: None),
    command("command-build", "an option without default", config=Required),
    command("command-help", "no --help", helpless),
    command("command-help", "no text", lambda c, x: click.Command("good")),
    command("component-quiet", "prints", lambda c, x: print("built") or good.command(c, x)),
]  # fmt: skip


def run(statement, wrong, spoil):
    build = partial(good.finished_run, spoil=spoil)
    return Case(statement, wrong, "run", Component("good", NoOptions, build))


def edited(run, name, before, after):
    """Replace a word in a file, and the checksum of the file."""
    (run / name).write_text((run / name).read_text().replace(before, after))
    seal(run / name, run)


def of_another_plugin(run):
    for name in ("pipeline.toml", "run.json"):
        edited(run, name, '"ngram"', '"textgen-gone:odd"')


RUNS = [
    Case("run-loads", "a str", "run", Component("good", NoOptions, lambda c, x: "run")),
    run("run-loads", "no run.json", lambda path: (path / "run.json").unlink()),
    run("run-loads", "unfinished",
        lambda path: edited(path, "run.json", '"finished"', '"unfinished"')),
    run("run-loads", "other line ends", lambda path: (path / "tokenizer.json").write_bytes(
        (path / "tokenizer.json").read_bytes().replace(b"\n", b"\r\n"))),
    run("run-loads", "another plugin", of_another_plugin),
]  # fmt: skip
