"""Models of the Hugging Face Hub, in the cache that its other users share."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self
from unittest.mock import patch

from textgen import Address, Fault, PipelineError, UsageError
from textgen_huggingface.checksums import checksum

_PART: Final = r"\w[\w.-]*"  # so that none is ".."
_NAME: Final = rf"{_PART}/{_PART}(@{_PART}(/{_PART})*)?"
# No pickled weights, no code, and weights in one form; the card and the licence for an export.
_FILES: Final = ["*.json", "model*.safetensors", "README.md", "LICENSE*"]
_COMMIT: Final = "[0-9a-f]{40}"
_PATCHING: Final = threading.Lock()


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
        if isinstance(before, str) and re.fullmatch(re.escape(name) + "@" + _COMMIT, before):
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


def push(name: str, files: Mapping[str, Path | bytes]) -> None:
    """Send files, by their names there, to the model `owner/name` of the Hub as one commit. A model
    that is new is private.

    Raises UsageError.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    added = [CommitOperationAdd(path, file) for path, file in files.items()]
    api = HfApi()
    try:
        api.create_repo(name, private=True, exist_ok=True)
        api.create_commit(name, added, commit_message="Add a model made with textgen")
    except Exception as error:  # a server may answer anything, and the client raises what it likes
        said = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(
            f"the files cannot be sent to {_address(name)}: {said}; `hf auth login` signs you in"
        ) from error


def check_name(name: str) -> None:
    """Raise UsageError for what is no `owner/name`."""
    if not re.fullmatch(f"{_PART}/{_PART}", name):
        raise UsageError(f"{name!r} does not name a model of the Hub as OWNER/NAME")


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
        with _checked():
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


@contextmanager
def _checked() -> Iterator[None]:
    """A block in which huggingface_hub refuses answers of a server that would lead it out of the
    cache: it makes paths of the commits and ETags that the server names, which could be "../x".
    """
    from huggingface_hub import HfApi, file_download
    from huggingface_hub.errors import EntryNotFoundError

    repo_info, list_tree = HfApi.repo_info, HfApi.list_repo_tree
    file_metadata = file_download.get_hf_file_metadata

    def checked_info(*given: Any, **options: Any) -> Any:
        info = repo_info(*given, **options)
        _refuse_unless(_COMMIT, info.sha)
        return info

    def checked_tree(*given: Any, **options: Any) -> Iterator[Any]:
        for entry in list_tree(*given, **options):
            if lfs := getattr(entry, "lfs", None):
                _refuse_unless("[0-9a-f]{64}", lfs.sha256)
            yield entry

    def checked_metadata(url: str, *given: Any, **options: Any) -> Any:
        try:
            found = file_metadata(url, *given, **options)
        except EntryNotFoundError as error:  # whose commit would become a path
            raise OSError(str(error)) from error
        if f"/resolve/{found.commit_hash}/" not in url:
            raise ValueError(f"the server gives {found.commit_hash!r} in place of {url}")
        _refuse_unless(_PART, found.etag)
        if found.xet_file_data is not None:
            _refuse_unless("[0-9a-f]{64}", found.xet_file_data.file_hash)
        return found

    with (
        _PATCHING,
        patch.object(HfApi, "repo_info", checked_info),
        patch.object(HfApi, "list_repo_tree", checked_tree),
        patch.object(file_download, "get_hf_file_metadata", checked_metadata),
    ):
        yield


def _refuse_unless(pattern: str, value: Any) -> None:
    if not isinstance(value, str) or not re.fullmatch(pattern, value, re.ASCII):
        raise ValueError(f"the server names {value!r}, which is neither a commit nor a checksum")


def _check(folder: Path) -> None:
    """Compare large files with the SHA-256 that the Hub gave for them, by which the cache names
    them. Raises PipelineError.
    """
    for file in sorted(folder.iterdir()):
        kept = file.resolve()
        if re.fullmatch("[0-9a-f]{64}", kept.name) and checksum(file) != kept.name:
            cause = f"{file.name} is not the file that the Hub has: its SHA-256 is another"
            raise PipelineError([Fault("", cause, "", f"remove {kept}, and fetch it again")])
