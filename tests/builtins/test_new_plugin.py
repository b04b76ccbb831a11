"""What `textgen new-plugin` writes, and the names that it refuses.

.ci/run installs a package of each kind, lints it, checks its types, runs its own tests and its
pipeline.
"""

import tomllib

import pytest
from commands import run_textgen

from textgen_builtins.commands.new_plugin import _KINDS as KINDS


@pytest.fixture(scope="session")
def packages(tmp_path_factory):
    """A package of each kind, and what new-plugin said."""
    folder = tmp_path_factory.mktemp("scaffold")
    written = {}
    for kind in KINDS:
        name = f"textgen-first-{kind}"
        done = run_textgen("new-plugin", name, "--kind", kind, folder=folder)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        written[kind] = folder / name, done.stderr
    return written


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_is_filled_in(packages, kind):
    project, _ = packages[kind]
    files = {str(path.relative_to(project)) for path in project.rglob("*") if path.is_file()}
    assert files >= {
        *("pyproject.toml", "README.md", "LICENSE", "pipeline.toml", ".gitignore"),
        *(
            ".github/workflows/test.yml",
            ".github/workflows/publish.yml",
            f"textgen_first_{kind}/py.typed",
        ),
        f"tests/test_first_{kind}.py",
    }
    for name in files:
        text = (project / name).read_text(encoding="utf-8")
        assert ".template" not in text
        for usual in ("${{ matrix.python }}", '"$(grep', "```sh\n$"):
            text = text.replace(usual, "")
        assert "$" not in text, name
        if name.endswith(".py"):
            compile(text, name, "exec")
    for name in ("pyproject.toml", "pipeline.toml"):
        assert tomllib.loads((project / name).read_text(encoding="utf-8"))
    required = tomllib.loads((project / "pyproject.toml").read_text())["project"]["dependencies"]
    assert not any(";" in each for each in required), "what textgen itself needs on some Python"


# Names.


def refused(folder, name, kind):
    """The one line of an error."""
    done = run_textgen("new-plugin", "--kind", kind, "--", name, folder=folder)
    assert (done.returncode, done.stdout) == (2, "")
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
        ("textgen-run", "there is a command called 'run' already"),
    ],
)
def test_a_name_that_cannot_be_is_refused(tmp_path, name, said):
    assert said in refused(tmp_path, name, "command" if "run" in name else "sampler")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "textgen-x").mkdir()
    (tmp_path / "textgen-x/notes.txt").write_text("mine")
    said = refused(tmp_path, "textgen-x", "corpus")
    assert "textgen-x exists and is not empty" in said
    assert [path.name for path in tmp_path.rglob("*")] == ["textgen-x", "notes.txt"]
