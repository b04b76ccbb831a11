"""The desk in Chromium: from a text to a page to write with, by a server that may be killed."""

import gzip
import json
import re
import shutil
import subprocess
import sys
import time

import httpx2
import pytest
from conftest import Serving, serving, until, wait_for_text, write

import textgen

pytestmark = pytest.mark.browser
TEXT = "\n\n".join(
    f"Once {n} ravens flew over {n * n % 7} hills, and the sea was cold. " * 6 for n in range(20)
)


@pytest.fixture
def url():
    """Each test has a desk of its own."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("desk") / "runs"


@pytest.fixture(scope="module")
def desk(runs):
    """A desk that is empty before each test, and after it."""
    with serving("--folder", runs) as started:
        yield started


def card(page, name):
    return page.locator("article", has=page.locator(".name", has_text=name))


def reaches(page, name, status, seconds=120):
    end = time.monotonic() + seconds
    while card(page, name).get_attribute("data-status") != status:
        assert time.monotonic() < end, card(page, name).inner_text()
        page.wait_for_timeout(200)


def drop(page, name="ravens.txt", text=TEXT):
    file = {"name": name, "mimeType": "text/plain", "buffer": text.encode()}
    page.set_input_files("#files", file)


def dropped(page, path):
    """Drop a file or a folder as a person does."""
    where = {"x": 300, "y": 200, "data": {"items": [], "files": [str(path)]}}
    where["data"]["dragOperationsMask"] = 1
    for kind in ("dragEnter", "dragOver", "drop"):
        event = {"type": kind, **where}
        page.context.new_cdp_session(page).send("Input.dispatchDragEvent", event)


def test_from_a_text_to_a_page(desk, visit, runs):
    page = visit(desk.url)
    assert page.is_visible("#none")
    drop(page)
    reaches(page, "ravens", "ready")
    said = card(page, "ravens").inner_text()
    assert "English" in said
    assert f"{len(TEXT):,} characters" in said
    card(page, "ravens").get_by_label("a new model").check()
    card(page, "ravens").locator(".minutes").fill("0.1")
    page.get_by_role("button", name="Train", exact=True).click()
    reaches(page, "ravens", "finished")
    commands = "textgen init ravens/text/ravens.txt .*\ntextgen run ravens/pipeline.toml "
    assert re.search(commands, card(page, "ravens").text_content())
    assert card(page, "ravens").locator("blockquote").inner_text()
    page.get_by_role("link", name="Write").click()
    page.wait_for_selector("body[data-ready] #text")
    generator = textgen.load(runs / "ravens/run")
    write(page, "the sea", max_tokens=30, seed=3)
    page.keyboard.press("Control+Enter")
    wait_for_text(page, "the sea" + generator.generate("the sea", max_new_tokens=30, seed=3).text)
    generator.close()
    page.click("#desk")
    page.wait_for_selector("article")
    page.get_by_role("button", name="Rename").click()
    page.fill("#name", "crows")
    page.keyboard.press("Enter")
    reaches(page, "crows", "finished")
    card(page, "crows").locator(".extra").fill("0.1")
    step = textgen.summarize(runs / "crows/run").step
    page.get_by_role("button", name="Train on").click()
    until(lambda: textgen.summarize(runs / "crows/run").step > step, 120)
    reaches(page, "crows", "finished")
    page.get_by_role("button", name="Remove").click()
    page.wait_for_selector("#none:visible")
    assert [each.read_text() for each in (runs / ".bin").glob("crows */text/*")] == [TEXT]
    page.get_by_text("Removed").click()
    page.get_by_role("button", name="Restore").click()
    reaches(page, "crows", "finished")
    page.wait_for_selector("#bin", state="hidden")
    assert not [*(runs / ".bin").iterdir()]


def test_texts_whose_names_are_alike_are_all_kept(desk, visit, runs):
    page = visit(desk.url)
    before = {*runs.glob("*/text/[!.]*")}
    names = ("Was ist das?.txt", "Was ist das!.txt", f"{'a' * 99} 1.txt", f"{'a' * 99} 2.txt")
    files = [{"name": n, "mimeType": "text/plain", "buffer": (TEXT + n).encode()} for n in names]
    page.set_input_files("#files", files)
    until(lambda: len({*runs.glob("*/text/[!.]*")} - before) == 4, 60)
    made = {*runs.glob("*/text/[!.]*")} - before
    assert {each.read_text() for each in made} == {TEXT + name for name in names}


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
[checkpoint]
seconds = 1
"""


@pytest.fixture
def folder(tmp_path):
    """A desk with a text and a pipeline, which trains for long."""
    place = tmp_path / "runs/ravens"
    (place / "text").mkdir(parents=True)
    (place / "text/ravens.txt").write_text(TEXT)
    (place / "pipeline.toml").write_text(PIPELINE)
    return place.parent


def state(server, name="ravens"):
    return httpx2.get(f"{server.url}/desk/runs/{name}", timeout=60).json()


def act(server, action, run="ravens", **body):
    return httpx2.post(f"{server.url}/desk/runs/{run}/{action}", json=body, timeout=60)


def is_at(server, *statuses):
    return lambda: state(server)["status"] in statuses


def test_a_training_goes_on_without_its_server_and_is_found_again(folder):
    line = [sys.executable, "-m", "textgen", "desk", "--port", "0", "--folder", str(folder)]
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
    try:
        first = Serving(process)
        assert act(first, "resume").status_code == 200
        until(is_at(first, "running"))
        until(lambda: (state(first)["step"] or 0) > 0)
    finally:
        process.kill()
        process.communicate()
    with serving("--folder", folder) as second:
        third = subprocess.run(line, capture_output=True, text=True, timeout=60)
        assert third.returncode == 2
        assert second.url in third.stderr
        assert state(second)["status"] == "running"
        assert act(second, "remove").status_code == 400
        assert act(second, "stop").status_code == 200
        until(is_at(second, "unfinished"))
        step = state(second)["step"]
        assert step > 0
        act(second, "resume")
        until(lambda: (state(second)["step"] or 0) > step)
    # An orderly end of the server ends the training, with a checkpoint
    until(lambda: textgen.summarize(folder / "ravens/run").status == "unfinished")


HOSTILE = {
    "book.pdf": (b"%PDF-1.7" + b"x" * 9000, "it is a PDF"),
    "zip.epub": (b"PK\3\4" + b"x" * 9000, "a ZIP archive"),
    "bytes.txt": (b"\0" * 9000, "binary data"),
    "-short.txt": (b"short", "too little"),
    "deep.jsonl": (b"[" * 100_000, "not JSON"),
    "bomb.gz": (gzip.compress(b"tea " * 17_000_000), "more than 100 times"),
    "quote'\"$(h).txt": (b"the caf\xe9 and tea " * 900, "cp1252"),
}


def test_hostile_files_at_the_drop_zone_are_errors_on_the_page(folder, visit, tmp_path):
    with serving("--folder", folder) as server:
        page = visit(server.url)
        for count, (name, (content, _)) in enumerate(HOSTILE.items(), 1):
            (tmp_path / name).write_bytes(content)
            dropped(page, tmp_path / name)
            page.locator("article").nth(count).wait_for()
        for name, (_, said) in HOSTILE.items():
            own = card(page, re.search(r"\w+", name)[0])
            own.and_(page.locator(".failed")).wait_for()
            assert said in own.locator(".said").inner_text()
            assert "textgen: " not in own.inner_text()
        own.get_by_label("Encoding").fill("cp1252")
        own.get_by_role("button", name="Read again").click()
        reaches(page, "quote", "ready")
        dropped(page, tmp_path / "runs/ravens/text")  # a folder, beside all that
        reaches(page, "text", "ready")
        dropped(page, tmp_path / "runs/ravens/text")
        page.wait_for_selector(".name:text-is('text 2')")
        page.close()
    assert len([path for path in folder.iterdir() if path.name[0] != "."]) == 10


def test_requests_that_leave_the_folder_or_make_no_sense_are_refused(folder):
    with serving("--folder", folder) as server:
        for method, path, body in (
            ("GET", "..", None),
            ("GET", "%2e%2e%2fsecret", None),
            ("GET", ".bin", None),
            ("POST", "ravens/rename", {"name": "../x"}),
            ("POST", "ravens/rename", {"name": ".x"}),
            ("POST", "ravens/rename", {}),
            ("POST", "ravens/extend", {"minutes": 1e99}),
            ("POST", "ravens/look", {"minutes": "1", "encoding": "auto"}),
            ("POST", "ravens/look", {"minutes": 1}),
            ("POST", "ravens/fly", {}),
            ("PUT", "ravens/text/..", None),
            ("POST", "../bin/ravens", {"run": ""}),
            ("POST", "../bin/x 2026-01-01 00-00-00 1", {"run": "ravens"}),
        ):
            url = f"{server.url}/desk/runs/{path}"
            answer = httpx2.request(method, url, json=body, timeout=60)
            assert answer.status_code in (400, 404, 405), path
    assert [each.name for each in folder.iterdir() if each.name[0] != "."] == ["ravens"]


def test_a_desk_that_does_not_train_lists_and_writes(folder, visit, run):
    shutil.copytree(run, folder / "doors")
    with serving("--folder", folder, "--no-train") as server:
        page = visit(server.url)
        assert not page.is_visible("#taking")
        for button in ("Train", "Rename", "Remove"):
            assert not page.get_by_role("button", name=button, exact=True).first.is_visible()
        assert act(server, "resume").status_code == 403
        asked = httpx2.post(f"{server.url}/desk/runs", json={"name": "a"}, timeout=60)
        assert asked.status_code == 403
        models = httpx2.get(f"{server.url}/v1/models", timeout=60).json()["data"]
        assert [each["id"] for each in models] == ["doors"]
        body = {"prompt": "", "max_tokens": 3}  # by the only model, which is not loaded yet
        assert httpx2.post(f"{server.url}/v1/completions", json=body, timeout=60).is_success
        assert act(server, "rename", "doors", name="windows").status_code == 403
        assert act(server, "remove", "doors").status_code == 403
        page.close()
    with serving("--folder", folder) as server:
        body["model"] = "doors"
        assert httpx2.post(f"{server.url}/v1/completions", json=body, timeout=60).is_success
        assert act(server, "rename", "doors", name="windows").is_success
        models = httpx2.get(f"{server.url}/v1/models", timeout=60).json()["data"]
        assert [each["id"] for each in models] == ["windows"]
        body["model"] = "windows"
        assert httpx2.post(f"{server.url}/v1/completions", json=body, timeout=60).is_success


@pytest.mark.parametrize("size", [(1280, 900), (360, 740)], ids=["desktop", "phone"])
def test_the_desk_is_accessible(folder, visit, size):
    sync = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = {"size": 1, "seconds": 60, "start": "none", "vocabulary": 3, "remarks": ["a guess"]}
    start = {"name": "none", "loss": 1.0, "seconds": 0, "a_pass": 0}
    found |= {"documents": 0, "language": "English", "starts": [start]}
    (folder / "ravens/found.json").write_text(json.dumps(found))
    with serving("--folder", folder) as server:
        viewport = dict(zip(("width", "height"), size, strict=True))
        page = visit(server.url, viewport=viewport)
        page.get_by_text("Paste a text").click()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            result = sync.Axe().run(page)
            assert not result.response["violations"], result.generate_report()
        page.close()
