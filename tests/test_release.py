"""What is checked before a release."""

import os
import subprocess
from pathlib import Path

import pytest

CHANGED = Path(__file__).parents[1] / ".ci/changed"


@pytest.mark.unix
def test_a_package_that_has_changed_needs_a_new_version(tmp_path, monkeypatch):
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)
    for name in ("GIT_AUTHOR", "GIT_COMMITTER"):
        monkeypatch.setenv(f"{name}_NAME", "a")
        monkeypatch.setenv(f"{name}_EMAIL", "a@example.org")

    def git(*arguments):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True, capture_output=True)

    def commit(*, tag):
        git("add", ".")
        git("commit", "-m", "a change")
        git("tag", "--force", tag)

    def found():
        done = subprocess.run([CHANGED], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.returncode == 0) == (done.stderr == "")
        return done.stderr.rpartition(": ")[2].split()

    project = 'version = "0.1"\n'
    git("init")
    for name in ("a", "b"):
        (tmp_path / f"plugins/textgen-{name}").mkdir(parents=True)
        (tmp_path / f"plugins/textgen-{name}/pyproject.toml").write_text(project)
    commit(tag="v0.1")
    assert found() == []
    code, tests = tmp_path / "plugins/textgen-a/code.py", tmp_path / "plugins/textgen-b/tests/a.py"
    tests.parent.mkdir()
    code.write_text("1\n")
    tests.write_text("1\n")
    commit(tag="v0.2")
    assert found() == ["plugins/textgen-a"]
    (tmp_path / "plugins/textgen-a/pyproject.toml").write_text('version = "0.1.1"\n')
    commit(tag="v0.2")
    assert found() == []
