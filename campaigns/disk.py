"""A file system that loses what was not synced: replays the calls of a run, and gives the states
after a power loss.

The model is that of textgen.files.durable, and stricter than common file systems. A file holds what
it held at its last sync, and of later writes all, none, a part, or zeros. A folder lists what it
did at its last sync and the first few of later changes. Nothing else is in order.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import attrs


@attrs.define(eq=False)
class File:
    """A file: what is in it now, and what was in it when it was last synced."""

    now: bytes = b""
    synced: bytes = b""

    def left(self, loss, draw):
        """What a power loss leaves of it."""
        if loss in ("kept", "dropped"):
            return self.now if loss == "kept" else self.synced
        same = len(os.path.commonprefix([self.now, self.synced]))  # noqa: RUF071
        late = len(self.now) - same
        if loss == "zeros":
            return self.now[:same] + bytes(late)
        return self.now[: same + (late // 2 if loss == "torn" else draw.randrange(late + 1))]


@attrs.define(eq=False)
class Folder:
    """A folder: what it listed after each change since its last sync, the newest last."""

    versions: list[dict[str, File | Folder]] = attrs.field(factory=lambda: [{}])

    @property
    def now(self):
        """Its entries by name."""
        return self.versions[-1]

    def change(self, **entries):
        """Set entries, and remove those that are None."""
        changed = {**self.now, **entries}
        self.versions.append({name: each for name, each in changed.items() if each is not None})


@attrs.define
class Disk:
    """The state of a folder after some calls."""

    root: Folder

    @classmethod
    def of(cls, folder):
        """What is in a folder, all of it synced."""

        def read(path):
            if path.is_dir():
                return Folder([{each.name: read(each) for each in sorted(path.iterdir())}])
            data = path.read_bytes()
            return File(data, data)

        root = read(folder)
        return cls(root)

    def apply(self, call):
        """Do what a call did."""
        parent, name = self._parent(call.path)
        found = self._find(call.path)
        match call.name:
            case "open" if found is None:
                parent.change(**{name: File()})
            case "mkdir":
                parent.change(**{name: Folder()})
            case "unlink" | "rmdir":
                parent.change(**{name: None})
            case "rename":
                other, target = self._parent(call.target)
                assert other is parent, f"{call} keeps no order"
                parent.change(**{name: None, target: found})
            case "fsync" if isinstance(found, Folder):
                found.versions = [found.now]
            case _:
                assert isinstance(found, File), call
                self._change(found, call)

    def _change(self, file, call):
        if call.name == "fsync":
            file.synced = file.now
            return
        before = file.now[: call.offset].ljust(call.offset, b"\0")
        after = file.now[call.offset + len(call.data) :] if call.name == "write" else b""
        file.now = before + call.data + after

    def _find(self, path):
        found = self.root
        for part in Path(path).parts:
            found = found.now.get(part) if isinstance(found, Folder) else None
        return found

    def _parent(self, path):
        found = self._find(os.path.dirname(path))
        assert isinstance(found, Folder), path
        return found, os.path.basename(path)

    def _folders(self):
        found = {id(self.root): self.root}
        waiting = [self.root]
        while waiting:
            for version in waiting.pop().versions:
                for each in version.values():
                    if isinstance(each, Folder) and id(each) not in found:
                        found[id(each)] = each
                        waiting.append(each)
        return list(found.values())

    def states(self, seed, more):
        """What a power loss or a kill now may leave, each with its name; `more` of them by
        chance.
        """
        folders, draw = self._folders(), random.Random(seed)
        newest = {id(folder): len(folder.versions) - 1 for folder in folders}
        synced = dict.fromkeys(newest, 0)
        yield "killed", self._tree(newest, ["kept"], draw)
        yield "all that was not synced is lost", self._tree(synced, ["dropped"], draw)
        for loss in ("dropped", "zeros", "torn"):
            yield f"data {loss}", self._tree(newest, [loss], draw)
        for index, (folder, last) in enumerate(newest.items()):
            for loss in ("dropped", "kept") if last else ():
                kept, lost = {**synced, folder: last}, {**newest, folder: 0}
                yield f"only folder {index} kept, data {loss}", self._tree(kept, [loss], draw)
                yield f"only folder {index} lost, data {loss}", self._tree(lost, [loss], draw)
        for number in range(more):
            chosen = {folder: draw.randint(0, last) for folder, last in newest.items()}
            losses = ["kept", "dropped", "zeros", "anywhere"]
            yield f"by chance, {number}", self._tree(chosen, losses, draw)

    def _tree(self, versions, losses, draw):
        listed = []

        def walk(folder, path):
            for name, found in sorted(folder.versions[versions[id(folder)]].items()):
                if isinstance(found, Folder):
                    listed.append((path + name, None))
                    walk(found, f"{path}{name}/")
                else:
                    listed.append((path + name, found.left(draw.choice(losses), draw)))

        walk(self.root, "")
        return listed


def write(state, folder):
    """Make a folder be that state."""
    folder.mkdir(parents=True)
    for path, content in state:
        if content is None:
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(content)
