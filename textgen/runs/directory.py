"""The run directory: layout, lock, and the run that was there before.

    pipeline.toml  run.json  tokenizer.json  model.safetensors  metrics.jsonl  loss.svg  samples.txt  copy-index/
    checkpoints/   see textgen.runs.checkpoints
    .previous/     the finished run that was here before, all of it, until the run that replaces it is finished

Only safetensors, JSON and TOML: nothing that is loaded can carry code.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

import attrs

from textgen.errors import CorruptFileError, RunError, RunLockedError
from textgen.files import inside, read_json, remove, sync_folder, write_atomic, write_json
from textgen.runs.checkpoints import Checkpoints

FORMAT_VERSION: Final = 1
_OWN: Final = (
    *("pipeline.toml", "run.json", "tokenizer.json", "model.safetensors", "metrics.jsonl", "loss.svg", "samples.txt"),
    *("tokens.bin", "checkpoints", "copy-index"),
)
_GROWING: Final = ("metrics.jsonl", "loss.svg", "samples.txt")
_PREVIOUS: Final = ".previous"
_LOCK: Final = ".lock"
_OWNER: Final = ".lock-owner.json"
_EMPTY: Final = ("checkpoints", _LOCK, ".probe-*")
_OWNER_TO_BE: Final = f".{_OWNER}.*.tmp"
_LOCK_SECONDS: Final = 0.1  # so that is_locked, which tries the lock, stops no run that begins at that moment
_IGNORED: Final = (".DS_Store", ".gitignore", ".gitkeep")  # in folders that count as empty
_LEFTOVERS: Final = (".partial-*", ".probe-*", ".*.tmp", "checkpoints/.partial-*", "tokens.bin")


@attrs.frozen
class RunDirectory:
    """A run directory at `path`, which need not exist yet."""

    path: Path

    @property
    def checkpoints(self) -> Checkpoints:
        """The checkpoints of the run."""
        return Checkpoints(self.path / "checkpoints")

    @property
    def tokens(self) -> Path:
        """The file that holds the corpus as token ids while a model trains on it."""
        return self.path / "tokens.bin"

    def exists(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / "run.json").is_file()

    def is_settled(self) -> bool:
        """Whether the directory holds a finished run and no partial files of a killed process."""
        leftovers = (self.path.glob(pattern) for pattern in (*_LEFTOVERS, _PREVIOUS))
        return self._status() == "finished" and not any(any(found) for found in leftovers)

    def prepare(self, *, described: bool = False) -> Path | None:
        """Create the folder and check that it is writable, before any work is done. Raises RunError.

        described  whether the pipeline.toml in it is the one that the run would write

        Returns the topmost folder that was created, for `abandon`.
        """
        checkpoints = (f"checkpoints/{path.name}" for path in self.checkpoints.path.glob("step-*"))
        for name in (*_OWN, _PREVIOUS, _LOCK, _OWNER, *checkpoints):
            self.inside(name)
        made = next((p for p in reversed([self.path, *self.path.parents]) if not p.exists()), None)
        if self.path.is_dir() and not self.exists() and not (self.path / _OWNER).is_file():
            strangers = {path.name for path in self._strangers()} - ({"pipeline.toml"} if described else set())
            if strangers:
                cause = f"is not a run directory and is not empty ({', '.join(sorted(strangers)[:3])})"
                raise RunError(f"{self.path} {cause}", self.path, remedy="output")
        try:
            self.checkpoints.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / f".probe-{uuid.uuid4().hex}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            reason = error.strerror or error
            raise RunError(f"{self.path} cannot be written to: {reason}", self.path, remedy="output") from error
        return made

    def abandon(self, made: Path | None) -> None:
        """Remove what `prepare` created for a run that was refused before it began, and nothing else."""
        if made is None or self.exists() or any(self._strangers()):
            return
        with contextlib.suppress(OSError):  # another process may have come
            (self.path / _LOCK).unlink(missing_ok=True)
            self.checkpoints.path.rmdir()
            for folder in (self.path, *self.path.parents):
                folder.rmdir()
                if folder == made:
                    break

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the directory. The operating system releases the lock when this process ends, however it ends."""
        import filelock

        lock, owner = filelock.FileLock(self.path / _LOCK), self.path / _OWNER
        try:
            lock.acquire(timeout=_LOCK_SECONDS, poll_interval=_LOCK_SECONDS / 10)
        except filelock.Timeout:
            try:
                pid = int(read_json(owner)["pid"])
            except (CorruptFileError, ValueError, KeyError, TypeError):
                pid = None
            raise RunLockedError(self.path, pid) from None
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
            raise RunError(f"{self.path} is not a run directory: it has no run.json", self.path)
        record = read_json(path)
        version = record.get("format_version")
        if version != FORMAT_VERSION:
            raise CorruptFileError(path, f"format version {version!r}, and this textgen reads {FORMAT_VERSION}")
        return record

    def write_run(self, record: Mapping[str, Any]) -> None:
        """Replace run.json atomically."""
        write_json(self.path / "run.json", {"format_version": FORMAT_VERSION, **record})

    def write_artifact(self, name: str, data: bytes) -> str:
        """Write a file of the run atomically and return its SHA-256."""
        write_atomic(self.path / name, data)
        return hashlib.sha256(data).hexdigest()

    def sweep(self) -> None:
        """Remove the partial files of a killed process, and restore what it was replacing."""
        self.checkpoints.recover()
        self._remove(leftover for pattern in _LEFTOVERS for leftover in self.path.glob(pattern))
        self._settle()
        if not self.exists():  # killed while it removed a run
            self.checkpoints.keep(set())

    def clear(self, spare: Path) -> None:
        """Remove the files of the run except `spare`, and nothing that a run did not write.

        A finished run is kept aside, and `loadable` returns it until the run that replaces it is finished.
        """
        if self._status() == "finished":
            partial = self.path / f".partial-{uuid.uuid4().hex}"
            partial.mkdir()
            for path in self._own():
                if path != spare:
                    _link(path, partial / path.name)
            shutil.rmtree(self.path / _PREVIOUS, ignore_errors=True)
            partial.rename(self.path / _PREVIOUS)
            sync_folder(self.path)
        self._remove(path for path in self._own() if path != spare)

    def extend(self, steps: Iterable[int], spare: Path) -> None:
        """Begin a run that goes on from checkpoints of the finished one, which is kept aside as by `clear`."""
        self.clear(spare)
        previous = RunDirectory(self.path / _PREVIOUS)
        for name in _GROWING:
            if (kept := previous.path / name).is_file():
                shutil.copyfile(kept, self.path / name)  # no link: what is appended must not reach the old run
        for folder in map(previous.checkpoints.folder, steps):
            if folder.is_dir():
                _link(folder, self.checkpoints.path / folder.name)

    def loadable(self) -> RunDirectory:
        """This run; while it is not finished, the finished run that it replaces, if there is one."""
        previous = RunDirectory(self.inside(_PREVIOUS))
        return previous if self._status() != "finished" and previous._status() == "finished" else self

    def inside(self, name: str) -> Path:
        """The file `name`, refused when a symbolic link leads out of the run directory."""
        return inside(self.path, name)

    def _settle(self) -> None:
        """Remove the run kept aside once its successor is finished; restore it if the successor left no checkpoint."""
        previous = self.path / _PREVIOUS
        if previous.is_symlink() or not previous.is_dir():
            return
        if self._status() != "finished":
            if self.exists() and self.checkpoints.steps():
                return  # the successor resumes from there
            self._remove(self._own())
            kept = RunDirectory(previous)._own()
            for path in sorted(kept, key=lambda path: path.name == "run.json"):  # last: it makes the run exist
                _link(path, self.path / path.name)
            sync_folder(self.path)
        shutil.rmtree(previous)

    def _status(self) -> Any:
        try:
            return self.read_run().get("status")
        except RunError:
            return None

    def _remove(self, paths: Iterable[Path]) -> None:
        """Remove files of a run, run.json first: without it the rest is not a run. Links are not followed."""
        for path in sorted(paths, key=lambda path: path.name != "run.json"):
            remove(path)

    def _own(self) -> list[Path]:
        return [self.path / name for name in _OWN if os.path.lexists(self.path / name)]

    def _strangers(self) -> Iterator[Path]:
        """Files that are not the remains of a run that was killed before it recorded the owner of its lock."""
        for path in self.path.iterdir():
            is_empty = not any(path.iterdir()) if path.is_dir() else not path.lstat().st_size
            if not any(fnmatch(path.name, name) for name in (*_IGNORED, _OWNER_TO_BE, *(_EMPTY if is_empty else ()))):
                yield path


def _link(source: Path, target: Path) -> None:
    """Hard-link a file or the files of a folder, or copy where that is not supported. Symbolic links are left out."""

    def link(file: str, new: str) -> None:
        try:
            os.link(file, new)
        except OSError:
            shutil.copy2(file, new)

    def links(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if Path(folder, name).is_symlink()]

    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, target, ignore=links, copy_function=link)
    elif not source.is_symlink():
        link(str(source), str(target))
