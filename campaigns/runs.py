"""Small runs to which faults are done, each in a process of its own, and the check that nothing
came of it.
"""

import ast
import json
import os
import random
import re
import shutil
import signal
import tempfile
import warnings
from pathlib import Path
from typing import Any

import attrs

from .calls import Call, watch
from .cases import FAST, apart, arguments, do, load_everything

TEXT = "the time traveller smiled, and the clock of the hall struck the hour.\n" * 6
PIPELINE = """
seed = {seed}
device = "cpu"
threads = 1
checkpoint = {{ seconds = 0 }}
corpus = {{ type = "file", path = "{text}" }}
data = {{ window_length = 16 }}
{model}
trainer.type = "sgd"
trainer.length = "{steps} steps"
trainer.batch_size = 8
trainer.evaluate_every = 1
trainer.momentum = 0.5
observer = [{{ type = "metrics" }}, {{ type = "loss-plot" }},
            {{ type = "samples", characters = 5 }}]
generate = {{ max_new_tokens = 10 }}
"""
RNN = """
tokenizer = { type = "char" }
model = { type = "rnn", hidden_size = 4 }
"""
BASE = """
tokenizer = { type = "bpe", vocab_size = 260 }
model.type = "huggingface"
model.architecture = "gpt2"
model.config = { n_layer = 1, n_head = 1, n_embd = 8 }
"""
ADAPTER = """
tokenizer = { type = "huggingface-tokenizer", path = "../base" }
model = { type = "huggingface", path = "../base", lora = { rank = 2 } }
"""
# What differs from run to run: times, the entry in a manifest of the file that holds them, and
# checksums over them.
CHANCE = ("started", "seconds", "characters_per_second", "trainer.json", "checksum")


@attrs.frozen
class Setting:
    """A run that is done to a folder.

    begin    steps and seed of the finished run that is there before; None for an empty folder
    options  of the command
    model    the tables of tokenizer and model
    """

    begin: tuple[int, int] | None = None
    options: tuple[str, ...] = ()
    model: str = RNN


SETTINGS = {
    "new": Setting(),
    "overwrite": Setting((2, 5), ("--overwrite",)),
    "longer": Setting((2, 3)),
    "adapter": Setting(model=ADAPTER),  # with textgen-huggingface; only if it is asked for
}


@attrs.define
class Stage:
    """A folder in which runs of one setting are made, with the tree and text that each must end
    with.
    """

    folder: Path
    name: str
    text: str = ""
    tree: dict[str, Any] = attrs.field(factory=dict)
    before: dict[str, Any] = attrs.field(factory=dict)

    @classmethod
    def make(cls, folder, name):
        """Set a folder up, and make the run that faults will be done to once without any."""
        stage = cls(folder / name, name)
        stage.folder.mkdir()
        (stage.folder / "text.txt").write_text(TEXT)
        os.utime(stage.folder / "text.txt", (0, 0))  # a text of just now is not noted in the cache
        for pipeline, (steps, seed), model in (
            ("p", (3, 3), stage.setting.model),
            ("begin", stage.setting.begin or (1, 1), stage.setting.model),
            ("base", (1, 1), BASE),
        ):
            text = stage.folder / "text.txt"
            tables = PIPELINE.format(text=text, steps=steps, seed=seed, model=model)
            (stage.folder / f"{pipeline}.toml").write_text(
                tables.replace("../", f"{stage.folder}/")
            )
        if stage.setting.model == ADAPTER:
            made = stage.run(stage.folder / "made", "base.toml", ())
            done = apart(stage.export_base, stage.folder)
            assert made.code == done.code == 0, made.stderr + done.stderr
        if stage.setting.begin is not None:
            assert not stage.run(stage.folder / "begin", "begin.toml", ()).code
            stage.before = tree(stage.folder / "begin/run")
        done = stage.run(stage.new_case())
        assert done.code == 0, done.stderr
        stage.text, stage.tree = done.stdout, tree(stage.case / "run")
        return stage

    def export_base(self):
        """Make the base of adapters a folder of transformers."""
        from textgen.cli import main

        main(["huggingface-export", str(self.folder / "made/run"), str(self.folder / "base")])

    @property
    def setting(self):
        """What is run in it."""
        return SETTINGS[self.name]

    @property
    def case(self):
        """The folder of a case."""
        return self.folder / "case"

    def new_case(self):
        """That folder, as it is before the run."""
        shutil.rmtree(self.case, ignore_errors=True)
        self.case.mkdir()
        if self.setting.begin is not None:
            shutil.copytree(self.folder / "begin/run", self.case / "run")
        return self.case

    def run(self, case, pipeline="p.toml", options=None, first=lambda: None):
        """`textgen run` in a process of its own, after `first` was called in it."""

        def act():
            from textgen.cli import main

            os.environ["TEXTGEN_CACHE_DIR"] = str(case / "cache")  # faults are done to that as well
            first()
            given = self.setting.options if options is None else options
            main(["run", pipeline, "--output", str(case / "run"), *given])

        return apart(act, self.folder)

    def record(self, options=None, kill_at=0):
        """Run, and say what it changed; it is killed after so many changes."""
        log, count = self.folder / "log", 0
        log.write_text("")

        def after(call):
            nonlocal count
            count += 1
            with log.open("a") as file:
                file.write(f"{attrs.astuple(call)!r}\n")
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

        done = self.run(
            self.case, "p.toml", options, lambda: watch(self.case, lambda _: None, after)
        )
        return done, [Call(*ast.literal_eval(line)) for line in log.read_text().splitlines()]

    def recorded(self):
        """The changes of an undisturbed run."""
        self.new_case()
        done, calls = self.record()
        assert done.code == 0, done.stderr
        assert not (said := difference(tree(self.case / "run"), self.tree)), said
        return calls

    def faults(self, step):
        """What is wrong after the same command was run again on what a fault left; "" if nothing.

        step  of the last checkpoint that was complete before the fault; -1: the run was finished;
              None: there was none
        """
        run = self.case / "run"
        again = self.run(self.case, "p.toml", (), lambda: load(run, self.setting.begin is not None))
        if again.code == 2 and self.name == "overwrite" and step is None:
            if said := difference(tree(run), self.before):
                return f"the old run is not as it was: {said}"
            again = self.run(self.case)
        if again.code or "Traceback" in again.stderr:
            return f"exit code {again.code}: {again.stderr}"
        said = "" if again.stdout == self.text else f"another text: {again.stdout!r} "
        begun = re.search(r"(?:after|from) step (\d+)", again.stderr)
        last = float("inf") if "skipped:" in again.stderr else int(begun[1]) if begun else 0
        if step is not None and last < (float("inf") if step == -1 else step):
            said += f"resumed after step {last}, and {step} was reached before "
        return said + difference(tree(run), self.tree)


def load(run, was_finished):
    """Load what a fault left: where there was a finished run, there is one to be loaded at any
    time.
    """
    import textgen

    with warnings.catch_warnings(action="ignore"):
        try:
            textgen.load(run)
        except textgen.RunError as error:
            if was_finished:
                raise AssertionError("the run that was there before cannot be loaded") from error


def steps(calls):
    """After each number of changes from 0 on, the step of the last complete checkpoint; -1 once the
    run is finished.
    """
    renamed = max(i for i, call in enumerate(calls) if call.target == "run/run.json")
    found = [None]
    step = named = None
    for index, call in enumerate(calls):
        if match := re.search(r"checkpoints/step-(\d+)$", call.target):
            named = int(match[1])
        elif call.name == "fsync" and call.path.endswith("checkpoints"):
            step = named
        elif index > renamed and (call.name, call.path) == ("fsync", "run"):
            step = named = -1
        found.append(step)
    return found


def tree(run):
    """The files of a run, without what differs from run to run."""
    return dict(_files(run))


def _files(run):
    for path in sorted(run.rglob("*")):
        name = str(path.relative_to(run))
        if path.is_dir():
            yield name, None
        elif path.suffix in (".json", ".jsonl"):
            rows = [path.read_bytes()] if path.suffix == ".json" else path.read_bytes().splitlines()
            yield name, [_settled(json.loads(row)) for row in rows if row]
        else:
            yield name, path.read_bytes()


def _settled(value):
    if isinstance(value, dict):
        return {key: _settled(inner) for key, inner in value.items() if key not in CHANCE}
    return [_settled(inner) for inner in value] if isinstance(value, list) else value


def difference(left, wanted):
    """Which files differ, and the first few of them; "" if none."""
    names = [name for name in {**left, **wanted} if left.get(name, ...) != wanted.get(name, ...)]
    return "; ".join(
        f"{name}: {left.get(name, '-')!s:.300} / {wanted.get(name, '-')!s:.300}"
        for name in names[:4]
    )


def campaign(description, cases_of, *options):
    """The program of a campaign on stages: does its cases in an order by chance."""
    parser = arguments(description)
    parser.add_argument("--setting", action="append", choices=SETTINGS)
    for name, more in options:
        parser.add_argument(name, **more)
    given = parser.parse_args()
    load_everything(adapters="adapter" in (given.setting or ()))
    with tempfile.TemporaryDirectory(dir=FAST) as folder:
        stages = [
            Stage.make(Path(folder), name)
            for name in given.setting or sorted(SETTINGS.keys() - {"adapter"})
        ]
        cases = [case for stage in stages for case in cases_of(stage, given)]
        random.Random(given.seed).shuffle(cases)
        do(cases, given)
