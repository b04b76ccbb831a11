"""Whole runs: their flow, what a run directory makes of the next one, and what stops or spoils them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from commands import HEEDING_SIGINT, environment, run_python, run_textgen

import textgen
from textgen import devices
from textgen.events import Evaluated, StepDone
from textgen.protocols import TrainerState

TEXT = "".join(f"Once {n} ravens flew over {n * n % 7} hills, and none came back.\n" for n in range(60))
PIPELINE = """
seed = 3
device = "cpu"
[corpus]
type = "file"
path = "text.txt"
[tokenizer]
type = "char"
[data]
window_length = 16
[model]
type = "rnn"
cell = "gru"
hidden_size = 12
[trainer]
type = "adamw"
epochs = 2
batch_size = 32
[generate]
prompt = "Once"
max_new_tokens = 40
"""


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Models this small are slower with several threads, and far slower on a busy machine."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def prepare(folder: Path) -> Path:
    """A text and a pipeline for it in `folder`."""
    (folder / "text.txt").write_text(TEXT)
    (folder / "p.toml").write_text(PIPELINE)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return prepare(tmp_path)


def tree(folder: Path) -> dict[str, str]:
    """The checksum of every file under `folder`."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# The flow.


@attrs.frozen
class NoteConfig:
    """Notes what happens to it."""


class Notes:
    """Components of every kind that write down when they are built and called."""

    def __init__(self) -> None:
        self.flow: list[str] = []

    def note(self, what: str) -> None:
        if self.flow[-1:] != [what]:  # how often in a row is nobody's contract
            self.flow.append(what)

    def plugin(self) -> types.SimpleNamespace:
        kinds: dict[str, tuple[str, Callable[..., Any]]] = {
            "textgen_corpora": ("corpus", NotedCorpus),
            "textgen_tokenizers": ("tokenizer", NotedTokenizer),
            "textgen_models": ("model", NotedModel),
            "textgen_trainers": ("trainer", NotedTrainer),
            "textgen_samplers": ("sampler", noted_sampler),
            "textgen_observers": ("observer", NotedObserver),
        }
        return types.SimpleNamespace(**{hook: self._hook(hook, *made) for hook, made in kinds.items()})

    def _hook(self, hook: str, kind: str, make: Callable[..., Any]) -> Any:
        def build(config: NoteConfig, context: textgen.BuildContext) -> Any:
            purpose = "" if kind != "model" else " to train" if context.training else " to generate"
            self.note(f"build {kind}{purpose}")
            return make(self)

        def offer() -> list[textgen.Component]:
            return [textgen.Component("noted", NoteConfig, build)]

        offer.__name__ = hook
        return textgen.hookimpl(offer)


@attrs.frozen
class NotedCorpus:
    notes: Notes

    def read(self) -> Iterator[str]:
        self.notes.note("corpus.read")
        yield "ab" * 50


@attrs.frozen
class NotedTokenizer:
    notes: Notes
    vocab_size = 128
    unknown_id = None

    def fit(self, pieces: Any) -> None:
        self.notes.note("tokenizer.fit")
        list(pieces)

    def encode(self, text: str) -> Any:
        return np.frombuffer(text.encode("ascii"), np.uint8)

    def encode_pieces(self, pieces: Any) -> Any:
        self.notes.note("tokenizer.encode_pieces")
        return map(self.encode, pieces)

    def decode(self, ids: Any) -> str:
        return bytes(np.asarray(ids, np.uint8)).decode("ascii")

    def to_dict(self) -> dict[str, Any]:
        self.notes.note("tokenizer.to_dict")
        return {"noted": True}

    def from_dict(self, state: Any) -> NotedTokenizer:
        self.notes.note(f"tokenizer.from_dict {state}")
        return self


@attrs.frozen
class NotedModel:
    notes: Notes
    batch_size = 1

    def tensors(self) -> dict[str, Any]:
        return {"weight": np.ones(3, np.float32)}

    def load_tensors(self, tensors: dict[str, Any]) -> None:
        self.notes.note(f"model.load_tensors {sorted(tensors)}")

    def decoder(self, batch_size: int) -> NotedModel:
        return self

    def extend(self, tokens: Any) -> Any:
        return np.zeros((1, 128), np.float32)

    def read_state(self) -> dict[str, Any]:
        return {}

    def write_state(self, state: dict[str, Any]) -> None:
        pass


@attrs.frozen
class NotedTrainer:
    notes: Notes

    def train(self, model: Any, data: Any, context: Any) -> Iterator[Any]:
        self.notes.note("trainer.train")
        for step in (1, 2):
            self.notes.note("trainer steps")
            yield StepDone(step=step, steps=2, epoch=1, loss=1.0, tokens=10)
        yield Evaluated(step=2, epoch=1, training_loss=1.0)

    def state(self) -> TrainerState:
        return TrainerState()

    def load_state(self, state: TrainerState) -> None:
        self.notes.note("trainer.load_state")


@attrs.frozen
class NotedObserver:
    notes: Notes

    def observe(self, event: Any) -> None:
        self.notes.note(type(event).__name__)


def noted_sampler(notes: Notes) -> Any:
    def sampler(logits: Any, history: Any) -> Any:
        notes.note("sampler")
        return logits

    return sampler


def test_the_flow_of_a_run(tmp_path: Path) -> None:
    notes = Notes()
    plugins = textgen.PluginSet()
    plugins.register(notes.plugin(), "noted")
    noted = {"type": "noted"}
    kinds = ("corpus", "tokenizer", "model", "trainer")
    tables = {**dict.fromkeys(kinds, noted), "sampler": [noted], "observer": [noted], "data": {"window_length": 8}}
    tables |= {"device": "cpu", "generate": {"max_new_tokens": 1}}
    textgen.Engine(plugins).run(tables, output=tmp_path / "run")
    assert notes.flow == [
        "build corpus",
        "build tokenizer",
        "tokenizer.fit",
        "corpus.read",
        "tokenizer.to_dict",
        "tokenizer.from_dict {'noted': True}",
        "build sampler",
        "tokenizer.encode_pieces",
        "corpus.read",
        "build model to train",
        "build trainer",
        "build sampler",
        "sampler",
        "build observer",
        "tokenizer.to_dict",
        "RunStarted",
        "trainer.train",
        "trainer steps",
        "StepDone",
        "trainer steps",
        "StepDone",
        "Evaluation",
        "Checkpointed",
        "RunFinished",
        "build tokenizer",
        "tokenizer.from_dict {'noted': True}",
        "build model to generate",
        "model.load_tensors ['weight']",
        "build sampler",
        "sampler",
    ]


# What a run directory makes of the next run.


def test_what_an_observer_left_when_it_failed_is_in_nobodys_way(
    tmp_path: Path, tiny_pipeline: Callable[..., dict[str, Any]]
) -> None:
    class Plugin:
        @textgen.hookimpl
        def textgen_observers(self) -> list[textgen.Component]:
            return [textgen.Component("hasty", textgen.NoOptions, self.build)]

        def build(self, config: Any, context: textgen.BuildContext) -> Any:
            assert context.directory is not None
            (context.directory / "notes.csv").write_text("step,loss")
            raise RuntimeError("no")

    plugins = textgen.PluginSet.discover()
    plugins.register(Plugin(), "hasty")
    with pytest.raises(textgen.ContractError, match="hasty"):
        textgen.Engine(plugins).run(tiny_pipeline(observer=[{"type": "hasty"}]))
    run = textgen.run(tiny_pipeline())
    assert run.outcome == "trained"
    assert (run.path / "notes.csv").read_text() == "step,loss"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A folder with a finished run in it, and what its command printed. Not to be changed."""
    folder = prepare(tmp_path_factory.mktemp("trained"))
    return folder, run_textgen("run", "p.toml", folder=folder)


def copied(trained: tuple[Path, Any], folder: Path) -> Path:
    """A copy of the finished run, to spoil, in `folder`."""
    import shutil

    shutil.copytree(trained[0] / "runs", folder / "runs")
    return folder / "runs/p"


def test_train(trained: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = trained
    assert done.returncode == 0, done.stderr
    assert "training on cpu" in done.stderr
    assert f"trained: {folder / 'runs/p'}" in done.stderr
    written = {path.name for path in (folder / "runs/p").iterdir() if not path.name.startswith(".")}
    assert {"pipeline.toml", "run.json", "tokenizer.json", "model.safetensors", "metrics.jsonl", "loss.svg"} <= written
    assert "tokens.bin" not in written
    record = json.loads((folder / "runs/p/run.json").read_text())
    assert record["status"] == "finished"
    assert f"step {record['best_step']} of {record['step']}, with" in done.stderr
    assert f"validation loss: {record['best_loss']:.3f}" in done.stderr


def test_stdout_holds_the_text_alone(trained: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = trained
    generation = textgen.load(folder / "runs/p").generate("Once", max_new_tokens=40)
    assert len(generation.text) == 40
    assert done.stdout == f"{generation}\n"


def test_skip(trained: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, first = trained
    before = tree(folder)
    done = run_textgen("run", "p.toml", folder=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout == first.stdout
    assert "training" not in done.stderr
    assert "skipped:" in done.stderr
    assert tree(folder) == before


def test_a_skipped_run_writes_as_the_pipeline_says_now(trained: tuple[Path, Any], folder: Path) -> None:
    """Samplers do not shape the model, so they may change; then they must count."""
    run = copied(trained, folder)
    done = run_textgen("run", "p.toml", "--set", 'sampler=[{type="greedy"}]', folder=folder)
    greedy = textgen.load(run, sampler=[{"type": "greedy"}]).generate("Once", max_new_tokens=40)
    assert "skipped:" in done.stderr
    assert done.stdout == f"{greedy}\n"


def test_refuse(trained: tuple[Path, Any], folder: Path) -> None:
    run = copied(trained, folder)
    before = tree(run)
    done = run_textgen("run", "p.toml", "--set", "trainer.epochs=3", "--set", "model.layers=2", folder=folder)
    assert done.returncode == 2
    assert done.stdout == ""
    for phrase in ("trainer.epochs: 2 there, 3 here", "model.layers: 1 there, 2 here", "--overwrite", "--output"):
        assert phrase in done.stderr
    assert tree(run) == before

    (folder / "text.txt").write_text(TEXT + "Once more.")
    done = run_textgen("run", "p.toml", folder=folder)
    assert done.returncode == 2
    assert "was trained on another text" in done.stderr
    assert f"corpus.characters: {len(TEXT):,} there, {len(TEXT) + 10:,} here" in done.stderr
    assert not re.search("[0-9a-f]{13}", done.stderr)
    assert tree(run) == before

    (folder / "text.txt").write_text(TEXT.replace("ravens", "eagles", 1))
    done = run_textgen("run", "p.toml", folder=folder)
    assert "corpus.characters: as many there as here" in done.stderr


def test_overwrite_and_another_output(trained: tuple[Path, Any], folder: Path) -> None:
    run = copied(trained, folder)
    before = tree(run)
    changed = ["--set", "trainer.epochs=1"]
    done = run_textgen("run", "p.toml", *changed, "--output", "other", folder=folder)
    assert (done.returncode, "trained:" in done.stderr) == (0, True)
    assert tree(run) == before
    done = run_textgen("run", "p.toml", *changed, "--overwrite", folder=folder)
    assert (done.returncode, "trained:" in done.stderr) == (0, True)
    assert tree(run)["model.safetensors"] == tree(folder / "other")["model.safetensors"]


def test_overwrite_destroys_nothing_when_the_new_run_cannot_start(trained: tuple[Path, Any], folder: Path) -> None:
    run = copied(trained, folder)
    before = tree(run)
    done = run_textgen("run", "p.toml", "--overwrite", "--set", "data.window_length=100000", folder=folder)
    assert done.returncode == 1
    assert "too short" in done.stderr
    assert tree(run) == before


# Replacing a finished run.


def text_of(run: Path) -> str:
    return textgen.load(run).generate("Once", max_new_tokens=30).text


def test_the_old_run_stays_loadable_until_the_new_one_is_finished(trained: tuple[Path, Any], folder: Path) -> None:
    run = copied(trained, folder)
    before, old = tree(run), text_of(run)
    command = ["run", "p.toml", "--set", "trainer.epochs=100000", "--set", "trainer.evaluate_every=1"]
    with running(*command, "--overwrite", folder=folder) as process:
        wait_for(process, ", step ")
        while_it_trains = run_textgen(
            "generate", "runs/p", "-p", "Once", "--no-echo", "--max-new-tokens", "30", folder=folder
        )
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert (while_it_trains.returncode, while_it_trains.stdout) == (0, f"{old}\n")
    (warning,) = while_it_trains.stderr.splitlines()
    assert "the new run" in warning
    assert "is not finished" in warning
    assert process.returncode == 130
    assert "the same command without --overwrite goes on from there" in stderr
    assert tree(run / ".previous").items() <= before.items()
    with pytest.warns(UserWarning, match="is not finished"):
        assert text_of(run) == old
    with running(*command, folder=folder) as process:  # and the new one goes on, and says so before it trains
        assert "going on with an interrupted run after step " in wait_for(process, "going on")
        wait_for(process, ", step ")
        process.kill()
    with pytest.warns(UserWarning, match="is not finished"):
        assert text_of(run) == old


def test_an_interrupted_overwriting_run_ends_as_if_never_interrupted(trained: tuple[Path, Any], folder: Path) -> None:
    run = copied(trained, folder)
    (run / "mine.txt").write_text("not a run's")
    pipeline = tables(folder, "adamw", "shuffled")
    steps = iter(range(100))
    with pytest.raises(textgen.Interrupted):
        textgen.run(pipeline, output=run, overwrite=True, cancelled=lambda: next(steps) == 5)
    assert textgen.run(pipeline, output=run).outcome == "resumed"
    whole = textgen.run(pipeline, output=folder / "whole")
    assert text_of(run) == text_of(whole.path)
    assert not (run / ".previous").exists()
    assert (run / "mine.txt").exists()


def test_an_overwriting_run_that_fails_at_once_leaves_everything_as_it_was(
    trained: tuple[Path, Any], folder: Path
) -> None:
    run = copied(trained, folder)
    before = tree(run)
    spoilt = PIPELINE.replace('"gru"', '"rnn"\nnonlinearity = "relu"')
    spoilt = spoilt.replace('"adamw"', '"sgd"\nlearning_rate = 1e30\ngradient_clipping = "off"')
    (folder / "spoilt.toml").write_text(spoilt)
    done = run_textgen("run", "spoilt.toml", "--output", "runs/p", "--overwrite", folder=folder)
    assert (done.returncode, "the loss is nan" in done.stderr) == (1, True), done.stderr
    assert tree(run) == before


KILLED = """
import itertools, os, shutil, sys
from pathlib import Path
import textgen
from textgen.runs.directory import RunDirectory

finished, work = Path(sys.argv[1]), Path(sys.argv[2])
old = textgen.load(finished).generate("Once", max_new_tokens=30).text
CHANGES = ("os.", "shutil.", "open")

def survives(prepare, act):
    for last in itertools.count(1):
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(finished, work)
        prepare(RunDirectory(work))
        child = os.fork()
        if not child:
            calls = itertools.count(1)
            sys.addaudithook(lambda event, _: event.startswith(CHANGES) and next(calls) == last and os._exit(9))
            act(RunDirectory(work))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        assert textgen.load(work).generate("Once", max_new_tokens=30).text == old, last
        with RunDirectory(work).locked():
            RunDirectory(work).sweep()
        assert not (work / ".previous").exists(), last
        assert RunDirectory(work).read_run()["status"] == "finished", last
        names = {path.name for path in work.rglob("*") if path.name[:5] != ".lock"}
        assert names == {path.name for path in finished.rglob("*") if path.name[:5] != ".lock"}, last
        assert textgen.load(work).generate("Once", max_new_tokens=30).text == old, last
        if code == 0:
            return last

def clear(directory):
    directory.clear(spare=directory.path / "tokens.bin")

def sweep(directory):
    with directory.locked():
        directory.sweep()

def begun(directory):
    clear(directory)
    directory.checkpoints.path.mkdir()
    directory.write_run({"status": "training"})

print(survives(lambda directory: None, clear), survives(begun, sweep))
"""


def test_killed_at_any_call_while_a_run_moves_aside_or_back(trained: tuple[Path, Any], tmp_path: Path) -> None:
    done = run_python("-W", "ignore", "-c", KILLED, trained[0] / "runs/p", tmp_path / "run", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    aside, back = map(int, done.stdout.split())
    assert min(aside, back) > 20


TRAINERS = {
    "sgd": {"type": "sgd", "momentum": 0.9, "learning_rate": 0.5},
    "adamw": {"type": "adamw", "warmup_steps": 3},
}


def tables(folder: Path, trainer: str, order: str, **model: Any) -> dict[str, Any]:
    return {
        "device": "cpu",
        "corpus": {"type": "file", "path": str(folder / "text.txt")},
        "tokenizer": {"type": "char"},
        "data": {"window_length": 16},
        "model": {"type": "rnn", "hidden_size": 8, "dropout": 0.3, **model},
        "trainer": {**TRAINERS[trainer], "epochs": 2, "batch_size": 48, "order": order, "evaluate_every": 2},
        "observer": [{"type": "metrics"}, {"type": "samples", "every": 2, "max_new_tokens": 10}],
        "generate": {"max_new_tokens": 40, "n": 2},
    }


def measured(run: textgen.Run) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, but for what the clock says."""
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    clock = {"seconds", "characters_per_second"}
    return [{key: value for key, value in row.items() if key not in clock} for row in rows]


@pytest.mark.parametrize("order", ["shuffled", "streams"])
@pytest.mark.parametrize(("trainer", "cell"), [("sgd", "rnn"), ("adamw", "lstm")])
def test_resumed_after_every_event_is_as_if_never_interrupted(
    folder: Path, trainer: str, order: str, cell: str
) -> None:
    pipeline = tables(folder, trainer, order, cell=cell, layers=2)
    whole = textgen.run(pipeline, output=folder / "whole")
    interruptions, resumed = 0, None
    while resumed is None:
        try:
            resumed = textgen.run(pipeline, output=folder / "parts", cancelled=lambda: True)
        except textgen.Interrupted:
            interruptions += 1
            assert json.loads((folder / "parts/run.json").read_text())["status"] == "unfinished"
    steps = json.loads((folder / "whole/run.json").read_text())["step"]
    assert interruptions == steps + len(measured(whole))
    assert steps >= 6
    assert (whole.outcome, resumed.outcome) == ("trained", "resumed")
    assert measured(resumed) == measured(whole)
    assert resumed.generations == whole.generations
    parts, complete = tree(resumed.path), tree(whole.path)
    same = ("model.safetensors", "tokenizer.json", "samples.txt", f"checkpoints/step-{steps:06d}/trainer.safetensors")
    assert {name: parts[name] for name in same} == {name: complete[name] for name in same}


def test_samples_that_look_like_headings_are_kept(folder: Path) -> None:
    (folder / "text.txt").write_text(TEXT + "=== step by step ===\n")
    pipeline = tables(folder, "sgd", "shuffled")
    pipeline["observer"][1]["prompt"] = "=== step by step ===\n"
    whole = textgen.run(pipeline, output=folder / "whole")
    steps = iter(range(100))
    with pytest.raises(textgen.Interrupted):
        textgen.run(pipeline, output=folder / "parts", cancelled=lambda: next(steps) == 5)
    resumed = textgen.run(pipeline, output=folder / "parts")
    assert (resumed.path / "samples.txt").read_bytes() == (whole.path / "samples.txt").read_bytes()


def test_an_unfinished_run_does_not_generate(folder: Path) -> None:
    with pytest.raises(textgen.Interrupted):
        textgen.run(tables(folder, "sgd", "shuffled"), output=folder / "run", cancelled=lambda: True)
    with pytest.raises(textgen.RunError, match="not finished"):
        textgen.load(folder / "run")


def test_the_seed_decides(folder: Path) -> None:
    pipeline = tables(folder, "adamw", "shuffled")
    runs = [textgen.run({**pipeline, "seed": seed}, output=folder / str(i)) for i, seed in enumerate([5, 5, 6])]
    weights = [tree(run.path)["model.safetensors"] for run in runs]
    texts = [tuple(generation.text for generation in run.generations) for run in runs]
    assert (weights[0], texts[0]) == (weights[1], texts[1])
    assert weights[0] != weights[2]
    assert texts[0] != texts[2]
    assert texts[0][0] != texts[0][1]


# What stops a run.


@contextlib.contextmanager
def running(*arguments: str, folder: Path, site: Iterable[Path] = ()) -> Iterator[subprocess.Popen[str]]:
    """`textgen ARGUMENTS` with a pipe to each of its streams; ended at the end, whatever has happened."""
    process = subprocess.Popen(
        [sys.executable, "-c", HEEDING_SIGINT, *arguments],
        cwd=folder,
        env=environment(site),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(process: subprocess.Popen[str], phrase: str) -> str:
    """The first line on stderr that holds `phrase`."""
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if phrase in line:
            return line
    raise AssertionError(f"no {phrase!r} in {seen}")


def test_signals_stop_after_a_checkpoint_and_the_same_command_goes_on(folder: Path) -> None:
    command = ["run", "p.toml", "--set", "trainer.epochs=100000", "--set", "trainer.evaluate_every=1"]
    steps = [0]
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGINT, 130)):
        with running(*command, folder=folder) as process:
            first = int(wait_for(process, ", step ").partition("step ")[2].partition("/")[0])
            locked = run_textgen(*command, folder=folder) if len(steps) == 1 else None
            process.send_signal(number)
            stdout, stderr = process.communicate(timeout=60)
        if locked is not None:
            assert locked.returncode == 1
            assert f"is in use by process {process.pid}" in locked.stderr
        assert (process.returncode, stdout) == (code, ""), stderr
        assert "Traceback" not in stderr
        steps.append(int(stderr.rpartition("stopped after step ")[2].partition(" ")[0]))
        assert steps[-2] < first <= steps[-1]
        assert (folder / f"runs/p/checkpoints/step-{steps[-1]:06d}/manifest.json").is_file()
    rows = [json.loads(line)["step"] for line in (folder / "runs/p/metrics.jsonl").read_text().splitlines()]
    assert rows == list(range(1, len(rows) + 1))


PATIENT = """
import sys
import attrs, numpy as np
from textgen import Component, hookimpl
from textgen.events import StepDone
from textgen.protocols import TrainerState

@attrs.frozen
class Config:
    "Waits for a line on stdin."

class Patient:
    def train(self, model, data, context):
        while sys.stdin.readline():
            print("still here", file=sys.stderr, flush=True)
        yield StepDone(step=1, steps=1, epoch=1, loss=1.0, tokens=1)
    def state(self):
        return TrainerState()
    def load_state(self, state):
        pass

@hookimpl
def textgen_trainers():
    return [Component("patient", Config, lambda config, context: Patient())]
"""


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_stops_at_once(folder: Path, second: signal.Signals) -> None:
    site = folder / "site"
    (site / "patient-1.dist-info").mkdir(parents=True)
    (site / "patient.py").write_text(PATIENT)
    (site / "patient-1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: patient\nVersion: 1\n")
    (site / "patient-1.dist-info/entry_points.txt").write_text("[textgen]\npatient = patient\n")
    with running("run", "p.toml", "--set", 'trainer={type="patient"}', folder=folder, site=[site]) as process:
        assert process.stdin is not None
        wait_for(process, "training on")
        for number in (None, signal.SIGINT):
            if number is not None:
                process.send_signal(number)
            process.stdin.write("\n")  # it answers only once it has taken the signal
            process.stdin.flush()
            wait_for(process, "still here")
        process.send_signal(second)
        code = process.wait(timeout=60)
    assert code == (130 if second is signal.SIGINT else -signal.SIGTERM)


# What spoils a run.


def test_an_output_that_cannot_be_written_is_an_error_before_training(folder: Path) -> None:
    done = run_textgen("run", "p.toml", "--output", "text.txt/run", folder=folder)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert "text.txt/run cannot be written to" in line
    assert (folder / "text.txt").read_text() == TEXT


def test_a_folder_that_is_no_run_is_left_alone(folder: Path) -> None:
    (folder / "mine").mkdir()
    (folder / "mine/thesis.txt").write_text("all of it")
    for arguments in ([], ["--overwrite"]):
        done = run_textgen("run", "p.toml", "--output", "mine", *arguments, folder=folder)
        assert done.returncode == 1
        assert "is not a run directory and is not empty (thesis.txt)" in done.stderr
        assert tree(folder / "mine") == {"thesis.txt": hashlib.sha256(b"all of it").hexdigest()}


@pytest.mark.skipif(devices.resolve("auto") == "cuda", reason="there is a CUDA device here")
def test_a_missing_device_is_an_error(folder: Path, trained: tuple[Path, Any]) -> None:
    for command in (["run", "p.toml"], ["generate", str(trained[0] / "runs/p")]):
        done = run_textgen(*command, "--device", "cuda", folder=folder)
        assert (done.returncode, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        assert "'cuda'" in line
        assert "--device to cpu" in line
    assert not (folder / "runs").exists()


def test_output_into_head_gives_no_traceback(trained: tuple[Path, Any]) -> None:
    folder = trained[0]
    command = (
        f"{sys.executable} -m textgen generate runs/p --max-new-tokens 100000 | head -c 5; echo ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    assert done.stdout[5:] == "0\n"


def flip(data: bytes) -> bytes:
    return data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]


SPOILT: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "flipped": (flip, ""),
    "truncated": (lambda data: data[: len(data) // 2], ""),
    "empty": (lambda data: b"", "it is empty"),
    "lfs": (lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
    "html": (lambda data: b"<!DOCTYPE html>\n<html><body>Not found</body></html>", "it is an HTML page"),
}


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("how", SPOILT)
def test_a_spoilt_file_is_named_with_its_checksums(
    trained: tuple[Path, Any], tmp_path: Path, how: str, name: str
) -> None:
    run = copied(trained, tmp_path)
    spoil, hint = SPOILT[how]
    original = (run / name).read_bytes()
    (run / name).write_bytes(spoil(original))
    with pytest.raises(textgen.CorruptFileError) as caught:
        textgen.load(run)
    error = caught.value
    assert error.path == run / name
    assert error.expected == hashlib.sha256(original).hexdigest()
    assert error.actual == hashlib.sha256(spoil(original)).hexdigest()
    for phrase in (str(run / name), "SHA-256", error.expected[:12], error.actual[:12], hint):
        assert phrase in str(error)


def test_a_flipped_byte_is_one_line_on_the_command_line(trained: tuple[Path, Any], folder: Path) -> None:
    path = copied(trained, folder) / "model.safetensors"
    path.write_bytes(flip(path.read_bytes()))
    for command in (["generate", "runs/p"], ["run", "p.toml"]):
        done = run_textgen(*command, folder=folder)
        assert (done.returncode, done.stdout) == (1, "")
        assert "Traceback" not in done.stderr
        assert "model.safetensors: its SHA-256 is" in done.stderr


def test_a_run_whose_checkpoints_are_all_spoilt_does_not_start_again(folder: Path) -> None:
    pipeline = tables(folder, "sgd", "shuffled")
    asked: list[None] = []

    def after_the_third() -> bool:
        asked.append(None)
        return len(asked) > 3

    with pytest.raises(textgen.Interrupted):
        textgen.run(pipeline, output=folder / "run", cancelled=after_the_third)
    for path in (folder / "run/checkpoints").glob("step-*/model.safetensors"):
        path.write_bytes(flip(path.read_bytes()))
    before = tree(folder / "run")
    with pytest.raises(textgen.CorruptFileError, match=r"no checkpoint of this run is whole.*`overwrite`"):
        textgen.run(pipeline, output=folder / "run")
    assert {n: c for n, c in tree(folder / "run").items() if "checkpoints" in n} == (
        {n: c for n, c in before.items() if "checkpoints" in n}
    )
    textgen.run(pipeline, output=folder / "run", overwrite=True)


def test_a_loss_that_is_no_number_stops_the_run(folder: Path) -> None:
    spoilt = PIPELINE.replace('"gru"', '"rnn"\nnonlinearity = "relu"')
    spoilt = spoilt.replace('"adamw"', '"sgd"\nlearning_rate = 1e30\ngradient_clipping = "off"')
    (folder / "p.toml").write_text(spoilt)
    done = run_textgen("run", "p.toml", folder=folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert "the loss is nan at step 2 with learning rate 1e+30" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads((folder / "runs/p/run.json").read_text())["status"] == "unfinished"
    assert os.listdir(folder / "runs/p/checkpoints") == []


def test_a_run_that_failed_before_its_first_checkpoint_stands_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("the clock struck nine and nobody came. " * 60, encoding="utf-8")
    (tmp_path / "p.toml").write_text(
        '[corpus]\ntype = "file"\npath = "text.txt"\n[tokenizer]\ntype = "char"\n'
        '[model]\ntype = "rnn"\nhidden_size = 8\n'
        '[trainer]\ntype = "sgd"\nepochs = 1\norder = "streams"\nbatch_size = 500\n[generate]\nmax_new_tokens = 5\n',
        encoding="utf-8",
    )
    failed = run_textgen("run", "p.toml", folder=tmp_path)
    assert failed.returncode == 1
    assert "too short for 500 streams" in failed.stderr
    mended = run_textgen("run", "p.toml", "--set", "trainer.batch_size=4", folder=tmp_path)
    assert mended.returncode == 0, mended.stderr
    assert (tmp_path / "runs/p/samples.txt").read_text(encoding="utf-8").startswith("=== step ")


def test_a_prompt_that_cannot_be_fed_is_found_before_training(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("the clock struck nine and nobody came. " * 60, encoding="utf-8")
    (tmp_path / "p.toml").write_text(
        '[corpus]\ntype = "file"\npath = "text.txt"\n[tokenizer]\ntype = "char"\n[model]\ntype = "rnn"\n'
        '[trainer]\ntype = "sgd"\n[generate]\nprompt = "Zoë"\n',
        encoding="utf-8",
    )
    done = run_textgen("run", "p.toml", folder=tmp_path)
    assert done.returncode == 2
    assert "U+00EB" in done.stderr
    assert "training on" not in done.stderr


def test_a_full_disk_under_stdout_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("/dev/full")
    done = run_python(
        "-c",
        "import os, sys; os.dup2(os.open('out', os.O_WRONLY), 1); from textgen.cli import main; main(['plugins'])",
        folder=tmp_path,
    )
    assert done.returncode == 1
    assert done.stderr == "textgen: error: cannot write the output: No space left on device\n"


def test_a_checkpoint_whose_replacement_was_cut_short_is_put_back(tmp_path: Path) -> None:
    """Killed between moving the old checkpoint aside and moving the new one into place: one of them is whole."""
    tables = {
        "device": "cpu",
        "corpus": {"type": "story"},
        "tokenizer": {"type": "char"},
        "data": {"window_length": 16, "training_windows": 40, "validation_windows": 4},
        "model": {"type": "rnn", "hidden_size": 8},
        "trainer": {"type": "sgd", "epochs": 4, "batch_size": 4},
        "observer": [],
        "generate": {"max_new_tokens": 5},
    }
    steps = iter(range(100))
    with pytest.raises(textgen.Interrupted):
        textgen.run(tables, output=tmp_path / "run", cancelled=lambda: next(steps) == 6)
    checkpoints = tmp_path / "run/checkpoints"
    (last,) = sorted(checkpoints.glob("step-*"))
    last.rename(checkpoints / ".partial-0123")
    (checkpoints / ".partial-4567").mkdir()  # and one that never got its manifest
    (checkpoints / ".partial-4567/model.safetensors").write_bytes(b"half")
    run = textgen.run(tables, output=tmp_path / "run")
    assert run.outcome == "resumed"
    assert not list(checkpoints.glob(".partial-*"))
    whole = textgen.run(tables, output=tmp_path / "whole")
    assert (run.path / "model.safetensors").read_bytes() == (whole.path / "model.safetensors").read_bytes()


def test_a_model_too_large_for_memory_is_one_line(tmp_path: Path) -> None:
    """A trillion weights: four terabytes, which no allocator grants."""
    (tmp_path / "p.toml").write_text(
        'device = "cpu"\n[corpus]\ntype = "story"\n[tokenizer]\ntype = "char"\n'
        '[model]\ntype = "rnn"\nhidden_size = 1000000\n[trainer]\ntype = "sgd"\n',
        encoding="utf-8",
    )
    done = run_textgen("run", "p.toml", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("textgen: error: out of memory building model 'rnn'; lower ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.gpu
def test_a_model_too_large_for_the_gpu_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(
        'device = "cuda"\n[corpus]\ntype = "story"\n[tokenizer]\ntype = "char"\n'
        '[model]\ntype = "rnn"\nhidden_size = 1000000\n[trainer]\ntype = "sgd"\n',
        encoding="utf-8",
    )
    done = run_textgen("run", "p.toml", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("textgen: error: out of memory building model 'rnn'; lower ")
