"""What every component is held to, whatever its kind: its record, its import, its options, its manners."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import random
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import attrs

from textgen.contracts.guards import unfit
from textgen.errors import PipelineError, PluginError
from textgen.pipeline.structure import Reader, plain
from textgen.plugin.component import HOOKS
from textgen.plugin.hookspecs import hookimpl
from textgen.plugin.registry import PluginSet
from textgen.testing import statements as st
from textgen.testing.environment import Subject
from textgen.testing.outcomes import Check, Skip
from textgen.testing.statements import Statement

HEAVY: Final = ("torch", "numpy")
_IMPORT_SECONDS: Final = 1.0
_TRIES: Final = 3  # the quickest counts: a busy machine is not the plugin's fault
_MARK: Final = "what the probe of textgen found: "
_PROBE: Final = """
import json, sys, time
import attrs, textgen

__tracebackhide__ = True  # what pytest shows is the test, and the code of the component
module, command = sys.argv[1], sys.argv[2]
begun = time.perf_counter()
imported = __import__(module, fromlist=["*"])
seconds = time.perf_counter() - begun
if command:
    from pathlib import Path
    from textgen.plugin.component import BuildContext
    for component in getattr(imported, "textgen_commands", list)():
        if component.name == command:
            component.build(component.config(), BuildContext(folder=Path.cwd()))
heavy = [name for name in ("torch", "numpy") if name in sys.modules]
sys.stdout.write(sys.argv[3] + json.dumps({"seconds": seconds, "heavy": heavy}) + "\\n")
"""


def general_checks(subject: Subject, build: Callable[[], Any]) -> list[Check]:
    """The checks of all kinds; `build` builds the component in a fitting context."""
    return [
        Check(st.COMPONENT_RECORD, lambda: _record(subject)),
        Check(st.COMPONENT_OPTIONS, lambda: _defaults(subject), trial=True),
        Check(st.COMPONENT_METHODS, lambda: check_methods(subject, build(), subject.kind), trial=True),
        Check(st.COMPONENT_IMPORT, lambda: _import(subject)),
        Check(st.COMPONENT_OPTIONS, lambda: _options(subject)),
        Check(st.COMPONENT_BUILD, lambda: _build(subject, build)),
    ]


def check_methods(subject: Subject, made: Any, kind: str) -> None:
    """Fail where what was built, or a "decoder" that it made, lacks a method."""
    if fault := unfit(made, kind):
        what = "its decoder" if kind == "decoder" else "what is built"
        subject.fail(st.COMPONENT_METHODS, f"{what} {fault}")


def _record(subject: Subject) -> None:
    component = subject.component
    hook = next(name for name, kind in HOOKS.items() if kind == subject.kind)

    def offer() -> list[Any]:
        return [component]

    offer.__name__ = hook
    try:
        PluginSet(strict=True).register(SimpleNamespace(**{hook: hookimpl(offer)}), "under-test")
    except PluginError as error:
        subject.fail(st.COMPONENT_RECORD, error.cause)
    if silent := [name for name, field in component.options().items() if not field.metadata.get("help")]:
        subject.fail(st.COMPONENT_RECORD, f"no help for {', '.join(silent)}; declare it with textgen.option")
    if untyped := [name for name, field in component.options().items() if field.type is None]:
        name = untyped[0]
        subject.fail(st.COMPONENT_RECORD, f"{name} has no type; declare it as in `{name}: int = option(…)`")
    try:
        config = subject.config()
    except PipelineError:  # component-options says so
        return
    for name in component.options():
        with contextlib.suppress(attrs.exceptions.FrozenInstanceError):
            setattr(config, name, getattr(config, name))
            seen = f"{component.config.__name__} can be changed; declare it with @attrs.frozen"
            subject.fail(st.COMPONENT_RECORD, seen)


def _defaults(subject: Subject) -> None:
    try:
        subject.config()
    except PipelineError as error:
        subject.fail(st.COMPONENT_OPTIONS, "; ".join(map(str, error.faults)))


def _import(subject: Subject) -> None:
    if subject.module is None:
        raise Skip("the module that it comes from is not known; give it as `plugin`")
    result = probe(subject.module)
    if "error" in result:
        subject.fail(st.COMPONENT_IMPORT, f"importing {subject.module} failed: {result['error']}")
    if result["heavy"]:
        loaded = " and ".join(result["heavy"])
        subject.fail(st.COMPONENT_IMPORT, f"importing {subject.module} loads {loaded}; import it inside build")
    if printed := result["printed"]:
        subject.fail(st.COMPONENT_IMPORT, f"importing {subject.module} wrote {printed[:80]!r} to stdout")
    if result["seconds"] > _IMPORT_SECONDS:
        subject.fail(st.COMPONENT_IMPORT, f"importing {subject.module} took {result['seconds']:.1f} s")


@functools.cache
def probe(module: str, command: str = "") -> dict[str, Any]:
    """Import a module in a fresh interpreter, and build the command of a name if one is given.

    Returns `seconds` that the import took at best, which `heavy` modules were loaded, and what was `printed` to stdout;
    or an `error`.
    """
    best: dict[str, Any] = {"seconds": float("inf")}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    for _ in range(_TRIES):
        done = subprocess.run(  # noqa: S603  # this interpreter, and a program of our own
            [sys.executable, "-c", _PROBE, module, command, _MARK],
            env=environment,
            capture_output=True,
            encoding="utf-8",
            timeout=120,
            check=False,
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            return {"error": lines[-1] if lines else f"exit code {done.returncode}"}
        printed, _, found = done.stdout.partition(_MARK)
        result = {**json.loads(found.splitlines()[0]), "printed": printed}
        best = min(best, result, key=lambda r: float(r["seconds"]))
        if best["heavy"] or best["seconds"] < _IMPORT_SECONDS:
            break
    return best


def _options(subject: Subject) -> None:
    config = subject.config()
    reader = Reader(Path.cwd(), subject.plugins)
    again = reader.table(subject.component.config, plain(config), "")
    if reader.faults:
        subject.fail(st.COMPONENT_OPTIONS, "; ".join(map(str, reader.faults)))
    if again != config:
        subject.fail(st.COMPONENT_OPTIONS, f"{config} came back as {again}")


def _build(subject: Subject, build: Callable[[], Any]) -> None:
    build()  # what it imports may do as it likes
    with leaves_alone(subject, st.COMPONENT_BUILD):
        build()


def calls_check(subject: Subject, call: Callable[[], Any]) -> Check:
    """The check that calls of what was built, which `call` makes, leave global states alone."""

    def run() -> None:
        call()  # what it imports may do as it likes
        with leaves_alone(subject, st.COMPONENT_CALLS, quietly=False):
            call()

    return Check(st.COMPONENT_CALLS, run)


@contextlib.contextmanager
def leaves_alone(subject: Subject, statement: Statement, *, quietly: bool = True) -> Iterator[None]:
    """Fail if the block leaves another global state behind, or, with `quietly`, prints."""
    out, err = io.StringIO(), io.StringIO()
    with _stirred(), contextlib.ExitStack() as stack:
        before = _global_state()
        if quietly:
            stack.enter_context(contextlib.redirect_stdout(out))
            stack.enter_context(contextlib.redirect_stderr(err))
        yield
        after = _global_state()
    for name, stream in (("stdout", out), ("stderr", err)):
        if written := stream.getvalue():
            subject.fail(statement, f"it wrote {written[:80]!r} to {name}")
    if changed := [name for name, value in before.items() if after[name] != value]:
        subject.fail(statement, f"it changed {', '.join(changed)}")


@contextlib.contextmanager
def _stirred() -> Iterator[None]:
    """Random states that no seeding leaves behind, put back at the end."""
    kept = random.getstate()
    random.random()  # noqa: S311  # it is only to change the state
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    numpy_kept = numpy and numpy.random.get_state()
    torch_kept = torch and torch.random.get_rng_state()
    if numpy is not None:
        numpy.random.random()
    if torch is not None:
        torch.rand(1)
    try:
        yield
    finally:
        random.setstate(kept)
        if numpy is not None:
            numpy.random.set_state(numpy_kept)
        if torch is not None:
            torch.random.set_rng_state(torch_kept)


def _global_state() -> dict[str, Any]:
    state: dict[str, Any] = {
        "the random state of `random`": hash(random.getstate()),
        "the environment": dict(os.environ),
        "the current folder": Path.cwd(),
        "the warning filters": list(warnings.filters),
    }
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy is not None:
        kind, keys, *rest = numpy.random.get_state()
        state["the random state of NumPy"] = (kind, keys.tobytes(), rest)
    if torch is not None:
        state["the random state of torch"] = torch.random.get_rng_state().numpy().tobytes()
        state["the number of torch's threads"] = torch.get_num_threads()
        state["torch's default dtype"] = torch.get_default_dtype()
    # One that is not loaded before and is after cannot be compared.
    return state
