"""What `textgen new-plugin` writes, and the names that it refuses.

.ci/run installs a package of each kind, lints it, checks its types, runs its own tests and its
pipeline.
"""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

import attrs
import pytest
from commands import run_textgen

from textgen_builtins.commands.new_plugin import _KINDS as KINDS

each_kind = pytest.mark.parametrize("kind", KINDS)


@attrs.frozen
class Written:
    """A package as new-plugin wrote it."""

    project: Path
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
        written[kind] = Written(folder / name, done.stderr)
    return written


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
    for name in files:
        text = (project / name).read_text(encoding="utf-8")
        assert ".template" not in text
        assert "$" not in text.replace("${{ matrix.python }}", "").replace("```sh\n$", ""), name
        if name.endswith(".py"):
            compile(text, name, "exec")
    for name in ("pyproject.toml", "pipeline.toml"):
        assert tomllib.loads((project / name).read_text(encoding="utf-8"))


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


@pytest.mark.fault(25)
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Textgen_Whisper", "is not a name for a package"),
        ("textgen-", "is not a name for a package"),
        ("textgen-2x", "begin with a letter, also after textgen-"),
        ("../textgen-x", "is not a name for a package"),
        ("", "is not a name for a package"),
        ("textgen-ä", "is not a name for a package"),
        ("class", "'class' is a module or keyword of Python already"),
        ("textgen", "'textgen' is a module or keyword of Python already"),
        ("textgen-greedy", "there is a sampler called 'greedy' already"),
    ],
)
def test_a_name_that_cannot_be_is_refused(tmp_path: Path, name: str, said: str) -> None:
    assert said in refused(
        run_textgen("new-plugin", "--kind", "sampler", "--", name, folder=tmp_path)
    )
    assert list(tmp_path.iterdir()) == []


def test_a_command_may_not_hide_one_of_textgens_own(tmp_path: Path) -> None:
    done = run_textgen("new-plugin", "textgen-run", "--kind", "command", folder=tmp_path)
    assert "there is a command called 'run' already; choose another name" in refused(done)


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
    assert "textgen-x exists and is not empty" in refused(done)
    assert [path.name for path in tmp_path.rglob("*")] == ["textgen-x", "notes.txt"]


def test_a_name_without_textgen_in_it_is_as_good(tmp_path: Path) -> None:
    done = run_textgen("new-plugin", "plain-top-a", "--kind", "sampler", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'type = "plain-top-a"' in (tmp_path / "plain-top-a/pipeline.toml").read_text()
    assert "class PlainTopA:" in (tmp_path / "plain-top-a/plain_top_a/sampler.py").read_text()
