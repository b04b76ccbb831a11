"""A process of its own for a component, where sets of str have another order and no block is for ever."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from textgen.plugin import discovery
from textgen.plugin.component import HOOKS, Component
from textgen.plugin.single_file import is_file
from textgen.plugin.tracebacks import shown_path
from textgen.testing.environment import Subject
from textgen.testing.outcomes import Check, ContractFailure, Skip, Violation
from textgen.testing.statements import statement_of
from textgen.testing.time_limit import not_ended

_TOLERANCE: Final = (
    1e-3  # processes may have different numbers of threads, and add in another order
)
_IMPORT_SECONDS: Final = 1.0
_TRIES: Final = 3  # the quickest counts: a busy machine is not the plugin's fault
_FRAME: Final = re.compile(r'File "(.+)", line (\d+) in ')
_SPARE: Final = 30.0  # seconds beyond the limits that the process has, which ends itself
_STANDARD: Final = sysconfig.get_path("stdlib")
_OWN: Final = str(Path(__file__).parents[1])


_environment: Final[dict[str, str]] = {}  # what other processes get; empty for this process's own


@attrs.frozen
class Findings:
    """What the other process has found.

    ended     that it took too long, and where it was then, as "(file:line)"; None where it ended by itself
    printed   what the import wrote to stdout
    facts     what textgen.testing.child has reported
    values    what came of the exercise, as of textgen.testing.exercises
    """

    ended: str | None
    printed: str
    facts: Mapping[str, Any]
    values: Mapping[str, Any]


@contextlib.contextmanager
def environment_of_now() -> Iterator[None]:
    """Other processes that the block starts have the environment of its beginning, whatever plugins change."""
    _environment.update(os.environ)
    try:
        yield
    finally:
        _environment.clear()


def look_at_import(module: str, time_limit: float) -> Findings:
    """Import a module in another process, once for this one."""
    return _quickest(json.dumps({"module": module, "time_limit": time_limit}), _path())


def import_failure(module: str, time_limit: float, label: str) -> ContractFailure | None:
    """What is wrong with importing a module, or None. An exception is in `facts["error"]` of what was found.

    A file may load torch: only a command that names it imports it.
    """
    found = look_at_import(module, time_limit)
    importing = f"importing {shown_path(module)}"
    if found.ended is not None:
        return ContractFailure(statement_of("component-ends"), f"{importing} {found.ended}", label)
    seen = _import_fault(found, may_be_heavy=is_file(module))
    return (
        ContractFailure(statement_of("component-import"), f"{importing} {seen}", label)
        if seen
        else None
    )


def _import_fault(found: Findings, *, may_be_heavy: bool) -> str | None:
    facts = found.facts
    if "exit" in facts:
        return f"calls sys.exit({facts['exit']}){facts['place']}"
    if "error" in facts:
        return f"failed: {facts['error']}"
    if (heavy := facts["heavy"]) and not may_be_heavy:
        line = next(filter(None, heavy.values()), "")
        return f"loads {' and '.join(heavy)}{line and f' {line}'}; import it inside build"
    if found.printed:
        return f"wrote {found.printed[:80]!r} to stdout"
    if facts["changed"]:
        return f"changed {', '.join(facts['changed'])}"
    if facts["left"]:
        return f"left {facts['left'][0]} behind"
    return (
        f"took {facts['seconds']:.1f} s"
        if facts["seconds"] > _IMPORT_SECONDS and not heavy
        else None
    )


def look_at_calls(subject: Subject, extra: Mapping[str, Any]) -> Findings | None:
    """Build and call the component in another process, once; None where its name does not lead to it there."""
    request = _request(subject, extra) if subject.module is not None else ""
    return _run(request, _path()) if request else None


def _path() -> str:
    return os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)


@functools.cache
def _quickest(request: str, path: str) -> Findings:
    found = _run(request, path)
    for _ in range(_TRIES - 1):
        if found.facts.get("seconds", 0.0) <= _IMPORT_SECONDS or found.facts["heavy"]:
            break
        again = _run.__wrapped__(request, path)
        quickest = min(found.facts["seconds"], again.facts.get("seconds", float("inf")))
        found = attrs.evolve(found, facts={**found.facts, "seconds": quickest})
    return found


def _request(subject: Subject, extra: Mapping[str, Any]) -> str:
    """What the child is told to exercise; "" where it could not find it, or be told."""
    module, distribution = _offered_by(subject, extra)
    request = {
        "module": module,
        "kind": subject.kind,
        "name": subject.component.name,
        "distribution": distribution,
        "options": dict(subject.options),
        "options_folder": str(subject.options_folder),
        "extra": dict(extra),
        "time_limit": subject.time_limit,
    }
    try:
        return json.dumps(request) if module else ""
    except TypeError:  # a date, perhaps
        return ""


def process_check(subject: Subject, *after: str, **extra: Any) -> Check:
    """The check that another process gives the same."""
    return Check(
        "component-process",
        lambda: _same_elsewhere(subject, extra),
        after=("component-build", *after),
    )


def _same_elsewhere(subject: Subject, extra: Mapping[str, Any]) -> None:
    found = look_at_calls(subject, extra)
    if found is None or not {"texts", "failed"} & set(found.facts):
        raise Skip("no hook of an importable module offers it, so no other process can get at it")
    if failed := found.facts.get("failed"):
        raise Skip(f"in another process it could not be built and called: {failed}")
    for where, names in (
        ("the current folder", "files"),
        ("the folder for temporary files", "temporary"),
    ):
        if found.facts[names]:
            raise Violation(f"it left {found.facts[names][0]} in {where}", "component-leaks")
    if changed := found.facts["calls_changed"]:
        raise Violation(f"it changed {', '.join(changed)}", "component-calls")
    from textgen.testing.exercises import exercise

    ours = exercise(subject, extra)
    name = next(
        (name for name, value in ours.items() if _differ(value, found.values.get(name))), ""
    )
    if not name:
        return
    once, again = exercise(subject, extra), exercise(subject, extra)
    if not _differ(
        once.get(name), again.get(name)
    ):  # it draws from a clock, and other checks are about that
        raise Violation(
            f"{name} differs from one process to the next, as the order of a set of str does"
        )


def _differ(one: Any, other: Any) -> bool:
    import numpy as np

    if isinstance(one, str) or isinstance(other, str) or other is None:
        return bool(one is not other and one != other)
    one, other = np.atleast_1d(one), np.atleast_1d(other)  # a file has no scalars
    if one.shape != other.shape or one.dtype.kind not in "biuf":
        return bool(one.shape != other.shape or not np.array_equal(one, other))
    finite = np.abs(other[np.isfinite(other)])
    slack = (
        _TOLERANCE * max(1.0, float(finite.max())) if finite.size and one.dtype.kind == "f" else 0.0
    )
    return not np.allclose(one, other, rtol=0, atol=slack, equal_nan=True)


def _offered_by(subject: Subject, extra: Mapping[str, Any]) -> tuple[str, str]:
    """The module whose hook offers the component, and the distribution of its entry point; "" where there is none."""
    assert subject.module is not None
    if is_file(subject.module):
        return subject.module, ""
    top = subject.module.partition(".")[0]
    installed = {
        found.entry_point.module: found.plugin.distribution for found in discovery.installed()
    }
    parts = subject.module.split(".")
    parents = [".".join(parts[: len(parts) - cut]) for cut in range(len(parts))]
    for name in [*parents, *(name for name in installed if name.partition(".")[0] == top)]:
        if _has(name, subject):
            is_bare = "unpackaged:" in json.dumps(extra, default=str)
            return name, "" if is_bare else installed.get(name, "")
    return (subject.module if subject.kind == "command" else ""), ""


def _has(name: str, subject: Subject) -> bool:
    hook = next(hook for hook, kind in HOOKS.items() if kind == subject.kind)
    offer = getattr(sys.modules.get(name), hook, None)
    if not callable(offer):
        return False
    with contextlib.suppress(Exception):
        return any(_names(each) == _names(subject.component) for each in offer())
    return False


def _names(component: Component) -> list[str]:
    """What another process knows a component by."""
    parts = (component.build, component.config)
    names = [
        f"{getattr(part, '__module__', '')}.{getattr(part, '__qualname__', '')}" for part in parts
    ]
    return [component.name, *names]


@functools.cache
def _run(request: str, path: str) -> Findings:
    with tempfile.TemporaryDirectory(prefix="textgen-testing-", ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        for each in ("cwd", "tmp"):
            (folder / each).mkdir()
        (folder / "request.json").write_text(request, encoding="utf-8")
        time_limit, before = json.loads(request)["time_limit"], os.times()
        stopped, after = _spawn(folder, path, time_limit), os.times()
        return _findings(
            folder, stopped, time_limit, sum(after[2:4]) - sum(before[2:4])
        )  # the CPU time of children


def _spawn(folder: Path, path: str, time_limit: float) -> bool:
    """Run the child; whether it had to be stopped from outside."""
    own = os.environ.get("PYTHONHASHSEED", "")
    environment = {
        **(_environment or os.environ),
        "PYTHONPATH": path,
        "PYTHONHASHSEED": str((int(own) + 1) % 1000) if own.isdecimal() else "1",
        "TMPDIR": str(folder / "tmp"),
    }
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        process = subprocess.Popen(  # noqa: S603  # this interpreter, and a program of our own
            [sys.executable, "-m", "textgen.testing.child", str(folder)],
            cwd=folder / "cwd",
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            process_group=0 if hasattr(os, "killpg") else None,
        )
        try:
            process.wait(2 * time_limit + _SPARE)
        except subprocess.TimeoutExpired:
            return True
        finally:
            with contextlib.suppress(
                OSError, AttributeError
            ):  # what the component has started may be left
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.wait()
    return False


def _findings(folder: Path, stopped: bool, time_limit: float, computed: float) -> Findings:
    facts: dict[str, Any] = {}
    with contextlib.suppress(FileNotFoundError):
        for line in (folder / "report.jsonl").read_text(encoding="utf-8").splitlines():
            facts |= json.loads(line)
    errors = (folder / "stderr").read_text(encoding="utf-8", errors="replace")
    values: dict[str, Any] = dict(facts.get("texts", {}))
    if (path := folder / "values.safetensors").exists() and "texts" in facts:
        from textgen.files.reading import load_tensors

        values |= load_tensors(path, path.read_bytes())
    is_over = stopped or "Timeout (" in errors
    if not is_over and not {"error", "exit", "seconds"} & set(facts):
        lines = errors.strip().splitlines()
        facts["error"] = lines[-1] if lines else "the process ended without a word"
    seen = not_ended(time_limit, max(0.0, computed - facts.get("computed", 0.0)))
    return Findings(
        ended=f"{seen}{_place(errors)}" if is_over else None,
        printed=(folder / "stdout").read_bytes()[: facts.get("printed")].decode("utf-8", "replace"),
        facts=facts,
        values=values,
    )


def _place(errors: str) -> str:
    """The innermost line in the traceback of a process that took too long that is neither Python's nor textgen's."""
    for path, line in _FRAME.findall(errors.rpartition("Timeout (")[2]):
        is_standard = path.startswith(_STANDARD) and "site-packages" not in path
        if Path(path).is_file() and not is_standard and not path.startswith(_OWN):
            return f" ({shown_path(path)}:{line})"
    return ""
