"""What every component is held to, whatever its kind: its record, its import, its options, its manners."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs

from textgen.contracts.checks import misdeclared, unfit
from textgen.errors import PipelineError, PluginError
from textgen.plugin.component import HOOKS
from textgen.plugin.hookspecs import hookimpl
from textgen.plugin.registry import PluginSet
from textgen.plugin.structure import Reader, plain
from textgen.testing.environment import Subject, close
from textgen.testing.other_process import import_failure, look_at_calls
from textgen.testing.outcomes import Check, Skip, Violation
from textgen.testing.process_state import changes, global_state, held, left_behind, stirred

__tracebackhide__ = True  # what pytest shows is the test, and the code of the component


def general_checks(subject: Subject, build: Callable[[], Any], **extra: Any) -> list[Check]:
    """The checks of all kinds; `build` builds the component in a fitting context, `extra` is that of its exercise."""
    return [
        Check("component-record", lambda: _record(subject)),
        Check("component-options", lambda: _defaults(subject), trial=True),
        Check("component-import", lambda: _import(subject), timed=False),
        # First in another process: what blocks for ever there can be ended, whatever it does.
        Check("component-ends", lambda: _ends(subject, extra), trial=True, timed=False),
        Check("component-methods", lambda: check_methods(build(), subject.kind), trial=True),
        Check("component-options", lambda: _options(subject)),
        Check("component-build", lambda: _build(subject, build, extra)),
    ]


def check_methods(made: Any, kind: str) -> None:
    """Fail where what was built, or a "decoder" that it made, lacks a method."""
    if fault := unfit(made, kind) or misdeclared(made, kind):
        what = "its decoder" if kind == "decoder" else "what is built"
        raise Violation(f"{what} {fault}")


def _record(subject: Subject) -> None:
    component = subject.component
    hook = next(name for name, kind in HOOKS.items() if kind == subject.kind)

    def offer() -> list[Any]:
        return [component]

    offer.__name__ = hook
    try:
        PluginSet(strict=True).register(SimpleNamespace(**{hook: hookimpl(offer)}), "under-test")
    except PluginError as error:
        raise Violation(error.cause) from error
    if silent := [
        name for name, field in component.options().items() if not field.metadata.get("help")
    ]:
        raise Violation(f"no help for {', '.join(silent)}; declare it with textgen.option")
    try:
        config = subject.config()
    except PipelineError:  # component-options says so
        return
    for name in component.options():
        with contextlib.suppress(attrs.exceptions.FrozenInstanceError):
            setattr(config, name, getattr(config, name))
            raise Violation(
                f"{component.config.__name__} can be changed; declare it with @attrs.frozen"
            )


def _defaults(subject: Subject) -> None:
    try:
        subject.config()
    except PipelineError as error:
        raise Violation("; ".join(map(str, error.faults))) from error


def _import(subject: Subject) -> None:
    if subject.module is None:
        raise Skip(
            "the module that it comes from is not known; a check_… function takes it as `plugin`"
        )
    if (failure := import_failure(subject.module, subject.time_limit, subject.label)) is not None:
        raise failure


def _ends(subject: Subject, extra: Mapping[str, Any]) -> None:
    found = look_at_calls(subject, extra)
    if found is not None and found.ended is not None:
        raise Violation(f"building and calling it in another process {found.ended}")


def _options(subject: Subject) -> None:
    config = subject.config()
    reader = Reader(Path.cwd(), subject.plugins)
    again = reader.table(subject.component.config, plain(config), "")
    if reader.faults:
        raise Violation("; ".join(map(str, reader.faults)))
    if again != config:
        raise Violation(f"{config} came back as {again}")


def _build(subject: Subject, build: Callable[[], Any], extra: Mapping[str, Any]) -> None:
    close(build())  # what it imports may do as it likes
    with leaves_alone():
        close(build())
    found = look_at_calls(
        subject, extra
    )  # where what is set to the same value each time is seen, too
    if found is not None and (changed := found.facts.get("build_changed")):
        raise Violation(f"it changed {', '.join(changed)}")


def calls_check(call: Callable[[], Any]) -> Check:
    """The check that calls of what was built, which `call` makes, leave global states alone."""

    def run() -> None:
        call()  # what it imports may do as it likes
        with leaves_alone(quietly=False):
            call()

    return Check("component-calls", run, after=("component-build",))


@contextlib.contextmanager
def leaves_alone(*, quietly: bool = True) -> Iterator[None]:
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
            raise Violation(f"it wrote {written[:80]!r} to {name}")
    if changed := changes(before, after):
        raise Violation(f"it changed {', '.join(changed)}")
    if left := left_behind(holding):
        raise Violation(f"it left {left[0]} behind", "component-leaks")
