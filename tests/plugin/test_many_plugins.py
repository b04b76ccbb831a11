"""Fifty installed plugins, ten of them broken: listing them names the ten."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import run_textgen

GOOD = """\
import attrs
from textgen import Component, hookimpl

@attrs.frozen
class Config:
    "A sampler that changes nothing."

@hookimpl
def textgen_samplers():
    return [Component("{name}", Config, lambda config, context: lambda logits, history: logits)]
"""
BROKEN = "raise RuntimeError('out of order')\n"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds them as pip leaves packages behind: a module and its metadata."""
    folder = tmp_path_factory.mktemp("site")
    for number in range(50):
        name = f"many-{number:02}"
        module = name.replace("-", "_")
        source = BROKEN if number < 10 else GOOD.replace("{name}", name)
        (folder / f"{module}.py").write_text(source, encoding="utf-8")
        info = folder / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8"
        )
        (info / "entry_points.txt").write_text(f"[textgen]\n{name} = {module}\n", encoding="utf-8")
    return folder


def test_all_are_listed_or_named(site: Path, tmp_path: Path) -> None:
    done = run_textgen("plugins", "--json", folder=tmp_path, site=[site])
    assert done.returncode == 0
    listed = json.loads(done.stdout)
    names = {row["name"] for row in listed["components"]}
    assert {f"many-{number}" for number in range(10, 50)} <= names
    causes = {row["distribution"]: row["cause"] for row in listed["quarantined"]}
    assert set(causes) == {f"many-0{number}" for number in range(10)}
    assert all("out of order" in cause for cause in causes.values())


def test_what_needs_none_of_them_imports_none(site: Path, tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(
        '[corpus]\ntype = "story"\n[tokenizer]\ntype = "char"\n[model]\ntype = "rnn"\n[trainer]\ntype = "sgd"\n',
        encoding="utf-8",
    )
    done = run_textgen("show", "p.toml", folder=tmp_path, site=[site])
    assert done.returncode == 0
    assert done.stderr == ""


def test_one_is_found_among_them_by_its_package(site: Path, tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(
        '[corpus]\ntype = "story"\n[tokenizer]\ntype = "char"\n[model]\ntype = "rnn"\n[trainer]\ntype = "sgd"\n'
        '[[sampler]]\ntype = "many-11:many-11"\n',
        encoding="utf-8",
    )
    done = run_textgen("show", "p.toml", folder=tmp_path, site=[site])
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
