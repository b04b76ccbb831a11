"""What every component is held to, whatever its kind: its record, its import, its options, its manners."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs

from textgen.contracts.guards import unfit
from textgen.errors import PipelineError, PluginError
from textgen.pipeline.structure import Reader, plain
from textgen.plugin.component import HOOKS
from textgen.plugin.hookspecs import hookimpl
from textgen.plugin.registry import PluginSet
from textgen.testing import statements as st
from textgen.testing.environment import Subject
from textgen.testing.other_process import import_failure, look_at_calls
from textgen.testing.outcomes import Check, Skip
from textgen.testing.process_state import changes, global_state, held, left_behind, stirred
from textgen.testing.statements import Statement

__tracebackhide__ = True  # what pytest shows is the test, and the code of the component


def general_checks(subject: Subject, build: Callable[[], Any], **extra: Any) -> list[Check]:
    """The checks of all kinds; `build` builds the component in a fitting context, `extra` is that of its exercise."""
    return [
        Check(st.COMPONENT_RECORD, lambda: _record(subject)),
        Check(st.COMPONENT_OPTIONS, lambda: _defaults(subject), trial=True),
        Check(st.COMPONENT_IMPORT, lambda: _import(subject), timed=False),
        # First in another process: what blocks for ever there can be ended, whatever it does.
        Check(st.COMPONENT_ENDS, lambda: _ends(subject, extra), trial=True, timed=False),
        Check(st.COMPONENT_METHODS, lambda: check_methods(subject, build(), subject.kind), trial=True),
        Check(st.COMPONENT_OPTIONS, lambda: _options(subject)),
        Check(st.COMPONENT_BUILD, lambda: _build(subject, build, extra)),
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
        raise Skip("the module that it comes from is not known; a check_… function takes it as `plugin`")
    if (failure := import_failure(subject.module, subject.time_limit, subject.label)) is not None:
        raise failure


def _ends(subject: Subject, extra: Mapping[str, Any]) -> None:
    found = look_at_calls(subject, extra)
    if found is not None and found.ended is not None:
        what = "building and calling it in another process"
        subject.fail(st.COMPONENT_ENDS, f"{what} {found.ended}")


def _options(subject: Subject) -> None:
    config = subject.config()
    reader = Reader(Path.cwd(), subject.plugins)
    again = reader.table(subject.component.config, plain(config), "")
    if reader.faults:
        subject.fail(st.COMPONENT_OPTIONS, "; ".join(map(str, reader.faults)))
    if again != config:
        subject.fail(st.COMPONENT_OPTIONS, f"{config} came back as {again}")


def _build(subject: Subject, build: Callable[[], Any], extra: Mapping[str, Any]) -> None:
    close(build())  # what it imports may do as it likes
    with leaves_alone(subject, st.COMPONENT_BUILD):
        close(build())
    found = look_at_calls(subject, extra)  # where what is set to the same value each time is seen, too
    if found is not None and (changed := found.facts.get("build_changed")):
        subject.fail(st.COMPONENT_BUILD, f"it changed {', '.join(changed)}")


def close(made: Any) -> None:
    """Close what was built, if it can be closed."""
    if callable(ending := getattr(made, "close", None)):
        ending()


def calls_check(subject: Subject, call: Callable[[], Any]) -> Check:
    """The check that calls of what was built, which `call` makes, leave global states alone."""

    def run() -> None:
        call()  # what it imports may do as it likes
        with leaves_alone(subject, st.COMPONENT_CALLS, quietly=False):
            call()

    return Check(st.COMPONENT_CALLS, run, after=(st.COMPONENT_BUILD,))


@contextlib.contextmanager
def leaves_alone(subject: Subject, statement: Statement, *, quietly: bool = True) -> Iterator[None]:
    """Fail if the block changes a global state, leaves something running or open, or, with `quietly`, prints."""
    out, err = io.StringIO(), io.StringIO()
    with stirred(), contextlib.ExitStack() as stack:
        holding, before = held(), global_state()
        if quietly:
            stack.enter_context(contextlib.redirect_stdout(out))
            stack.enter_context(contextlib.redirect_stderr(err))
        yield
        after = global_state()
    for name, stream in (("stdout", out), ("stderr", err)):
        if written := stream.getvalue():
            subject.fail(statement, f"it wrote {written[:80]!r} to {name}")
    if changed := changes(before, after):
        subject.fail(statement, f"it changed {', '.join(changed)}")
    if left := left_behind(holding):
        subject.fail(st.COMPONENT_LEAKS, f"it left {left[0]} behind")
