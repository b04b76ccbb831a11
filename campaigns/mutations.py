"""Ways to spoil a file of a run directory: as disks and networks do it, and as somebody does it who means harm.

Each takes the file's path, a random generator and a folder outside the run that must not be touched. It returns False
where it does not apply to such a file.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import math
import os
import random
import shutil
import socket
import stat
import struct
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import tomli_w
from safetensors.numpy import load, save

Mutation: TypeAlias = Callable[[Path, random.Random, Path], bool | None]

SECRET = "the owner's secret"
ESCAPE = "\x1b]52;c;cm0gLXJmIC8=\x07\x1b[31m\u202e"  # as hostile names hold: clipboard, colour, direction
VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        -1,
        0,
        1.5,
        2**53,
        2**63,
        -(2**64),
        10**400,
        math.nan,
        math.inf,
        1e308,
        "",
        ESCAPE,
        "x" * 100_000,
    ),
    *(
        [],
        {},
        [[]],
        [None],
        {"": 0},
        "../../outside",
        "/dev/zero",
        "0" * 64,
        [1, 2, 3],
        {"type": "char"},
        "\0",
        "\ud800",
    ),
)


# Bytes.


def _bytes(change: Callable[[bytes, random.Random], bytes]) -> Mutation:
    def mutate(path: Path, draw: random.Random, outside: Path) -> None:
        path.write_bytes(change(path.read_bytes() or b"{}", draw))

    return mutate


def _flip(data: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << draw.randrange(8))]) + data[place + 1 :]


def _overwrite(data: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(data))
    noise = draw.randbytes(min(draw.choice((1, 16, 512)), len(data) - place))
    return data[:place] + noise + data[place + len(noise) :]


def _cut_out(data: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(data))
    return data[:place] + data[place + draw.choice((1, 7, 4096)) :]


BYTES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "flipped": _flip,
    "overwritten": _overwrite,
    "cut out": _cut_out,
    "truncated": lambda data, draw: data[: draw.randrange(len(data))],
    "empty": lambda data, draw: b"",
    "doubled": lambda data, draw: data * 2,
    "zeros": lambda data, draw: bytes(len(data)),
    "zeros at the end": lambda data, draw: (
        data[: len(data) // 2] + bytes(len(data) - len(data) // 2)
    ),
    "noise": lambda data, draw: draw.randbytes(len(data)),
    "noise at the end": lambda data, draw: data + draw.randbytes(100),
    "html": lambda data, draw: b"<!DOCTYPE html>\n<html><body>404</body></html>",
    "lfs": lambda data, draw: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "utf-16": lambda data, draw: data.decode("latin-1").encode("utf-16"),
    "mark": lambda data, draw: b"\xef\xbb\xbf" + data,
    "crlf": lambda data, draw: data.replace(b"\n", b"\r\n"),
    "deep": lambda data, draw: b"[" * 100_000,
    "deep objects": lambda data, draw: b'{"a":' * 100_000,
    "many lists": lambda data, draw: b"[" + b"[]," * 1_300_000 + b"[]]",
    "many objects": lambda data, draw: b'{"a":[' + b'{"b":0},' * 480_000 + b"0]}",
    "many strings": lambda data, draw: b'{"tokens":["<unk>"' + b',"abcdefg"' * 1_950_000 + b"]}",
    "many keys": lambda data, draw: (
        b'{"a":{"":0' + b"".join(b',"%x":0' % n for n in range(1_000_000)) + b"}}"
    ),
    "long string": lambda data, draw: (
        b'{"a":"' + b"a" * (19 << 20) + "\N{GRINNING FACE}".encode() + b'"}'
    ),
    "huge integer": lambda data, draw: b'{"format_version": 1' + b"0" * 1_000_000 + b"}",
    "dotted": lambda data, draw: b"a." * 400_000 + b"a = 1",
    "deep toml": lambda data, draw: b"a = " + b"[" * 100_000,
    "header of 2^63": lambda data, draw: struct.pack("<Q", 2**63) + data[8:],
    "header of 4 GB": lambda data, draw: struct.pack("<Q", 2**32) + data[8:],
    "header of lists": lambda data, draw: _with_header(
        b'{"a":[' + b"[]," * 4_000_000 + b"[]]}", b""
    ),
    "million tensors": lambda data, draw: _with_header(
        b"{"
        + b",".join(
            b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % n for n in range(260_000)
        )
        + b"}",
        b"",
    ),
}


def _with_header(header: bytes, data: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + data


# JSON and TOML of another structure.


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    keys = (
        value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    )
    for key in keys:
        yield (*path, key)
        yield from _places(value[key], (*path, key))


def restructured(value: Any, draw: random.Random) -> Any:
    """The value with something in it removed, renamed, or replaced by something else."""
    value = copy.deepcopy(value)
    places = list(_places(value))
    if not places or draw.random() < 0.03:
        return draw.choice(VALUES)
    shallow = [place for place in places if len(place) <= 2]
    *parents, key = draw.choice(shallow if draw.random() < 0.5 else places)
    holder = value
    for parent in parents:
        holder = holder[parent]
    how = draw.random()
    if how < 0.2:
        del holder[key]
    elif how < 0.3 and isinstance(holder, dict):
        holder[ESCAPE] = holder.pop(key)
    elif how < 0.4 and isinstance(holder, dict):
        holder["unknown"] = draw.choice(VALUES)
    elif how < 0.5 and isinstance(holder[key], list):
        holder[key] = holder[key] * 2
    else:
        holder[key] = draw.choice(VALUES)
    return value


def _json(path: Path, draw: random.Random, outside: Path) -> bool | None:
    if path.suffix not in (".json", ".jsonl"):
        return False
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        other = restructured(rows, draw)
        path.write_text(
            "".join(
                json.dumps(row) + "\n" for row in (other if isinstance(other, list) else [other])
            )
        )
        return None
    path.write_text(json.dumps(restructured(json.loads(path.read_bytes()), draw)))
    return None


def _toml(path: Path, draw: random.Random, outside: Path) -> bool | None:
    if path.suffix != ".toml":
        return False
    for _ in range(100):
        with contextlib.suppress(
            TypeError, AttributeError, ValueError
        ):  # what TOML has no word for
            path.write_bytes(
                tomli_w.dumps(restructured(tomllib.loads(path.read_text()), draw)).encode()
            )
            return None
    return False


# Safetensors that are well-formed but for one thing.


def _tensors(change: Callable[[dict[str, Any], random.Random], None]) -> Mutation:
    def mutate(path: Path, draw: random.Random, outside: Path) -> bool | None:
        if path.suffix != ".safetensors":
            return False
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        name = draw.choice([name for name in header if name != "__metadata__"] or [""])
        if not name:
            return False
        change({**header[name], "name": name, "header": header}, draw)
        path.write_bytes(_with_header(json.dumps(header).encode(), data[8 + length :]))
        return None

    return mutate


def _promise(place: dict[str, Any], draw: random.Random) -> None:
    place["header"][place["name"]]["shape"] = [
        draw.choice((2**31, 2**40, 2**62, 10**30)),
        *place["shape"],
    ]


def _promise_bytes(place: dict[str, Any], draw: random.Random) -> None:
    entry = place["header"][place["name"]]
    entry["shape"], entry["data_offsets"][1] = [2**40], entry["data_offsets"][0] + 2**42


def _any_header(place: dict[str, Any], draw: random.Random) -> None:
    place["header"][place["name"]] = restructured({**place["header"][place["name"]]}, draw)


def _values(path: Path, draw: random.Random, outside: Path) -> bool | None:
    """Arrays of another shape or type, numbers out of range, a name more or less; the checksum of a state is right."""
    if path.suffix != ".safetensors":
        return False
    arrays = load(path.read_bytes())
    is_state = arrays.pop("checksum", None) is not None
    if not arrays:
        return False
    name = draw.choice(sorted(arrays))
    if is_state and (name == "values" or draw.random() < 0.6):
        name = "values"
        values = json.dumps(restructured(json.loads(arrays[name].tobytes()), draw))
        arrays[name] = np.frombuffer(values.encode(), np.uint8)
    else:
        arrays[name] = _array(arrays[name], draw)
        if draw.random() < 0.2:
            arrays[draw.choice((ESCAPE, "history.tokens", "x"))] = arrays.pop(name)
    if is_state:
        ordered = {key: np.ascontiguousarray(arrays[key]) for key in sorted(arrays)}
        arrays["checksum"] = np.frombuffer(hashlib.sha256(bytes(save(ordered))).digest(), np.uint8)
    path.write_bytes(
        bytes(save({key: np.ascontiguousarray(arrays[key]) for key in sorted(arrays)}))
    )
    return None


def _array(array: Any, draw: random.Random) -> Any:
    changes: list[Callable[[Any], Any]] = [
        lambda a: a.astype(np.float64),
        lambda a: a.astype(np.int8),
        lambda a: a[None],
        lambda a: a.ravel(),
        lambda a: a[:0],
        lambda a: np.full_like(a, 127),
        lambda a: np.full_like(a, np.nan if a.dtype.kind == "f" else 1),
        lambda a: np.concatenate([a, a]) if a.ndim else a,
        lambda a: -a - 1 if a.dtype.kind in "if" else a,
        lambda a: np.zeros((0, 7), a.dtype),
    ]
    return draw.choice(changes)(array)


# Other things in place of a file or a folder.


def _replaced(make: Callable[[Path, Path], None]) -> Mutation:
    def mutate(path: Path, draw: random.Random, outside: Path) -> None:
        aside = outside / "original"
        shutil.move(path, aside)
        make(path, outside)

    return mutate


def _socket(path: Path, outside: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY)  # the path of a socket may not be long
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(f"/proc/self/fd/{folder}/{path.name}")
    os.close(folder)


def _device(path: Path, outside: Path) -> None:
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    except OSError:  # only root may make one
        path.symlink_to("/dev/zero")


def _sparse(size: int, beginning: bytes = b"{") -> Callable[[Path, Path], None]:
    def make(path: Path, outside: Path) -> None:
        with path.open("wb") as file:
            file.write(beginning)
            file.truncate(size)

    return make


def _secret_file(path: Path, outside: Path) -> None:
    (outside / "secret").write_text(SECRET)
    path.symlink_to(outside / "secret")


REPLACED: dict[str, Callable[[Path, Path], None]] = {
    "absent": lambda path, outside: None,
    "folder": lambda path, outside: path.mkdir(),
    "full folder": lambda path, outside: [path.mkdir(), (path / "a").write_text("a")][0],
    "file": lambda path, outside: [path.write_text("a"), None][1],
    "link out": lambda path, outside: path.symlink_to(outside / "original"),
    "link to a secret": _secret_file,
    "link to a device": lambda path, outside: path.symlink_to("/dev/zero"),
    "link to nothing": lambda path, outside: path.symlink_to("nowhere"),
    "link to itself": lambda path, outside: path.symlink_to(path.name),
    "link to its folder": lambda path, outside: path.symlink_to("."),
    "pipe": lambda path, outside: os.mkfifo(path),
    "socket": _socket,
    "device": _device,
    "1 GB hole": _sparse(1 << 30),
    "100 MB of nothing": _sparse(100 << 20),
    "60 MB of nothing": _sparse(60 << 20, b" "),
}


def _swapped(path: Path, draw: random.Random, outside: Path) -> None:
    """Another file of the same run in its place."""
    run = (
        path.parent
        if path.parent.name == "run"
        else next((p for p in path.parents if p.name == "run"), path.parent)
    )
    others = sorted(other for other in run.rglob("*") if other.is_file() and other != path)
    if others:
        shutil.copyfile(draw.choice(others), path)


FOR_FILES: dict[str, Mutation] = {
    **{name: _bytes(change) for name, change in BYTES.items()},
    **{f"json {n}": _json for n in range(8)},
    **{f"toml {n}": _toml for n in range(8)},
    **{f"values {n}": _values for n in range(4)},
    "promise": _tensors(_promise),
    "promise bytes": _tensors(_promise_bytes),
    "header": _tensors(_any_header),
    **{name: _replaced(make) for name, make in REPLACED.items()},
    "swapped": _swapped,
}
FOR_FOLDERS: dict[str, Mutation] = {
    name: _replaced(make)
    for name, make in REPLACED.items()
    if "hole" not in name and "nothing" not in name
}


def applicable(path: Path) -> list[str]:
    """The mutations of a file or a folder."""
    if path.is_dir():
        return list(FOR_FOLDERS)
    kinds = {"json": (".json", ".jsonl"), "toml": (".toml",)}
    kinds |= dict.fromkeys(("values", "promise", "header"), (".safetensors",))
    first = {name: name.split()[0] for name in FOR_FILES}
    return [
        name
        for name in FOR_FILES
        if path.suffix in kinds.get(first[name], (path.suffix,)) or " of " in name
    ]


def seal(path: Path, run: Path) -> None:
    """Put the checksum of a spoilt file where the run has that of the file, as somebody does it who means harm."""
    holder = (
        path.parent / "manifest.json"
        if path.parent.parent.name == "checkpoints"
        else run / "run.json"
    )
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        record = json.loads(holder.read_bytes())
        if path.name in record["files"]:
            data = path.read_bytes()
            sha256 = hashlib.sha256(data).hexdigest()
            is_entry = isinstance(record["files"][path.name], dict)
            record["files"][path.name] = (
                {"bytes": len(data), "sha256": sha256} if is_entry else sha256
            )
        if record.pop("checksum", None) is not None:
            text = json.dumps(record, sort_keys=True, separators=(",", ":"))
            record["checksum"] = hashlib.sha256(text.encode()).hexdigest()
        holder.write_text(json.dumps(record))
