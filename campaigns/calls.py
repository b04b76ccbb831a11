"""Watches every change that this process makes to files under a folder: the point where faults are
injected.

It replaces the functions of `os` and `open` by ones that say what they are about to do. All of a
run's files are written from Python, so nothing escapes; `replay` compares what it saw with what is
on the disk in the end.
"""

import builtins
import io
import os
import stat
from functools import partial

import attrs


@attrs.frozen
class Call:
    """A change, about to be made.

    name    open, write, truncate, fsync, rename, unlink, mkdir or rmdir
    path    relative to the watched folder, as it is named now
    target  the new name, of a rename
    data    what is written
    offset  the byte where it is written, or the new size of a truncated file
    """

    name: str
    path: str
    target: str = ""
    data: bytes = b""
    offset: int = 0


def watch(root, before, after=lambda call: None):
    """Tell of every change under `root` in this process, from now on; `before` may raise in its
    place.
    """
    name_of = partial(_name, os.path.realpath(root))

    def one(kind, path, *_, dir_fd=None, **facts):
        name = name_of(path, dir_fd)
        return None if name is None else Call(kind, name, **facts)

    def renaming(source, target, **_):
        names = name_of(source), name_of(target)
        return None if None in names else Call("rename", *names)

    def opening(path, flags, _=0, *, dir_fd=None):
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        changes = writes and (flags & os.O_TRUNC or not _exists(path, dir_fd))
        return one("open", path, dir_fd=dir_fd) if changes else None

    def writing(file, data):
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return None
        return one("write", file, data=bytes(data), offset=os.lseek(file, 0, os.SEEK_CUR))

    def told(real, of):
        def wrapped(*arguments, **options):
            call = of(*arguments, **options)
            if call is None:
                return real(*arguments, **options)
            before(call)
            result = real(*arguments, **options)
            after(call)
            return result

        return wrapped

    watched = {kind: partial(one, kind) for kind in ("mkdir", "rmdir", "unlink", "fsync")}
    watched |= {"remove": watched["unlink"]}
    watched |= dict.fromkeys(("rename", "replace"), renaming)
    watched |= {"open": opening, "write": writing}
    watched["ftruncate"] = lambda file, size: one("truncate", file, offset=size)
    for name, of in watched.items():
        setattr(os, name, told(getattr(os, name), of))
    builtins.open = io.open = _opener(name_of)


def _name(root, path, dir_fd=None):
    """A path, or that of a descriptor, in the folder; None for one outside."""
    if isinstance(path, int):
        path = os.readlink(f"/proc/self/fd/{path}")
    path = os.fsdecode(path)
    if dir_fd is not None:
        path = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), path)
    folder, name = os.path.split(os.path.abspath(path))
    path = os.path.join(os.path.realpath(folder), name)
    if path == root:
        return "."
    return path[len(root) + 1 :] if path.startswith(root + os.sep) else None


def _exists(path, dir_fd):
    try:
        os.stat(path, dir_fd=dir_fd)
    except OSError:
        return False
    return True


def _opener(name_of):
    """An `open` whose files write through `os.write`."""
    real = builtins.open

    class Raw(io.FileIO):
        def write(self, data):
            return os.write(self.fileno(), data)

        def truncate(self, size=None):
            size = self.tell() if size is None else size
            os.ftruncate(self.fileno(), size)
            return size

    def wrapped(file, mode="r", buffering=-1, *rest, **options):
        writes = set(mode) & set("wax+") and not isinstance(file, int) and not options.get("opener")
        if not writes or name_of(file) is None:
            return real(file, mode, buffering, *rest, **options)
        raw = Raw(file, mode.strip("bt"), opener=lambda path, flags: os.open(path, flags, 0o666))
        if buffering == 0:
            return raw
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, *rest, **options)

    return wrapped
