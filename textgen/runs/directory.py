"""The run directory: layout, lock, and the run that is to replace the one here.

    pipeline.toml  run.json  tokenizer.json  model.safetensors  metrics.jsonl  loss.svg  samples.txt
    checkpoints/   see textgen.runs.checkpoints
    .next-run/     a run that trains to replace the finished one here, laid out in the same way

Only safetensors, JSON and TOML: nothing that is loaded can carry code.

The finished run stays as it is until the one in `.next-run` is finished. One step puts that in its place: the rename of
`.next-run/run.json`, which then says "finished". From then on readers take the run in `.next-run` (`current`). Its files
get second names in the run directory, and `.next-run` is removed (`publish`). If a process is killed meanwhile, the next
one does that again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

import attrs

from textgen.errors import CorruptFileError, RunError, RunLockedError
from textgen.files.durable import (
    LEFTOVERS,
    link,
    make_folder,
    pieces_of,
    remove,
    remove_folder,
    sync_folder,
    sync_tree,
    write_atomic,
    write_json,
)
from textgen.files.reading import folder_size, inside, path_of
from textgen.pipeline.records import read_structured
from textgen.runs.checkpoints import Checkpoints
from textgen.runs.formats import LockOwner, read_record, signed

logger = logging.getLogger("textgen")
_OWN: Final = (
    *(
        "pipeline.toml",
        "run.json",
        "tokenizer.json",
        "model.safetensors",
        "metrics.jsonl",
        "loss.svg",
        "samples.txt",
    ),
    "checkpoints",
)
_GROWING: Final = ("metrics.jsonl", "loss.svg", "samples.txt")
_NEXT: Final = ".next-run"
_LOCK: Final = ".lock"
_OWNER: Final = ".lock-owner.json"
_EMPTY: Final = ("checkpoints", _LOCK)
_OWNER_TO_BE: Final = f".{_OWNER}.*.tmp"
_LOCK_SECONDS: Final = (
    0.1  # so that is_locked, which tries the lock, stops no run that begins at that moment
)
_IGNORED: Final = (".DS_Store", ".gitignore", ".gitkeep")  # in folders that count as empty
_LEFTOVERS: Final = (*LEFTOVERS, *(f"checkpoints/{pattern}" for pattern in LEFTOVERS))
_LOCKLESS: Final = (
    errno.ENOLCK,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.EINVAL,
)  # what a file system without them says


@attrs.frozen
class RunDirectory:
    """A run directory at `path`, which need not exist yet."""

    path: Path

    @property
    def checkpoints(self) -> Checkpoints:
        """The checkpoints of the run."""
        return Checkpoints(self.path / "checkpoints")

    @property
    def next(self) -> RunDirectory:
        """The place of the run that is to replace the one here."""
        return RunDirectory(self.path / _NEXT)

    def current(self) -> RunDirectory:
        """The run that is read: the one in `.next-run` once it is finished, else the one here."""
        return self.next if self.next.status() == "finished" else self

    def latest(self) -> RunDirectory:
        """The run that was begun last: the one in `.next-run` if there is one, else the one here."""
        following = self.next
        is_latest = following.exists() and (self.exists() or following.status() == "finished")
        return following if is_latest else self

    def exists(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / "run.json").is_file()

    def status(self) -> str | None:
        """The status in run.json; None where there is none, or it is damaged. Raises RunError."""
        try:
            return self.read_run()["status"] if self.exists() else None
        except CorruptFileError:
            return None

    def is_settled(self) -> bool:
        """Whether the directory holds a finished run alone, and nothing that a killed process has left."""
        if self.status() != "finished" or self.leftovers():
            return False
        in_use = any(os.path.lexists(self.path / name) for name in (_NEXT, _OWNER))
        return not in_use and not self.checkpoints.surplus(self.read_run().get("stable_steps"))

    def leftovers(self) -> list[Path]:
        """What a killed process has left, or one that is at work is writing."""
        return [path for pattern in _LEFTOVERS for path in sorted(self.path.glob(pattern))]

    def prepare(self, *, described: bool = False) -> Path | None:
        """Create the folder and check that it is writable, before any work is done. Raises RunError.

        described  whether the pipeline.toml in it is the one that the run would write

        Returns the topmost folder that was created, for `abandon`.
        """
        for place in (self, self.next):
            steps = (f"checkpoints/{path.name}" for path in place.checkpoints.path.glob("step-*"))
            for name in (*_OWN, _NEXT, _LOCK, _OWNER, *steps):
                place.inside(name)
            place.checkpoints.check()
        made = next((p for p in reversed([self.path, *self.path.parents]) if not p.exists()), None)
        is_run = self.current().exists() or (self.path / _OWNER).is_file()
        if self.path.is_dir() and not is_run:
            strangers = {path.name for path in self._strangers()} - (
                {"pipeline.toml"} if described else set()
            )
            if strangers:
                found = ", ".join(sorted(strangers)[:3])
                cause = (
                    f"is not a run directory (it has no file run.json) and is not empty ({found})"
                )
                raise RunError(f"{self.path} {cause}", self.path, remedy="output")
        try:
            make_folder(self.checkpoints.path)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            reason = error.strerror or error
            raise RunError(
                f"{self.path} cannot be written to: {reason}", self.path, remedy="output"
            ) from error
        return made

    def abandon(self, made: Path | None) -> None:
        """Remove what `prepare` created for a run that was refused before it began, and nothing else."""
        with contextlib.suppress(
            OSError
        ):  # another process may have come, or the folder may be gone
            if made is None or self.exists() or any(self._strangers()):
                return
            (self.path / _LOCK).unlink(missing_ok=True)
            self.checkpoints.path.rmdir()
            for folder in (self.path, *self.path.parents):
                folder.rmdir()
                if folder == made:
                    break

    @contextlib.contextmanager
    def locked(self, *, remedy: str = "") -> Iterator[None]:
        """Lock the directory. The operating system releases the lock when this process ends, however it ends."""
        import filelock

        lock, owner = filelock.FileLock(self.path / _LOCK), self.path / _OWNER
        try:
            lock.acquire(timeout=_LOCK_SECONDS, poll_interval=_LOCK_SECONDS / 10)
        except filelock.Timeout:
            try:
                pid: int | None = read_structured(LockOwner, owner).pid
            except RunError:
                pid = None
            raise RunLockedError(self.path, pid, remedy=remedy) from None
        except OSError as error:
            cause = f"{self.path / _LOCK} cannot be locked: {error.strerror or error}"
            if error.errno not in _LOCKLESS:
                raise RunError(f"{cause}; remove it", self.path) from error
            logger.warning("%s; let one process at a time use the run", cause)
        try:
            write_json(owner, {"pid": os.getpid()})
            yield
        finally:
            with contextlib.suppress(OSError, RunError):  # the next run tries again
                self._settle()
            with contextlib.suppress(OSError):
                if self.exists() or all(path == owner for path in self._strangers()):
                    owner.unlink()  # where it stays, it marks the files as those of a run
            lock.release()

    def is_begun(self) -> bool:
        """Whether a process holds the lock, or held it when it was killed."""
        return (self.path / _OWNER).is_file()

    def is_locked(self) -> bool:
        """Whether a process trains here now. Nothing is written."""
        import filelock

        if not self.is_begun() or not (self.path / _LOCK).is_file():
            return False
        lock = filelock.FileLock(self.inside(_LOCK))
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            return True
        except OSError:  # on a file system that may only be read, nobody trains
            return False
        lock.release()
        return False

    def read_run(self) -> dict[str, Any]:
        """The record in run.json. Raises RunError if there is none, CorruptFileError if it cannot be used."""
        path = self.inside("run.json")
        if not path.is_file():
            raise no_run(self.path)
        return read_record(path)

    def write_run(self, record: Mapping[str, Any]) -> None:
        """Replace run.json atomically."""
        write_json(self.path / "run.json", signed(record))

    def write_artifact(self, name: str, data: bytes) -> str:
        """Write a file of the run atomically and return its SHA-256."""
        write_atomic(self.path / name, data)
        return hashlib.sha256(data).hexdigest()

    def sweep(self) -> None:
        """Put in place what a killed process left whole, and remove the rest. Says what it did, and never raises."""
        done: list[str] = []
        failed: list[str] = []

        @contextlib.contextmanager
        def attempt(path: Path) -> Iterator[None]:
            try:
                yield
            except OSError as error:
                failed.append(f"{path.name} ({error.strerror or error})")

        removed = 0
        for place in (self, self.next):
            with attempt(place.checkpoints.path):
                for step in place.checkpoints.recover():
                    done.append(f"put the checkpoint of step {step} in place")
            for leftover in place.leftovers():
                with attempt(leftover):
                    remove(leftover)
                    removed += 1
        if removed:
            done.append(f"removed {removed} partial file{'s' if removed > 1 else ''}")
        with attempt(self.path):
            self._settle()
        if done:
            logger.warning(
                "%s was in use when a process or the machine stopped: %s",
                self.path,
                ", ".join(done),
            )
        if failed:
            logger.warning("%s holds what cannot be removed: %s", self.path, ", ".join(failed))
        if foreign := self.checkpoints.foreign():
            names = ", ".join(str(path) for path in foreign)
            logger.warning(
                "%s has no manifest.json, so it is not a checkpoint, and is left alone", names
            )

    def place_of_new(self) -> RunDirectory:
        """Where a new run trains: in `.next-run` if there is a finished run here, which stays, else here."""
        return self.next if self.status() == "finished" else self

    def begin(self) -> RunDirectory:
        """An empty place for a new run."""
        place = self.place_of_new()
        if os.path.lexists(self.next.path):
            remove_folder(self.next.path)
        if place.exists():
            place._clear()
        make_folder(place.checkpoints.path)
        return place

    def begin_from(self, steps: Iterable[int | None]) -> RunDirectory:
        """A place for a run that goes on from checkpoints of the finished one here."""
        place = self.begin()
        for name in _GROWING:
            if (kept := self.path / name).is_file():  # no link: what is appended is not of this run
                write_atomic(place.path / name, pieces_of(kept))
        for step in steps:
            if step is not None and (folder := self.checkpoints.folder(step)).is_dir():
                _link(folder, place.checkpoints.folder(step))
        sync_tree(place.checkpoints.path)
        return place

    def publish(self) -> None:
        """Put the run in `.next-run`, if it is finished, in the place of the one here."""
        if self.next.status() != "finished":
            return
        self._clear()
        for path in self.next.path.iterdir():
            _link(path, self.path / path.name)
        sync_tree(self.checkpoints.path)
        sync_folder(self.path)
        remove_folder(self.next.path)

    def remove_surplus(self) -> None:
        """Remove the checkpoints from which a finished run cannot be trained on."""
        surplus = self.checkpoints.surplus(self.read_run().get("stable_steps"))
        self.checkpoints.keep(set(self.checkpoints.steps()) - set(surplus))

    def has_checkpoint(self) -> bool:
        """Whether a run can resume from what is here."""
        return self.exists() and bool(self.checkpoints.steps() or any(self.checkpoints.nameless()))

    def kept(self) -> str:
        """The checkpoint that remains after a failure, as the end of an error message."""
        try:
            foreign = self.checkpoints.foreign()
            steps = [
                step
                for step in self.checkpoints.steps()
                if self.checkpoints.folder(step) not in foreign
            ]
            steps += [step for step, _ in self.checkpoints.nameless()]
        except OSError:
            return "earlier checkpoints are kept"
        if not self.path.is_dir():
            return "the run directory was moved or removed while the run used it"
        return (
            f"the checkpoint of step {max(steps)} is kept"
            if steps
            else "there was no checkpoint yet"
        )

    def inside(self, name: str) -> Path:
        """The file `name`, refused when a symbolic link leads out of the run directory."""
        return inside(self.path, name)

    def _settle(self) -> None:
        """Publish what is finished; remove what no run resumes from and no finished run needs."""
        next_run = self.next
        if next_run.status() == "finished":
            next_run.remove_surplus()
            self.publish()
        elif os.path.lexists(next_run.path) and not next_run.has_checkpoint():
            remove_folder(next_run.path)
        if self.status() == "finished":
            self.remove_surplus()
        elif not self.exists():  # killed while it removed a run
            self.checkpoints.keep(set())

    def _clear(self) -> None:
        """Remove the files of a run, run.json first: without it the rest is not a run. Links are not followed."""
        for path in sorted(self._own(), key=lambda path: path.name != "run.json"):
            if path == self.checkpoints.path and not path.is_symlink():
                self.checkpoints.keep(set())  # not what is foreign
            else:
                remove(path)
            if path.name == "run.json":
                sync_folder(self.path)

    def _own(self) -> list[Path]:
        return [self.path / name for name in _OWN if os.path.lexists(self.path / name)]

    def _strangers(self) -> Iterator[Path]:
        """Files that are not the remains of a run that was killed before it recorded the owner of its lock."""
        for path in self.path.iterdir():
            is_empty = not any(path.iterdir()) if path.is_dir() else not path.lstat().st_size
            if not any(
                fnmatch(path.name, name)
                for name in (*_IGNORED, _OWNER_TO_BE, *(_EMPTY if is_empty else ()))
            ):
                yield path


def prune(path: str | Path) -> int:
    """Remove the checkpoints of a finished run, and return how many bytes they took.

    The run generates and is evaluated as before, but can no longer be trained on. Raises RunError where there is no
    run, or one that is not finished, RunLockedError while another process uses it, CorruptFileError.
    """
    directory = run_directory(path)
    _check_finished(directory)  # before anything is written
    with directory.locked():
        _check_finished(directory)
        freed = folder_size(directory.inside("checkpoints"))
        directory.checkpoints.keep(set())
        return freed


def _check_finished(directory: RunDirectory) -> None:
    status = directory.read_run()["status"]
    if status != "finished":
        cause = f"the run in {directory.path} is not finished ({status}), and resumes from its checkpoints"
        raise RunError(f"{cause}; they are not removed", directory.path)


def no_run(path: Path) -> RunError:
    """The error that says why a path is not a run directory."""
    why = (
        "it has no run.json"
        if path.is_dir()
        else "it is a file"
        if path.exists()
        else "it does not exist"
    )
    return RunError(f"{path} is not a run directory: {why}", path)


def run_directory(path: Any, argument: str = "path") -> RunDirectory:
    """The run directory that a caller named. Raises UsageError for what is not a path."""
    return RunDirectory(path_of(path, argument).absolute())


def _link(source: Path, target: Path) -> None:
    """Give a file, or the files of a folder, a second name. Symbolic links are left out."""
    if source.is_symlink():
        return
    if source.is_dir():
        target.mkdir(exist_ok=True)
        for path in source.iterdir():
            _link(path, target / path.name)
    else:
        link(source, target)
