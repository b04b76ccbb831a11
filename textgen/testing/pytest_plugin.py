"""Fixtures for tests of plugins. pytest loads this in every run where textgen is installed, so it
imports little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from textgen.engine import Run
    from textgen.plugin.registry import PluginSet


@pytest.fixture
def textgen_plugins() -> PluginSet:
    """The built-in set and nothing else that is installed; add to it with
    `textgen_plugins.register(module, name)`.

    What is wrong with a plugin that is registered raises PluginError.
    """
    from textgen.testing.environment import isolated_plugins

    return isolated_plugins()


@pytest.fixture
def tiny_corpus(tmp_path: Path) -> Path:
    """A text file of about 1,800 characters in tmp_path, some of them not ASCII."""
    from textgen.testing.environment import TEXT

    path = tmp_path / "corpus.txt"
    path.write_text(TEXT, encoding="utf-8", newline="")
    return path


@pytest.fixture
def tiny_pipeline(tiny_corpus: Path) -> dict[str, Any]:
    """A pipeline over `tiny_corpus` that trains in well under a second. Change it as you need."""
    from textgen.testing.partners import CHARACTERS, DESCENT, FILE, SMALL_NETWORK

    return {
        "device": "cpu",
        "corpus": {**FILE, "path": str(tiny_corpus)},
        "tokenizer": {**CHARACTERS},
        "data": {"window_length": 16},
        "model": {**SMALL_NETWORK},
        "trainer": {**DESCENT},
        "sampler": [],
        "observer": [],
        "generate": {"max_new_tokens": 10},
    }


@pytest.fixture
def run_pipeline(tmp_path: Path, textgen_plugins: PluginSet) -> Callable[..., Run]:
    """Run a pipeline silently, with `textgen_plugins`: `run_pipeline(tiny_pipeline, ["seed=3"])`.

    Its run directory is tmp_path / "run". Keyword arguments go to textgen.Engine.run.
    """

    def run(
        pipeline: Mapping[str, Any] | str | Path, overrides: Iterable[str] = (), **arguments: Any
    ) -> Run:
        from textgen.engine import Engine

        given = {"output": tmp_path / "run", **arguments}
        return Engine(textgen_plugins).run(pipeline, overrides, **given)

    return run
