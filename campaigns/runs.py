"""Small runs to which faults are done, each in a process of its own, and the check that nothing came of it."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import pkgutil
import re
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import attrs

TEXT = "the time traveller smiled, and the clock of the hall struck the hour.\n" * 6
PIPELINE = """
seed = {seed}
device = "cpu"
threads = 1
checkpoint = {{ seconds = 0 }}
corpus = {{ type = "file", path = "{text}" }}
tokenizer = {{ type = "char" }}
data = {{ window_length = 16 }}
model = {{ type = "rnn", hidden_size = 4 }}
trainer = {{ type = "sgd", length = "{steps} steps", batch_size = 8, evaluate_every = 1, momentum = 0.5 }}
observer = [{{ type = "metrics" }}, {{ type = "loss-plot" }}, {{ type = "samples", max_new_tokens = 5 }}]
generate = {{ max_new_tokens = 10 }}
"""
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
FAST = "/dev/shm" if os.path.isdir("/dev/shm") else None  # where syncing takes no time
# What differs from run to run: times, the entry in a manifest of the file that holds them, and checksums over them.
CHANCE = ("started", "seconds", "characters_per_second", "trainer.json", "checksum")
_SAYING: Final = 30  # seconds between two words of how far a campaign is
_Case = TypeVar("_Case")


@attrs.frozen
class Done:
    """How a process ended."""

    code: int
    stdout: str
    stderr: str


@attrs.frozen
class Setting:
    """A run that is done to a folder.

    begin    steps and seed of the finished run that is there before; None for an empty folder
    options  of the command
    """

    name: str
    begin: tuple[int, int] | None = None
    options: tuple[str, ...] = ()


NEW = Setting("new")
OVERWRITE = Setting("overwrite", (2, 5), ("--overwrite",))
LONGER = Setting("longer", (2, 3))
SETTINGS = {setting.name: setting for setting in (NEW, OVERWRITE, LONGER)}


def load_everything() -> None:
    """Import what a run imports, once and before any fork: a process that has trained can have no children."""
    import torch._dynamo  # noqa: F401
    import tqdm.auto  # noqa: F401

    import textgen
    import textgen_builtins

    for package in (textgen, textgen_builtins):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not re.search(r"__main__|testing|tests", module.name):
                importlib.import_module(module.name)


def apart(act: Callable[[], Any], folder: Path) -> Done:
    """Do something in a forked process whose streams go to files, in `folder`."""
    with tempfile.TemporaryFile(dir=FAST) as out, tempfile.TemporaryFile(dir=FAST) as err:
        sys.stdout.flush()
        child = os.fork()
        if not child:
            code = 70
            try:
                os.chdir(folder)
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
                sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
                act()
                code = 0
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else 1
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                with contextlib.suppress(Exception):
                    sys.stdout.flush()
                    sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "replace"))
        return Done(os.waitstatus_to_exitcode(status), *texts)


@attrs.define
class Stage:
    """A folder in which runs of one setting are made, with the tree and text that each must end with."""

    folder: Path
    setting: Setting
    text: str = ""
    tree: dict[str, Any] = attrs.field(factory=dict)
    before: dict[str, Any] = attrs.field(factory=dict)
    _cases: int = 0

    @classmethod
    def make(cls, folder: Path, setting: Setting) -> Stage:
        """Set a folder up, and make the run that faults will be done to once without any."""
        stage = cls(folder / setting.name, setting)
        stage.folder.mkdir()
        (stage.folder / "text.txt").write_text(TEXT)
        os.utime(stage.folder / "text.txt", (0, 0))  # a text of just now is not noted in the cache
        stage._write_pipeline("p.toml", steps=3, seed=3)
        if setting.begin is not None:
            stage._write_pipeline("begin.toml", steps=setting.begin[0], seed=setting.begin[1])
            made = stage.run(stage.folder / "begin", "begin.toml")
            assert made.code == 0, made.stderr
            stage.before = tree(stage.folder / "begin/run")
        done = stage.run(stage.new_case(), options=setting.options)
        assert done.code == 0, done.stderr
        stage.text, stage.tree = done.stdout, tree(stage.folder / "case/run")
        return stage

    def _write_pipeline(self, name: str, **values: Any) -> None:
        (self.folder / name).write_text(PIPELINE.format(text=self.folder / "text.txt", **values))

    def new_case(self) -> Path:
        """The folder of a new case, as it is before the run."""
        case = self.folder / "case"
        shutil.rmtree(case, ignore_errors=True)
        case.mkdir()
        if self.setting.begin is not None:
            shutil.copytree(self.folder / "begin/run", case / "run")
        return case

    def run(
        self,
        case: Path,
        pipeline: str = "p.toml",
        options: tuple[str, ...] = (),
        first: Callable[[], Any] = lambda: None,
        last: Callable[[], Any] = lambda: None,
    ) -> Done:
        """`textgen run` in a process of its own; `first` is called in it before, and `last` after."""

        def act() -> None:
            from textgen.cli import main

            os.environ["TEXTGEN_CACHE_DIR"] = str(case / "cache")  # faults are done to that as well
            first()
            try:
                main(["run", pipeline, "--output", str(case / "run"), *options])
            finally:
                last()

        return apart(act, self.folder)

    def faults(self, case: Path, step: int | None) -> str:
        """What is wrong after the same command was run again on what a fault left; "" if nothing.

        step  of the last checkpoint that was complete before the fault; -1: the run was finished; None: there was none
        """
        said = ""
        again = self.run(
            case, first=partial(load, case / "run", finished=self.setting.begin is not None)
        )
        if again.code == 2 and self.setting is OVERWRITE and step is None:
            if (left := tree(case / "run")) != self.before:
                return f"the old run is not as it was: {difference(left, self.before)}"
            again = self.run(case, options=self.setting.options)
        if again.code or "Traceback" in again.stderr:
            return f"exit code {again.code}: {again.stderr}"
        if again.stdout != self.text:
            said = f"another text: {again.stdout!r}"
        if (left := tree(case / "run")) != self.tree:
            return f"{said} {difference(left, self.tree)}"
        begun = re.search(r"(?:after|from) step (\d+)", again.stderr)
        last = -1 if "skipped:" in again.stderr else int(begun[1]) if begun else 0
        if step is not None and last != -1 and (step == -1 or last < step):
            said = f"resumed after step {last}, and {'the end' if step == -1 else f'step {step}'} was reached before"
        return said


def load(run: Path, *, finished: bool) -> None:
    """Load what a fault left: where there was a finished run, there is one to be loaded at any time."""
    import textgen

    with warnings.catch_warnings(action="ignore"):
        try:
            textgen.load(run)
        except textgen.RunError as error:
            if finished:
                raise AssertionError("the run that was there before cannot be loaded") from error


def marks(note: Callable[[int], None]) -> Callable[[], None]:
    """What to call before a run, so that `note` gets the step of every checkpoint that is complete."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if str(record.msg).startswith("checkpoint of step %d written"):
                note(record.args[0])  # type: ignore[index,arg-type]

    def begin() -> None:
        logging.getLogger("textgen").addHandler(Handler())
        logging.getLogger("textgen").setLevel(logging.INFO)

    return begin


def tree(run: Path) -> dict[str, Any]:
    """The files of a run, without what differs from run to run."""
    return dict(_files(run))


def _files(run: Path) -> Iterator[tuple[str, Any]]:
    for path in sorted(run.rglob("*")):
        name = str(path.relative_to(run))
        if path.is_dir():
            yield name, None
        elif path.suffix == ".json" and path.stat().st_size:
            yield name, _settled(json.loads(path.read_bytes()))
        elif path.suffix == ".jsonl":
            yield name, [_settled(json.loads(line)) for line in path.read_bytes().splitlines()]
        else:
            yield name, path.read_bytes()


def _settled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _settled(inner) for key, inner in value.items() if key not in CHANCE}
    return [_settled(inner) for inner in value] if isinstance(value, list) else value


def difference(left: dict[str, Any], wanted: dict[str, Any]) -> str:
    """Which files differ, and the first few of them."""
    names = [name for name in {**left, **wanted} if left.get(name, ...) != wanted.get(name, ...)]
    pairs = [
        (str(left.get(name, "missing")), str(wanted.get(name, "missing"))) for name in names[:4]
    ]
    shown = [
        f"{name}: {one[:300]} / {other[:300]}"
        for name, (one, other) in zip(names, pairs, strict=False)
    ]
    return f"other files: {'; '.join(shown)}"


def within(seconds: float, cases: Sequence[_Case], words: str) -> Iterator[_Case]:
    """The cases there is time for; says on stderr now and then how far it is. (tqdm's thread would outlive forks.)"""
    begun = said = time.perf_counter()
    for count, case in enumerate(cases):
        now = time.perf_counter()
        if now - begun > seconds:
            return
        if now - said > _SAYING:
            said = now
            print(
                f"{count} of {len(cases)} {words} in {now - begun:.0f} s",
                file=sys.stderr,
                flush=True,
            )
        yield case
