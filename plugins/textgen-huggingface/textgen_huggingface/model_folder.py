"""The files of a model folder that are read. Its other files are not opened, nor seen by the
libraries.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from textgen import Fault, PipelineError, TextgenError
from textgen.files import MAX_BYTES, inside, read_json
from textgen.protocols import Table

CONFIG: Final = "config.json"
TOKENIZER_CONFIG: Final = "tokenizer_config.json"
ADAPTER: Final = "adapter_model.safetensors"
ADAPTER_FILES: Final = ("adapter_config.json", ADAPTER)
# For `from_pretrained`: nothing is fetched, and no code that comes with a model is run.
LOCAL: Final = {"local_files_only": True, "trust_remote_code": False}
_WEIGHTS: Final = "model.safetensors"
_INDEX: Final = "model.safetensors.index.json"
_LAYERS: Final = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers")


def find_file(folder: Path, name: str, key: str) -> Path | None:
    """The file `name` of a folder; None if there is none.

    Raises PipelineError, of the option `key`, for a link out of the folder, for what is not a
    regular file, and for JSON that is too large to read.
    """
    path = folder / name
    if not os.path.lexists(path):
        return None
    try:
        blob = _blob(path)
        inside(folder, name) if blob is None else inside(blob.parent, blob.name)
    except (TextgenError, OSError) as error:
        raise _refused(key, str(error)) from error
    if not path.is_file():
        raise _refused(key, f"{path} is not a file")
    if path.suffix == ".json":
        check_size(path, key)
    return path


def check_size(file: Path, key: str) -> None:
    """Raise PipelineError for JSON that is too large to read."""
    size = file.stat().st_size
    if size > MAX_BYTES:
        raise _refused(key, f"{file} has {size:,} bytes, and such a file has at most {MAX_BYTES:,}")


def files_beside(tokenizer: Path, key: str) -> dict[str, Path]:
    """The files beside a tokenizer.json that are read with it, by their names; none beside a GGUF
    file. Raises PipelineError.
    """
    if is_gguf(tokenizer):
        return {}
    found = {name: find_file(tokenizer.parent, name, key) for name in (TOKENIZER_CONFIG, CONFIG)}
    return {name: file for name, file in found.items() if file is not None}


def is_gguf(path: Path) -> bool:
    """Whether `path` is a GGUF file, by its first four bytes."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(4) == b"GGUF"


def read_table(path: Path, key: str) -> dict[str, Any]:
    """The JSON object in a file. Raises PipelineError."""
    try:
        return read_json(path)
    except TextgenError as error:
        raise _refused(key, str(error)) from error


def weight_files(folder: Path, key: str) -> list[Path]:
    """The files with the weights: one, or an index and those that it names; none if there are no
    safetensors.

    Raises PipelineError for an index that names other files than safetensors of the folder.
    """
    whole = find_file(folder, _WEIGHTS, key)
    if whole is not None:
        return [whole]
    index = find_file(folder, _INDEX, key)
    if index is None:
        return []
    named = read_table(index, key).get("weight_map")
    if not isinstance(named, dict) or not named:
        raise _refused(key, f"{index} names no files with weights")
    files = [index]
    for name in dict.fromkeys(named.values()):
        if not isinstance(name, str) or not re.fullmatch(r"[^/\\:\0]+\.safetensors", name):
            cause = f"{index} names {name!r}; weights are read from .safetensors in that folder"
            raise _refused(key, cause)
        file = find_file(folder, name, key)
        if file is None:
            raise _refused(key, f"there is no {folder / name}, which {_INDEX} names")
        files.append(file)
    return files


def check_layers(table: Table, count: int, what: str, key: str) -> None:
    """Raise PipelineError for a config with more layers than there are weights: it would take hours
    to make them.
    """
    for name, value in table.items():
        if isinstance(value, dict):
            check_layers(value, count, what, key)
        elif name in _LAYERS and isinstance(value, int) and value > count:
            raise _refused(key, f"{what} has {name} = {value:,}, and there are {count:,} weights")


def count_tensors(files: Iterable[Path], key: str) -> int:
    """The number of tensors in files of safetensors. Raises PipelineError."""
    from safetensors import SafetensorError, safe_open

    count = 0
    for file in files:
        if file.suffix == ".safetensors":
            try:
                with safe_open(file, "np") as tensors:
                    count += len(tensors.keys())
            except (SafetensorError, OSError) as error:
                raise _refused(key, f"{file} cannot be loaded: {error}") from error
    return count


@contextlib.contextmanager
def alone(files: Iterable[Path]) -> Iterator[Path]:
    """A temporary folder with these files, for a library that would read others beside them."""
    with tempfile.TemporaryDirectory(prefix="textgen-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        for file in files:
            try:
                (folder / file.name).symlink_to(file.resolve())
            except OSError:  # Windows lets few users make links
                shutil.copyfile(file, folder / file.name)
        yield folder


def _blob(path: Path) -> Path | None:
    """The file that a snapshot in the Hub's cache links to: `blobs` lies beside `snapshots`."""
    folder, real = path.parent.absolute(), Path(os.path.realpath(path))
    blobs = os.path.realpath(folder.parent.parent / "blobs")
    return real if folder.parent.name == "snapshots" and str(real.parent) == blobs else None


def _refused(key: str, cause: str) -> PipelineError:
    return PipelineError([Fault(key, cause)])
