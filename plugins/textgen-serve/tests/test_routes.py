"""Routes of plugins, and the application inside another one."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import attrs
import httpx2
import pytest
from conftest import running, train, until
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Mount, Route

import textgen
from textgen import Component, NoOptions, hookimpl
from textgen_serve.app import create_app
from textgen_serve.guard import Access
from textgen_serve.routes import Public, served_runs

PAGE = Path(__file__).parents[3] / "docs/serving.md"
KEYS = Access(keys=("secret",))
SENT = {"authorization": "Bearer secret"}


@attrs.frozen
class Greeting:
    """Greets."""

    name: str = textgen.option(help="whom")


def offering(**builds):
    """The installed plugins, and one that offers routes by name: a build, or a config and a
    build.
    """
    offers = [
        Component(name, *(build if isinstance(build, tuple) else (NoOptions, build)))
        for name, build in builds.items()
    ]
    plugins = textgen.PluginSet.discover()
    module = SimpleNamespace(textgen_kinds=hookimpl(lambda: {"route": offers}))
    plugins.register(module, "panels")
    return plugins


def plain(path, text="here", **options):
    return Route(path, lambda request: PlainTextResponse(text), **options)


def test_the_route_of_the_docs(run, generator, tmp_path):
    (text,) = re.findall(r"```python\n# file: surprise.py\n(.*?)```", PAGE.read_text("utf-8"), re.S)
    (tmp_path / "surprise.py").write_text(text)
    plugins = textgen.PluginSet.discover()
    plugins.register_file(tmp_path / "surprise.py")
    with running(create_app({"ravens": run}, plugins=plugins)) as (host, port):
        body = {"text": "Once 3 ravens flew"}
        answer = httpx2.post(f"http://{host}:{port}/surprise", json=body, timeout=60)
    assert answer.json() == {"model": "ravens", "loss": generator.score(body["text"]).loss}


def test_a_route_needs_a_key_unless_it_says_that_it_is_public(run):
    plugins = offering(
        closed=lambda config, context: plain("/closed"),
        inside=lambda config, context: Mount("/inside", routes=[plain("/page")]),
        open=lambda config, context: Public(plain("/open")),
    )
    app = create_app({"ravens": run}, plugins=plugins, access=KEYS)
    with running(app) as (host, port), httpx2.Client(base_url=f"http://{host}:{port}") as http:
        for path in ("/closed", "/inside/page"):
            refused = http.get(path)
            assert (refused.status_code, refused.json()["error"]["code"]) == (
                401,
                "invalid_api_key",
            )
            assert http.get(path, headers=SENT).text == "here"
        assert http.get("/open").text == "here"


def test_a_route_gets_the_runs_that_are_served(run, generator):
    async def first(request):
        served = await served_runs(request).find(request.query_params.get("model"))
        text = served.generator.generate(request.query_params["prompt"], max_new_tokens=5, seed=1)
        return JSONResponse({"model": served.name, "text": text.text})

    plugins = offering(first=lambda config, context: Route("/first", first))
    app = create_app({"ravens": run}, plugins=plugins)
    with running(app) as (host, port), httpx2.Client(base_url=f"http://{host}:{port}") as http:
        expected = generator.generate("Once", max_new_tokens=5, seed=1).text
        answer = http.get("/first", params={"prompt": "Once"}).json()
        assert answer == {"model": "ravens", "text": expected}
        missing = http.get("/first", params={"prompt": "Once", "model": "other"})
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")
        wrong = http.get("/first", params={"prompt": "\u00e9"})
        assert wrong.status_code == 400


def test_a_route_may_take_forms_and_replace_one_of_the_server(run):
    async def size(request):
        return PlainTextResponse(str(len(await request.body())))

    plugins = offering(
        size=lambda config, context: Route("/size", size, methods=["POST"]),
        models=lambda config, context: plain("/v1/models", "mine"),
    )
    app = create_app({"ravens": run}, plugins=plugins)
    with running(app) as (host, port), httpx2.Client(base_url=f"http://{host}:{port}") as http:
        assert http.post("/size", data={"name": "Nell"}).text == "9"
        assert http.get("/v1/models").text == "mine"
        assert http.post("/v1/completions", data={"prompt": "a"}).status_code == 415


def test_options_are_given_and_a_route_that_lacks_them_stops_nobody(run, caplog):
    def build(config, context):
        return plain("/greet", f"hello {config.name}")

    plugins = offering(greet=(Greeting, build))
    with running(create_app({"ravens": run}, plugins=plugins)) as (host, port):
        assert httpx2.get(f"http://{host}:{port}/greet").status_code == 404
    (record,) = [record for record in caplog.records if record.name == "textgen_serve"]
    assert "route 'greet'" in record.getMessage()
    assert "plugin 'panels'" in record.getMessage()
    table = {"type": "greet", "name": "Nell"}
    with running(create_app({"ravens": run}, plugins=plugins, routes=[table])) as (host, port):
        assert httpx2.get(f"http://{host}:{port}/greet").text == "hello Nell"
    for wrong in ("gret", {"type": "greet", "nam": 1}, {}):
        with pytest.raises((textgen.UsageError, textgen.PipelineError)):
            create_app({"ravens": run}, plugins=plugins, routes=[wrong])


def test_what_fails_in_a_route_is_blamed_on_its_plugin(run, caplog):
    async def fail(request):
        raise ValueError("no panel today")

    plugins = offering(fail=lambda config, context: Route("/fail", fail))
    with running(create_app({"ravens": run}, plugins=plugins)) as (host, port):
        answer = httpx2.get(f"http://{host}:{port}/fail")
    assert answer.status_code == 500
    assert "no panel today" not in answer.text
    (record,) = [record for record in caplog.records if record.name == "textgen_serve"]
    assert "plugin 'panels'" in record.getMessage()
    assert "no panel today" in record.getMessage()


def test_what_is_no_route_is_a_fault_of_its_plugin(run):
    plugins = offering(odd=lambda config, context: 3)
    with pytest.raises(textgen.ContractError) as caught:
        create_app({"ravens": run}, plugins=plugins, routes=["odd"])
    assert (caught.value.kind, caught.value.component) == ("route", "odd")


def test_a_mounted_application_loads_a_run_again_that_is_replaced(run, tmp_path):
    own = Path(shutil.copytree(run, tmp_path / "own"))
    inner = create_app({"own": own})
    with (
        running(Starlette(routes=[Mount("/texts", inner)])) as (host, port),
        httpx2.Client(base_url=f"http://{host}:{port}") as http,
    ):

        def checksum():
            return http.get("/texts/v1/models").json()["data"][0]["textgen"]["checksum"]

        before = checksum()
        train(tmp_path / "other", seed=5)
        shutil.rmtree(own)
        (tmp_path / "other").rename(own)
        until(lambda: checksum() != before)
