"""The checks of every component, and how the checks of all kinds are made."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import attrs

from textgen.contracts.checks import FAILURES, misdeclared, unfit
from textgen.errors import BrokenContract, ContractError, PipelineError, PluginError, UsageError
from textgen.plugin.component import HOOKS, KINDS_HOOK
from textgen.plugin.hookspecs import hookimpl
from textgen.plugin.registry import PluginSet
from textgen.plugin.single_file import is_file
from textgen.plugin.tracebacks import packages_of, shown_line
from textgen.testing.environment import Subject, close, required_options
from textgen.testing.outcomes import ContractFailure, Outcome, Skip, Violation
from textgen.testing.process import TimeUpError, no_thread_left, unchanged, within
from textgen.testing.statements import STATEMENTS, Statement

__tracebackhide__ = True  # pytest shows the test and the code of the component

_SHOWN_CHARACTERS: Final = 500  # characters of what was seen
_DEFAULTS: Final = ("observer", "tokenizer")  # the kinds of which one is used if none is named
_IMPORT_SCRIPT: Final = """
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
for component in getattr(module, "textgen_commands", list)():
    if component.name == sys.argv[2]:
        from pathlib import Path
        from textgen.plugin.component import BuildContext
        component.build(component.config(), BuildContext(folder=Path.cwd()))
for name, now in states():
    if "hold" in name:  # names may come
        now = {key: now.get(key) for key in before[name]}
    if now != before[name]:
        print("\\nimporting it changes", name, file=sys.stderr)
        sys.exit(1)
loaded = [name for name in ("torch", "numpy") if name in sys.modules]
print("\\nloaded:", *loaded, file=sys.stderr)
"""


@attrs.frozen(kw_only=True)
class Suite(Subject):
    """The checks of a component.

    A statement of contracts.md is checked by the method of its name: `model-rows` by `model_rows`,
    in the order of that file.
    """

    def statements(self) -> list[Statement]:
        """The statements that are checked: those of every component, and those of its kind."""
        return [
            statement
            for statement in STATEMENTS.values()
            if statement.anchor.partition("-")[0] in ("component", self.kind)
            and hasattr(type(self), statement.check)
        ]

    def outcomes(self) -> Iterator[Outcome]:
        """Make the checks one after the other, up to the first that fails.

        Any check fails where the component raises something unexpected, prints, or changes a global
        state. A component that no check of its kind could be made of has failed as a whole.
        """
        missing = [name for name in required_options(self.component) if name not in self.options]
        if missing and self.kind != "command":
            wanted = " and ".join(f"{self.component.name}.{name}" for name in missing)
            yield self._unchecked(f"it has no default for {wanted}")
            return
        reasons = []
        for statement in self.statements():
            yield (outcome := self._outcome(statement))
            if outcome.status == "failed":
                return
            if statement.anchor.startswith(self.kind):
                reasons.append(outcome.reason)
        if all(reasons) and reasons:
            yield self._unchecked(reasons[0])

    def _outcome(self, statement: Statement) -> Outcome:
        """Make one check."""
        printed = io.StringIO()
        try:
            with unchanged(), contextlib.redirect_stdout(printed):
                within(self.time_limit, getattr(self, statement.check))
            if written := printed.getvalue():
                raise Violation(f"it wrote {written[:80]!r} to stdout", "component-quiet")
        except Skip as skip:
            return Outcome(self.label, statement, "skipped", str(skip))
        except (TimeUpError, *FAILURES) as error:
            failure = self._failure(error, statement.anchor)
            return Outcome(self.label, failure.statement, "failed", failure.seen, failure)
        return Outcome(self.label, statement, "ok")

    def _failure(self, error: BaseException, check: str) -> ContractFailure:
        anchor, cause = check, error.__cause__ or error.__context__
        if isinstance(error, Violation):
            anchor, seen = error.anchor or check, str(error)
        elif isinstance(error, ContractError | BrokenContract):  # what the engine would say
            seen = getattr(error, "cause", str(error))
        elif isinstance(error, TimeUpError):
            anchor = "component-ends"
            seen = f"the check {check} had not ended after {self.time_limit:g} s"
        else:
            anchor, cause = "component-raises", error
            text = f": {error}" if str(error) else ""
            seen = f"the check {check} raised {type(error).__name__}{text}"
        packages = packages_of(self.component, self.module)
        seen = seen[:_SHOWN_CHARACTERS] + shown_line(cause or error, packages)
        failure = ContractFailure(STATEMENTS[anchor], seen, self.label)
        failure.__cause__ = cause
        return failure

    def _unchecked(self, reason: str) -> Outcome:
        error = UsageError(
            f"{self.label} was not checked: {reason}. Give it `options`, or a `pipeline` of what "
            "it needs, or leave_out=[…] with its name"
        )
        return Outcome(self.label, None, "failed", reason, error)

    def component_record(self) -> None:
        component, config = self.component, self.component.config
        if self.kind == "command" and (required := required_options(component)):
            raise Violation(f"nothing can fill in its option {required[0]}", "command-build")
        hook = next((name for name, kind in HOOKS.items() if kind == self.kind), KINDS_HOOK)

        def offer() -> Any:
            return {self.kind: [component]} if hook == KINDS_HOOK else [component]

        offer.__name__ = hook
        try:
            PluginSet().register(SimpleNamespace(**{hook: hookimpl(offer)}), "under-test")
            made = self.config()
        except PluginError as error:
            raise Violation(error.cause) from error
        except PipelineError as error:
            faults = "; ".join(map(str, error.faults))
            raise Violation(f"its defaults are refused: {faults}") from error
        used = [each.component for each in self.plugins.offers(self.kind) if each.is_built_in]
        if component.default and (self.kind not in _DEFAULTS or component not in used):
            raise Violation(
                "default=True means nothing beside the components that textgen comes with"
            )
        if not config.__doc__:
            raise Violation(f"{config.__name__} has no docstring")
        for name, field in component.options().items():
            if not field.metadata.get("help"):
                raise Violation(f"no help for {name}; declare it with textgen.option")
            with contextlib.suppress(attrs.exceptions.FrozenInstanceError):
                setattr(made, name, getattr(made, name))
                raise Violation(f"{config.__name__} can be changed; declare it with @attrs.frozen")

    def component_import(self) -> None:
        if self.module is None:
            raise Skip("the module that it comes from is not known; give it as `plugin`")
        if is_file(self.module):
            raise Skip("a file is imported only by a command that names it")
        command = self.component.name if self.kind == "command" else ""
        path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
        if fault := _fault_of_import(self.module, command, path, self.time_limit):
            building = f" and building {command!r}" if command else ""
            raise Violation(f"importing {self.module}{building} {fault}")

    def component_raises(self) -> None:
        with contextlib.suppress(Violation), unchanged(everything=True):
            close(self.new())  # what it imports may change the process
        with unchanged(everything=True), no_thread_left():
            close(self.new())

    def component_methods(self) -> None:
        made = self.new()
        parts = {"what is built": (made, self.kind)}
        if self.kind == "model" and not unfit(made, "model"):
            parts["its decoder"] = (made.decoder(1), "decoder")
        for what, (part, kind) in parts.items():
            if fault := unfit(part, kind) or misdeclared(part, kind):
                raise Violation(f"{what} {fault}")


@functools.cache
def _fault_of_import(module: str, command: str, path: str, time_limit: float) -> str:
    """The fault of an import in a fresh interpreter, and the building of a command; "" if
    nothing is.
    """
    try:
        done = subprocess.run(  # noqa: S603  # this interpreter, and a program of our own
            [sys.executable, "-Pc", _IMPORT_SCRIPT, module, command],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=time_limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"had not ended after {time_limit:g} s"
    if done.returncode:
        *_, last = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return f"failed: {last}"
    if done.stdout:
        return f"wrote {done.stdout[:80]!r} to stdout"
    loaded = done.stderr.rpartition("\nloaded:")[2].partition("\n")[0].split()
    return f"loads {' and '.join(loaded)}; import it inside build" if loaded else ""
