"""A file system that loses what was not synced: replays the calls of a run, and gives the states after a power loss.

The model is that of textgen.files.durable, and stricter than common file systems. A file holds what it held at its last
sync, and of later writes all, none, a part, or zeros. A folder lists what it did at its last sync and the first few of
later changes. Nothing else is in order.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

import attrs

from .calls import Call


@attrs.define(eq=False)
class File:
    """A file: what is in it now, and what was in it when it was last synced."""

    now: bytes = b""
    synced: bytes = b""

    def left(self, loss: str, draw: random.Random) -> bytes:
        """What a power loss leaves of it."""
        if loss == "kept" or self.now == self.synced:
            return self.now
        if loss == "dropped":
            return self.synced
        same = next(
            (
                i
                for i, pair in enumerate(zip(self.now, self.synced, strict=False))
                if pair[0] != pair[1]
            ),
            None,
        )
        if same is None:
            same = min(len(self.now), len(self.synced))
        if loss == "zeros":
            return self.now[:same] + bytes(len(self.now) - same)
        late = len(self.now) - same
        return self.now[: same + (late // 2 if loss == "torn" else draw.randrange(late + 1))]


@attrs.define(eq=False)
class Folder:
    """A folder: what it listed after each change since its last sync, the newest last."""

    versions: list[dict[str, File | Folder]] = attrs.field(factory=lambda: [{}])

    @property
    def now(self) -> dict[str, File | Folder]:
        return self.versions[-1]

    def change(self, **entries: File | Folder | None) -> None:
        changed = {
            name: found for name, found in {**self.now, **entries}.items() if found is not None
        }
        self.versions.append(changed)


Tree = dict[str, bytes | None]  # None for a folder


@attrs.define
class Disk:
    """The state of a folder after some calls."""

    root: Folder = attrs.field(factory=Folder)
    inodes: dict[int, File | Folder] = attrs.field(factory=dict)

    @classmethod
    def of(cls, folder: Path) -> Disk:
        """What is in a folder, all of it synced."""
        disk = cls()
        seen: dict[int, File] = {}

        def read(path: Path) -> Folder:
            entries: dict[str, File | Folder] = {}
            for each in sorted(path.iterdir()):
                if each.is_dir():
                    entries[each.name] = read(each)
                else:
                    data = each.read_bytes()
                    entries[each.name] = seen.setdefault(each.stat().st_ino, File(data, data))
            return Folder([entries])

        disk.root = read(folder)
        return disk

    def apply(self, call: Call) -> None:
        """Do what a call did."""
        parent, name = self._parent(call.path)
        if call.name == "open":
            file = self.find(call.path)
            if isinstance(file, File):
                file.now = b""
            else:
                parent.change(**{name: File()})
        elif call.name in ("write", "truncate", "fsync"):
            self._change(call)
        elif call.name == "mkdir":
            parent.change(**{name: Folder()})
        elif call.name in ("unlink", "rmdir"):
            parent.change(**{name: None})
        else:
            self._name_again(call, parent, name)

    def _change(self, call: Call) -> None:
        found = self.find(call.path)
        if call.name == "fsync" and isinstance(found, Folder):
            found.versions = [found.now]
            return
        assert isinstance(found, File), call
        if call.name == "fsync":
            found.synced = found.now
        elif call.name == "truncate":
            found.now = found.now[: call.place].ljust(call.place, b"\0")
        else:
            before = found.now[: call.place].ljust(call.place, b"\0")
            found.now = before + call.data + found.now[call.place + len(call.data) :]

    def _name_again(self, call: Call, parent: Folder, name: str) -> None:
        other, target = self._parent(call.target)
        moved = parent.now[name]
        if call.name == "link":
            other.change(**{target: moved})
            return
        assert other is parent, f"{call}: a rename between folders keeps no order; sync both"
        parent.change(**{name: None, target: moved})

    def find(self, path: str) -> File | Folder | None:
        found: File | Folder | None = self.root
        for part in Path(path).parts:
            found = found.now.get(part) if isinstance(found, Folder) else None
        return found

    def _parent(self, path: str) -> tuple[Folder, str]:
        found = self.find(os.path.dirname(path))
        assert isinstance(found, Folder), path
        return found, os.path.basename(path)

    def _folders(self) -> list[Folder]:
        found = [self.root]
        for folder in found:  # which grows
            known = {id(other) for other in found}
            inner = [each for version in folder.versions for each in version.values()]
            found += {
                id(each): each
                for each in inner
                if isinstance(each, Folder) and id(each) not in known
            }.values()
        return found

    def states(
        self, seed: int, more: int
    ) -> Iterator[tuple[str, list[tuple[str, File | Folder, bytes | None]]]]:
        """What a power loss or a kill now may leave, each with its name; `more` of them by chance."""
        folders = self._folders()
        changed = [folder for folder in folders if len(folder.versions) > 1]
        newest = {id(folder): len(folder.versions) - 1 for folder in folders}
        synced = dict.fromkeys(newest, 0)
        draw = random.Random(seed)
        yield "killed", self._tree(newest, ["kept"], draw)
        yield "all that was not synced is lost", self._tree(synced, ["dropped"], draw)
        for loss in ("dropped", "zeros", "torn"):
            yield f"data {loss}", self._tree(newest, [loss], draw)
        for place, folder in enumerate(changed):
            for loss in ("dropped", "kept"):
                yield (
                    f"only folder {place} kept, data {loss}",
                    self._tree({**synced, id(folder): newest[id(folder)]}, [loss], draw),
                )
                yield (
                    f"only folder {place} lost, data {loss}",
                    self._tree({**newest, id(folder): 0}, [loss], draw),
                )
        for number in range(more):
            chosen = {id(folder): draw.randrange(len(folder.versions)) for folder in folders}
            yield (
                f"by chance, {number}",
                self._tree(chosen, ["kept", "dropped", "zeros", "anywhere"], draw),
            )

    def _tree(
        self, versions: dict[int, int], losses: list[str], draw: random.Random
    ) -> list[tuple[str, File | Folder, bytes | None]]:
        """Path, identity and content of everything; None for a folder."""
        listed: list[tuple[str, File | Folder, bytes | None]] = []
        contents: dict[int, bytes] = {}

        def walk(folder: Folder, path: str) -> None:
            for name, found in sorted(folder.versions[versions[id(folder)]].items()):
                if isinstance(found, Folder):
                    listed.append((path + name, found, None))
                    walk(found, f"{path}{name}/")
                else:
                    if id(found) not in contents:
                        contents[id(found)] = found.left(draw.choice(losses), draw)
                    listed.append((path + name, found, contents[id(found)]))

        walk(self.root, "")
        return listed


State = list[tuple[str, File | Folder, bytes | None]]


def digest(state: State) -> str:
    """What two states share that a run cannot tell apart."""
    made = hashlib.sha256()
    for path, _, content in state:
        made.update(repr((path, content is None)).encode() + (content or b"") + b"\0")
    return made.hexdigest()


def write(state: State, folder: Path) -> None:
    """Make a folder be that state."""
    linked: dict[int, Path] = {}
    folder.mkdir(parents=True)
    for path, identity, content in state:
        if content is None:
            (folder / path).mkdir()
        elif id(identity) in linked:
            os.link(linked[id(identity)], folder / path)
        else:
            (folder / path).write_bytes(content)
            linked[id(identity)] = folder / path
