"""The command `desk`, and what its server has beside the API."""

import shutil
import subprocess
import sys
from types import SimpleNamespace

import httpx2
from conftest import running, serving
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route, Router

import textgen
from textgen import Component, NoOptions, hookimpl
from textgen_desk.app import create_app
from textgen_desk.desk import Desk
from textgen_serve.routes import served_runs


def test_the_page_is_there_beside_the_api_and_no_other_file(http):
    page = http.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert http.get("/main.js").status_code == 200
    for path in ("/../server.py", "/%2e%2e/server.py", "/write", "/desk/runs"):
        assert http.get(path).status_code == 404
    assert http.request("PUT", "/").status_code == 405
    assert http.get("/v1/models").json()["data"]
    assert http.post("/v1/completions", json={"prompt": "Once", "max_tokens": 1}).is_success


def test_a_desk_for_the_network_makes_a_key_and_takes_no_texts(tmp_path):
    with serving("--host", "0.0.0.0", "--folder", tmp_path / "runs") as server:
        key = server.line.partition("/#key=")[2].strip()
        port = server.url.rpartition(":")[2]
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            assert client.get("/").is_success
            for path in ("/desk/runs", "/desk/runs/a/documents"):
                assert client.get(path).status_code == 401
            for path in ("/copies", "/worn", "/words", "/docx"):
                assert client.post(path, json={}).status_code == 401
            assert client.put("/text/a.txt", content=b"a").status_code == 401
            client.headers["authorization"] = f"Bearer {key}"
            assert client.get("/desk/runs").json()["trains"] is False


def test_options_of_the_desk_are_refused_with_a_run(run):
    for option in (["--folder", "x"], ["--no-train"]):
        line = [sys.executable, "-m", "textgen", "desk", str(run), *option]
        done = subprocess.run(line, capture_output=True, text=True)
        assert (done.returncode, "without RUN" in done.stderr) == (2, True)


def test_a_folder_has_one_desk(tmp_path):
    with serving("--folder", tmp_path) as server:
        line = [sys.executable, "-m", "textgen", "desk", "--port", "0", "--folder", str(tmp_path)]
        done = subprocess.run(line, capture_output=True, text=True)
        assert (done.returncode, server.url in done.stderr) == (2, True)


def test_routes_of_plugins_get_the_runs_of_a_desk(run, tmp_path):
    async def loaded(request):
        served = await served_runs(request).find("ravens")
        return JSONResponse({"vocabulary": served.generator.tokenizer.vocab_size})

    offer = Component("loaded", NoOptions, lambda config, context: Route("/loaded", loaded))
    plugins = textgen.PluginSet.discover()
    plugins.register(SimpleNamespace(textgen_kinds=hookimpl(lambda: {"route": [offer]})), "panels")
    shutil.copytree(run, tmp_path / "ravens/run")
    desk = Desk(tmp_path.resolve(), trains=False)
    with running(create_app({}, desk=desk, plugins=plugins)) as (host, port):
        answer = httpx2.get(f"http://{host}:{port}/loaded", timeout=60)
    assert answer.json()["vocabulary"] > 10


def test_another_application_mounts_the_page(run):
    app = Router(routes=[Mount("/texts", create_app({"ravens": run}))])
    with running(app) as (host, port), httpx2.Client(base_url=f"http://{host}:{port}") as client:
        assert client.get("/texts/main.js").is_success
        assert client.get("/texts/v1/models").is_success
