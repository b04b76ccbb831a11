"""The run directory: layout, lock, and the run that is to replace the one here.

    pipeline.toml  run.json  tokenizer.json  model.safetensors  metrics.jsonl  samples.txt
    loss.svg       gradient.svg  the curves
    checkpoints/   see textgen.runs.checkpoints
    .next-run/     a run that trains to replace the finished one here, laid out in the same way

Only safetensors, JSON and TOML: nothing that is loaded can carry code.

The finished run stays as it is until the one in `.next-run` is finished. One step puts that in its
place: the rename of `.next-run/run.json`, which then says "finished". From then on readers take the
run in `.next-run` (`current`). Its files are copied into the run directory, and `.next-run` is
removed. If a process is killed meanwhile, the next one does that again.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

import attrs

from textgen.errors import CorruptFileError, RunError, RunLockedError
from textgen.files.durable import (
    LEFTOVERS,
    make_folder,
    pieces_of,
    remove,
    remove_folder,
    sync_folder,
    sync_tree,
    write_atomic,
    write_json,
)
from textgen.files.opening import inside
from textgen.files.paths import path_of
from textgen.files.reading import read_bytes, read_json
from textgen.messages import nearest_name
from textgen.pipeline.raw_pipeline import RawPipeline, raw_pipeline_of
from textgen.protocols import Table
from textgen.runs.checkpoints import Checkpoints
from textgen.runs.formats import read_record, signed

logger = logging.getLogger("textgen")
_OWN: Final = (
    "run.json",
    "tokenizer.json",
    "model.safetensors",
    "metrics.jsonl",
    "loss.svg",
    "gradient.svg",
    "samples.txt",
    "pipeline.toml",
    "checkpoints",
)
# What a run writes anew when it goes on; the rest of a run directory goes on with it.
_REPLACED: Final = ("run.json", "tokenizer.json", "model.safetensors", "pipeline.toml")
_NEXT: Final = ".next-run"
_LOCK: Final = ".lock"
_OWNER: Final = ".lock-owner.json"
# Files in a folder that counts as empty. A killed process may have left the lock alone.
_IGNORED: Final = (".DS_Store", ".gitignore", ".gitkeep", _LOCK, _OWNER, f".{_OWNER}.*.tmp")
# Seconds. `is_locked` tries the lock, and must not stop a run that begins at that moment.
_LOCK_TIMEOUT: Final = 0.1


@attrs.frozen
class RunDirectory:
    """A run directory at `path`, which need not exist yet.

    may_write  False in a process for which another writes: then what begins a run or records it
               does nothing
    """

    path: Path
    may_write: bool = True

    @property
    def checkpoints(self) -> Checkpoints:
        """The checkpoints of the run."""
        return Checkpoints(self.path / "checkpoints")

    @property
    def next(self) -> RunDirectory:
        """The directory of the run that is to replace the one here."""
        return RunDirectory(self.path / _NEXT, self.may_write)

    def current(self) -> RunDirectory:
        """The run that is read: the one in `.next-run` once it is finished, else the one here."""
        return self.next if self.next.status() == "finished" else self

    def latest(self) -> RunDirectory:
        """The run that was begun last: the one in `.next-run` if there is one, else the one
        here.
        """
        return self.next if self.next.exists() else self

    def exists(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / "run.json").is_file()

    def status(self) -> str | None:
        """The status in run.json; None if there is none, or it is damaged. Raises RunError."""
        try:
            return self.read_run()["status"] if self.exists() else None
        except CorruptFileError:
            return None

    def is_settled(self) -> bool:
        """Whether the directory holds a finished run alone, which no process uses or was killed
        in.
        """
        others = (self.path / name for name in (_NEXT, _OWNER))
        return self.status() == "finished" and not any(map(os.path.lexists, others))

    @contextlib.contextmanager
    def prepared(self, *, described: bool = False) -> Iterator[None]:
        """Create the folder and check that it is writable, before any work; remove it again if a
        run in it is refused before it began. Raises RunError.

        described  whether the pipeline.toml in it is the one that the run would write
        """
        for directory in (self, self.next):
            for name in (*_OWN, _NEXT, _LOCK, _OWNER):
                directory.inside(name)
        is_new = not self.path.is_dir()
        if not (is_new or self.current().exists() or self.is_begun()):
            found = self._foreign() - ({"pipeline.toml"} if described else set())
            if found:
                shown = ", ".join(sorted(found)[:3])
                cause = (
                    f"is not a run directory (it has no file run.json) and is not empty ({shown})"
                )
                raise RunError(f"{self.path} {cause}; choose another `output`", self.path)
        try:
            make_folder(self.path)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            cause = f"cannot be written to: {error.strerror or error}"
            raise RunError(f"{self.path} {cause}; choose another `output`", self.path) from error
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):  # another process may have come
                if is_new and not self._foreign():
                    (self.path / _LOCK).unlink(missing_ok=True)
                    self.path.rmdir()
            raise

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the directory, and clear what a killed process has left.

        The operating system releases the lock when this process ends, however it ends.
        """
        import filelock

        lock, owner = filelock.FileLock(self.path / _LOCK), self.path / _OWNER
        try:
            lock.acquire(timeout=_LOCK_TIMEOUT, poll_interval=_LOCK_TIMEOUT / 10)
        except filelock.Timeout:
            pid = None
            with contextlib.suppress(RunError):
                pid = read_json(owner).get("pid")
            raise RunLockedError(self.path, pid) from None
        except OSError as error:
            if error.filename and not isinstance(error, PermissionError):
                raise  # the disk is full, say; a file system without locks names no file
            cause = f"{self.path / _LOCK} cannot be locked: {error.strerror or error}"
            logger.warning("%s; let one process at a time use the run", cause)
        try:
            write_json(owner, {"pid": os.getpid()})
            self._sweep()  # if it is interrupted, the owner stays, and the next run sweeps
            try:
                yield
            finally:
                with contextlib.suppress(OSError, RunError):  # the next run tries again
                    self._settle()
                    sync_tree(self.checkpoints.path)  # what is removed stays so without the owner
                    if self.exists() or not self._foreign():
                        owner.unlink()  # if it stays, it marks the files as a run's
        finally:
            lock.release()

    def is_begun(self) -> bool:
        """Whether a process holds the lock, or held it when it was killed."""
        return (self.path / _OWNER).is_file()

    def is_locked(self) -> bool:
        """Whether a process trains here now. Nothing is written."""
        import filelock

        if not self.is_begun() or not (self.path / _LOCK).is_file():
            return False
        try:
            with filelock.FileLock(self.inside(_LOCK)).acquire(timeout=0):
                return False
        except filelock.Timeout:
            return True
        except OSError:  # on a file system that may only be read, nobody trains
            return False

    def read_run(self) -> Table:
        """The record in run.json.

        Raises RunError if there is none, CorruptFileError if it cannot be used.
        """
        path = self.inside("run.json")
        if not path.is_file():
            raise no_run(self.path)
        return read_record(path)

    def read_pipeline(self) -> RawPipeline:
        """Read pipeline.toml. Raises PipelineError, RunError."""
        path = self.inside("pipeline.toml")
        return raw_pipeline_of(read_bytes(path), path)

    def write_run(self, record: Table) -> None:
        """Replace run.json atomically."""
        if self.may_write:
            write_json(self.path / "run.json", signed(record))

    def write_artifact(self, name: str, data: bytes) -> str:
        """Write a file of the run atomically and return its SHA-256."""
        if self.may_write:
            write_atomic(self.path / name, data)
        return hashlib.sha256(data).hexdigest()

    def begin(self) -> RunDirectory:
        """An empty directory for a new run: in `.next-run` if there is a finished run here, which
        stays, else here.
        """
        target = self.next if self.status() == "finished" else self
        if self.may_write:
            if os.path.lexists(self.next.path):
                remove_folder(self.next.path)
            make_folder(target.checkpoints.path)
            target._clear()
        return target

    def go_on(self, step: int) -> RunDirectory:
        """The directory of the run that was begun last, without what follows its checkpoint of
        `step`; of a finished run, a copy in `.next-run`.
        """
        target = self.latest()
        if self.may_write:
            if target.status() == "finished":
                target = self.begin()
                for name in os.listdir(self.path):
                    if name not in _REPLACED and not name.startswith("."):
                        self._copy(name, target)
            target.checkpoints.keep([made for made in target.checkpoints.steps() if made <= step])
        return target

    def inside(self, name: str) -> Path:
        """The file `name`, refused when a symbolic link leads out of the run directory."""
        return inside(self.path, name)

    def _sweep(self) -> None:
        """Remove what a killed process left, and say so."""
        left = [
            path
            for folder in (self.path, self.next.path)
            for inner in ("", "checkpoints/", "checkpoints/step-*/")
            for pattern in LEFTOVERS
            for path in folder.glob(inner + pattern)
        ]
        for path in left:
            with contextlib.suppress(OSError):
                remove(path)
        self._settle()
        if left:
            said = "%s was in use when a process or the machine stopped: removed %d partial file(s)"
            logger.warning(said, self.path, len(left))

    def _settle(self) -> None:
        """Remove what no run resumes from or goes on from; publish the run in `.next-run` if it is
        finished.
        """
        current = self.current()
        if current.status() == "finished":
            last = current.read_run().get("steps_before_decay") or -1  # to be trained on from
            current.checkpoints.keep([step for step in current.checkpoints.steps() if step <= last])
        if current != self:
            self._publish()
        elif os.path.lexists(self.next.path) and not (
            self.next.exists() and self.next.checkpoints.steps()
        ):
            remove_folder(self.next.path)

    def _publish(self) -> None:
        """Put the finished run in `.next-run` in the place of the one here."""
        self._clear()
        for name in os.listdir(self.next.path):
            self.next._copy(name, self)
        remove_folder(self.next.path)

    def _copy(self, name: str, to: RunDirectory) -> None:
        """Copy a file of the run, or a folder with all in it, if it is there.

        Links are left out. A file of somebody else that was changed in `to` since the one here was
        written stays as it is.
        """
        source = self.path / name
        if source.is_symlink():
            return
        for path in sorted([source, *source.rglob("*")]):  # a folder comes before what is in it
            target = to.path / path.relative_to(self.path)
            if path.is_symlink():
                continue
            if path.is_dir():
                make_folder(target)
            elif path.is_file() and (name in _OWN or not _is_as_new(target, path)):
                write_atomic(target, pieces_of(path))

    def _clear(self) -> None:
        """Remove the files of a run, run.json first: without it the rest is not a run.

        Links are not followed.

        pipeline.toml, which the next run replaces, may be the user's.
        """
        for name in _OWN[:-2]:
            (self.path / name).unlink(missing_ok=True)
            if name == "run.json":
                sync_folder(self.path)
        self.checkpoints.keep(())

    def _foreign(self) -> set[str]:
        """Names of files other than a process leaves that was killed before it recorded itself as
        the lock's owner.
        """
        return {
            path.name
            for path in self.path.iterdir()
            if not any(fnmatch(path.name, pattern) for pattern in _IGNORED)
        }


def _is_as_new(path: Path, other: Path) -> bool:
    """Whether there is a file `path`, and it was not changed before `other`.

    File systems count in milliseconds, so that two changes may have one time.
    """
    return path.is_file() and path.stat().st_mtime_ns >= other.stat().st_mtime_ns


def no_run(path: Path, offered: Iterable[str] = ()) -> RunError:
    """The error that says why a path is not a run directory, nor the name of an offered run."""
    held, beside = (
        sorted(each.parent.name for each in folder.glob("*/run.json"))
        for folder in (path, path.parent)
    )
    made = Path("runs", path.stem)  # of a pipeline
    why = "it has no run.json" if path.exists() else "it does not exist"
    if held:
        hint = f"it holds the runs {', '.join(held[:9])}"
    elif (made / "run.json").is_file():
        hint = f"did you mean {made}?"
    else:
        name = nearest_name(path.name, [*beside, *offered])
        meant = str(path.with_name(name)) if name in beside else name
        hint = f"did you mean {meant!r}?" if meant else "textgen run makes one, such as runs/my"
    error = RunError(f"{path} is not a run directory: {why}; {hint}", path)
    error.exit_code = 2  # what was asked for is wrong; nothing was done
    return error


def finished_run(path: Path) -> RunDirectory:
    """The directory of the finished run at a path. Raises RunError for any other."""
    directory = RunDirectory(path.absolute()).current()
    if directory.read_run()["status"] != "finished":
        cause = (
            f"the run in {directory.path} is not finished; `textgen run --finish` takes a "
            "checkpoint as the model"
        )
        raise RunError(cause, directory.path)
    return directory


def run_directory(path: Any, argument: str = "path") -> RunDirectory:
    """The run directory that a caller named. Raises UsageError for what is not a path."""
    return RunDirectory(path_of(path, argument).absolute())
