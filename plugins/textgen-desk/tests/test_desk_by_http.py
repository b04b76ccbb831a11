"""The desk by HTTP, without its page."""

import errno
import re
import shutil
import subprocess
import sys

import httpx2
import pytest
from conftest import TEXT, Serving, act, open_desk, serving, state, strict, until

import textgen
from textgen.files import durable

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
length = "100000 epochs"
[data]
window_length = 16
[checkpoint]
seconds = 1
"""


@pytest.fixture
def folder(tmp_path):
    """The folder of a desk, with a text and a pipeline that trains for long."""
    folder = tmp_path / "runs"
    (folder / "ravens/text").mkdir(parents=True)
    (folder / "ravens/text/ravens.txt").write_text(TEXT)
    (folder / "ravens/pipeline.toml").write_text(PIPELINE)
    return folder


@pytest.fixture
def client(folder):
    with open_desk(folder) as client:
        yield client


def client_of(server):
    return httpx2.Client(base_url=server.url, timeout=60)


def put(client, title, text, etag=None, run="ravens"):
    headers = {"If-Match": etag} if etag else {}
    path = f"/desk/runs/{run}/documents/{title}"
    return client.put(path, json={"text": text, "tree": [text]}, headers=headers)


def read(client, title, run="ravens"):
    return client.get(f"/desk/runs/{run}/documents/{title}")


@pytest.mark.parametrize("start", ["RUN", "evil/name", "/etc/passwd", "../doors", "a\0b", ""])
def test_a_training_starts_from_no_file_that_a_client_names(client, folder, run, start):
    shutil.copytree(run, folder.parent / "doors")
    given = str(run) if start == "RUN" else start
    answer = act(client, "train", minutes=0.05, start=given)
    assert answer.status_code == 400
    assert "there are none, english" in answer.text
    assert state(client)["commands"] == ""


def test_a_training_starts_from_another_run_of_the_desk(client, folder, run):
    shutil.copytree(run, folder / "doors")
    assert act(client, "train", minutes=0.05, start="doors").status_code == 200
    until(lambda: "--start doors" in state(client)["commands"])
    act(client, "stop")
    until(lambda: state(client)["status"] in ("new", "ready"))
    assert not state(client)["failed"]


@pytest.mark.parametrize("encoding", ["utf-8\0", "--json", "a b", "x" * 100, ""])
def test_what_is_no_name_of_an_encoding_is_refused(client, encoding):
    assert act(client, "look", minutes=1, encoding=encoding).status_code == 400


def test_two_clicks_on_train_on_raise_the_length_once(client, folder, run):
    shutil.copytree(run, folder / "ravens/run")
    answers = [act(client, "extend", minutes=1).status_code for _ in range(3)]
    assert answers == [200, 400, 400]
    (length,) = re.findall(
        r'length = "(\d+) epochs"', (folder / "ravens/pipeline.toml").read_text()
    )
    taken = max(textgen.summarize(run).seconds, 1)
    assert int(length) == pytest.approx(100_000 * (1 + 60 / taken), abs=2)


@pytest.mark.parametrize("kind", ["tree", "text"])
def test_a_full_disk_changes_no_document(client, folder, monkeypatch, kind):
    etag = put(client, "A", "first").json()["etag"]

    def full(file):
        if (".json." in file.name) == (kind == "tree"):
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(durable, "sync_file", full)
        refused = put(client, "A", "second", etag)
        assert refused.status_code == 507
        assert "runs: No space left" in refused.text
        found = read(client, "A")
        assert (found.status_code, found.headers["etag"]) == (200, etag)
        assert found.json() == {"tree": ["first"], "text": None}
        assert put(client, "B", "new").status_code == 507
        assert read(client, "B").status_code == 400
    assert put(client, "A", "second", etag).status_code == 200
    assert (folder / "ravens/documents/A.md").read_text() == "second"
    assert put(client, "B", "new").status_code == 200


def test_a_document_whose_writer_was_killed_is_read_on_a_full_disk(client, folder, monkeypatch):
    put(client, "A", "first")
    documents = folder / "ravens/documents"
    (documents / "A.md").rename(documents / ".A.new")
    (documents / "A.md").write_text("before")

    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("textgen_desk.documents.rename", refuse)
        patch.setattr(durable, "sync_file", refuse)
        found = read(client, "A")
        assert found.json() == {"tree": ["first"], "text": None}
    assert read(client, "A").headers["etag"] == found.headers["etag"]
    assert (documents / "A.md").read_text() == "first"
    assert put(client, "A", "second", found.headers["etag"]).status_code == 200


@pytest.mark.parametrize("letter", ["a", "é", "ह", "日", "\U00020000"])
def test_long_names_in_any_script_can_be_created_and_removed(client, letter):
    name = client.post("/desk/runs", json={"name": letter * 120}).json()["name"]
    path = f"/desk/runs/{name}"
    assert client.put(f"{path}/text/{letter * 90}.txt", content=TEXT.encode()).status_code == 200
    title = letter * (200 // len(letter.encode()))
    for wrong in (f"{title}aaaa", letter * 300):
        assert put(client, wrong, "x", run=name).status_code in (200, 400)
    title = title[:100]
    assert put(client, title, "x", run=name).status_code == 200
    assert client.post(f"{path}/documents/{title}/remove", json={}).status_code == 200
    (binned,) = strict(client.get("/desk/runs"))["removed"][name]
    assert client.post(f"/desk/bin/{binned}", json={"run": name}).status_code == 200
    assert read(client, title, name).status_code == 200
    assert act(client, "rename", name, name=title).status_code == 200
    assert act(client, "remove", title).status_code == 200
    (binned,) = strict(client.get("/desk/runs"))["removed"][""]
    assert client.post(f"/desk/bin/{binned}", json={"run": ""}).status_code == 200
    assert read(client, title, title).status_code == 200


def test_a_desk_that_does_not_train_changes_no_run(folder, run):
    shutil.copytree(run, folder / "doors")
    with open_desk(folder) as client:
        act(client, "remove", "doors")
        (binned,) = strict(client.get("/desk/runs"))["removed"][""]
    with open_desk(folder, trains=False) as client:
        for action, given in (("rename", {"name": "x"}), ("remove", {}), ("stop", {})):
            assert act(client, action, **given).status_code == 403
        assert client.post(f"/desk/bin/{binned}", json={"run": ""}).status_code == 403
        assert put(client, "A", "one").status_code == 200
        assert client.post("/desk/runs/ravens/documents/A/remove", json={}).status_code == 200


@pytest.mark.skipif(sys.platform == "win32", reason="files have no such modes")
def test_drafts_and_texts_are_for_their_owner_alone(tmp_path):
    with serving("--folder", tmp_path / "runs") as server, client_of(server) as client:
        name = client.post("/desk/runs", json={"name": "ravens"}).json()["name"]
        put(client, "A", "one", run=name)
        client.post(f"/desk/runs/{name}/documents/A/remove", json={})
        act(client, "remove", name)
    folders = [path for path in (tmp_path / "runs").rglob("*") if path.is_dir()]
    assert len(folders) == 5
    assert not any(path.stat().st_mode & 0o077 for path in [tmp_path / "runs", *folders])


@pytest.fixture
def killed(folder):
    """Starts a server, lets `act` ask it for something, waits, and kills it."""

    def start(begin, is_begun):
        line = [sys.executable, "-m", "textgen", "desk", "--port", "0", "--folder", str(folder)]
        with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as process:
            try:
                with client_of(Serving(process)) as client:
                    assert begin(client).status_code == 200
                    until(lambda: is_begun(client))
            finally:
                process.kill()

    return start


def test_the_end_of_a_server_ends_trainings_of_one_that_was_killed(killed, folder):
    killed(lambda client: act(client, "resume"), lambda client: state(client).get("step"))
    with serving("--folder", folder):
        assert textgen.summarize(folder / "ravens/run").status == "running"
    until(lambda: textgen.summarize(folder / "ravens/run").status == "unfinished")


def test_what_a_killed_server_had_begun_is_said_and_swept(killed, folder):
    (folder / "ravens/documents").mkdir()
    left = [
        folder / "ravens" / place / f".{name}.{'0' * 32}.tmp"
        for place, name in (("documents", "D.json"), ("text", "a.txt"))
    ]
    for path in left:
        path.write_text("half")
    killed(
        lambda client: act(client, "train", minutes=0.05, start="none"),
        lambda client: "textgen init" in state(client)["commands"],
    )
    with serving("--folder", folder) as server, client_of(server) as client:
        found = state(client)
    assert found["failed"]
    assert "stopped before" in found["said"]
    assert "textgen run ravens/pipeline.toml" in found["commands"]
    assert not any(path.exists() for path in left)
