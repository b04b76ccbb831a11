"""Where the files that an option names are on this machine."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path, PureWindowsPath

from textgen_huggingface.hub import HubName, cached


def located(path: HubName | Path, key: str) -> Path:
    """The folder or file of an option; of a name of the Hub, the folder in its cache. What was in a
    package is there wherever that is installed now.

    Raises PipelineError for a name of the Hub that was not fetched.
    """
    if not isinstance(path, Path):
        return cached(path, key)
    if path.exists() or not (package := package_of(path)):
        return path
    spec = find_spec(package)
    folders = spec.submodule_search_locations if spec is not None else None
    files = [Path(folder, PureWindowsPath(path).name) for folder in folders or ()]
    return next((file for file in files if file.exists()), path)


def package_of(path: Path) -> str:
    """The Python package whose file or folder `path` is or was; "" if it is none's."""
    folder = PureWindowsPath(path).parent  # which knows both separators
    is_installed = folder.parent.name in ("site-packages", "dist-packages")
    return folder.name if is_installed and folder.name.isidentifier() else ""
