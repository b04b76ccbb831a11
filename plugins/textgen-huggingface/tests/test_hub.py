"""Models by their names on the Hub: of a server on this machine that imitates its few addresses."""

import functools
import hashlib
import json
import os
import subprocess
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import tomli_w
from conftest import CONFIGS

import textgen

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "somebody/small-model"


class Hub(ThreadingHTTPServer):
    """Serves the files of a folder as those of one model, and notes which were fetched, and the
    number of requests. The models of ODD are answered as no Hub does.
    """

    def __init__(self, folder):
        self.folder, self.commit = folder, COMMIT
        self.earlier = {}  # folders by commits
        self.fetched, self.requests, self.damaged = set[str](), 0, ""
        super().__init__(("127.0.0.1", 0), _Handler)

    def push(self, commit, folder):
        """Make a folder the newest commit."""
        self.earlier[self.commit] = self.folder
        self.commit, self.folder = commit, folder

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests += 1
        path = self.path.partition("?")[0]
        self.commit, folder = self.server.commit, self.server.folder
        for commit in {*path.split("/")} & self.server.earlier.keys():
            self.commit, folder = commit, self.server.earlier[commit]
        files = sorted(folder.glob("*.*"))
        first = 3 if path.startswith("/api/") else 1
        if odd := ODD.get("/".join(path.split("/")[first : first + 2])):
            odd(self)
        elif path.startswith(f"/api/models/{NAME}/tree/"):
            listed = [
                {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": "0" * 40}
                for file in files
            ]
            self._send(json.dumps(listed).encode())
        elif path.partition("/revision/")[0] == f"/api/models/{NAME}":
            listed = [{"rfilename": file.name} for file in files]
            self._send(json.dumps({"id": NAME, "sha": self.commit, "siblings": listed}).encode())
        elif (file := folder / path.split("/")[-1]) in files:
            self.server.fetched |= {file.name} if self.command == "GET" else set()
            data = file.read_bytes()
            # As the Hub does, SHA-256 for weights alone.
            digest = hashlib.sha256 if file.suffix == ".safetensors" else hashlib.sha1
            etag = digest(data).hexdigest()
            if file.name == self.server.damaged:
                data = data[:-1] + bytes([data[-1] ^ 1])
            self._send(data, ETag=f'"{etag}"')
        else:
            self._send(b"{}", 404, **{"X-Error-Code": "RepoNotFound"})

    def do_HEAD(self):
        self.do_GET()

    def _send(self, data, status=200, **headers):
        self.send_response(status)
        for name, value in {"X-Repo-Commit": self.commit, **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_):
        """Write nothing."""


def _redirect(address):
    return lambda handler: handler._send(b"", 307, Location=address or handler.path)


def _cut(handler):
    """Promise more than is sent."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.close_connection = True


def _leading_out(**headers):
    """Files whose headers are these."""

    def answer(handler):
        if not handler.path.startswith("/api/"):
            missing = "X-Error-Code" in headers
            return handler._send(b"{}", 404 if missing else 200, **headers)
        file = {"type": "file", "path": "config.json", "size": 2, "oid": "0" * 40}
        found = {"sha": COMMIT, "siblings": [{"rfilename": "config.json"}]}
        return handler._send(json.dumps([file] if "/tree/" in handler.path else found).encode())

    return answer


OUT = "../../../../outside"  # of the cache, from the folders of a model
ODD = {
    "odd/commit": lambda handler: handler._send(json.dumps({"sha": OUT, "siblings": []}).encode()),
    "odd/etag": _leading_out(ETag=f'"{OUT}"'),
    "odd/missing": _leading_out(**{"X-Error-Code": "EntryNotFound", "X-Repo-Commit": OUT}),
    "odd/other": _leading_out(**{"ETag": "a", "X-Repo-Commit": "f" * 40}),
    "odd/cut": _cut,
    "odd/circle": _redirect(""),
    "odd/file": _redirect("file:///etc/passwd"),
    "odd/list": lambda handler: handler._send(b"[1]"),
    "odd/null": lambda handler: handler._send(b'{"sha": null, "siblings": null}'),
    "odd/deep": lambda handler: handler._send(b"[" * 100_000),
    "odd/page": lambda handler: handler._send(b"<html>"),
}


@pytest.fixture
def hub(make_pipeline, tmp_path):
    """A hub with a GPT-2, and files that must not be fetched."""
    made = textgen.run(make_pipeline("gpt2"), output=tmp_path / "served").path
    for name in ("pytorch_model.bin", "modeling.py", "consolidated.safetensors"):
        (made / name).write_bytes(b"not to be read")
    (made / "README.md").write_text("---\nlicense: mit\n---\n")
    with Hub(made) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def python(hub, tmp_path):
    """Runs Python with the server as the Hub, and a cache of its own."""

    def call(*arguments, **changes):
        environment = {**os.environ, "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "hf")}
        environment |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", **changes}
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
        )

    return call


@pytest.fixture
def tables(make_pipeline):
    """A pipeline with the model of this name."""

    def make(name, **model):
        pipeline = make_pipeline(None, path=name, config=None, **model)
        pipeline["tokenizer"] = {"type": "huggingface-tokenizer", "path": name}
        pipeline["trainer"] |= {"length": "1 step"}
        return pipeline

    return make


@pytest.fixture
def run_file(python, tables, tmp_path):
    """Runs a pipeline file with the model of this name, of the server."""

    def call(name, output, *arguments, model=None, **changes):
        (tmp_path / "p.toml").write_text(tomli_w.dumps(tables(name, **(model or {}))))
        line = ("-m", "textgen", "run", "p.toml", "--output", output, *arguments)
        return python(*line, **changes)

    return call


def path_in(folder, name="pipeline.toml"):
    return tomllib.loads((folder / name).read_text(encoding="utf-8"))["model"]["path"]


def test_a_name_is_fetched_once_without_pickles_and_code_and_its_commit_is_recorded(
    hub, run_file, python, tmp_path
):
    name = f"{NAME}@old"
    online = run_file(name, "online")
    assert online.returncode == 0, online.stderr
    assert online.stderr.count(f"reading {hub.address}/{NAME}/tree/old\n") == 1
    others = {"model.safetensors", "README.md"}
    needed = {*others, "config.json", "tokenizer.json", "tokenizer_config.json"}
    assert needed <= hub.fetched
    assert all(file in others or file.endswith(".json") for file in hub.fetched)
    assert path_in(tmp_path / "online") == f"{NAME}@{COMMIT}"
    offline = functools.partial(run_file, HF_HUB_OFFLINE="1")
    assert offline(name, "offline").returncode == 0
    made = [tmp_path / output / "model.safetensors" for output in ("online", "offline")]
    assert made[0].read_bytes() == made[1].read_bytes()
    line = ("huggingface-export", "online", "exported")
    assert python("-m", "textgen", *line, HF_HUB_OFFLINE="1").returncode == 0
    card = (tmp_path / "exported" / "README.md").read_text()
    assert 'license: "mit"' in card
    assert f'base_model: "{NAME}"' in card
    missing = offline("somebody/other-model", "missing")
    assert missing.returncode == 2
    assert "somebody/other-model is neither a folder here nor" in missing.stderr


COMMANDS = """
import subprocess, sys
from textgen.__main__ import main

for line in (["doctor", "run"], ["generate", "run"], ["evaluate", "run", "p.toml"]):
    sys.argv = ["textgen", *line]
    try:
        print(main(), file=sys.stderr)
    except SystemExit as error:
        print(error.code, file=sys.stderr)
"""


def test_what_reads_a_run_fetches_nothing_and_says_what_would(hub, run_file, python, tmp_path):
    made = run_file(NAME, "run", model={"lora": {"rank": 1}})
    assert made.returncode == 0, made.stderr
    before, empty = hub.requests, {"HF_HOME": str(tmp_path / "empty")}
    done = python("-c", COMMANDS, **empty)
    assert hub.requests == before
    said = done.stdout + done.stderr
    assert said.count(f"hf download {NAME} --revision {COMMIT}") == 3
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_run_of_a_name_keeps_its_commit_until_it_is_overwritten(
    hub, run_file, make_pipeline, tmp_path
):
    assert run_file(NAME, "run").returncode == 0
    other = make_pipeline("gpt2")
    hub.push("f" * 40, textgen.run({**other, "seed": 2}, output=tmp_path / "newer").path)
    again = run_file(NAME, "run")
    assert again.returncode == 0, again.stderr
    assert path_in(tmp_path / "run") == f"{NAME}@{COMMIT}"
    assert run_file(NAME, "run", "--overwrite").returncode == 0
    assert path_in(tmp_path / "run") == f"{NAME}@{'f' * 40}"


RUNS = """
import json, sys, textgen

for number, tables in enumerate(json.load(sys.stdin)):
    try:
        textgen.run(tables, output=f"never-{number}")
        print("made")
    except textgen.TextgenError as error:
        print(type(error).__name__)
        print(error, file=sys.stderr)
"""


@pytest.mark.slow
def test_an_odd_hub_is_no_fault_of_the_plugin(hub, python, tables, tmp_path):
    hub.damaged = "model.safetensors"
    names = [*ODD, NAME, f"{NAME}@{OUT}"]
    (tmp_path / "tables.json").write_text(json.dumps([tables(name) for name in names]))
    code = f"import sys; sys.stdin = open('tables.json')\n{RUNS}"
    done = python("-c", code)
    assert done.stdout.split() == ["PipelineError"] * len(names), done.stderr
    assert done.stderr.count("is neither a folder here nor a model") == len(ODD)
    assert "model.safetensors is not the file that the Hub has" in done.stderr
    assert not [*tmp_path.glob("outside*")]


@pytest.mark.slow
def test_init_says_the_address_before_it_fetches(hub, python, make_pipeline, tmp_path, corpus):
    large = make_pipeline("gpt2", config={**CONFIGS["gpt2"], "n_positions": 256})
    hub.folder = textgen.run(large, output=tmp_path / "large").path
    line = ("-m", "textgen", "init", corpus, "--minutes", "5", "--start", NAME)
    done = python(*line, "--pipeline", "my.toml", "--documents", "none")
    assert f"reading {hub.address}/{NAME}\n" in done.stderr
    assert done.returncode == 0, done.stderr
    assert path_in(tmp_path, "my.toml") == f"{NAME}@{COMMIT}"


def test_a_folder_of_that_name_comes_first(make_pipeline, tmp_path):
    (tmp_path / NAME).mkdir(parents=True)
    pipeline = make_pipeline(None, path=NAME, config=None)
    (tmp_path / "p.toml").write_text(tomli_w.dumps(pipeline))
    with pytest.raises(textgen.PipelineError) as caught:
        textgen.run(tmp_path / "p.toml", output=tmp_path / "run")
    assert caught.value.argument == "model.path"
    assert "config.json" in str(caught.value)
