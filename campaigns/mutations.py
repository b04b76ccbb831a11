"""Ways to spoil a file of a run directory: as disks and networks do it, and as somebody does it who
means harm.

Each takes the file's path, a random generator and a folder outside the run that must not be
touched. It returns False where it does not apply to such a file.
"""

import contextlib
import copy
import hashlib
import json
import math
import os
import shutil
import socket
import struct
import tomllib

import numpy as np
import tomli_w
from safetensors.numpy import load, save

SECRET = "the owner's secret"
# as hostile names hold: clipboard, colour, direction
ESCAPE = "\x1b]52;c;cm0gLXJmIC8=\x07\x1b[31m\u202e"
# What stands in for a value, written in one go; as Python, since JSON has no word for some.
VALUES = (
    *(None, True, -1, 0, 1.5, 2**53, -(2**64), 10**400, math.nan, math.inf, 1e308),
    *("", ESCAPE, "x" * 100_000, "../../outside", "/dev/zero", "0" * 64, "\0", "\ud800"),
    *([], {}, [[]], [None], {"": 0}, [1, 2, 3], {"type": "char"}),
)
BYTES = {
    "flipped": lambda data, draw: _with(data, draw, lambda part: bytes([part[0] ^ 1])),
    "cut out": lambda data, draw: _with(data, draw, lambda part: b""),
    "truncated": lambda data, draw: data[: draw.randrange(len(data))],
    "empty": lambda data, draw: b"",
    "zeros": lambda data, draw: bytes(len(data)),
    "zeros at the end": lambda data, draw: data[: len(data) // 2].ljust(len(data), b"\0"),
    "html": lambda data, draw: b"<!DOCTYPE html>\n<html><body>404</body></html>",
    "lfs": lambda data, draw: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "utf-16": lambda data, draw: data.decode("latin-1").encode("utf-16"),
    "deep": lambda data, draw: b"[" * 100_000,
    "many objects": lambda data, draw: b'{"a":[' + b'{"b":0},' * 480_000 + b"0]}",
    "many strings": lambda data, draw: b'{"tokens":["<unk>"' + b',"abcdefg"' * 1_950_000 + b"]}",
    "long string": lambda data, draw: b'{"a":"' + b"a" * (19 << 20) + "\u00e9".encode() + b'"}',
    "huge integer": lambda data, draw: b'{"format_version": 1' + b"0" * 1_000_000 + b"}",
    "dotted": lambda data, draw: b"a." * 400_000 + b"a = 1",
    "deep toml": lambda data, draw: b"a = " + b"[" * 100_000,
    "header longer than the file": lambda data, draw: struct.pack("<Q", 2**63) + b"{}",
    "header of many tensors": lambda data, draw: _with_header(
        {str(n): {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(100_000)}
    ),
}


def _with(data, draw, change):
    place = draw.randrange(len(data))
    end = place + draw.choice((1, 16, 512))
    part = data[place:end]
    return data[:place] + change(part) + data[place + max(1, len(part)) :]


def _with_header(header, data=b""):
    written = json.dumps(header).encode()
    return struct.pack("<Q", len(written)) + written + data


# JSON, TOML and safetensors of another structure.


def _places(value, path=()):
    is_list = isinstance(value, list)
    for key in range(len(value)) if is_list else value if isinstance(value, dict) else ():
        yield (*path, key)
        yield from _places(value[key], (*path, key))


def restructured(value, draw):
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


def _structure(path, draw, outside):
    """Well-formed content of another structure."""
    data = path.read_bytes()
    if path.suffix == ".json":
        path.write_text(json.dumps(restructured(json.loads(data), draw)))
    elif path.suffix == ".jsonl":
        rows = restructured([json.loads(line) for line in data.splitlines()], draw)
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows or ()))
    elif path.suffix == ".toml":
        tables = tomllib.loads(data.decode())
        with contextlib.suppress(TypeError, AttributeError, ValueError):  # TOML has no word for it
            path.write_text(tomli_w.dumps(restructured(tables, draw)))
    elif path.suffix == ".safetensors":
        end = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:end])
        for entry in header.values() if draw.random() < 0.3 else ():
            entry["shape"] = [draw.choice((2**31, 2**62, 10**30)), *entry.get("shape", ())]
        path.write_bytes(_with_header(restructured(header, draw), data[end:]))
    else:
        return False
    return None


ARRAYS = (
    lambda a: a.astype(np.float64),
    lambda a: a[None],
    lambda a: a[:0],
    lambda a: np.full_like(a, 127),
    lambda a: np.full_like(a, np.nan if a.dtype.kind == "f" else 1),
)


def _values(path, draw, outside):
    """Arrays of another shape, type or name, numbers out of range; the checksum of a state is
    right.
    """
    if path.suffix != ".safetensors":
        return False
    arrays = load(path.read_bytes())
    is_state = arrays.pop("checksum", None) is not None
    name = "values" if is_state and draw.random() < 0.6 else draw.choice(sorted(arrays) or [""])
    if not name:
        return False
    if is_state and name == "values":
        text = json.dumps(restructured(json.loads(arrays[name].tobytes()), draw))
        arrays[name] = np.frombuffer(text.encode(), np.uint8)
    else:
        changed = draw.choice(ARRAYS)(arrays.pop(name))
        arrays[name if draw.random() < 0.8 else draw.choice((ESCAPE, "x"))] = changed
    arrays = {key: np.ascontiguousarray(arrays[key]) for key in sorted(arrays)}
    if is_state:
        checksum = hashlib.sha256(bytes(save(arrays))).digest()
        arrays["checksum"] = np.frombuffer(checksum, np.uint8)
    path.write_bytes(bytes(save(arrays)))
    return None


# Other things in place of a file or a folder.


def _socket(path):
    folder = os.open(path.parent, os.O_RDONLY)  # the path of a socket may not be long
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(f"/proc/self/fd/{folder}/{path.name}")
    os.close(folder)


def _sparse(path):
    with path.open("wb") as file:
        file.write(b"{")
        file.truncate(1 << 30)


def _secret_file(path, outside):
    (outside / "secret").write_text(SECRET)
    path.symlink_to(outside / "secret")


REPLACED = {
    "absent": lambda path, outside: None,
    "folder": lambda path, outside: path.mkdir(),
    "file": lambda path, outside: path.write_text("a"),
    "link out": lambda path, outside: path.symlink_to(outside / "original"),
    "link to a secret": _secret_file,
    "link to a device": lambda path, outside: path.symlink_to("/dev/zero"),
    "link to itself": lambda path, outside: path.symlink_to(path.name),
    "link to its folder": lambda path, outside: path.symlink_to("."),
    "pipe": lambda path, outside: os.mkfifo(path),
    "socket": lambda path, outside: _socket(path),
    "1 GB hole": lambda path, outside: _sparse(path),
}


def _swapped(path, draw, outside):
    """Another file of the same run in its place."""
    run = next((each for each in path.parents if each.name == "run"), path.parent)
    others = sorted(other for other in run.rglob("*") if other.is_file() and other != path)
    shutil.copyfile(draw.choice(others), path)


def _in_place(make):
    def mutate(path, draw, outside):
        shutil.move(path, outside / "original")
        make(path, outside)

    return mutate


def _of_bytes(change):
    def mutate(path, draw, outside):
        path.write_bytes(change(path.read_bytes() or b"{}", draw))

    return mutate


MUTATIONS = {
    **{name: _in_place(make) for name, make in REPLACED.items()},
    **{name: _of_bytes(change) for name, change in BYTES.items()},
    **{f"structure {n}": _structure for n in range(12)},
    **{f"values {n}": _values for n in range(6)},
    "swapped": _swapped,
}


def seal(path, run):
    """Put the checksum of a spoilt file where the run has that of the file, as somebody does it who
    means harm.
    """
    in_checkpoint = path.parent.parent.name == "checkpoints"
    holder = path.parent / "manifest.json" if in_checkpoint else run / "run.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        record = json.loads(holder.read_bytes())
        if path.name in record["files"]:
            record["files"][path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        if record.pop("checksum", None) is not None:
            text = json.dumps(record, sort_keys=True, separators=(",", ":"))
            record["checksum"] = hashlib.sha256(text.encode()).hexdigest()
        holder.write_text(json.dumps(record))
