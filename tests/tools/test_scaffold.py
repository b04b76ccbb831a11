"""`textgen new-plugin`: what it writes installs, passes its own tests and runs at once, for every kind."""

from __future__ import annotations

import json
import shutil
import subprocess
import tomllib
from pathlib import Path

import attrs
import pytest
from commands import run_python, run_textgen, run_with_torch
from installing import install

from textgen.plugin.component import KINDS

each_kind = pytest.mark.parametrize("kind", KINDS)


@attrs.frozen
class Written:
    """A package as new-plugin wrote it, and the folder where it is installed."""

    project: Path
    site: Path
    said: str


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Written]:
    """A package of each kind."""
    folder = tmp_path_factory.mktemp("scaffold")
    written = {}
    for kind in KINDS:
        name = f"textgen-first-{kind}"
        done = run_textgen("new-plugin", name, "--kind", kind, folder=folder)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        written[kind] = Written(folder / name, install(folder / name, folder), done.stderr)
    return written


@pytest.mark.slow
@each_kind
def test_its_own_tests_pass(packages: dict[str, Written], kind: str) -> None:
    package = packages[kind]
    done = run_with_torch(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", folder=package.project, site=[package.site]
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def changed(package: Written, folder: Path, *changes: tuple[str, str]) -> str:
    """What its contract test says of a copy whose `__init__.py` is changed."""
    project = shutil.copytree(package.project, folder / "changed")
    module = next(project.glob("*/__init__.py"))
    text = module.read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    module.write_text(text, encoding="utf-8")
    done = run_with_torch(
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        "contracts",
        folder=project,
        site=[project, package.site],
    )
    return done.stdout


@pytest.mark.slow
def test_a_second_component_is_checked_too(packages: dict[str, Written], tmp_path: Path) -> None:
    first = '[Component("first-sampler", FirstSamplerConfig, build)]'
    more = f'{first[:-1]}, Component("other", FirstSamplerConfig, build)]'
    assert "1 passed" in changed(packages["sampler"], tmp_path, (first, more))
    wrong = f'{first[:-1]}, Component("other", FirstSamplerConfig, lambda c, x: lambda logits, history: None)]'
    assert "sampler 'other' of textgen_first_sampler" in changed(
        packages["sampler"], tmp_path / "b", (first, wrong)
    )


def test_a_hook_without_its_mark_fails_the_test(
    packages: dict[str, Written], tmp_path: Path
) -> None:
    said = changed(packages["sampler"], tmp_path, ("@hookimpl\n", ""))
    assert "textgen_samplers is not marked with @textgen.hookimpl" in said


@each_kind
def test_its_pipeline_runs_and_uses_it(
    packages: dict[str, Written], kind: str, tmp_path: Path
) -> None:
    package = packages[kind]
    shutil.copy(package.project / "pipeline.toml", tmp_path)
    epochs = [] if kind == "trainer" else ["--set", "trainer.epochs=1"]
    done = run_textgen("run", "pipeline.toml", *epochs, folder=tmp_path, site=[package.site])
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert "warning" not in done.stderr
    if kind == "command":
        done = run_textgen(
            "first-command", "runs/pipeline", "--count", "3", folder=tmp_path, site=[package.site]
        )
        assert (done.returncode, len(done.stdout.splitlines())) == (0, 3), done.stderr
        source = (package.project / "textgen_first_command/command.py").read_text(encoding="utf-8")
        assert (
            "decode(np.array([token]))" in source
        )  # ids are arrays, though some tokenizers take lists
    else:
        used = json.loads((tmp_path / "runs/pipeline/run.json").read_text())["components"]
        assert (
            f"textgen-first-{kind}" in {component["distribution"] for component in used}
            or kind == "observer"
        )
    if kind == "observer":
        assert (tmp_path / "runs/pipeline/first-observer.csv").is_file()


def test_plugins_lists_them_all(packages: dict[str, Written], tmp_path: Path) -> None:
    sites = [package.site for package in packages.values()]
    done = run_textgen("plugins", "--json", folder=tmp_path, site=sites)
    described = json.loads(done.stdout)
    assert described["quarantined"] == described["clashes"] == []
    found = {
        c["kind"]: c
        for c in described["components"]
        if c["distribution"].startswith("textgen-first-")
    }
    assert set(found) == set(KINDS)
    for kind, package in packages.items():
        assert found[kind]["name"] == f"first-{kind}"
        project = tomllib.loads((package.project / "pyproject.toml").read_text())["project"]
        assert found[kind]["summary"] == project["description"]
        assert all(option["help"] for option in found[kind]["options"])


def test_what_is_written_is_clean(packages: dict[str, Written]) -> None:
    if run_python("-m", "ruff", "--version", folder=Path.cwd()).returncode:
        pytest.skip("ruff is not installed")
    folders = [package.project for package in packages.values()]
    for command in (["check"], ["format", "--check"]):
        done = run_python("-m", "ruff", *command, "--no-cache", *folders, folder=folders[0].parent)
        assert done.returncode == 0, done.stdout


def test_what_is_written_is_typed(packages: dict[str, Written]) -> None:
    pytest.importorskip("mypy")
    folder = packages["model"].project.parent
    done = run_python(
        "-m", "mypy", "--strict", *(p.project for p in packages.values()), folder=folder
    )
    assert done.returncode == 0, done.stdout


@each_kind
def test_every_file_is_filled_in(packages: dict[str, Written], kind: str) -> None:
    project = packages[kind].project
    files = {str(path.relative_to(project)) for path in project.rglob("*") if path.is_file()}
    assert {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "pipeline.toml",
        ".github/workflows/test.yml",
    } <= files
    assert {f"tests/test_first_{kind}.py", f"textgen_first_{kind}/py.typed", ".gitignore"} <= files
    for name in files - {
        name for name in files if "__pycache__" in name or name.startswith((".hypothesis", "runs"))
    }:
        text = (project / name).read_text(encoding="utf-8")
        assert ".template" not in text
        assert "$" not in text.replace("${{ matrix.python }}", "").replace("```sh\n$", ""), name


def test_the_commands_that_it_names_are_said(packages: dict[str, Written]) -> None:
    said = packages["sampler"].said
    assert said.splitlines() == [
        "wrote textgen-first-sampler; now:",
        "  cd textgen-first-sampler",
        "  pip install -e '.[test]'",
        "  pytest",
        "  textgen run pipeline.toml",
    ]
    readme = (packages["sampler"].project / "README.md").read_text(encoding="utf-8")
    for command in said.splitlines()[2:]:
        assert command.strip() in readme


def test_its_readme_says_what_a_list_of_observers_does(packages: dict[str, Written]) -> None:
    project = packages["observer"].project
    readme = (project / "README.md").read_text(encoding="utf-8")
    assert readme.splitlines()[2].startswith("An observer for textgen")
    assert (
        packages["model"]
        .project.joinpath("README.md")
        .read_text(encoding="utf-8")
        .splitlines()[2][:7]
        == "A model"
    )
    for text in (readme, (project / "pipeline.toml").read_text(encoding="utf-8")):
        assert (
            text.count("[[observer]]") == 1
        )  # one more beside the built-in ones, which need not be named


# Names.


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of an error that left nothing behind."""
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Textgen_Whisper", "write 'textgen-whisper'"),
        ("textgen-", "is not a name for a package"),
        ("textgen-2x", "begin with a letter, also after textgen-"),
        ("../textgen-x", "write 'textgen-x'"),
        ("", "is not a name for a package"),
        ("textgen-ä", "is not a name for a package"),
        ("class", "write 'textgen-class'"),
        ("numpy", "a distribution called 'numpy' is installed"),
        ("textgen", "a module called 'textgen' can be imported already"),
        ("json", "a module called 'json' can be imported already"),
        ("textgen-greedy", "a sampler called 'greedy' is in textgen-engine"),
    ],
)
def test_a_name_that_cannot_be_is_refused(tmp_path: Path, name: str, said: str) -> None:
    assert said in refused(
        run_textgen("new-plugin", "--kind", "sampler", "--", name, folder=tmp_path)
    )
    assert list(tmp_path.iterdir()) == []


def test_a_command_may_not_hide_one_of_textgens_own(tmp_path: Path) -> None:
    done = run_textgen("new-plugin", "textgen-show", "--kind", "command", folder=tmp_path)
    assert "a command called 'show' is in textgen-engine; choose another name" in refused(done)


def test_a_kind_that_there_is_not_is_refused(tmp_path: Path) -> None:
    done = run_textgen("new-plugin", "textgen-x", "--kind", "smapler", folder=tmp_path)
    assert "invalid value for '--kind': 'smapler' is not one of 'corpus', 'tokenizer', " in refused(
        done
    )
    unsaid = run_textgen("new-plugin", "textgen-x", folder=tmp_path)
    assert "missing option '--kind'. Choose from: corpus, tokenizer, model, " in refused(unsaid)


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "textgen-x"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    done = run_textgen("new-plugin", "textgen-x", "--kind", "corpus", folder=tmp_path)
    assert "textgen-x exists and is not an empty folder" in refused(done)
    assert [path.name for path in tmp_path.rglob("*")] == ["textgen-x", "notes.txt"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "textgen-x").mkdir()
    done = run_textgen("new-plugin", "textgen-x", "--kind", "corpus", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["textgen-x"]
    assert (tmp_path / "textgen-x/textgen_x/corpus.py").is_file()


def test_a_name_without_textgen_in_it_is_as_good(tmp_path: Path) -> None:
    done = run_textgen("new-plugin", "plain-top-a", "--kind", "sampler", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'type = "plain-top-a"' in (tmp_path / "plain-top-a/pipeline.toml").read_text()
    assert "class PlainTopA:" in (tmp_path / "plain-top-a/plain_top_a/sampler.py").read_text()
