"""The tutorial of docs/writing-plugins.md, followed to the letter: what it scaffolds and edits passes and runs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from commands import run_python, run_textgen, run_with_torch
from installing import install

PAGE = Path(__file__).parents[2] / "docs/writing-plugins.md"
TESTING = Path(__file__).parents[2] / "docs/testing-plugins.md"
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
    tested = run_with_torch(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", folder=project, site=[site]
    )
    assert tested.returncode == 0, tested.stdout
    done = run_textgen("run", "pipeline.toml", folder=project, site=[site])
    assert done.returncode == 0, done.stderr
    return done


def test_the_page_makes_a_sampler_and_a_model() -> None:
    assert {name: sorted(files) for name, (_, files) in chapters().items()} == {
        "textgen-steady": ["textgen_steady/__init__.py", "textgen_steady/sampler.py"],
        "textgen-lookback": [
            "pipeline.toml",
            "textgen_lookback/__init__.py",
            "textgen_lookback/model.py",
        ],
    }


def sampler_with_option() -> str:
    """sampler.py with the field and the fragment that the page gives for it."""
    page = PAGE.read_text(encoding="utf-8")
    (fragment,) = re.findall(
        r"^```python\n( +for age, token .*?)^```", page, re.MULTILINE | re.DOTALL
    )
    (field,) = re.findall(r"a field `(.+?)` comes after `penalty`", page)
    sampler = chapters()["textgen-steady"][1]["textgen_steady/sampler.py"]
    start = sampler.index(fragment.splitlines(keepends=True)[0])
    edited = sampler[:start] + fragment + sampler[sampler.index("        return changed") :]
    return edited.replace("    penalty: float\n", f"    penalty: float\n    {field}\n")


@pytest.mark.slow
def test_the_sampler_works(tmp_path: Path) -> None:
    """With the option that the page adds, and with the examples of the page on testing."""
    name = "textgen-steady"
    project, _ = follow(name, tmp_path)
    (project / "textgen_steady/sampler.py").write_text(sampler_with_option(), encoding="utf-8")
    examples = re.findall(
        r"^```python\n(.*?)^```", TESTING.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    for number, example in enumerate(examples):
        (project / f"tests/test_page_{number}.py").write_text(example, encoding="utf-8")
    assert len(examples) == 4
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


@pytest.mark.slow
def test_every_step_of_the_sampler_runs_and_is_typed(tmp_path: Path) -> None:
    arguments, files = chapters()["textgen-steady"]
    assert run_textgen(*arguments.split(), folder=tmp_path).returncode == 0
    project = tmp_path / "textgen-steady"
    steps = [
        ("textgen_steady/sampler.py", files["textgen_steady/sampler.py"]),
        ("textgen_steady/sampler.py", sampler_with_option()),
        ("textgen_steady/__init__.py", files["textgen_steady/__init__.py"]),
    ]
    for number, (path, text) in enumerate(steps):
        (project / path).write_text(text, encoding="utf-8")
        site = install(project, tmp_path / str(number))
        done = run_textgen("run", "pipeline.toml", folder=project, site=[site])
        assert done.returncode == 0, done.stderr
        checked = run_python("-m", "mypy", "--strict", "textgen_steady", "tests", folder=project)
        assert checked.returncode == 0, checked.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["textgen-lookback"])
def test_the_model_works(tmp_path: Path, name: str) -> None:
    project, site = follow(name, tmp_path)
    done = check(project, site)
    assert done.stdout.startswith("The ")
