"""Models of the Hugging Face Hub, in the cache that its other users share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from textgen import Address, Fault, PipelineError

# No pickled weights, no code, and weights in one form.
_FILES: Final = ["*.json", "model*.safetensors"]


def address(name: str) -> Address:
    """The page of `owner/name` or `owner/name@revision`."""
    from huggingface_hub import constants

    model, _, revision = name.partition("@")
    return Address(f"{constants.ENDPOINT}/{model}" + (f"/tree/{revision}" if revision else ""))


def fetch(name: str) -> Path:
    """The folder of `owner/name` or `owner/name@revision` in the cache, named by its commit, after
    its files have been fetched.

    The network is used as huggingface_hub does, by its environment variables. Raises PipelineError
    without a key, also for files that are not those of the commit.
    """
    try:
        found = _snapshot(name, local=False)
    except Exception as error:  # a server may answer anything, and the client raises what it likes
        said = " ".join(str(error).split()) or type(error).__name__
        cause = f"{name} is neither a folder here nor a model that can be fetched"
        raise PipelineError([Fault("", cause, "", f"{address(name)}: {said}")]) from error
    _check(found)
    return found


def cached(name: str, key: str) -> Path:
    """The folder of a model that was fetched before. No network is used.

    Raises PipelineError for the option `key`.
    """
    try:
        return _snapshot(name, local=True)
    except Exception as error:  # whatever the cache holds
        model, _, revision = name.partition("@")
        command = f"hf download {model} --revision {revision or 'main'}"
        command += "".join(f" --include '{pattern}'" for pattern in _FILES)
        cause = f"{name} of the Hugging Face Hub is not in the cache"
        hint = f"`textgen run` and `textgen init` alone fetch; to fetch it now: {command}"
        raise PipelineError([Fault(key, cause, "", hint)]) from error


def _snapshot(name: str, *, local: bool) -> Path:
    from huggingface_hub import snapshot_download

    model, _, revision = name.partition("@")
    found = snapshot_download(
        model,
        revision=revision or None,
        allow_patterns=_FILES,
        ignore_patterns=["*/*"],
        local_files_only=local,
    )
    return Path(found)


def _check(folder: Path) -> None:
    """Compare large files with the SHA-256 that the Hub gave for them, by which the cache names
    them. Raises PipelineError.
    """
    from textgen_huggingface.plugin import checksum

    for file in sorted(folder.iterdir()):
        kept = file.resolve()
        if re.fullmatch("[0-9a-f]{64}", kept.name) and checksum(file) != kept.name:
            cause = f"{file.name} is not the file that the Hub has: its SHA-256 is another"
            raise PipelineError([Fault("", cause, "", f"remove {kept}, and fetch it again")])
