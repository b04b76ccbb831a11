"""What the tests of the command line share."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cli.terminal import Terminal


@pytest.fixture
def generate(textgen: Any, finished_run: Path, tmp_path: Path) -> Any:
    """`textgen generate RUN ARGUMENTS` in tmp_path."""
    return partial(textgen, "generate", finished_run, cwd=tmp_path)


@pytest.fixture
def evaluate(textgen: Any, finished_run: Path, tmp_path: Path) -> Any:
    """`textgen evaluate RUN ARGUMENTS` in tmp_path."""
    return partial(textgen, "evaluate", finished_run, cwd=tmp_path)


@pytest.fixture(scope="module")
def workplace(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text, a pipeline of the same name and its run, as somebody has it who has
    just begun.
    """
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "my.txt").write_text("the clock struck nine and nobody came.\n" * 90)
    shutil.copy(finished_run / "pipeline.toml", folder / "my.toml")
    shutil.copytree(finished_run, folder / "runs/my")
    return folder


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """Open a session in tmp_path, at its first prompt: `begin(run, "--greedy")`."""
    terminals = []

    def make(*arguments: object, **variables: str) -> Terminal:
        terminals.append(Terminal("generate", *arguments, cwd=tmp_path, **variables))
        assert "/set KEY=VALUE" in terminals[-1].read_to("\n> ")
        return terminals[-1]

    yield make
    for terminal in terminals:
        terminal.close()
