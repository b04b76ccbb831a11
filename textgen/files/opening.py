"""Opens files that a stranger may have made: regular ones alone, of bounded size, checked before memory is taken.

Nothing here waits for a pipe, reads a device, or allocates what a file only promises. docs/untrusted-runs.md has the
limits in one place.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Final

from textgen.errors import CorruptFileError, TextgenError

_PLENTY: Final = 64_000_000  # bytes from which a file is looked at more closely before it is read
_HOLLOW: Final = 100  # times what a file occupies on the disk: such a file is a hole
_HEADER_BYTES: Final = 16_000_000
_TENSORS: Final = 1 << 14
_AXES: Final = 32
_MEMORY: Final = 185_000_000  # that JSON may take while it is parsed
_OBJECT, _LIST, _VALUE, _KEY = 240, 100, 80, 60  # bytes that Python takes for each
_ASTRAL: Final = 0xF0  # the first byte of a character beyond U+FFFF
_ITEM_BYTES: Final[Mapping[str, int]] = MappingProxyType(
    {
        **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3"), 1),
        **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
        **dict.fromkeys(("U32", "I32", "F32"), 4),
        **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
    }
)
_KINDS: Final = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISLNK, "a link in a circle"),  # as links are followed
    (lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode), "a device"),
)
_FLAGS: Final = sum(
    getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY")
)
# What code meets that takes in the content of a file, where that is not what it should be.
UNFORESEEN: Final = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


def special(path: Path) -> str:
    """What is at a path, links followed, if that is neither a regular file nor a folder: "a named pipe"; else ""."""
    with contextlib.suppress(OSError):
        kind = _kind(path.stat().st_mode)
        return "" if kind == "a folder" else kind
    return ""


def stamp(path: str | Path) -> tuple[int, ...] | None:
    """Size, times and number of a regular file, which tell whether it is still the same; None if there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    facts = found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino
    return facts if stat.S_ISREG(found.st_mode) else None


@contextlib.contextmanager
def opened(path: Path) -> Iterator[io.BufferedReader]:
    """A regular file to read. Raises CorruptFileError for anything else, without opening it, and OSError."""
    real = os.path.realpath(path)  # Path.resolve raises RuntimeError where links lead in a circle
    _check_kind(path, os.lstat(real))
    with open(os.open(real, os.O_RDONLY | _FLAGS), "rb") as file:
        _check_kind(path, os.fstat(file.fileno()))  # it may be another one by now
        yield file


def read_tensor_file(path: Path) -> bytes:
    """The bytes of a safetensors file. A large one is read only if its header says what it holds, and it holds that.

    Raises CorruptFileError, OSError.
    """
    with opened(path) as file:
        status = os.fstat(file.fileno())
        if status.st_size > _PLENTY:
            blocks = getattr(status, "st_blocks", 0) * 512  # 0 where a file system does not know
            if 0 < blocks * _HOLLOW < status.st_size:
                raise CorruptFileError(
                    path, f"it has {status.st_size:,} bytes, of which {blocks:,} are on the disk"
                )
            check_tensors(path, file, status.st_size)
            file.seek(0)
        return file.read(status.st_size)


def check_tensors(path: Path, file: BinaryIO | bytes, size: int) -> None:
    """Check that a safetensors file of `size` bytes holds what its header says. Raises CorruptFileError.

    The header: 8 bytes with its length, then JSON, {name: {"dtype", "shape", "data_offsets"}} and "__metadata__".
    """
    file = io.BytesIO(file) if isinstance(file, bytes) else file
    with contents_of(path, "it is not a safetensors file"):
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(size - 8, _HEADER_BYTES):
            raise ValueError(f"its header would have {length:,} bytes")
        header = file.read(length)
        if (count := header.count(b'"data_offsets"')) > _TENSORS:
            raise ValueError(f"it holds {count:,} tensors, and may hold {_TENSORS:,}")
        check_json(header)
        tensors = json.loads(header.decode())
        tensors.pop("__metadata__", None)
        borders = sorted(_extent(name, tensor) for name, tensor in tensors.items())
        ends = [0, *(end for _, end in borders)]
        if [begin for begin, _ in borders] != ends[:-1] or ends[-1] != size - 8 - length:
            raise ValueError(
                f"its tensors do not fill the {size - 8 - length:,} bytes after its header"
            )


def check_json(data: bytes) -> None:
    """Raise ValueError for JSON that would take too much memory, before it is parsed."""
    counts = ((b"{", _OBJECT), (b"[", _LIST), (b",", _VALUE), (b":", _KEY))
    width = (
        1 if data.isascii() else 4 if max(data) >= _ASTRAL else 2
    )  # bytes of a character of the decoded text,
    # which may be one string: json puts it together from its pieces
    if (1 + 3 * width) * len(data) + sum(
        data.count(mark) * size for mark, size in counts
    ) > _MEMORY:
        raise ValueError(f"its {len(data):,} bytes hold too many values")


@contextlib.contextmanager
def contents_of(path: Path, what: str = "it does not hold what it should") -> Iterator[None]:
    """Take in the content of a file: what is unforeseen about it becomes a CorruptFileError that names the file."""
    try:
        yield
    except TextgenError:
        raise
    except UNFORESEEN as error:
        cause = f"no {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise CorruptFileError(path, f"{what} ({cause})") from error


def _extent(name: str, tensor: Mapping[str, Any]) -> tuple[int, int]:
    """Where a tensor begins and ends. Raises ValueError and others where that is not what its shape says."""
    shape, (begin, end) = tensor["shape"], tensor["data_offsets"]
    numbers = [begin, end, *itertools.islice(shape, _AXES + 1)]
    if len(shape) > _AXES or any(type(n) is not int or not 0 <= n < 1 << 62 for n in numbers):
        raise ValueError(f"the shape of {name} is none")
    if math.prod(shape) * _ITEM_BYTES[tensor["dtype"]] != end - begin:
        raise ValueError(f"{name} has {end - begin:,} bytes, which is not what its shape needs")
    return begin, end


def _check_kind(path: Path, status: os.stat_result) -> None:
    if kind := _kind(status.st_mode):
        raise CorruptFileError(path, f"it is {kind}, and a file is wanted; it is not opened")


def _kind(mode: int) -> str:
    return (
        ""
        if stat.S_ISREG(mode)
        else next((kind for is_one, kind in _KINDS if is_one(mode)), "no regular file")
    )
