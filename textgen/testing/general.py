"""The checks of every component, whatever its kind: its record, import, options and methods."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import attrs

from textgen.contracts.checks import misdeclared, unfit
from textgen.errors import PipelineError, PluginError
from textgen.plugin.component import HOOKS
from textgen.plugin.hookspecs import hookimpl
from textgen.plugin.registry import PluginSet
from textgen.plugin.single_file import is_file
from textgen.plugin.structure import Reader, plain
from textgen.testing.environment import Subject, close
from textgen.testing.outcomes import Check, Skip, Violation

__tracebackhide__ = True  # pytest shows the test and the code of the component

_FRESH: Final = """
import importlib, sys
module = importlib.import_module(sys.argv[1])
if sys.argv[2:]:
    from pathlib import Path
    from textgen.plugin.component import BuildContext
    for component in module.textgen_commands():
        if component.name in sys.argv[2:]:
            component.build(component.config(), BuildContext(folder=Path.cwd()))
loaded = [name for name in ("torch", "numpy") if name in sys.modules]
print("\\nloaded:", *loaded, file=sys.stderr)
"""


def general_checks(subject: Subject, build: Callable[[], Any]) -> list[Check]:
    """The checks of all kinds; `build` builds the component in a fitting context."""
    return [
        Check("component-record", lambda: _record(subject)),
        Check("component-options", lambda: _options(subject)),
        Check("component-import", lambda: _import(subject)),
        Check("component-raises", lambda: close(build())),
        Check("component-methods", lambda: check_methods(build(), subject.kind)),
        Check("component-globals", lambda: close(build())),  # its libraries are loaded by now
    ]


def check_methods(made: Any, kind: str) -> None:
    """Raise a Violation where what was built, or a "decoder" that it made, lacks a method."""
    if fault := unfit(made, kind) or misdeclared(made, kind):
        what = "its decoder" if kind == "decoder" else "what is built"
        raise Violation(f"{what} {fault}")


def loaded_by(module: str, commands: Iterable[str], time_limit: float) -> list[str]:
    """Which of torch and NumPy an import in a fresh interpreter loads, and the building of
    commands.

    Raises Violation where that fails or prints.
    """
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    return _loaded_by((module, *commands), path, time_limit)


@functools.cache
def _loaded_by(names: tuple[str, ...], path: str, time_limit: float) -> list[str]:
    importing = f"importing {names[0]}"
    try:
        done = subprocess.run(  # noqa: S603  # this interpreter, and a program of our own
            [sys.executable, "-Pc", _FRESH, *names],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=time_limit,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Violation(f"{importing} had not ended after {time_limit:g} s") from error
    *_, last = done.stderr.strip().splitlines() or [""]
    if done.returncode:
        raise Violation(f"{importing} failed: {last or f'exit code {done.returncode}'}")
    if done.stdout:
        raise Violation(f"{importing} wrote {done.stdout[:80]!r} to stdout")
    return done.stderr.rpartition("\nloaded:")[2].partition("\n")[0].split()


def _record(subject: Subject) -> None:
    component = subject.component
    hook = next(name for name, kind in HOOKS.items() if kind == subject.kind)

    def offer() -> list[Any]:
        return [component]

    offer.__name__ = hook
    try:
        PluginSet().register(SimpleNamespace(**{hook: hookimpl(offer)}), "under-test")
    except PluginError as error:
        raise Violation(error.cause) from error
    if silent := [n for n, field in component.options().items() if not field.metadata.get("help")]:
        raise Violation(f"no help for {', '.join(silent)}; declare it with textgen.option")
    try:
        config = subject.config()
    except PipelineError as error:
        faults = "; ".join(map(str, error.faults))
        raise Violation(f"its defaults are refused: {faults}", "component-options") from error
    for name in component.options():
        with contextlib.suppress(attrs.exceptions.FrozenInstanceError):
            setattr(config, name, getattr(config, name))
            raise Violation(
                f"{component.config.__name__} can be changed; declare it with @attrs.frozen"
            )


def _options(subject: Subject) -> None:
    config = subject.config()
    reader = Reader(Path.cwd(), subject.plugins)
    again = reader.table(subject.component.config, plain(config), "")
    if reader.faults:
        raise Violation("; ".join(map(str, reader.faults)))
    if again != config:
        raise Violation(f"{config} came back as {again}")


def _import(subject: Subject) -> None:
    if subject.module is None:
        raise Skip("the module that it comes from is not known; give it as `plugin`")
    if is_file(subject.module):
        raise Skip("a file is imported only by a command that names it")
    if heavy := loaded_by(subject.module, [], subject.time_limit):
        raise Violation(
            f"importing {subject.module} loads {' and '.join(heavy)}; import it inside build"
        )
