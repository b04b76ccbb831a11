"""The contract of runs that are offered by name."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import attrs

from textgen.engine import Engine
from textgen.errors import TextgenError
from textgen.runs.loading import load_generator
from textgen.runs.stored import summarize, verify
from textgen.testing.outcomes import Violation
from textgen.testing.suite import Suite

__tracebackhide__ = True  # pytest shows the test and the code of the component


@attrs.frozen(kw_only=True)
class RunSuite(Suite):
    """The checks of a run."""

    def run_loads(self) -> None:
        made, plugins = self.new(), self.plugins
        if not isinstance(made, Path | Mapping):
            raise Violation(f"build() gave {type(made).__name__}")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                if isinstance(made, Path):
                    _check_files(made)
                    loaded = Engine(plugins).load(made)
                else:
                    loaded = load_generator(made, plugins, device="cpu", given={}, source="build")
                with loaded as generator:
                    generator.generate("", max_new_tokens=3, unknown_characters="skip")
            except (TextgenError, UserWarning) as error:
                raise Violation(str(error)) from error


def _check_files(path: Path) -> None:
    """Raise a Violation unless a run is finished and its files are whole."""
    if (status := summarize(path).status) != "finished":
        raise Violation(f"its status is {status!r}")
    for wrong in filter(None, verify(path).values()):
        raise Violation(wrong)
