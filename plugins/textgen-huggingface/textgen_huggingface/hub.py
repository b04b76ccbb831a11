"""Models of the Hugging Face Hub, in the cache that its other users share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final, Self

from textgen import Address, Fault, PipelineError
from textgen_huggingface.checksums import checksum

_NAME: Final = r"\w[\w.-]*/\w[\w.-]*(@[\w./-]+)?"
# No pickled weights, no code, and weights in one form.
_FILES: Final = ["*.json", "model*.safetensors"]


class HubName(str):
    """The type of an option that names a model of the Hugging Face Hub, as `owner/name` or
    `owner/name@revision`; a relative path of two parts that does not exist is such a name.
    """

    __slots__ = ()

    @classmethod
    def of_option(cls, value: Any, folder: Path) -> Self | None:
        """A value of a table in `folder`; None for one that is a path."""
        is_name = isinstance(value, str) and re.fullmatch(_NAME, value)
        return cls(value) if is_name and not (folder / value).exists() else None

    @property
    def address(self) -> Address:
        """Its page, which is named before anything is fetched."""
        return _address(self)

    def fetched(self, before: object) -> HubName:
        """The name with its commit, whose files are in the cache then.

        before  the option in the run that is there already: a name without a revision keeps the
                commit of that

        Raises PipelineError, without a key.
        """
        name = str(self)
        if isinstance(before, str) and re.fullmatch(re.escape(name) + "@[0-9a-f]{40}", before):
            name = before
        return HubName(f"{name.partition('@')[0]}@{_fetch(name).name}")


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


def _address(name: str) -> Address:
    from huggingface_hub import constants

    model, _, revision = name.partition("@")
    return Address(f"{constants.ENDPOINT}/{model}" + (f"/tree/{revision}" if revision else ""))


def _fetch(name: str) -> Path:
    """The folder of a model in the cache, named by its commit, after its files have been fetched.

    The network is used as huggingface_hub does, by its environment variables. Raises PipelineError
    without a key, also for files that are not those of the commit.
    """
    try:
        found = _snapshot(name, local=False)
    except Exception as error:  # a server may answer anything, and the client raises what it likes
        said = " ".join(str(error).split()) or type(error).__name__
        cause = f"{name} is neither a folder here nor a model that can be fetched"
        raise PipelineError([Fault("", cause, "", f"{_address(name)}: {said}")]) from error
    _check(found)
    return found


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
    for file in sorted(folder.iterdir()):
        kept = file.resolve()
        if re.fullmatch("[0-9a-f]{64}", kept.name) and checksum(file) != kept.name:
            cause = f"{file.name} is not the file that the Hub has: its SHA-256 is another"
            raise PipelineError([Fault("", cause, "", f"remove {kept}, and fetch it again")])
