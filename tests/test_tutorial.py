"""The tutorial of docs/writing-plugins.md, followed to the letter: what it scaffolds and edits passes and runs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from commands import run_python, run_textgen
from installing import install

PAGE = Path(__file__).parents[1] / "docs/writing-plugins.md"
NEW_PLUGIN = re.compile(r"^\$ textgen (new-plugin (textgen-\S+) --kind \S+)$", re.MULTILINE)
FILE = re.compile(r"^```\w+\n# file: (\S+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def chapters() -> dict[str, tuple[str, dict[str, str]]]:
    """By package: the arguments that scaffold it, and the files that the page then replaces."""
    parts = NEW_PLUGIN.split(PAGE.read_text(encoding="utf-8"))
    return {
        name: (arguments, dict(FILE.findall(text)))
        for arguments, name, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True)
    }


def follow(name: str, folder: Path) -> tuple[Path, Path]:
    """Do what the page says; return the project, and where it is installed."""
    arguments, files = chapters()[name]
    done = run_textgen(*arguments.split(), folder=folder)
    assert done.returncode == 0, done.stderr
    for path, text in files.items():
        assert (folder / name / path).is_file(), f"{path} is no file that new-plugin writes"
        (folder / name / path).write_text(text, encoding="utf-8")
    return folder / name, install(folder / name, folder)


def check(project: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Its tests pass and its pipeline runs; return the run."""
    tested = run_python("-m", "pytest", "-q", "-p", "no:cacheprovider", folder=project, site=[site])
    assert tested.returncode == 0, tested.stdout
    done = run_textgen("run", "pipeline.toml", folder=project, site=[site])
    assert done.returncode == 0, done.stderr
    return done


def test_the_page_makes_a_sampler_and_a_model() -> None:
    assert {name: sorted(files) for name, (_, files) in chapters().items()} == {
        "textgen-steady": ["textgen_steady/__init__.py", "textgen_steady/sampler.py"],
        "textgen-lookback": ["pipeline.toml", "textgen_lookback/__init__.py", "textgen_lookback/model.py"],
    }


def test_the_sampler_works(tmp_path: Path) -> None:
    """With the option that the page adds, whose two lines it gives as a fragment."""
    name = "textgen-steady"
    page = PAGE.read_text(encoding="utf-8")
    (fragment,) = re.findall(r"^```python\n( +for age, token .*?)^```", page, re.MULTILINE | re.DOTALL)
    sampler = chapters()[name][1]["textgen_steady/sampler.py"]
    first_line = fragment.splitlines(keepends=True)[0]
    start = sampler.index(first_line)
    edited = sampler[:start] + fragment + sampler[sampler.index("        return changed") :]
    project, _ = follow(name, tmp_path)
    path = project / "textgen_steady/sampler.py"
    path.write_text(edited.replace("    penalty: float\n", "    penalty: float\n    fading: float\n"), encoding="utf-8")
    site = install(project, tmp_path / "again")
    plain = check(project, site)
    harsh = run_textgen(
        "run", "pipeline.toml", "--set", 'sampler=[{type="steady", window=20, penalty=50.0, fading=0.0}]',
        folder=project, site=[site],
    )  # fmt: skip
    assert harsh.returncode == 0, harsh.stderr
    text = harsh.stdout.removesuffix("\n")
    assert text != plain.stdout
    assert all(text[i] not in text[i - 10 : i] for i in range(10, len(text)))


def test_the_sampler_works_before_the_option_is_added(tmp_path: Path) -> None:
    name = "textgen-steady"
    arguments, files = chapters()[name]
    assert run_textgen(*arguments.split(), folder=tmp_path).returncode == 0
    (tmp_path / name / "textgen_steady/sampler.py").write_text(files["textgen_steady/sampler.py"], encoding="utf-8")
    done = run_textgen("run", "pipeline.toml", folder=tmp_path / name, site=[install(tmp_path / name, tmp_path)])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["textgen-lookback"])
def test_the_model_works(tmp_path: Path, name: str) -> None:
    project, site = follow(name, tmp_path)
    done = check(project, site)
    assert done.stdout.startswith("The ")
