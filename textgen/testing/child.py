"""The program of the other process: imports a plugin while it is watched, and exercises one of its components.

python -m textgen.testing.child FOLDER, where request.json is, and where report.jsonl and values.safetensors are written
"""

from __future__ import annotations

import faulthandler
import functools
import gc
import importlib
import json
import linecache
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from textgen.contracts.checks import FAILURES
from textgen.plugin.component import BuildContext, Component, Offer
from textgen.plugin.registry import PluginSet
from textgen.plugin.single_file import is_file, read_file
from textgen.plugin.tracebacks import raised_at
from textgen.testing.environment import Subject, isolated_plugins
from textgen.testing.exercises import exercise
from textgen.testing.process_state import (
    broad_filters,
    changes,
    global_state,
    held,
    left_behind,
    put_back,
)

HEAVY: Final = ("torch", "numpy")


def main() -> None:
    """Import the module of the request, and exercise its component if there is one in it."""
    folder = Path(sys.argv[1])
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    report = _Report(folder / "report.jsonl", request["time_limit"])
    source = read_file(request["module"]) if is_file(request["module"]) else None
    name = source.module if source else request["module"]
    load = source.execute if source else functools.partial(importlib.import_module, name)
    if _imported(name, load, report) and "kind" in request:
        _exercised({**request, "module": name}, folder, report)
    faulthandler.cancel_dump_traceback_later()


class _Report:
    """A file of what has been found so far; it is there, too, where the process is ended."""

    def __init__(self, path: Path, time_limit: float) -> None:
        self.path, self.time_limit = path, time_limit

    def add(self, **found: Any) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")

    def begin(self) -> None:
        """End this process, with a traceback on stderr, if what follows takes too long."""
        self.add(computed=time.process_time())
        faulthandler.dump_traceback_later(self.time_limit, exit=True)


class _HeavyImports:
    """A finder that finds nothing, and notes the line of the plugin that a heavy import came from."""

    def __init__(self, package: str) -> None:
        self.package = package
        self.lines: dict[str, str] = {}

    def find_spec(self, name: str, *_: object) -> None:
        if name in HEAVY and name not in self.lines:
            self.lines[name] = self._line()

    def _line(self) -> str:
        for frame, line in traceback.walk_stack(sys._getframe()):
            if str(frame.f_globals.get("__name__", "")).partition(".")[0] == self.package:
                path = frame.f_code.co_filename
                return f"by `{linecache.getline(path, line).strip()}` ({path}:{line})"
        return ""


def _imported(name: str, load: Callable[[], object], report: _Report) -> bool:
    """Import the module and report what that did; whether there is anything to go on with."""
    finder = _HeavyImports(name.partition(".")[0])
    before, held_before = global_state(), held()
    sys.meta_path.insert(0, finder)
    report.begin()
    begun = time.perf_counter()
    try:
        load()
    except SystemExit as error:
        report.add(
            exit=f"{'' if error.code is None else repr(error.code)}", place=raised_at(error, name)
        )
        return False
    except Exception as error:
        report.add(error=f"{type(error).__name__}: {error}{raised_at(error, name)}")
        return False
    seconds = time.perf_counter() - begun
    sys.meta_path.remove(finder)
    sys.stdout.flush()
    after = global_state()
    if not broad_filters(before["the warning filters"], after["the warning filters"]):
        del before["the warning filters"]  # a library may have its own about its own
    report.add(
        seconds=seconds,
        printed=os.fstat(1).st_size,
        heavy={module: finder.lines.get(module, "") for module in HEAVY if module in sys.modules},
        changed=changes(before, after),
        left=left_behind(held_before),
    )
    return True


def _exercised(request: Mapping[str, Any], folder: Path, report: _Report) -> None:
    report.begin()
    here, before, state = os.getcwd(), set(os.listdir()), global_state()
    try:
        subject = _subject(request, folder)
        if subject is None:
            return
        values = exercise(subject, request["extra"])
        built = [module for module in HEAVY if module in sys.modules]
        gc.collect()
        temporary = set(
            os.listdir(state["the environment"]["TMPDIR"])
        )  # what libraries put there once for all
        state = put_back(state)  # what it imports may do as it likes, and has done so by now
        subject.changed.clear()
        exercise(subject, request["extra"])
        changed = changes(state, global_state())
    except FAILURES as error:
        report.add(failed=f"{type(error).__name__}: {error}")
        return
    gc.collect()
    texts = {name: value for name, value in values.items() if isinstance(value, str)}
    if arrays := {
        name: value.copy(order="C") for name, value in values.items() if name not in texts
    }:
        from textgen.files.reading import dump_tensors

        (folder / "values.safetensors").write_bytes(dump_tensors(arrays))
    report.add(
        built=built,
        texts=texts,
        files=sorted(set(os.listdir(here)) - before),
        temporary=sorted(set(os.listdir(state["the environment"]["TMPDIR"])) - temporary),
        build_changed=sorted(set(subject.changed)),
        calls_changed=[each for each in changed if each not in subject.changed],
    )


@attrs.frozen(kw_only=True)
class _Watched(Subject):
    """A component under test that notes which states of the process building it changes."""

    changed: list[str] = attrs.field(factory=list)

    def build(self, context: BuildContext | None = None) -> Any:
        before = global_state()
        made = super().build(context)
        self.changed.extend(changes(before, global_state()))
        return made


def _subject(request: Mapping[str, Any], folder: Path) -> _Watched | None:
    """The component by its name, as the plugin offers it."""
    module, kind, name = sys.modules[request["module"]], request["kind"], request["name"]
    if kind == "command":  # which need no others
        plugins = PluginSet()
        offered: list[Component] = getattr(module, "textgen_commands", list)()
        component = next((each for each in offered if each.name == name), None)
    else:
        plugins = PluginSet.discover() if request["distribution"] else isolated_plugins(module)
        offer = plugins.find(kind, f"{request['distribution'] or 'unpackaged'}:{name}")
        component = offer.component if isinstance(offer, Offer) else None
    if component is None:
        return None
    return _Watched(
        kind=kind,
        component=component,
        options=request["options"],
        module=request["module"],
        label=name,
        plugins=plugins,
        folder=folder,
        options_folder=Path(request["options_folder"]),
    )


if __name__ == "__main__":
    main()
