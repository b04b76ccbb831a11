"""`textgen doctor`: what it says of an installation, and of one where something is wrong."""

import json
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from commands import run_textgen
from installing import write_package

from textgen.plugin import requirements, version

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
FOR_WORK_ON_IT = {"dev", "docs", "test"}


def examined(folder, *arguments, code=0, **options):
    """What `textgen doctor --json` says; it must exit with `code`."""
    extra = {"TEXTGEN_CACHE_DIR": str(folder / "cache")}
    done = run_textgen(*arguments, "doctor", "--json", folder=folder, extra=extra, **options)
    assert done.returncode == code
    assert all("left out: plugin 'broken'" in line for line in done.stderr.splitlines())
    return json.loads(done.stdout)


def test_it_says_what_is_there(tmp_path):
    report = examined(tmp_path)
    for name in ("textgen-engine", "torch"):
        assert report["versions"][name] == metadata.version(name)
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    for extra in project["optional-dependencies"].keys() - FOR_WORK_ON_IT:
        for name in requirements("textgen-engine", extra):
            assert report["versions"].get(name) == version(name)
    assert report["python"] == ".".join(map(str, sys.version_info[:3]))
    assert report["devices"][0] == "cpu"
    assert report["cache"] == str(tmp_path / "cache")
    assert report["faults"] == []
    assert list(tmp_path.iterdir()) == []
    lines = run_textgen("doctor", folder=tmp_path).stdout.splitlines()
    assert f"textgen-engine {metadata.version('textgen-engine')}" in lines
    assert any(line.startswith("devices: cpu") for line in lines)


@pytest.mark.gpu
def test_a_gpu_is_named(tmp_path):
    assert examined(tmp_path)["devices"][1].startswith("cuda:0 (")


def test_a_plugin_that_is_left_out_is_named_with_its_cause(tmp_path):
    site = tmp_path / "site"
    write_package(site, "broken", "raise RuntimeError('not charged')", version="0.3")
    (broken,) = examined(tmp_path, code=1, site=[site])["faults"]
    assert "textgen-broken 0.3" in broken
    done = run_textgen("doctor", folder=tmp_path, site=[site])
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"{broken}\n" in done.stdout
    assert "RuntimeError: not charged" in broken
    assert not examined(tmp_path, "--no-plugin", "broken", site=[site])["faults"]


def test_what_textgen_needs_and_lacks_is_said(tmp_path):
    """A copy of the metadata that asks for one package more, found before the installed one."""
    own = metadata.distribution("textgen-engine")
    folder = tmp_path / "site/textgen_engine-0.1.0.dist-info"
    folder.mkdir(parents=True)
    needs = "Requires-Dist: nobody-has-this\nRequires-Dist: attrs"
    text = own.read_text("METADATA").replace("Requires-Dist: attrs", needs, 1)
    (folder / "METADATA").write_text(text)
    (folder / "entry_points.txt").write_text(own.read_text("entry_points.txt"))
    report = examined(tmp_path, code=1, site=[tmp_path / "site"])
    assert report["faults"] == ["nobody-has-this is not installed"]
