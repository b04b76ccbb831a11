"""The contract of runs that are offered by name."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import attrs

from textgen.engine import Engine
from textgen.errors import TextgenError
from textgen.runs.loading import build_generator
from textgen.runs.stored import verify
from textgen.testing.outcomes import Skip, Violation
from textgen.testing.suite import Suite

__tracebackhide__ = True  # pytest shows the test and the code of the component


@attrs.frozen(kw_only=True)
class RunSuite(Suite):
    """The checks of a run."""

    def run_whole(self) -> None:
        path = self.new()
        if isinstance(path, Mapping):
            raise Skip("it has no files of its own: its tables load themselves")
        if not isinstance(path, Path):
            raise Violation(f"build() gave {type(path).__name__}")
        try:
            report = verify(path)
        except TextgenError as error:
            raise Violation(str(error)) from error
        if report.status != "finished":
            raise Violation(f"its status is {report.status!r}")
        for file in report.files:
            if file.state != "whole":
                raise Violation(f"{file.name} is {file.state}: {file.cause}")

    def run_loads(self) -> None:
        made, plugins = self.new(), self.plugins
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                with (
                    Engine(plugins).load(made)
                    if isinstance(made, Path)
                    else build_generator(made, plugins, device="cpu", given={}, source="build")
                ) as generator:
                    generator.generate("", max_new_tokens=3, unknown_characters="skip")
            except (TextgenError, UserWarning) as error:
                raise Violation(str(error)) from error
