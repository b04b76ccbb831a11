"""Watches every change that this process makes to files under a folder: the point where faults are injected.

It replaces the functions of `os` and `open` by ones that say what they are about to do. All of a run's files are
written from Python, so nothing escapes; `replay` compares what it saw with what is on the disk in the end.
"""

from __future__ import annotations

import builtins
import io
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs


@attrs.frozen
class Call:
    """A change, about to be made.

    name    open, write, truncate, fsync, rename, link, unlink, mkdir or rmdir
    path    relative to the watched folder, as it is named now
    target  the new name, of a rename or link
    data    what is written, and at which place
    """

    name: str
    path: str
    target: str = ""
    data: bytes = b""
    place: int = 0

    def __str__(self) -> str:
        return f"{self.name} {self.path}" + (f" -> {self.target}" if self.target else "")


def watch(
    root: Path, before: Callable[[Call], None], after: Callable[[Call], None] = lambda call: None
) -> None:
    """Tell of every change under `root` in this process, from now on; `before` may raise in its place."""
    watcher = _Watcher(os.path.realpath(root), before, after)
    for name in (
        "open",
        "write",
        "fsync",
        "ftruncate",
        "mkdir",
        "rmdir",
        "unlink",
        "remove",
        "rename",
        "replace",
    ):
        setattr(os, name, getattr(watcher, name)(getattr(os, name)))
    os.link = watcher.link(os.link)  # type: ignore[assignment]
    opened = watcher.opened()
    builtins.open = io.open = opened


@attrs.frozen
class _Watcher:
    root: str
    before: Callable[[Call], None]
    after: Callable[[Call], None]

    def _name(self, path: Any, dir_fd: int | None = None) -> str | None:
        """The path in the folder; None for one outside."""
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        path = os.fsdecode(path)
        if dir_fd is not None:
            path = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), path)
        folder, name = os.path.split(os.path.abspath(path))
        path = os.path.join(os.path.realpath(folder), name)
        if path == self.root:
            return "."
        return path[len(self.root) + 1 :] if path.startswith(self.root + os.sep) else None

    def _around(self, call: Call, act: Callable[[], Any]) -> Any:
        self.before(call)
        result = act()
        self.after(call)
        return result

    def open(self, real: Any) -> Any:
        def wrapped(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            def act() -> int:
                descriptor: int = real(path, flags, mode, dir_fd=dir_fd)
                return descriptor

            name = self._name(path, dir_fd)
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if (
                name is None
                or not writes
                or (not flags & os.O_TRUNC and self._exists(path, dir_fd))
            ):
                return act()
            descriptor: int = self._around(Call("open", name), act)
            return descriptor

        return wrapped

    @staticmethod
    def _exists(path: Any, dir_fd: int | None) -> bool:
        try:
            os.stat(path, dir_fd=dir_fd)
        except OSError:
            return False
        return True

    def write(self, real: Any) -> Any:
        def wrapped(descriptor: int, data: Any) -> Any:
            name = self._name(descriptor) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
            if name is None:
                return real(descriptor, data)
            call = Call("write", name, data=bytes(data), place=os.lseek(descriptor, 0, os.SEEK_CUR))
            return self._around(call, lambda: real(descriptor, data))

        return wrapped

    def fsync(self, real: Any) -> Any:
        def wrapped(descriptor: int) -> Any:
            name = self._name(descriptor)
            if name is None:
                return real(descriptor)
            return self._around(Call("fsync", name), lambda: real(descriptor))

        return wrapped

    def ftruncate(self, real: Any) -> Any:
        def wrapped(descriptor: int, size: int) -> Any:
            name = self._name(descriptor)
            if name is None:
                return real(descriptor, size)
            return self._around(Call("truncate", name, place=size), lambda: real(descriptor, size))

        return wrapped

    def _one(self, kind: str, real: Any) -> Any:
        def wrapped(path: Any, *rest: Any, dir_fd: int | None = None) -> Any:
            name = self._name(path, dir_fd)
            if name is None:
                return real(path, *rest, dir_fd=dir_fd)
            return self._around(Call(kind, name), lambda: real(path, *rest, dir_fd=dir_fd))

        return wrapped

    def mkdir(self, real: Any) -> Any:
        return self._one("mkdir", real)

    def rmdir(self, real: Any) -> Any:
        return self._one("rmdir", real)

    def unlink(self, real: Any) -> Any:
        return self._one("unlink", real)

    remove = unlink

    def _two(self, kind: str, real: Any) -> Any:
        def wrapped(source: Any, target: Any, **options: Any) -> Any:
            names = self._name(source), self._name(target)
            if None in names:
                return real(source, target, **options)
            return self._around(Call(kind, *names), lambda: real(source, target, **options))  # type: ignore[arg-type]

        return wrapped

    def rename(self, real: Any) -> Any:
        return self._two("rename", real)

    replace = rename

    def link(self, real: Any) -> Any:
        return self._two("link", real)

    def opened(self) -> Any:
        """An `open` whose files write through `os.write`."""
        real = builtins.open

        class Raw(io.FileIO):
            def write(self, data: Any) -> int:
                return os.write(self.fileno(), data)

            def truncate(self, size: int | None = None) -> int:
                size = self.tell() if size is None else size
                os.ftruncate(self.fileno(), size)
                return size

        def opener(path: Any, flags: int) -> int:
            return os.open(path, flags, 0o666)

        def wrapped(
            file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **options: Any
        ) -> Any:
            writes = set(mode) & set("wax+")
            if (
                not writes
                or isinstance(file, int)
                or self._name(file) is None
                or options.get("opener")
            ):
                return real(file, mode, buffering, *rest, **options)
            raw = Raw(file, mode.replace("b", "").replace("t", ""), opener=opener)
            if buffering == 0:
                return raw
            buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            return buffered if "b" in mode else io.TextIOWrapper(buffered, *rest, **options)

        return wrapped
