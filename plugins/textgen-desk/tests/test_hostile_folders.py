"""A desk whose folder has files that somebody made who means harm."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from conftest import TEXT, act, open_desk, settled, strict

SECRET = "what nobody else should read"
CODE = "import pathlib; pathlib.Path({!r}).write_text('code of the folder has run')"
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


@pytest.fixture
def folder(tmp_path):
    """The folder of a desk, with a text and a pipeline."""
    folder = tmp_path / "runs"
    (folder / "ravens/text").mkdir(parents=True)
    (folder / "ravens/text/ravens.txt").write_text(TEXT)
    (folder / "ravens/pipeline.toml").write_text(PIPELINE)
    return folder


@pytest.fixture
def client(folder):
    with open_desk(folder) as client:
        yield client


def test_no_python_file_of_the_folder_is_imported(folder, client, run, tmp_path):
    code = CODE.format(str(tmp_path / "has-run"))
    for name in ("numpy", "textgen", "encodings"):  # runs whose names are those of modules
        shutil.copytree(run, folder / name)
        (folder / name / "__init__.py").write_text(code)
    for place in (folder, folder / "ravens", folder / "numpy"):
        for name in ("click.py", "sitecustomize.py", "usercustomize.py", "conftest.py", "json.py"):
            (place / name).write_text(code)
        (place / "code.pth").write_text(code)
    assert act(client, "resume").status_code == 200
    found = settled(client, "finished")
    assert not (tmp_path / "has-run").exists()
    assert (found["status"], found["failed"]) == ("finished", False), found["log"]


# What somebody may lay into a run of the desk. `place` is the folder of the run, `outside` one that
# is not theirs, with a text, a document and a run.


def linked(*names, to):
    """Links out of the run."""

    def make(place, outside):
        for name in names:
            path = place / name
            path.parent.mkdir(exist_ok=True)
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            path.symlink_to(outside / to)

    return make


def written(name, content):
    def make(place, outside):
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return make


def sparse(name):
    def make(place, outside):
        (place / name).parent.mkdir(exist_ok=True)
        with (place / name).open("wb") as file:
            file.truncate(20 << 30)

    return make


def pipes(*names):
    def make(place, outside):
        for name in names:
            (place / name).parent.mkdir(exist_ok=True)
            (place / name).unlink(missing_ok=True)
            os.mkfifo(place / name)

    return make


def folders(*names):
    def make(place, outside):
        for name in names:
            (place / name).unlink(missing_ok=True)
            (place / name).mkdir(parents=True)

    return make


def bytes_in_names(place, outside):
    for parent in (".", "text", "documents", "documents/.bin", "run"):
        (place / parent).mkdir(exist_ok=True)
        for name in (b"caf\xe9.txt", b"caf\xe9.md", b"caf\xe9 2026-01-01 00-00-00 1.md"):
            Path(os.fsdecode(os.fsencode(place / parent) + b"/" + name)).write_text(TEXT)


FILES = ("found.json", "log.txt", "pipeline.toml", "documents/a.md", "documents/a.json")
RUN_FILES = ("run/run.json", "run/metrics.jsonl", "run/samples.txt", "run/.lock-owner.json")
ODD = {
    "half-a-surrogate": r'{"seconds": 60, "start": "\ud800", "remarks": ["\ud800"], "starts": []}',
    "nested": '{"a":' * 970 + "1" + "}" * 970,
    "nested-deeper": "[" * 100_000,
    "nan": '{"size": 3, "seconds": NaN, "sentence_words": Infinity, "speech": 1e999}',
    "digits": '{"size": ' + "1" * 5000 + "}",
    "a-list": "[]",
    "other-types": '{"size": "x", "starts": [1, {"name": []}], "remarks": 3, "seconds": []}',
    "not-utf-8": b'{"language": "caf\xe9"}',
    "nothing": "",
}
HOSTILE = {
    "link-documents": linked("documents", to="documents"),
    "link-document": linked("documents/a.md", "documents/a.json", to="documents/note.md"),
    "link-document-bin": linked("documents/.bin", to="documents"),
    "link-text": linked("text", to="text"),
    "link-one-text": linked("text/diary.txt", to="text/diary.txt"),
    "link-files": linked("found.json", "log.txt", "pipeline.toml", to="secret"),
    "link-run": linked("run", to="run"),
    "link-run-files": linked(*RUN_FILES, to="secret"),
    "link-itself": lambda place, outside: [
        (place / name).symlink_to(name) for name in ("found.json", "log.txt", "run", "documents")
    ],
    "device": lambda place, outside: [
        (place / name).symlink_to("/dev/zero") for name in ("found.json", "log.txt")
    ],
    "pipes": pipes(*FILES, "text/a.txt"),
    "pipes-of-run": pipes(*RUN_FILES),
    "folders": folders(*FILES, "text/a.txt"),
    "huge-found": sparse("found.json"),
    "huge-log": sparse("log.txt"),
    "huge-pipeline": sparse("pipeline.toml"),
    "huge-document": sparse("documents/a.md"),
    "huge-tree": sparse("documents/a.json"),
    "long-length": written("pipeline.toml", f'[trainer]\nlength = "{"1" * 200_000} steps"\n'),
    "many-lengths": written("pipeline.toml", 'length = "1 s or ' * 50_000),
    "long-number": written("pipeline.toml", f"[trainer]\nlength = {'1' * 200_000}\n"),
    "long-key": written("pipeline.toml", "a." * 200_000 + "b = 1"),
    "pipeline-of-bytes": written("pipeline.toml", b'length = "caf\xe9"'),
    "bytes-in-names": bytes_in_names,
    **{f"found-{name}": written("found.json", content) for name, content in ODD.items()},
    **{f"tree-{name}": written("documents/a.json", content) for name, content in ODD.items()},
}


@pytest.fixture(scope="module")
def outside(tmp_path_factory, run):
    """A folder that is not the stranger's."""
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret").write_text(SECRET)
    for name in ("documents/note.md", "text/diary.txt", "run/samples.txt"):
        (outside / name).parent.mkdir()
        (outside / name).write_text(SECRET)
    shutil.copytree(run, outside / "run", dirs_exist_ok=True)
    return outside


@pytest.fixture(scope="module")
def strangers(tmp_path_factory, outside):
    """A desk with a run of each kind of harm, and a client of it."""
    folder = tmp_path_factory.mktemp("strangers") / "runs"
    for name, make in HOSTILE.items():
        (folder / name / "text").mkdir(parents=True)
        make(folder / name, outside)
    (folder / "link-whole").symlink_to(outside)
    with open_desk(folder) as client:
        client.folder = folder
        yield client


def contents(folder):
    """All that is in a folder, and when it was written."""
    return {
        path: (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("name", [*HOSTILE, "link-whole"])
def test_a_run_of_a_stranger_is_shown_and_nothing_of_it_followed(strangers, outside, name):
    before, answers = contents(outside), []
    run = f"/desk/runs/{name}"
    started = time.monotonic()
    for method, path, body in (
        ("GET", run, None),
        ("GET", f"{run}/documents", None),
        ("GET", f"{run}/documents/a", None),
        ("GET", f"{run}/documents/note", None),
        ("PUT", f"{run}/documents/a", {"text": "mine", "tree": None}),
        ("PUT", f"{run}/documents/new", {"text": "mine", "tree": None}),
        ("POST", f"{run}/documents/note/remove", {}),
        ("POST", f"{run}/documents/a/rename", {"title": "b"}),
        ("POST", f"{run}/stop", {}),
        ("POST", f"{run}/extend", {"minutes": 1}),
        ("GET", "/v1/models", None),
        ("POST", "/v1/completions", {"model": name, "prompt": "", "max_tokens": 1}),
    ):
        answers.append(strangers.request(method, path, json=body))
        strict(answers[-1])
        assert answers[-1].status_code < 500, (method, path, answers[-1].text)
    if name.startswith("link-"):
        put = strangers.put(f"{run}/text/diary.txt", content=TEXT.encode())
        assert put.status_code < 500
    if name in ("link-text", "link-one-text", "link-run", "link-whole"):
        for action, given in (
            ("resume", {}),
            ("look", {"minutes": 1, "encoding": "auto"}),
            ("train", {"minutes": 1, "start": "none"}),
        ):
            assert act(strangers, action, name, **given).status_code in (400, 409)
    assert time.monotonic() - started < 20
    assert answers[0].status_code == 200
    assert not any(SECRET in each.text or str(outside) in each.text for each in answers)
    assert contents(outside) == before


def test_all_runs_of_strangers_are_listed_together(strangers):
    found = strict(strangers.get("/desk/runs"))
    assert {each["name"] for each in found["runs"]} == {*HOSTILE, "link-whole"}
    assert SECRET not in json.dumps(found)
    assert str(strangers.folder.parent) not in json.dumps(found)


def test_what_has_the_name_of_the_log_is_not_written_to(folder, client, outside):
    (folder / "ravens/log.txt").symlink_to(outside / "secret")
    (folder / "ravens/found.json").symlink_to(outside / "secret")
    assert act(client, "train", minutes=0.05, start="none").status_code == 200
    found = settled(client, "finished")
    assert (outside / "secret").read_text() == SECRET
    assert found["failed"]
    assert "leads out of" in found["said"]
    assert str(folder) not in json.dumps(found)
