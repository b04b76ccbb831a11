"""The desk: a folder of texts, the runs that are trained on them, and what is written with them.

    NAME/text/           the texts that were dropped
    NAME/pipeline.toml   that `textgen init` wrote for them
    NAME/found.json      what it found
    NAME/run/            the run directory
    NAME/log.txt         what the last command said
    NAME/documents/      see textgen_serve.documents
    .bin/                what was removed, under its name and the time

So a rename or a removal is one step. A run that was trained from the command line is NAME itself.
Everything is done by commands of textgen, in processes of their own. The folder alone says how
things stand: a server that is killed finds it all again, with trainings that went on.
"""

from __future__ import annotations

import json
import math
import os
import re
import tomllib
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import attrs

from textgen import RunError, RunSummary, UsageError, summarize
from textgen.files import write_atomic
from textgen_serve.documents import Documents
from textgen_serve.jobs import Jobs, Words, shown_command
from textgen_serve.names import (
    binned,
    check_name,
    is_name,
    made_name,
    made_suffix,
    numbered,
    unbinned,
)

_AMOUNT: Final = r"([\d._]+) ?(\w+)"
_LENGTH: Final = re.compile(rf'(?m)^length = "({_AMOUNT}( or {_AMOUNT})*)"')
_PREFIX: Final = re.compile(r"(?m)^textgen: (?:error: )?")
_LOG: Final = 4096  # bytes at its end that are shown
_SAMPLES: Final = 1 << 16
_BIN: Final = ".bin"


@attrs.frozen
class Desk:
    """A folder, and the commands that run in it.

    trains   whether texts are taken and models are trained
    """

    folder: Path
    trains: bool = True
    jobs: Jobs = attrs.field(factory=Jobs)

    def runs(self) -> dict[str, Path]:
        """The runs that texts can be written with, by name."""
        found = {name: self._run(name) for name in self.names()}
        return {name: run for name, run in found.items() if (run / "model.safetensors").is_file()}

    def names(self) -> list[str]:
        """Names, the newest first."""
        found = []
        with os.scandir(self.folder) as places:
            for place in places:
                parts = ("run.json", "text", "run", "found.json")
                path = Path(place.path)
                if is_name(place.name) and any((path / part).exists() for part in parts):
                    found.append((place.stat().st_mtime, place.name))
        return [name for _, name in sorted(found, reverse=True)]

    def state(self, name: str, *, is_whole: bool = False) -> dict[str, Any]:
        """State of one.

        is_whole   whether with the losses and the samples of its training, and the end of its log

        Raises UsageError if there is none.
        """
        path, job, summary = self._existing(name), self.jobs.of(name), self._summary(name)
        found = _json(path / "found.json")
        texts = sorted(file.name for file in _files(path / "text"))
        status: str = "ready" if found else "new" if texts else "empty"
        if summary is not None:
            status = summary.status
        if job is not None and job.is_alive and status != "running":
            status = job.kind
        state: dict[str, Any] = {
            "name": name,
            "status": status,
            "texts": texts,
            "found": found,
            "commands": job.shown if job else self._shown(name) if summary else "",
            "failed": job is not None and job.has_failed,
            "own": not (path / "run.json").is_file(),  # not trained from the command line
            "said": _said(log := _tail(path / "log.txt", _LOG)),
        }
        if summary is not None:
            names = "cause", "step", "steps", "best_loss", "seconds", "bytes"
            state |= {each: getattr(summary, each) for each in names}
        if is_whole:
            state |= {
                "log": _PREFIX.sub("", log),
                "metrics": summary.metrics() if summary else [],
                "samples": _samples(self._run(name)),
            }
        return state

    def create(self, wished: str) -> str:
        """Make a place for texts. Returns its name, which is as near to the wish as can be."""
        for name in numbered(made_name(wished)):
            try:
                (self.folder / name).mkdir()
            except FileExistsError:
                continue
            break
        (self.folder / name / "text").mkdir()
        return name

    def add(self, name: str, file: str, content: BinaryIO) -> None:
        """Write a text."""
        folder = self._existing(name) / "text"
        folder.mkdir(exist_ok=True)
        stem = made_name(given := Path(file).stem)
        if stem != given:  # other names may become the same
            stem = f"{stem[:70]} {zlib.crc32(given.encode('utf-8', 'replace')):08x}"
        own = f"{stem}{made_suffix(file)}"
        write_atomic(folder / own, iter(lambda: content.read(1 << 20), b""))

    def look(self, name: str, minutes: float, encoding: str) -> None:
        """Have `textgen init` look at the texts, and write a pipeline."""
        given = [] if encoding == "auto" else [f"--encoding={encoding}"]
        self.jobs.start(name, self.folder, "looking", [self._init(name, minutes, *given)])

    def train(self, name: str, minutes: float, start: str) -> None:
        """Train from a start for some minutes, or on where a training was stopped."""
        commands = [self._run_command(name)]
        found = _json(self._existing(name) / "found.json") or {}
        if (found.get("seconds"), found.get("start")) != (minutes * 60, start):
            path = self.folder / name / "pipeline.toml"
            corpus = tomllib.loads(path.read_text(encoding="utf-8"))["corpus"] if found else {}
            given = [f"--start={start}"]
            given += [f"--encoding={corpus['encoding']}"] if "encoding" in corpus else []
            commands.insert(0, self._init(name, minutes, *given))
        self.jobs.start(name, self.folder, "starting", commands)

    def resume(self, name: str, *options: str) -> None:
        """Train on. Raises UsageError where nothing was stopped."""
        if not (self._existing(name) / "pipeline.toml").is_file():
            raise UsageError(f"{name} has no pipeline; it was trained from the command line")
        self.jobs.start(name, self.folder, "starting", [self._run_command(name, *options)])

    def extend(self, name: str, minutes: float) -> None:
        """Train on for some minutes more than the pipeline says, which then says so."""
        path = self._existing(name) / "pipeline.toml"
        text, summary = path.read_text(encoding="utf-8"), self._summary(name)
        found = _LENGTH.search(text)
        if found is None or summary is None:
            raise UsageError(f"{path} has no length that could be raised")
        taken = max(summary.seconds or 0.0, 1.0)
        longer = re.sub(_AMOUNT, lambda each: _longer(each, minutes * 60, taken), found[1])
        length = f'length = "{longer}"'
        changed = f"{text[: found.start()]}{length}{text[found.end() :]}"
        tomllib.loads(changed)
        write_atomic(path, changed.encode())
        shown = f"# {length} in {name}/pipeline.toml\n"
        self.jobs.start(name, self.folder, "starting", [self._run_command(name)], shown)

    def stop(self, name: str) -> None:
        """End what runs; a training makes a checkpoint first."""
        owner = _json(self._run(name) / ".lock-owner.json") or {}
        summary = self._summary(name)
        is_other = summary is not None and summary.status == "running"  # maybe of another server
        self.jobs.stop(name, owner.get("pid") if is_other else None)

    def rename(self, name: str, wished: str) -> None:
        """Give another name. Raises UsageError for one that there is, or while it trains."""
        source, target = self._idle(name), self.folder / check_name(wished)
        if target.exists():
            raise UsageError(f"there is a {wished!r} already")
        source.rename(target)
        self.jobs.forget(name)

    def remove(self, name: str) -> None:
        """Move to the bin. Raises UsageError while it trains."""
        source, folder = self._idle(name), self.folder / _BIN
        folder.mkdir(exist_ok=True)
        source.rename(folder / binned(name))
        self.jobs.forget(name)

    def removed(self) -> dict[str, list[str]]:
        """The names of removed documents by their run; those of removed runs have the key ""."""
        there = {"": self._removed()}
        there |= {name: self.documents(name).removed() for name in self.names()}
        return {run: names for run, names in there.items() if names}

    def restore(self, name: str, run: str) -> None:
        """Take a run, or a document of one, out of the bin, under the name that it had or one like
        it. Raises UsageError.
        """
        if run:
            self.documents(run).restore(name)
            return
        free = numbered(unbinned(name, self._removed()))
        target = next(path for each in free if not (path := self.folder / each).exists())
        (self.folder / _BIN / name).rename(target)

    def documents(self, name: str) -> Documents:
        """The documents of a run. Raises UsageError."""
        return Documents(self._existing(name) / "documents")

    def _removed(self) -> list[str]:
        place = self.folder / _BIN
        return sorted(os.listdir(place)) if place.is_dir() else []

    def _init(self, name: str, minutes: float, *given: str) -> Words:
        files = _files(self._existing(name) / "text")
        if not files:
            raise UsageError(f"{name} has no text")
        text = Path(name, "text", files[0].name) if len(files) == 1 else Path(name, "text")
        pipeline = Path(name, "pipeline.toml")
        options = ("--minutes", f"{minutes:g}", *given, "--force", "--json")
        return ["init", text, "--pipeline", pipeline, *options]

    def _run_command(self, name: str, *options: str) -> Words:
        return ["run", Path(name, "pipeline.toml"), "--output", Path(name, "run"), *options]

    def _shown(self, name: str) -> str:
        """The command of a training that another server has started."""
        has_pipeline = (self.folder / name / "pipeline.toml").is_file()
        return shown_command(self._run_command(name)) if has_pipeline else ""

    def _existing(self, name: str) -> Path:
        path = self.folder / name
        if not is_name(name) or not path.is_dir():
            raise UsageError(f"there is no {name!r}")
        return path

    def _idle(self, name: str) -> Path:
        summary, job = self._summary(name), self.jobs.of(name)
        if (summary and summary.status == "running") or (job and job.is_alive):
            raise UsageError(f"{name} is being trained; stop it first")
        return self._existing(name)

    def _run(self, name: str) -> Path:
        path = self._existing(name)
        return path if (path / "run.json").is_file() else path / "run"

    def _summary(self, name: str) -> RunSummary | None:
        try:
            return summarize(self._run(name))
        except RunError:
            return None


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [file for file in folder.iterdir() if file.is_file() and file.name[:1] != "."]


def _json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _tail(path: Path, most: int) -> str:
    """The end of a file, in which a line may have been written over with carriage returns."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - most))
            text = file.read(most).decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(line.rpartition("\r")[2] for line in text.replace("\r\n", "\n").split("\n"))


def _said(log: str) -> str:
    """The error in a log, or its last line."""
    _, mark, error = log.rpartition("textgen: error: ")
    lines = [line.strip() for line in _PREFIX.sub("", error).split("\n") if line.strip()]
    return " ".join(lines if mark else lines[-1:])


def _samples(run: Path) -> list[dict[str, Any]]:
    """Texts that the model wrote while it was trained, the last first."""
    for folder in (run / ".next-run", run):
        if text := _tail(folder / "samples.txt", _SAMPLES):
            found = re.split(r"(?m)^=== step (\d{1,20}) ===\n", text)[1:]
            pairs: Iterator[tuple[str, str]] = zip(found[::2], found[1::2], strict=True)
            return [{"step": int(step), "text": said.strip("\n")} for step, said in pairs][::-1]
    return []


def _longer(length: re.Match[str], seconds: float, taken: float) -> str:
    """A length in one unit, raised by so many seconds, where it took others."""
    amount, unit = float(length[1].replace("_", "")), length[2]
    if unit == "s":
        return f"{amount + seconds:.10g}s"
    unit = re.sub("(step|epoch)$", r"\1s", unit)
    return f"{math.ceil(amount * (1 + seconds / taken))} {unit}"
