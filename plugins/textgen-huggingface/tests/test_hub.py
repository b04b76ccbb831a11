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

import textgen

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "somebody/small-model"


class Hub(ThreadingHTTPServer):
    """Serves the files of a folder as those of one model, and notes which were fetched."""

    def __init__(self, folder):
        self.folder, self.fetched = folder, set[str]()
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        path, files = self.path.partition("?")[0], sorted(self.server.folder.glob("*.*"))
        if path.startswith(f"/api/models/{NAME}/tree/"):
            listed = [
                {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": COMMIT}
                for file in files
            ]
            self._send(json.dumps(listed).encode())
        elif path.partition("/revision/")[0] == f"/api/models/{NAME}":
            listed = [{"rfilename": file.name} for file in files]
            self._send(json.dumps({"id": NAME, "sha": COMMIT, "siblings": listed}).encode())
        elif (file := self.server.folder / path.split("/")[-1]) in files:
            self.server.fetched |= {file.name} if self.command == "GET" else set()
            data = file.read_bytes()
            self._send(data, ETag=f'"{hashlib.sha1(data).hexdigest()}"')
        else:
            self._send(b"{}", 404, **{"X-Error-Code": "RepoNotFound"})

    def do_HEAD(self):
        self.do_GET()

    def _send(self, data, status=200, **headers):
        self.send_response(status)
        for name, value in {"X-Repo-Commit": COMMIT, **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_):
        """Write nothing."""


@pytest.fixture
def hub(make_pipeline, tmp_path):
    """A hub with a GPT-2, and files that must not be fetched."""
    made = textgen.run(make_pipeline("gpt2"), output=tmp_path / "served").path
    for name in ("pytorch_model.bin", "modeling.py", "consolidated.safetensors"):
        (made / name).write_bytes(b"not to be read")
    with Hub(made) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def run_file(hub, tmp_path, make_pipeline):
    """Runs a pipeline file with the model of this name, of the server."""

    def call(name, output, **changes):
        pipeline = make_pipeline(None, path=name, config=None)
        pipeline["tokenizer"] = {"type": "huggingface-tokenizer", "path": name}
        pipeline["trainer"] |= {"length": "1 step"}
        (tmp_path / "p.toml").write_text(tomli_w.dumps(pipeline))
        address = f"http://127.0.0.1:{hub.server_address[1]}"
        environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hf")}
        environment |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", **changes}
        line = [sys.executable, "-m", "textgen", "run", "p.toml", "--output", output]
        return subprocess.run(
            line, cwd=tmp_path, env=environment, capture_output=True, text=True, encoding="utf-8"
        )

    return call


def test_a_name_is_fetched_once_without_pickles_and_code_and_its_commit_is_recorded(
    hub, run_file, tmp_path
):
    name = f"{NAME}@old"
    online = run_file(name, "online")
    assert online.returncode == 0, online.stderr
    weights = {"model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"}
    assert weights <= hub.fetched
    assert all(file == "model.safetensors" or file.endswith(".json") for file in hub.fetched)
    record = json.loads((tmp_path / "online" / "run.json").read_bytes())
    assert record["fingerprint"]["model"]["revision"] == COMMIT
    pipeline = tomllib.loads((tmp_path / "online" / "pipeline.toml").read_text())
    assert pipeline["model"]["path"] == name
    offline = functools.partial(run_file, HF_HUB_OFFLINE="1")
    assert offline(name, "offline").returncode == 0
    made = [tmp_path / output / "model.safetensors" for output in ("online", "offline")]
    assert made[0].read_bytes() == made[1].read_bytes()
    missing = offline("somebody/other-model", "missing")
    assert missing.returncode == 2
    assert "somebody/other-model is neither a folder here nor" in missing.stderr


def test_a_folder_of_that_name_comes_first(make_pipeline, tmp_path):
    (tmp_path / NAME).mkdir(parents=True)
    pipeline = make_pipeline(None, path=NAME, config=None)
    (tmp_path / "p.toml").write_text(tomli_w.dumps(pipeline))
    with pytest.raises(textgen.PipelineError, match=r"has no config\.json"):
        textgen.run(tmp_path / "p.toml", output=tmp_path / "run")
