"""A desk whose folder has files that somebody made who means harm."""

import shutil

import httpx2
import pytest
from conftest import TEXT, serving, until

PIPELINE = """
[corpus]
type = "file"
path = "text/ravens.txt"
[tokenizer]
type = "char"
[model]
type = "rnn"
hidden_size = 8
[trainer]
type = "adamw"
length = "2 epochs"
[data]
window_length = 16
"""
MARK = "import pathlib; pathlib.Path({!r}).write_text('code of the folder has run')"


@pytest.fixture
def folder(tmp_path):
    """The folder of a desk, with a text and a pipeline."""
    folder = tmp_path / "runs"
    (folder / "ravens/text").mkdir(parents=True)
    (folder / "ravens/text/ravens.txt").write_text(TEXT)
    (folder / "ravens/pipeline.toml").write_text(PIPELINE)
    return folder


@pytest.fixture
def desk(folder):
    with serving("--folder", folder) as server:
        yield server


def state(desk, name="ravens"):
    answer = httpx2.get(f"{desk.url}/desk/runs/{name}", timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def act(desk, action, name="ravens", **body):
    return httpx2.post(f"{desk.url}/desk/runs/{name}/{action}", json=body, timeout=60)


def settled(desk, *statuses, name="ravens"):
    """The state of a run, once its status is one of these, or a command has failed."""
    found = []

    def is_settled():
        found[:] = [state(desk, name)]
        return found[0]["status"] in statuses or found[0]["failed"]

    until(is_settled, 120)
    return found[0]


def test_no_python_file_of_the_folder_is_imported(folder, desk, run, tmp_path):
    code = MARK.format(str(tmp_path / "has-run"))
    for name in ("numpy", "textgen", "encodings"):  # runs whose names are those of modules
        shutil.copytree(run, folder / name)
        (folder / name / "__init__.py").write_text(code)
    for place in (folder, folder / "ravens", folder / "numpy"):
        for name in ("click.py", "sitecustomize.py", "usercustomize.py", "conftest.py", "json.py"):
            (place / name).write_text(code)
        (place / "code.pth").write_text(code)
    assert act(desk, "resume").status_code == 200
    found = settled(desk, "finished")
    assert not (tmp_path / "has-run").exists()
    assert (found["status"], found["failed"]) == ("finished", False), found["log"]
