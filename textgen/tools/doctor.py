"""Checks the installation and the machine, and reports problems."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from textgen.errors import PluginWarning
from textgen.files.cache import cache_directory
from textgen.plugin import discovery
from textgen.plugin.component import OWN_DISTRIBUTION
from textgen.plugin.registry import PluginSet
from textgen.tools import machine
from textgen.tools.describe import describe_clashes
from textgen.visible import byte_count

_THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_SLOW_MILLISECONDS: Final = 300
_FOR_DEVELOPERS: Final = {"test", "docs", "dev"}  # extras
_LITTLE_DISK: Final = 200_000_000
_LITTLE_MEMORY: Final = 500_000_000


@attrs.frozen
class Problem:
    """A problem, advice, and whether work will fail because of it or only be slower."""

    what: str
    advice: str
    serious: bool


def examine(*, disable: Iterable[str] = (), import_torch: bool = False) -> dict[str, Any]:
    """The report, as JSON values; `problems` lists the problems, serious ones first.

    disable       plugins to leave out, as a PluginSet takes them
    import_torch  ask torch for devices and threads even if no GPU driver is found
    """
    driver, cache = machine.gpu_driver(), cache_directory()
    torch, torch_error = _torch() if import_torch or driver else (None, None)
    report: dict[str, Any] = {
        "versions": _versions(),
        "extras": _extras(),
        "python": sys.executable,
        "settings": {
            name: value for name, value in sorted(os.environ.items()) if name.startswith("TEXTGEN_")
        },
        "cores": machine.cores(),
        "memory": machine.memory(),
        "driver": driver,
        "torch_error": torch_error,
        "devices": [] if torch is None else machine.devices(torch),
        "threads": {
            **{name: os.environ.get(name) for name in _THREAD_VARIABLES},
            "torch": None if torch is None else torch.get_num_threads(),
        },
        "cache": {
            **machine.folder(cache),
            "size": sum(f.stat().st_size for f in cache.rglob("*") if f.is_file()),
        },
        "folder": machine.folder(Path.cwd()),
        **_plugins(frozenset(disable)),
    }
    checks = (_installation, _compute, _storage, _plugin_problems)
    problems = sorted(
        (p for check in checks for p in check(report)), key=lambda problem: not problem.serious
    )
    return {**report, "problems": [attrs.asdict(problem) for problem in problems]}


def _versions() -> dict[str, str | None]:
    """Of Python, textgen and all that it requires; None for what is not installed. Nothing is imported."""
    found: dict[str, str | None] = {
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
    }
    names = [OWN_DISTRIBUTION, *discovery.requirements(OWN_DISTRIBUTION)]
    return found | {name: discovery.version(name) for name in names}


def _extras() -> dict[str, dict[str, str | None]]:
    """Versions of what textgen can use beside what it requires, by its extras."""
    found = discovery.extras(OWN_DISTRIBUTION)
    return {
        extra: {name: discovery.version(name) for name in names}
        for extra, names in found.items()
        if extra not in _FOR_DEVELOPERS
    }


def _torch() -> tuple[Any, str | None]:
    """The module torch, or why it cannot be imported."""
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a library that it needs is not there
        return None, f"{type(error).__name__}: {error}"
    return torch, None


def _plugins(disable: frozenset[str]) -> dict[str, Any]:
    """Each plugin with its import time, its components or why it is left out; and clashes of names."""
    found = [each for each in discovery.installed() if not discovery.is_among(each.plugin, disable)]
    milliseconds = {}
    for each in found:  # one after the other, so that each pays for what it is the first to import
        begun = time.perf_counter()
        with contextlib.suppress(Exception, SystemExit):
            discovery.imported(each)
        milliseconds[each.plugin] = round(1000 * (time.perf_counter() - begun), 1)
    plugins = PluginSet.discover(disable=disable, strict=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PluginWarning)  # the report says it
        offers = plugins.offers()
    causes = {quarantined.plugin: quarantined.cause for quarantined in plugins.quarantined}
    reports = [
        {
            **attrs.asdict(each.plugin),
            "milliseconds": milliseconds[each.plugin],
            "components": [
                f"{offer.kind} {offer.name}" for offer in offers if offer.plugin == each.plugin
            ],
            "left_out": causes.get(each.plugin),
        }
        for each in found
    ]
    return {"plugins": reports, "clashes": describe_clashes(plugins)}


def _installation(report: Mapping[str, Any]) -> Iterator[Problem]:
    for name, version in report["versions"].items():
        if version is None:
            yield Problem(f"{name} is not installed", f"pip install {name}", True)
    if report["torch_error"]:
        advice = "install a build of torch for this machine: https://pytorch.org/get-started"
        yield Problem(f"torch cannot be imported: {report['torch_error']}", advice, True)
    elif report["driver"] and not report["devices"]:
        version = report["versions"]["torch"]
        what = f"there is a {report['driver']} driver, and torch {version} cannot use it: training runs on the CPU"
        advice = "install a build of torch for this driver, and see that the GPU is not hidden (CUDA_VISIBLE_DEVICES)"
        yield Problem(what, advice, False)


def _compute(report: Mapping[str, Any]) -> Iterator[Problem]:
    usable, load = report["cores"]["usable"], report["cores"]["load"]
    threads = {name: value for name, value in report["threads"].items() if value is not None}
    if (of_torch := threads.pop("torch", 0)) > usable:
        what = f"torch computes with {of_torch} threads on {usable} cores"
        yield Problem(what, f"set OMP_NUM_THREADS={usable}", False)
    for name, value in threads.items():
        if not (value.isdigit() and int(value)):
            yield Problem(
                f"{name}={value!r} is not a number of threads", f"set it to {usable}", False
            )
        elif int(value) > usable:
            what = f"{name}={value}, and this process may use {usable} cores: threads wait for each other"
            yield Problem(what, f"set {name}={usable}", False)
    if load is not None and load >= usable and report["threads"]["OMP_NUM_THREADS"] != "1":
        what = f"the cores are busy: {load:.1f} processes want to run on {usable} cores"
        yield Problem(
            what, "set OMP_NUM_THREADS=1: a small model's threads would wait for each other", False
        )
    available = report["memory"]["available"]
    if available is not None and available < _LITTLE_MEMORY:
        advice = "end other programs, or lower the trainer's batch_size and the model's size"
        yield Problem(f"only {byte_count(available)} of memory are available", advice, True)


def _storage(report: Mapping[str, Any]) -> Iterator[Problem]:
    folder, cache = report["folder"], report["cache"]
    if not folder["writable"]:
        advice = "run in another folder, or choose another with --output"
        yield Problem(f"{folder['path']} cannot be written to, and runs go there", advice, True)
    elif folder["free"] is not None and folder["free"] < _LITTLE_DISK:
        what = f"only {byte_count(folder['free'])} are free in {folder['path']}"
        yield Problem(what, "make room for checkpoints, or choose another disk with --output", True)
    if not cache["writable"]:
        what = f"the cache {cache['path']} cannot be written to: what is downloaded cannot be kept"
        yield Problem(what, "set TEXTGEN_CACHE_DIR to a folder that can", False)


def _plugin_problems(report: Mapping[str, Any]) -> Iterator[Problem]:
    names = [plugin["name"] for plugin in report["plugins"]]
    for plugin in report["plugins"]:
        who = f"plugin {plugin['name']!r} ({plugin['distribution']} {plugin['version']})"
        if plugin["left_out"]:
            folder = discovery.editable(plugin["distribution"])
            advice = (
                f"fix it in {folder}, remove it"
                if folder
                else f"upgrade or remove {plugin['distribution']}"
            )
            is_unique = names.count(plugin["name"]) == 1
            name = plugin["name"] if is_unique else f"{plugin['distribution']}:{plugin['name']}"
            advice = f"{advice}, or leave it out with --no-plugin {name}"
            yield Problem(f"{who} is left out: {plugin['left_out']}", advice, True)
        if plugin["milliseconds"] > _SLOW_MILLISECONDS:
            what = f"{who} takes {plugin['milliseconds'] / 1000:.1f} s to import, and lists of components wait for it"
            advice = (
                f"ask the authors of {plugin['distribution']} to import what is heavy inside build"
            )
            yield Problem(what, advice, False)
    for clash in report["clashes"]:
        what = (
            f"{clash['kind']} {clash['name']!r} is offered by {', '.join(clash['qualified_names'])}"
        )
        yield Problem(what, "write the one you mean with its package, as it stands here", False)
