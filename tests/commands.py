"""Runs `textgen` as a user does: in a process of its own, in a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import fork_server

# A test run that was started in the background ignores SIGINT, and would pass that on.
HEEDING_SIGINT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from textgen.cli import main
main(sys.argv[1:])
"""


def environment(site: Iterable[Path] = (), extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without variables of textgen and Python, but with `site` before its own PYTHONPATH."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("TEXTGEN_", "PYTHON"))}
    path = [*map(str, site), *filter(None, [os.environ.get("PYTHONPATH")])]
    return inherited | {"PYTHONPATH": os.pathsep.join(path)} | dict(extra or {})


def run_textgen(
    *arguments: str | Path,
    folder: Path,
    site: Iterable[Path] = (),
    extra: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """`textgen ARGUMENTS` in `folder`. A command that needs torch finds it imported."""
    if is_fresh(arguments, extra or {}):
        return run_python("-m", "textgen", *arguments, folder=folder, site=site, extra=extra)
    command = ["-m", "textgen", *map(str, arguments)]
    return fork_server.run(command, folder, environment(site, extra), torch=needs_torch(arguments))


def is_fresh(arguments: Sequence[object], extra: Mapping[str, str]) -> bool:
    """Whether a command is about its process: how Python starts, or what it takes to import."""
    return "doctor" in arguments or any(name.startswith(("PYTHON", "LC_", "LANG")) for name in extra)


def needs_torch(arguments: Sequence[object]) -> bool:
    """Whether a command trains, or may build a model by gradient."""
    return any(name in arguments for name in ("run", "init", "check", "sweep"))


def run_python(
    *arguments: str | Path,
    folder: Path,
    site: Iterable[Path] = (),
    extra: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """`python ARGUMENTS` in `folder`."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env=environment(site, extra),
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


def run_with_torch(
    *arguments: str | Path,
    folder: Path,
    site: Iterable[Path] = (),
    extra: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """`python ARGUMENTS` in `folder`, in a process that has imported torch: much quicker for what needs it."""
    return fork_server.run([str(argument) for argument in arguments], folder, environment(site, extra))
