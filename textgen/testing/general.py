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
from textgen.plugin.component import HOOKS, KINDS_HOOK
from textgen.plugin.hookspecs import hookimpl
from textgen.plugin.registry import PluginSet
from textgen.plugin.single_file import is_file
from textgen.plugin.structure import ConfigReader, ConfiguredComponent, plain
from textgen.testing.environment import Subject, close, required_options
from textgen.testing.outcomes import Check, Skip, Violation
from textgen.testing.process_state import no_thread_left, unchanged
from textgen.testing.statements import statement_of

__tracebackhide__ = True  # pytest shows the test and the code of the component

_DEFAULTS: Final = ("observer", "tokenizer")  # the kinds of which one is used if none is named
_FRESH: Final = """
import builtins, importlib, os, random, signal, sys, textgen, threading
def states():
    own = [module for name, module in sys.modules.items() if name.startswith("textgen.")]
    yield "the random state", random.getstate()
    yield "the environment", dict(os.environ)
    yield "the handlers of signals", [*map(signal.getsignal, signal.valid_signals())]
    yield "the threads", threading.enumerate()
    held = [(m, name, id(v)) for m in (builtins, os, *own) for name, v in vars(m).items()]
    yield "what textgen and Python hold", {held[:2]: held[2] for held in held}
before = dict(states())
module = importlib.import_module(sys.argv[1])
if sys.argv[2:]:
    from pathlib import Path
    from textgen.plugin.component import BuildContext
    for component in module.textgen_commands():
        if component.name in sys.argv[2:]:
            component.build(component.config(), BuildContext(folder=Path.cwd()))
for name, now in states():
    if "hold" in name:  # names may come
        now = {place: now.get(place) for place in before[name]}
    if now != before[name]:
        print("\\nimporting it changes", name, file=sys.stderr)
        sys.exit(1)
loaded = [name for name in ("torch", "numpy") if name in sys.modules]
print("\\nloaded:", *loaded, file=sys.stderr)
"""


def general_checks(subject: Subject, build: Callable[[], Any]) -> list[Check]:
    """The checks of all kinds; `build` builds the component in a fitting context."""

    def closed() -> None:
        try:
            _built(build)
        except Violation as violation:
            if violation.anchor != "component-globals":
                raise
            _built(build)  # it may have been what is imported, which is now

    checks: dict[str, Callable[[], object]] = {
        "component-record": lambda: _record(subject),
        "component-options": lambda: _options(subject),
        "component-import": lambda: _import(subject),
        "component-raises": closed,
        "component-methods": lambda: _methods(build(), subject.kind),
    }
    return [Check(statement_of(anchor), check) for anchor, check in checks.items()]


def _built(build: Callable[[], Any]) -> None:
    with unchanged(everything=True), no_thread_left():
        close(build())


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
    if subject.kind == "command" and (required := required_options(component)):
        raise Violation(f"nothing can fill in its option {required[0]}", "command-build")
    hook = next((name for name, kind in HOOKS.items() if kind == subject.kind), KINDS_HOOK)

    def offer() -> Any:
        return {subject.kind: [component]} if hook == KINDS_HOOK else [component]

    offer.__name__ = hook
    try:
        PluginSet().register(SimpleNamespace(**{hook: hookimpl(offer)}), "under-test")
    except PluginError as error:
        raise Violation(error.cause) from error
    used = [offer.component for offer in subject.plugins.defaults(subject.kind)]
    if component.default and (subject.kind not in _DEFAULTS or component not in used):
        raise Violation("default=True means nothing beside the components that textgen comes with")
    if not component.config.__doc__:
        raise Violation(f"{component.config.__name__} has no docstring")
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
    reader = ConfigReader(Path.cwd(), subject.plugins)
    # A part that starts from a run is written as its path, which only a pipeline looks up.
    started = {
        name: part
        for name in subject.component.options()
        if isinstance(part := getattr(config, name), ConfiguredComponent) and part.start
    }
    again = reader.table(subject.component.config, {**plain(config), **started}, "")
    if reader.faults:
        raise Violation("; ".join(map(str, reader.faults)))
    if again != config:
        raise Violation(f"{config} came back as {again}")


def _methods(made: Any, kind: str, what: str = "what is built") -> None:
    if fault := unfit(made, kind) or misdeclared(made, kind):
        raise Violation(f"{what} {fault}")
    if kind == "model":
        _methods(made.decoder(1), "decoder", "its decoder")


def _import(subject: Subject) -> None:
    if subject.module is None:
        raise Skip("the module that it comes from is not known; give it as `plugin`")
    if is_file(subject.module):
        raise Skip("a file is imported only by a command that names it")
    if heavy := loaded_by(subject.module, [], subject.time_limit):
        raise Violation(
            f"importing {subject.module} loads {' and '.join(heavy)}; import it inside build"
        )
