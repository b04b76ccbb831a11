"""Exports that are sent to the Hub: a server on this machine imitates the addresses for that."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

NAME = "somebody/my-novel"


class Hub(ThreadingHTTPServer):
    """Takes the files of one model, as the Hub does without Xet."""

    def __init__(self):
        self.files, self.blobs, self.created, self.token = {}, {}, [], "right"
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self._answer({}, 404)

    def do_POST(self):
        data = self.rfile.read(int(self.headers["Content-Length"]))
        hub, path = self.server, self.path
        if self.headers["Authorization"] != f"Bearer {hub.token}":
            self._answer({"error": "wrong token"}, 401)
        elif path == "/api/repos/create":
            hub.created.append(json.loads(data))
            self._answer({"url": f"{hub.address}/{NAME}", "name": NAME})
        elif path == "/api/validate-yaml":
            assert json.loads(data)["content"].startswith("---\n")
            self._answer({"errors": [], "warnings": []})
        elif path == f"/api/models/{NAME}/preupload/main":
            asked = json.loads(data)["files"]
            large = (".gguf", ".safetensors")
            modes = ["lfs" if file["path"].endswith(large) else "regular" for file in asked]
            made = [
                {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}
                for file, mode in zip(asked, modes, strict=True)
            ]
            self._answer({"files": made})
        elif path == f"/{NAME}.git/info/lfs/objects/batch":
            objects = [
                {**each, "actions": {"upload": {"href": f"{hub.address}/blobs/{each['oid']}"}}}
                for each in json.loads(data)["objects"]
            ]
            self._answer({"transfer": "basic", "objects": objects})
        elif path == f"/api/models/{NAME}/commit/main":
            for line in map(json.loads, data.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    hub.files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    hub.files[value["path"]] = hub.blobs[value["oid"]]
            url = f"{hub.address}/{NAME}/commit/{'0' * 40}"
            self._answer({"success": True, "commitUrl": url, "commitOid": "0" * 40})
        else:
            self._answer({"error": path}, 404)

    def do_PUT(self):
        data = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.path.endswith(hashlib.sha256(data).hexdigest())
        self.server.blobs[self.path.split("/")[-1]] = data
        self._answer({})

    def _answer(self, value, status=200):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        """Write nothing."""


@pytest.fixture
def hub():
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def push(hub, tuned, command, tmp_path, monkeypatch):
    """Exports the run to a name in the temporary folder and sends that."""
    for key, value in {
        "HF_ENDPOINT": hub.address,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(tmp_path / "hf"),
        "HF_TOKEN": "right",
    }.items():
        monkeypatch.setenv(key, value)

    def call(target, *arguments):
        return command("huggingface-export", tuned, tmp_path / target, "--push", NAME, *arguments)

    return call


@pytest.mark.slow
def test_a_folder_is_sent_to_a_private_model(hub, push, tmp_path):
    done = push("model")
    assert done.returncode == 0, done.stderr
    assert f"sending it to {hub.address}/{NAME}\n" in done.stderr
    made = hub.created[0]  # releases of the client name it differently
    assert made.get("private") is True or made["visibility"] == "private"
    folder = tmp_path / "model"
    assert hub.files == {file.name: file.read_bytes() for file in folder.iterdir()}
    assert f'from_pretrained("{NAME}")' in hub.files["README.md"].decode()


@pytest.mark.slow
def test_a_file_is_sent_with_a_card_and_an_adapter_without_paths(hub, push, tmp_path):
    done = push("model.gguf")
    assert done.returncode == 0, done.stderr
    assert {*hub.files} == {"model.gguf", "README.md"}
    assert hub.files["model.gguf"] == (tmp_path / "model.gguf").read_bytes()
    hub.files.clear()
    assert push("adapter", "--adapter").returncode == 0
    config = json.loads(hub.files["adapter_config.json"])
    assert config["base_model_name_or_path"] == "Somebody Small"
    assert not [name for name, data in hub.files.items() if str(tmp_path.parent).encode() in data]


@pytest.mark.slow
def test_what_cannot_be_sent_is_said_and_kept(hub, push, tmp_path):
    hub.token = "another"
    done = push("model.gguf")
    assert done.returncode == 2
    assert f"cannot be sent to {hub.address}/{NAME}" in done.stderr, done.stderr
    assert "hf auth login" in done.stderr
    assert (tmp_path / "model.gguf").exists()
    assert "Traceback" not in done.stderr
