"""Models of the Hugging Face Hub, fetched to the cache that its other users share."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Final

from textgen import Fault, PipelineError

# No pickled weights, no code, and weights in one form.
_FILES: Final = ["*.json", "model*.safetensors"]


@functools.cache
def snapshot(name: str, key: str, *, fetch: bool) -> Path:
    """The folder of `owner/name` or `owner/name@revision` in the cache, named by its commit.

    The network is used as huggingface_hub does, by its environment variables. Raises PipelineError
    for the option `key`.
    """
    from huggingface_hub import snapshot_download

    model, _, revision = name.partition("@")
    try:
        found = snapshot_download(
            model,
            revision=revision or None,
            allow_patterns=_FILES,
            ignore_patterns=["*/*"],
            local_files_only=not fetch,
        )
    except (OSError, ValueError) as error:  # every error of a request is an OSError
        if not fetch:
            return Path(name)
        cause = f"{name} is neither a folder here nor a model that the Hub gives"
        raise PipelineError([Fault(key, cause, "", " ".join(str(error).split()))]) from error
    return Path(found)
