"""The run directory: layout, lock, and the run that was there before.

    pipeline.toml  run.json  tokenizer.json  model.safetensors  metrics.jsonl  loss.svg  samples.txt
    checkpoints/   see textgen.runs.checkpoints
    .previous/     the finished run that was here before, all of it, until the run that replaces it is finished

Only safetensors, JSON and TOML: nothing that is loaded can carry code.
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
    make_folder,
    new_folder,
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
from textgen.runs.formats import SMALL, LockOwner, read_record, signed

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
_PREVIOUS: Final = ".previous"
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

    def exists(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / "run.json").is_file()

    def is_settled(self) -> bool:
        """Whether the directory holds a finished run and no partial files of a killed process."""
        if self._status() != "finished" or self.leftovers():
            return False
        in_use = any(os.path.lexists(self.path / name) for name in (_PREVIOUS, _OWNER))
        return not in_use and not self.checkpoints.surplus(self.read_run().get("stable_steps"))

    def leftovers(self) -> list[Path]:
        """What a killed process has left, or one that is at work is writing."""
        return [path for pattern in _LEFTOVERS for path in sorted(self.path.glob(pattern))]

    def prepare(self, *, described: bool = False) -> Path | None:
        """Create the folder and check that it is writable, before any work is done. Raises RunError.

        described  whether the pipeline.toml in it is the one that the run would write

        Returns the topmost folder that was created, for `abandon`.
        """
        checkpoints = (f"checkpoints/{path.name}" for path in self.checkpoints.path.glob("step-*"))
        for name in (*_OWN, _PREVIOUS, _LOCK, _OWNER, *checkpoints):
            self.inside(name)
        self.checkpoints.check()
        made = next((p for p in reversed([self.path, *self.path.parents]) if not p.exists()), None)
        if self.path.is_dir() and not self.exists() and not (self.path / _OWNER).is_file():
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
                pid: int | None = read_structured(LockOwner, owner, largest=SMALL).pid
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
            with contextlib.suppress(OSError):  # the next run tries again
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

        with attempt(self.checkpoints.path):
            done += [
                f"put the checkpoint of step {step} in place" for step in self.checkpoints.recover()
            ]
        removed = 0
        with attempt(self.path):
            for leftover in self.leftovers():
                with attempt(leftover):
                    remove(leftover)
                    removed += 1
        if removed:
            done.append(f"removed {removed} partial file{'s' if removed > 1 else ''}")
        with attempt(self.path / _PREVIOUS):
            self._settle()
        with attempt(self.checkpoints.path):
            if not self.exists():  # killed while it removed a run
                self.checkpoints.keep(set())
            elif self._status() == "finished":
                self.remove_surplus()
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

    def remove_surplus(self) -> None:
        """Remove the checkpoints from which a finished run cannot be trained on."""
        surplus = self.checkpoints.surplus(self.read_run().get("stable_steps"))
        self.checkpoints.keep(set(self.checkpoints.steps()) - set(surplus))

    def clear(self) -> None:
        """Remove the files of the run, and nothing that a run did not write.

        A finished run is kept aside, and `loadable` returns it until the run that replaces it is finished.
        """
        files = self._own()
        if self._status() == "finished":
            with new_folder(self.path / _PREVIOUS) as kept:
                for path in files:
                    _link(path, kept / path.name)
        self._remove(files)
        make_folder(self.checkpoints.path)

    def extend(self, steps: Iterable[int]) -> None:
        """Begin a run that goes on from checkpoints of the finished one, which is kept aside as by `clear`."""
        self.clear()
        previous = RunDirectory(self.path / _PREVIOUS)
        for name in _GROWING:
            if (kept := previous.path / name).is_file():
                write_atomic(
                    self.path / name, pieces_of(kept)
                )  # no link: what is appended must not reach the old run
        for folder in map(previous.checkpoints.folder, steps):
            if folder.is_dir():
                _link(folder, self.checkpoints.path / folder.name)
        sync_tree(self.checkpoints.path)

    def loadable(self) -> RunDirectory:
        """This run; while it is not finished, the finished run that it replaces, if there is one."""
        previous = RunDirectory(self.inside(_PREVIOUS))
        return (
            previous if self._status() != "finished" and previous._status() == "finished" else self
        )

    def kept(self) -> str:
        """What is left of a run that fails, as the end of a sentence."""
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
        """Remove the run kept aside once its successor is finished; restore it if the successor left no checkpoint."""
        previous = self.path / _PREVIOUS
        if previous.is_symlink():
            previous.unlink()  # no run made it
        if not previous.is_dir():
            return
        if self._status() != "finished":
            if self.exists() and (self.checkpoints.steps() or any(self.checkpoints.nameless())):
                return  # the successor resumes from there
            self._remove(self._own())
            for path in RunDirectory(previous)._own():
                if path.name != "run.json":
                    _link(path, self.path / path.name)
            sync_tree(self.checkpoints.path)
            sync_folder(self.path)
            _link(previous / "run.json", self.path / "run.json")  # last: it makes the run exist
            sync_folder(self.path)
        remove_folder(previous)

    def _status(self) -> Any:
        """The status in run.json; None where there is none, or it is damaged. Raises RunError."""
        try:
            return self.read_run()["status"] if self.exists() else None
        except CorruptFileError:
            return None

    def _remove(self, paths: Iterable[Path]) -> None:
        """Remove files of a run, run.json first: without it the rest is not a run. Links are not followed."""
        for path in sorted(paths, key=lambda path: path.name != "run.json"):
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
    """Hard-link a file or the files of a folder, or copy where that is not supported. Symbolic links are left out."""
    if source.is_symlink() or target.is_file():
        return
    if source.is_dir():
        target.mkdir(exist_ok=True)
        for path in source.iterdir():
            _link(path, target / path.name)
        return
    try:
        os.link(source, target)
    except OSError:
        write_atomic(target, pieces_of(source))
