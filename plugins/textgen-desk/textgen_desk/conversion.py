"""The text of an uploaded file, read as the corpus of type `file` reads it.

A short plain text is read in a thread of the server. Any other file is read by a process of its own
(`python -m textgen_desk.conversion FILE CHARACTERS`) with limits of time and memory, so that no
file holds up the server, whatever is in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, BinaryIO, Final

from textgen import CorpusError, DeviceError, Engine
from textgen_desk.names import made_suffix
from textgen_serve.errors import ApiError

_PLAIN: Final = (".txt", ".text", ".md", ".markdown", ".rst")
_SHORT: Final = 1 << 20  # bytes of a plain text that a thread reads
_SECONDS: Final = 60.0  # that a process takes at most
_MEMORY: Final = 1 << 31  # bytes of address space, where the system has a limit of it
_LESS: Final = "save it as plain text, or in parts"


async def text_in(file: str, content: BinaryIO, most: int, seconds: float) -> str:
    """The text of a file.

    file      its name, whose suffix tells its format
    most      characters of the text
    seconds   that it may take, if they are fewer than a minute

    Raises ApiError.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"text{made_suffix(file)}"
        await asyncio.to_thread(_copy, content, path)
        if path.suffix in _PLAIN and path.stat().st_size <= _SHORT:
            answer = await asyncio.to_thread(read, path, most)
        else:
            answer = await _read_apart(path, most, min(seconds, _SECONDS))
    if "error" in answer:
        raise ApiError(answer["status"], f"{file}: {answer['error']}")
    text: str = answer["text"]
    return text


def read(path: Path, most: int) -> dict[str, Any]:
    """The text of a file, or the error and the status of HTTP for it."""
    pieces, size = [], 0
    try:
        for piece in Engine().read_corpus({"type": "file", "path": str(path)}):
            if isinstance(piece, str):
                pieces.append(piece)
                size += len(piece)
            if size > most:
                error = f"it has more than {most:,} characters, the most of a document"
                return {"status": 400, "error": error}
        return {"text": "".join(pieces)}
    except CorpusError as error:
        error.path = None  # it is a path of the server
        return {"status": 400, "error": str(error)}
    except (MemoryError, DeviceError):  # the engine makes the second of the first
        return {"status": 413, "error": f"reading it takes too much memory; {_LESS}"}


def _copy(content: BinaryIO, path: Path) -> None:
    with path.open("wb") as copy:
        shutil.copyfileobj(content, copy, 1 << 20)


async def _read_apart(path: Path, most: int, seconds: float) -> dict[str, Any]:
    """The same as `read`, by a process that is ended after some seconds, or with the request."""
    # -P: without it, `-m` puts the current folder first on the path of imports.
    words = [sys.executable, "-P", "-m", __name__, str(path), str(most)]
    process = await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), seconds)
    except TimeoutError:
        return {"status": 413, "error": f"reading it takes more than {seconds:g} s; {_LESS}"}
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode != 0:
        return {"status": 413, "error": f"it could not be read to its end; {_LESS}"}
    answer: dict[str, Any] = await asyncio.to_thread(json.loads, said)
    return answer


def _limit() -> None:
    """Bound the memory of this process, and its time for when the server is killed."""
    try:
        import resource
    except ImportError:  # on Windows
        return
    with contextlib.suppress(OSError, ValueError):  # a lower one may hold already
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CPU, (int(_SECONDS), int(_SECONDS)))


def main() -> None:
    """Print what `read` returns, as JSON."""
    _limit()
    json.dump(read(Path(sys.argv[1]), int(sys.argv[2])), sys.stdout)


if __name__ == "__main__":
    main()
