"""The desk: a folder of texts, the runs that are trained on them, and what is written with them.

    NAME/text/           the texts that were dropped
    NAME/pipeline.toml   that `textgen init` wrote for them
    NAME/found.json      what it found
    NAME/run/            the run directory
    NAME/log.txt         what the last command said
    NAME/.begun          the commands of a job whose last one has not been started yet
    NAME/documents/      see textgen_desk.documents
    .bin/                what was removed, under its name and the time

So a rename or a removal is one step. A run that was trained from the command line is NAME itself.
Everything is done by commands of textgen, in processes of their own. The folder alone says how
things stand: a server that is killed finds it all again, with trainings that went on.

Somebody else may have made what lies in NAME. No link that leads out of it is followed, and a run
whose files cannot be read is shown as damaged, beside the others.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import attrs

from textgen import RunError, RunSummary, TextgenError, UsageError, summarize
from textgen.files import inside, opened, read_bytes, write_atomic
from textgen_desk.documents import Documents, sweep
from textgen_desk.jobs import BEGUN, Jobs, Words, shown_command
from textgen_desk.names import (
    binned,
    check_name,
    is_binned,
    is_name,
    made_name,
    made_suffix,
    numbered,
    shortened,
    shown_name,
    unbinned,
)
from textgen_serve.errors import ApiError, without_folders
from textgen_serve.json_body import parse_object

NEW_MODEL: Final = "none"
"""The start of a model that is trained from nothing."""
_PIPELINE: Final = "pipeline.toml"
_PIPELINE_BYTES: Final = 1_000_000
_FOUND_BYTES: Final = 1_000_000
_FOUND_VALUES: Final = 10_000
_BEGUN_BYTES: Final = 100_000
_CAUSE_CHARACTERS: Final = 1000
_ENCODING: Final = re.compile(r"\w[\w.:-]{0,39}")
_GIVEN_ENCODING: Final = re.compile(rf'(?m)^encoding = "({_ENCODING.pattern})"')
_LENGTH: Final = re.compile(r'(?m)^length = "([^"\n]{1,100})"')
_AMOUNT: Final = re.compile(r"(\d{1,12}(?:\.\d{1,6})?) ?(s|min|h|steps?|epochs?)")
_PREFIX: Final = re.compile(r"(?m)^textgen: (?:error: )?")
_LOG: Final = 4096  # bytes at its end that are shown
_SAMPLES: Final = 1 << 16
_BIN: Final = ".bin"


@attrs.frozen
class Desk:
    """A folder, and the commands that run in it.

    trains    whether texts are taken, models are trained, and runs renamed and removed
    offered   names of models of plugins that a training may start from
    """

    folder: Path
    trains: bool = True
    offered: Collection[str] = ()
    jobs: Jobs = attrs.field(factory=Jobs)

    def runs(self) -> dict[str, Path]:
        """The runs that texts can be written with, by name."""
        found = {}
        for name in self.names():
            with contextlib.suppress(TextgenError, OSError):
                run = self._run(name)
                if inside(run, "model.safetensors").is_file():
                    found[name] = run
        return found

    def names(self) -> list[str]:
        """Names, the newest first."""
        found = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                parts = ("run.json", "text", "run", "found.json")
                is_one = is_name(entry.name) and any(
                    os.path.exists(os.path.join(entry.path, part)) for part in parts
                )
                if is_one:
                    with contextlib.suppress(FileNotFoundError):  # it was renamed meanwhile
                        found.append((entry.stat(follow_symlinks=False).st_mtime, entry.name))
        return [name for _, name in sorted(found, reverse=True)]

    def states(self) -> list[dict[str, Any]]:
        """The states of all, the newest first."""
        found = []
        for name in self.names():
            with contextlib.suppress(UsageError):  # it was renamed meanwhile
                found.append(self.state(name))
        return found

    def state(self, name: str, *, is_whole: bool = False) -> dict[str, Any]:
        """State of one; of one whose files cannot be read, that it is damaged, and the cause.

        is_whole   whether with the losses and the samples of its training, and the end of its log

        Raises UsageError if there is none.
        """
        try:
            return self._state(name, is_whole=is_whole)
        except (RunError, OSError) as error:
            cause = without_folders(str(error)[:_CAUSE_CHARACTERS], self.folder)
            training = _NO_TRAINING if is_whole else {}
            return {**_UNREADABLE, **training, "name": name, "cause": cause}

    def _state(self, name: str, *, is_whole: bool) -> dict[str, Any]:
        path, job, summary = self._existing(name), self.jobs.of(name), self._summary(name)
        found = self._found(name)
        texts = sorted(shown_name(file.name) for file in self._texts(name))
        status: str = "ready" if found else "new" if texts else "empty"
        if summary is not None:
            status = summary.status
        is_alive = job is not None and job.is_alive
        if job is not None and is_alive and status != "running":
            status = job.kind
        log = _tail(path, "log.txt", _LOG)
        state: dict[str, Any] = {
            "name": name,
            "status": status,
            "texts": texts,
            "found": found,
            "commands": job.shown if job else self._shown(name) if summary else "",
            "failed": job is not None and job.has_failed,
            "own": not (path / "run.json").is_file(),  # not trained from the command line
            "said": without_folders(job.cause if job and job.cause else _said(log), self.folder),
            "cause": "",
        }
        if job is None and status in ("new", "ready") and (begun := self._begun(name)):
            cause = "the server was stopped before these commands were done; start again"
            state |= {"failed": True, "commands": begun, "said": cause}
        if summary is not None:
            names = "step", "steps", "best_loss", "seconds", "bytes"
            state |= {each: getattr(summary, each) for each in names}
            state["cause"] = without_folders(summary.cause[:_CAUSE_CHARACTERS], self.folder)
        if is_whole:
            state |= {
                "log": without_folders(_PREFIX.sub("", log), self.folder),
                "metrics": summary.metrics() if summary else [],
                "samples": _samples(self._run(name)),
            }
        return state

    def create(self, wished: str) -> str:
        """Make a folder for texts. Returns its name, which is as near to the wish as can be."""
        for name in numbered(made_name(wished)):
            try:
                (self.folder / name).mkdir(mode=0o700)
            except FileExistsError:
                continue
            break
        (self.folder / name / "text").mkdir(mode=0o700)
        return name

    def add(self, name: str, file: str, content: BinaryIO) -> None:
        """Write a text, in place of the one that the state shows under this name."""
        folder = inside(self._existing(name), "text")
        folder.mkdir(mode=0o700, exist_ok=True)
        stem = made_name(given := Path(file).stem)
        if stem != given:  # other names may become the same
            code = zlib.crc32(given.encode("utf-8", "replace"))
            stem = f"{shortened(stem[:70], 120)} {code:08x}"
        own = f"{stem}{made_suffix(file)}"
        shown = {shown_name(text.name): text.name for text in self._texts(name)}
        target = inside(folder, shown.get(file, own))
        write_atomic(target, iter(lambda: content.read(1 << 20), b""))

    def look(self, name: str, minutes: float, encoding: str) -> None:
        """Have `textgen init` look at the texts, and write a pipeline."""
        given = [] if encoding == "auto" else [f"--encoding={_checked_encoding(encoding)}"]
        self._start(name, "looking", [self._init(name, minutes, *given)])

    def train(self, name: str, minutes: float, start: str) -> None:
        """Train from a start for some minutes, or on where a training was stopped.

        start   NEW_MODEL, the name of a model that a plugin offers, or that of a run of the desk

        Raises UsageError for another start.
        """
        word: str | Path = start
        if start != NEW_MODEL and start not in self.offered:
            runs = self.runs()
            if start not in runs:
                there = ", ".join([NEW_MODEL, *self.offered, *runs])
                raise UsageError(f"there is no start {start!r}; there are {there}")
            word = runs[start].relative_to(self.folder)
        commands: list[Words] = [self._run_command(name)]
        found = self._found(name) or {}
        if (found.get("seconds"), found.get("start")) != (minutes * 60, start):
            given = ["--start", word]
            if (encoding := _GIVEN_ENCODING.search(self._pipeline(name))) and found:
                given.append(f"--encoding={encoding[1]}")
            commands.insert(0, self._init(name, minutes, *given))
        self._start(name, "starting", commands)

    def resume(self, name: str, *options: str) -> None:
        """Train on. Raises UsageError where nothing was stopped."""
        if not self._pipeline(name):
            raise UsageError(f"{name} has no pipeline; it was trained from the command line")
        self._start(name, "starting", [self._run_command(name, *options)])

    def extend(self, name: str, minutes: float) -> None:
        """Train on for some minutes more than the pipeline says, which then says so."""
        text, summary = self._pipeline(name), self._summary(name)
        found = _LENGTH.search(text)
        amounts = [_AMOUNT.fullmatch(part) for part in found[1].split(" or ")] if found else []
        if found is None or summary is None or not all(amounts):
            raise UsageError(f"{name}/{_PIPELINE} has no length that could be raised")
        taken = max(summary.seconds or 0.0, 1.0)
        longer = " or ".join(_longer(each, minutes * 60, taken) for each in amounts if each)
        length = f'length = "{longer}"'
        changed = f"{text[: found.start()]}{length}{text[found.end() :]}"

        def write() -> None:
            write_atomic(inside(self._existing(name), _PIPELINE), changed.encode())

        shown = f"# {length} in {name}/{_PIPELINE}\n"
        self._start(name, "starting", [self._run_command(name)], shown, write)

    def stop(self, name: str) -> None:
        """End what runs; a training makes a checkpoint first."""
        summary = self._summary(name)
        process = None
        if summary is not None and summary.status == "running":  # maybe started by another server
            process = (_json(self._run(name), ".lock-owner.json") or {}).get("pid")
        self.jobs.stop(name, process)

    def stop_all(self) -> None:
        """End all jobs, and the trainings that another server of this folder has started."""
        self.jobs.stop_all()
        for name in self.names():
            with contextlib.suppress(TextgenError, OSError):
                if self.jobs.of(name) is None and self._pipeline(name):
                    self.stop(name)

    def rename(self, name: str, wished: str) -> None:
        """Give another name. Raises UsageError for one that there is, or while it trains."""
        source, target = self._idle(name), self.folder / check_name(wished)
        if os.path.lexists(target):
            raise UsageError(f"there is a {wished!r} already")
        source.rename(target)
        self.jobs.forget(name)

    def remove(self, name: str) -> None:
        """Move to the bin. Raises UsageError while it trains."""
        source, folder = self._idle(name), inside(self.folder, _BIN)
        folder.mkdir(mode=0o700, exist_ok=True)
        source.rename(folder / binned(name))
        self.jobs.forget(name)

    def removed(self) -> dict[str, list[str]]:
        """The names of removed documents by their run; those of removed runs have the key ""."""
        there = {"": self._removed()}
        for name in self.names():
            with contextlib.suppress(TextgenError, OSError):
                there[name] = self.documents(name).removed()
        return {run: names for run, names in there.items() if names}

    def restore(self, name: str, run: str) -> None:
        """Take a run, or a document of one, out of the bin, under the name that it had or one like
        it. Raises UsageError.
        """
        if run:
            self.documents(run).restore(name)
            return
        free = numbered(unbinned(name, self._removed()))
        target = next(path for each in free if not os.path.lexists(path := self.folder / each))
        (inside(self.folder, _BIN) / name).rename(target)

    def documents(self, name: str) -> Documents:
        """The documents of a run. Raises UsageError, RunError."""
        return Documents(inside(self._existing(name), "documents"))

    def sweep(self) -> None:
        """Finish or remove what a killed server was writing."""
        for name in self.names():
            with contextlib.suppress(TextgenError, OSError):
                sweep(inside(self._existing(name), "text"))
            with contextlib.suppress(TextgenError, OSError):
                self.documents(name).sweep()

    def _start(
        self,
        name: str,
        kind: str,
        commands: Sequence[Words],
        shown: str = "",
        prepare: Any = None,
    ) -> None:
        """Start a job, and do `prepare` first. Raises UsageError where something runs."""

        def prepared() -> None:
            path = self._idle(name)
            for part in ("text", "run", _PIPELINE):  # none of them leads out of the folder
                inside(path, part)
            self._texts(name)
            if prepare is not None:
                prepare()

        self.jobs.start(name, self.folder, kind, commands, shown, prepared)

    def _removed(self) -> list[str]:
        bin_folder = inside(self.folder, _BIN)
        return sorted(filter(is_binned, os.listdir(bin_folder))) if bin_folder.is_dir() else []

    def _init(self, name: str, minutes: float, *given: str | Path) -> Words:
        files = self._texts(name)
        if not files:
            raise UsageError(f"{name} has no text")
        text = Path(name, "text", files[0].name) if len(files) == 1 else Path(name, "text")
        pipeline = Path(name, _PIPELINE)
        options = ("--minutes", f"{minutes:g}", *given, "--force", "--json")
        return ["init", text, "--pipeline", pipeline, *options]

    def _run_command(self, name: str, *options: str) -> Words:
        return ["run", Path(name, _PIPELINE), "--output", Path(name, "run"), *options]

    def _shown(self, name: str) -> str:
        """The command of a training that another server has started."""
        return shown_command(self._run_command(name)) if self._pipeline(name) else ""

    def _begun(self, name: str) -> str:
        """The commands of a job whose last one was not started, because its server was killed."""
        path = inside(self._existing(name), BEGUN)
        with contextlib.suppress(RunError):
            return read_bytes(path, max_bytes=_BEGUN_BYTES).decode(errors="replace")
        return ""

    def _existing(self, name: str) -> Path:
        if not is_name(name) or not os.path.lexists(self.folder / name):
            raise UsageError(f"there is no {name!r}")
        path = inside(self.folder, name)
        if not path.is_dir():
            raise UsageError(f"there is no {name!r}")
        return path

    def _idle(self, name: str) -> Path:
        path, summary, job = self._existing(name), self._summary(name), self.jobs.of(name)
        if (summary and summary.status == "running") or (job and job.is_alive):
            raise UsageError(f"{name} is busy; stop it first")
        return path

    def _run(self, name: str) -> Path:
        path = self._existing(name)
        return path if (path / "run.json").is_file() else inside(path, "run")

    def _summary(self, name: str) -> RunSummary | None:
        try:
            return summarize(self._run(name))
        except RunError:
            return None

    def _texts(self, name: str) -> list[Path]:
        """The texts of one. Raises RunError where a link leads out of their folder."""
        folder = inside(self._existing(name), "text")
        if not folder.is_dir():
            return []
        names = [each for each in os.listdir(folder) if each[:1] != "."]
        return [path for each in names if (path := inside(folder, each)).is_file()]

    def _pipeline(self, name: str) -> str:
        """The text of the pipeline; "" where there is none. Raises UsageError, RunError."""
        path = inside(self._existing(name), _PIPELINE)
        if not path.is_file():
            return ""
        try:
            return read_bytes(path, max_bytes=_PIPELINE_BYTES).decode()
        except UnicodeDecodeError as error:
            raise UsageError(f"{name}/{_PIPELINE} is not UTF-8") from error

    def _found(self, name: str) -> dict[str, Any] | None:
        """What `textgen init` has found, as far as it has the form that it should."""
        value = _json(self._existing(name), "found.json")
        if value is None:
            return None
        found = {
            key: value[key] if type(value.get(key)) in types else missing
            for key, (missing, types) in _FOUND.items()
            if missing is not None or type(value.get(key)) in types
        }
        remarks = [each for each in found["remarks"] if isinstance(each, str)]
        starts = [each for each in found["starts"] if _is_start(each)]
        return found | {
            "remarks": [without_folders(each, self.folder) for each in remarks],
            "start": self._shown_start(found["start"]),
            "starts": [{**each, "name": self._shown_start(each["name"])} for each in starts],
        }

    def _shown_start(self, start: str) -> str:
        """The name of a start: of a run of the desk, it is a path where it was found."""
        path = Path(start)
        if path.is_absolute() and path.is_relative_to(self.folder) and path != self.folder:
            return path.relative_to(self.folder).parts[0]
        return without_folders(start, self.folder)


# The state of a run whose files cannot be read
_UNREADABLE: Final[dict[str, Any]] = {
    "status": "damaged",
    "texts": [],
    "found": None,
    "commands": "",
    "failed": False,
    "own": False,
    "said": "",
}
_NO_TRAINING: Final[dict[str, Any]] = {"log": "", "metrics": [], "samples": []}
# The keys of found.json that pages use, what stands for one that is missing, and its types
_NUMBER: Final = (int, float)
_FOUND: Final[dict[str, tuple[Any, tuple[type, ...]]]] = {
    "size": (0, (int,)),
    "vocabulary": (0, (int,)),
    "documents": (0, (int,)),
    "language": ("", (str,)),
    "seconds": (120, _NUMBER),
    "start": ("", (str,)),
    "remarks": ([], (list,)),
    "starts": ([], (list,)),
    "sentence_words": (None, _NUMBER),
    "speech": (None, _NUMBER),
}


def _is_start(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("name"), str)
        and type(value.get("loss")) in (int, float, type(None))
        and type(value.get("seconds")) in _NUMBER
        and type(value.get("a_pass")) in _NUMBER
    )


def _checked_encoding(encoding: str) -> str:
    if not _ENCODING.fullmatch(encoding):
        raise UsageError(f"{encoding!r} is not the name of an encoding, as in utf-8 or cp1252")
    return encoding


def _json(folder: Path, name: str) -> dict[str, Any] | None:
    """The JSON object in a file of a folder, if it is one that every program reads alike."""
    with contextlib.suppress(RunError, ApiError):
        data = read_bytes(inside(folder, name), max_bytes=_FOUND_BYTES)
        return parse_object(bytearray(data), _FOUND_VALUES)
    return None


def _tail(folder: Path, name: str, most: int) -> str:
    """The end of a file, in which a line may have been written over with carriage returns."""
    try:
        with opened(inside(folder, name)) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - most))
            text = file.read(most).decode(errors="replace")
    except (RunError, OSError):
        return ""
    return "\n".join(line.rpartition("\r")[2] for line in text.replace("\r\n", "\n").split("\n"))


def _said(log: str) -> str:
    """The error in a log, or its last line."""
    _, mark, error = log.rpartition("textgen: error: ")
    lines = [line.strip() for line in _PREFIX.sub("", error).split("\n") if line.strip()]
    return " ".join(lines if mark else lines[-1:])


def _samples(run: Path) -> list[dict[str, Any]]:
    """Texts that the model wrote while it was trained, the last first."""
    for name in (".next-run/samples.txt", "samples.txt"):
        if text := _tail(run, name, _SAMPLES):
            found = re.split(r"(?m)^=== step (\d{1,20}) ===\n", text)[1:]
            pairs: Iterator[tuple[str, str]] = zip(found[::2], found[1::2], strict=True)
            return [{"step": int(step), "text": said.strip("\n")} for step, said in pairs][::-1]
    return []


def _longer(length: re.Match[str], seconds: float, taken: float) -> str:
    """A length in one unit, raised by so many seconds, where it took others."""
    amount, unit = float(length[1]), length[2]
    if unit == "s":
        return f"{amount + seconds:.10g}s"
    unit = re.sub("(step|epoch)$", r"\1s", unit)
    return f"{math.ceil(amount * (1 + seconds / taken))} {unit}"
