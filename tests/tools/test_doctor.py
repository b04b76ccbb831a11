"""`textgen doctor`: what it says of this machine, and of one where something is wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from commands import run_python, run_textgen
from installing import install

PACKAGES = Path(__file__).parents[1] / "packages"


@pytest.fixture(scope="session")
def sites(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Packages of tests/packages, each installed in a folder of its own."""
    folder = tmp_path_factory.mktemp("doctor")
    return {
        name: install(PACKAGES / f"textgen-{name}", folder) for name in ("broken", "clash", "shout")
    }


def examined(folder: Path, *arguments: str, code: int = 0, **options: Any) -> dict[str, Any]:
    """What `textgen doctor --json` says; it must exit with `code`."""
    extra = {"TEXTGEN_CACHE_DIR": str(folder / "cache")} | options.pop("extra", {})
    done = run_textgen(*arguments, "doctor", "--json", folder=folder, extra=extra, **options)
    assert (done.returncode, done.stderr) == (code, "")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def problem(report: dict[str, Any], start: str) -> dict[str, Any]:
    """The one problem whose text begins so."""
    (found,) = [each for each in report["problems"] if each["what"].startswith(start)]
    assert found["advice"]
    return dict(found)


def test_it_says_what_is_there(tmp_path: Path) -> None:
    report = examined(tmp_path)
    assert report["versions"]["textgen-engine"] == metadata.version("textgen-engine")
    assert report["versions"]["torch"] == metadata.version("torch")
    assert report["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert None not in report["versions"].values()
    assert report["extras"]["fast"] == {"llvmlite": metadata.version("llvmlite")}
    assert not {"test", "docs", "dev"} & set(report["extras"])
    assert 1 <= report["cores"]["usable"] <= report["cores"]["present"]
    assert report["memory"]["total"] > 0
    assert report["threads"]["OMP_NUM_THREADS"] == "1"
    assert report["folder"]["path"] == str(tmp_path)
    assert report["folder"]["writable"]
    assert report["cache"]["path"] == str(tmp_path / "cache")
    assert report["cache"]["size"] == 0
    assert report["settings"] == {"TEXTGEN_CACHE_DIR": str(tmp_path / "cache")}
    plugins = {plugin["name"]: plugin for plugin in report["plugins"]}
    assert {"char", "corpora", "rnn", "samplers"} <= set(plugins)
    assert plugins["char"]["components"] == ["tokenizer char"]
    assert plugins["char"]["left_out"] is None
    assert 0 <= plugins["char"]["milliseconds"] < 5000
    assert not [each for each in report["problems"] if each["serious"]]
    assert list(tmp_path.iterdir()) == []


def test_the_plain_report_says_the_same_for_people(tmp_path: Path, sites: dict[str, Path]) -> None:
    done = run_textgen("doctor", folder=tmp_path, site=[sites["broken"], sites["shout"]])
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"textgen   {metadata.version('textgen-engine')} for Python ")
    starts = (
        "cores",
        "memory",
        "device",
        "threads",
        "cache",
        "folder",
        "plugin    char [textgen-engine ",
    )
    for start in starts:
        assert any(line.startswith(start) for line in lines), start
    assert any(
        line.startswith("plugin    shout [textgen-shout 1.2] ") and "sampler loud" in line
        for line in lines
    )
    at = lines.index(
        next(
            line
            for line in lines
            if line.startswith("SERIOUS: plugin 'broken' (textgen-broken 0.3)")
        )
    )
    assert lines[at + 1].startswith("    upgrade or remove textgen-broken")


def test_it_loads_nothing_heavy(tmp_path: Path) -> None:
    if shutil.which("nvidia-smi"):
        pytest.skip("where there is a GPU, torch is asked for it")
    done = run_python("-X", "importtime", "-m", "textgen", "doctor", folder=tmp_path)
    assert done.returncode == 0, done.stdout
    modules = {
        line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()
    }
    assert not {"torch", "numpy"} & modules


def test_torch_is_asked_when_it_should_be(tmp_path: Path) -> None:
    report = json.loads(run_textgen("doctor", "--torch", "--json", folder=tmp_path).stdout)
    assert report["threads"]["torch"] == 1
    assert report["torch_error"] is None


def test_a_driver_that_torch_cannot_use_is_a_problem(tmp_path: Path) -> None:
    """A program called nvidia-smi is how a driver shows; no GPU is visible to torch."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "nvidia-smi").write_text("#!/bin/sh\n")
    (programs / "nvidia-smi").chmod(0o755)
    extra = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "CUDA_VISIBLE_DEVICES": ""}
    report = examined(tmp_path, extra=extra)
    assert report["driver"] == "CUDA"
    found = problem(report, "there is a CUDA driver")
    assert f"torch {metadata.version('torch')} cannot use it" in found["what"]
    assert not found["serious"]


@pytest.mark.gpu
def test_a_gpu_is_named_with_its_memory(tmp_path: Path) -> None:
    (device, *_) = examined(tmp_path)["devices"]
    assert device["name"] == "cuda:0"
    assert 0 < device["free"] <= device["memory"]
    assert device["model"]


# Plugins.


def test_a_plugin_that_is_left_out_is_serious(tmp_path: Path, sites: dict[str, Path]) -> None:
    report = examined(tmp_path, code=1, site=[sites["broken"]])
    (broken,) = [plugin for plugin in report["plugins"] if plugin["name"] == "broken"]
    assert (broken["distribution"], broken["version"], broken["components"]) == (
        "textgen-broken",
        "0.3",
        [],
    )
    assert "RuntimeError: the flux capacitor is not charged" in broken["left_out"]
    found = problem(report, "plugin 'broken' (textgen-broken 0.3) is left out: ")
    assert found["serious"]
    assert report["problems"][0] == found
    assert "--no-plugin broken" in found["advice"]


def test_a_plugin_that_the_user_leaves_out_is_no_problem(
    tmp_path: Path, sites: dict[str, Path]
) -> None:
    report = examined(tmp_path, "--no-plugin", "broken", site=[sites["broken"]])
    assert "broken" not in {plugin["name"] for plugin in report["plugins"]}


def test_a_clash_is_named(tmp_path: Path, sites: dict[str, Path]) -> None:
    report = examined(tmp_path, site=[sites["shout"], sites["clash"]])
    clash = {
        "kind": "sampler",
        "name": "loud",
        "qualified_names": ["textgen-clash:loud", "textgen-shout:loud"],
    }
    assert clash in report["clashes"]
    assert not problem(
        report, "sampler 'loud' is offered by textgen-clash:loud, textgen-shout:loud"
    )["serious"]


def test_a_plugin_that_is_slow_to_import_is_named_with_its_time(tmp_path: Path) -> None:
    site = tmp_path / "site"
    (site / "textgen_slow-2.0.dist-info").mkdir(parents=True)
    (site / "textgen_slow-2.0.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: textgen-slow\nVersion: 2.0\n"
    )
    (site / "textgen_slow-2.0.dist-info/entry_points.txt").write_text(
        "[textgen]\nslow = textgen_slow\n"
    )
    (site / "textgen_slow.py").write_text("import time\nuntil = time.perf_counter() + 0.5\n")
    with (site / "textgen_slow.py").open("a") as file:
        file.write("while time.perf_counter() < until:\n    pass\n")
        file.write("import textgen\n@textgen.hookimpl\ndef textgen_samplers():\n    return []\n")
    report = examined(tmp_path, site=[site])
    (slow,) = [plugin for plugin in report["plugins"] if plugin["name"] == "slow"]
    assert slow["milliseconds"] >= 500
    found = problem(report, "plugin 'slow' (textgen-slow 2.0) takes ")
    assert "inside build" in found["advice"]


# The machine.


def test_more_threads_than_cores_are_a_problem(tmp_path: Path) -> None:
    report = examined(tmp_path, extra={"OMP_NUM_THREADS": "4096"})
    usable = report["cores"]["usable"]
    found = problem(report, "OMP_NUM_THREADS=4096")
    assert (found["advice"], found["serious"]) == (f"set OMP_NUM_THREADS={usable}", False)


def test_a_number_of_threads_that_is_none_is_a_problem(tmp_path: Path) -> None:
    assert problem(
        examined(tmp_path, extra={"OPENBLAS_NUM_THREADS": "all"}), "OPENBLAS_NUM_THREADS='all'"
    )


def test_cores_are_those_that_the_process_may_use(tmp_path: Path) -> None:
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this platform does not bind processes to cores")
    core = min(os.sched_getaffinity(0))
    code = (
        f"import os; os.sched_setaffinity(0, {{{core}}}); "
        "from textgen.tools.machine import cores; assert cores()['usable'] == 1, cores()"
    )
    done = run_python("-c", code, folder=tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_size_of_the_cache_counts_all_its_files(tmp_path: Path) -> None:
    (tmp_path / "cache/folder").mkdir(parents=True)
    (tmp_path / "cache/one.txt").write_text("12345")
    (tmp_path / "cache/folder/two.txt").write_text("678")
    assert examined(tmp_path)["cache"]["size"] == 8


def test_a_cache_that_cannot_be_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, where the folder should be")
    report = examined(tmp_path)
    assert not report["cache"]["writable"]
    assert (
        "TEXTGEN_CACHE_DIR"
        in problem(report, f"the cache {tmp_path / 'cache'} cannot be written to")["advice"]
    )


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_a_folder_that_cannot_be_written_to_is_serious(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        report = examined(tmp_path, code=1)
    finally:
        tmp_path.chmod(0o755)
    assert problem(report, f"{tmp_path} cannot be written to")["serious"]


def test_what_textgen_needs_and_lacks_is_serious(tmp_path: Path) -> None:
    """A copy of the metadata that asks for one package more, found before the installed one."""
    own = metadata.distribution("textgen-engine")
    folder = tmp_path / "site/textgen_engine-0.1.0.dist-info"
    folder.mkdir(parents=True)
    text = own.read_text("METADATA") or ""
    (folder / "METADATA").write_text(
        text.replace("Requires-Dist: attrs", "Requires-Dist: nobody-has-this\nRequires-Dist: attrs")
    )
    (folder / "entry_points.txt").write_text(own.read_text("entry_points.txt") or "")
    report = examined(tmp_path, code=1, site=[tmp_path / "site"])
    assert (
        problem(report, "nobody-has-this is not installed")["advice"]
        == "pip install nobody-has-this"
    )


def test_its_help_says_when_it_fails(tmp_path: Path) -> None:
    done: subprocess.CompletedProcess[str] = run_textgen("doctor", "--help", folder=tmp_path)
    assert done.returncode == 0
    assert "Exits with 1" in done.stdout


def test_a_broken_plugin_whose_files_are_edited_is_to_be_mended(tmp_path: Path) -> None:
    for package in ("one", "two"):
        info = tmp_path / f"site/textgen_{package}-2.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: textgen-{package}\nVersion: 2.0\n"
        )
        (info / "entry_points.txt").write_text(f"[textgen]\nsame = textgen_{package}\n")
    edited = tmp_path / "site/textgen_one-2.0.dist-info/direct_url.json"
    edited.write_text(
        json.dumps({"url": (tmp_path / "my work").as_uri(), "dir_info": {"editable": True}})
    )
    report = examined(tmp_path, site=[tmp_path / "site"], code=1)
    advice = [
        problem["advice"] for problem in report["problems"] if "is left out" in problem["what"]
    ]
    assert advice == [
        f"fix it in {tmp_path / 'my work'}, remove it, or leave it out with --no-plugin textgen-one:same",
        "upgrade or remove textgen-two, or leave it out with --no-plugin textgen-two:same",
    ]
