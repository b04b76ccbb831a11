"""Documents of a desk: in files, by several tabs, after crashes, from and to other formats."""

import io
import json
import random
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import httpx2
import pytest
from conftest import Serving, eventually, serving, wait_for_text, write

import textgen

pytestmark = pytest.mark.browser
PROMPT = "Once 3 ravens"


@pytest.fixture
def folder(tmp_path, run):
    """A desk with a run."""
    place = tmp_path / "runs"
    (place / "ravens").mkdir(parents=True)
    shutil.copytree(run, place / "ravens/run")
    return place


@pytest.fixture
def url(folder):
    with serving("--folder", folder) as started:
        yield f"{started.url}/write"


@pytest.fixture
def kept(folder):
    """The text of a document, as it is on the disk."""

    def text(title="Untitled"):
        path = folder / f"ravens/documents/{title}.md"
        return path.read_text() if path.exists() else None

    return text


def is_kept(page, kept, text, title="Untitled"):
    eventually(page, lambda: kept(title) == text, text)


def test_documents_are_kept_in_files_by_title(visit, kept, folder, generator):
    page = visit()
    write(page, PROMPT, max_tokens=20, seed=5)
    page.keyboard.press("Control+Enter")
    text = PROMPT + generator.generate(PROMPT, max_new_tokens=20, seed=5).text
    is_kept(page, kept, text)
    page.click("#new")
    wait_for_text(page, "")
    write(page, "Another.")
    is_kept(page, kept, "Another.", "Untitled 2")
    page.click("#rename")
    page.fill("#title", "A tale")
    page.keyboard.press("Enter")
    is_kept(page, kept, "Another.", "A tale")
    assert kept("Untitled 2") is None
    page.select_option("#document", "Untitled")
    wait_for_text(page, text)
    held = []
    page.route(
        "**/documents/*",
        lambda put: put.continue_() if held or put.request.method == "GET" else held.append(put),
    )
    page.keyboard.press("Control+z")
    wait_for_text(page, PROMPT)
    eventually(page, lambda: held)
    page.reload()  # before that is written
    wait_for_text(page, PROMPT)
    page.click("#remove")
    wait_for_text(page, "Another.")
    (binned,) = (folder / "ravens/documents/.bin").glob("*.md")
    assert binned.read_text() == PROMPT
    (tree,) = (folder / "ravens/documents/.bin").glob("*.json")
    assert text[len(PROMPT) :] in [
        each["tail"] for each in json.loads(tree.read_text())["tree"]["versions"]
    ]
    write(page, "")
    page.click("#desk")
    page.get_by_text("Removed").click()
    page.get_by_role("button", name="Restore").click()
    page.wait_for_selector("#bin", state="hidden")
    assert kept("Untitled") == PROMPT
    page.close()


def versions(folder):
    """The texts that the versions of a document add."""
    tree = json.loads((folder / "ravens/documents/Untitled.json").read_text())["tree"]
    return {each["tail"] for each in tree["versions"]}


def test_two_people_two_tabs_and_an_editor_overwrite_nothing(url, noisy, kept, folder, browser):
    page = noisy(url)
    page.wait_for_selector("body[data-ready]")
    write(page, "One")
    is_kept(page, kept, "One")
    other = browser.new_context().new_page()  # nothing is shared but the server
    other.goto(page.url)
    wait_for_text(other, "One")
    write(other, ", two")
    is_kept(other, kept, "One, two")
    write(page, "!")
    page.wait_for_selector("#elsewhere:visible")
    listed = page.locator("#tree button")
    eventually(page, lambda: sorted(listed.all_text_contents()) == ["One!", "One, two"])
    is_kept(page, kept, "One!")
    eventually(page, lambda: {"!", ", two"} <= versions(folder))
    (folder / "ravens/documents/Untitled.md").write_text("Edited")
    write(page, "?")
    eventually(page, lambda: "Edited" in versions(folder))
    is_kept(page, kept, "One!?")
    tab = noisy(page.url)  # of the same browser
    wait_for_text(tab, "One!?")
    write(tab, " Three")
    eventually(page, lambda: page.locator("#tree button", has_text="Three").count())
    tab.close()
    other.close()


def test_a_tab_that_was_open_before_its_server_was_killed_loses_no_text(
    folder, noisy, kept, browser
):
    with serving("--folder", folder) as first:
        page = noisy(f"{first.url}/write")
        page.wait_for_selector("body[data-ready]")
        write(page, "One")
        is_kept(page, kept, "One")
        port = first.url.rpartition(":")[2]
    write(page, " two")
    page.wait_for_selector("#unkept:visible")
    page.context.set_offline(True)
    with serving("--folder", folder, "--port", port):
        other = browser.new_context().new_page()
        other.goto(page.url)
        wait_for_text(other, "One")
        write(other, ", three")
        is_kept(other, kept, "One, three")
        page.context.set_offline(False)
        is_kept(page, kept, "One two")
        assert ", three" in versions(folder)
        other.close()
        page.wait_for_selector("#unkept", state="hidden")
        page.close()


def test_what_is_not_kept_yet_stays_where_another_document_is_asked_for(noisy, url, kept):
    page = noisy(url)
    page.wait_for_selector("body[data-ready]")
    write(page, "One")
    is_kept(page, kept, "One")
    page.context.set_offline(True)
    write(page, " two")
    page.wait_for_selector("#unkept:visible")
    page.click("#new")
    page.get_by_text("not kept yet").first.wait_for()
    wait_for_text(page, "One two")
    page.context.set_offline(False)
    is_kept(page, kept, "One two")
    page.close()


def test_nothing_is_lost_where_server_training_and_browser_are_killed(browser):
    program = Path(__file__).parents[1] / "benchmarks/kills.py"
    # How soon a text is on the disk is a question for the benchmark, on a machine that is quiet.
    line = [sys.executable, program, "--kills", "4", "--within", "60"]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def put(client, title, text, etag=None, tree=None):
    headers = {"If-Match": etag} if etag else {}
    path = f"/desk/runs/ravens/documents/{title}"
    return client.put(path, json={"text": text, "tree": tree}, headers=headers)


def test_a_stale_etag_and_names_that_leave_the_folder_are_refused(folder, url):
    with httpx2.Client(base_url=url.removesuffix("/write"), timeout=60) as client:
        first = put(client, "A", "one").json()["etag"]
        assert put(client, "A", "two").status_code == 412
        second = put(client, "A", "two", first).json()["etag"]
        assert put(client, "A", "three", first).status_code == 412
        read = client.get("/desk/runs/ravens/documents/A")
        assert (read.headers["etag"], read.json()) == (second, {"tree": None, "text": None})
        place = folder / "ravens/documents"
        (place / ".A.new").write_text("two")  # as a kill before it has its name leaves it
        (place / "A.md").write_text("one")
        assert client.get("/desk/runs/ravens/documents/A").json()["text"] is None
        assert (place / "A.md").read_text() == "two"
        (place / "A.md").write_text("one")  # by another program that has kept the text before
        assert client.get("/desk/runs/ravens/documents/A").json()["text"] == "one"
        assert (place / "A.md").read_text() == "one"
        (place / "A.md").write_text("edited")
        assert client.get("/desk/runs/ravens/documents/A").json()["text"] == "edited"
        (place / "B.json").write_text("{")
        (place / "B.md").write_text("alone")
        assert client.get("/desk/runs/ravens/documents/B").json()["text"] == "alone"
        for title in ("..%2Fx", ".x", "con", "a%5Cb"):
            assert put(client, title, "one").status_code in (400, 404, 405), title
        found = client.get("/desk/runs/ravens/documents").json()["documents"]
        assert {each["title"] for each in found} == {"A", "B"}


def test_texts_come_from_and_go_to_other_formats(visit, kept, tmp_path):
    page = visit()
    text = 'Tea & <toast>\t"now"\n\n  Two 🫖 — \n'
    write(page, "")
    page.keyboard.insert_text(text)
    for kind, name in (("txt", "Text"), ("md", "Markdown"), ("docx", "Word")):
        page.click("#export")
        with page.expect_download() as download:
            page.get_by_role("button", name=name, exact=True).click()
        path = tmp_path / f"_my {kind} .{kind}"  # a title that no file system refuses is made of it
        download.value.save_as(path)
        corpus = textgen.Engine().read_corpus({"type": "file", "path": str(path)})
        assert "".join(corpus).rstrip("\n") == text.rstrip("\n")
        page.set_input_files("#file", path)
        eventually(page, lambda kind=kind: page.input_value("#document") == f"my {kind}")
        is_kept(page, kept, kept("Untitled") if kind != "docx" else text, f"my {kind}")
    assert "without bold, italics and headings" in page.text_content("#elsewhere")


def test_the_style_of_a_text_stands_beside_the_author(visit, folder):
    text = '“No, no,” he said. It was late... "Go!" she said — twice.\n\nHe went'
    author = {"sentence_words": 2.6, "speech": 14 / 66, "starts": []}  # those of this text
    (folder / "ravens/found.json").write_text(json.dumps(author))
    page = visit()
    write(page, "")
    page.keyboard.insert_text(text)
    page.wait_for_selector("#style:visible")
    numbers = re.findall(r"([\d.]+%?) here, ([\d.]+%?) by the author", page.inner_text("#style"))
    assert [own == other for own, other in numbers] == [True, True]
    assert numbers[0][0] == "2.6"


def test_hostile_files_are_refused(url):
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", " " * (1 << 27))
    with httpx2.Client(base_url=url.removesuffix("/write"), timeout=60) as client:
        for name, content, said in (
            ("a.docx", bomb.getvalue(), "its text takes more"),
            ("a.pdf", b"%PDF-1.7" + b"x" * 99, "it is a PDF"),
            ("..%2F..%2Fa.txt", b"\xff\xfe\xfd", "not utf-8"),
            ("a.txt", b"x" * (5 << 20), "the most of a document"),
        ):
            answer = client.put(f"/text/{name}", content=content)
            assert answer.status_code in (400, 404, 405), name
            assert said in answer.text or answer.status_code > 400
        assert client.put("/text/a.txt", content=b"x" * (1 << 26)).status_code == 413


def test_whatever_was_kept_survives_kills_at_any_moment(folder):
    line = [sys.executable, "-m", "textgen", "desk", "--port", "0", "--folder", str(folder)]
    number, draw = 0, random.Random(0)
    for _ in range(4):
        process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
        try:
            server = Serving(process)
            threading.Timer(draw.uniform(0.05, 0.5), process.kill).start()
            with httpx2.Client(base_url=server.url, timeout=60) as client:
                etag = None
                if number:
                    found = client.get("/desk/runs/ravens/documents/A")
                    etag, read = found.headers["etag"], found.json()
                    assert read["text"] is None
                    # What was acknowledged, or what was on its way
                    assert read["tree"] in (number, number + 1)
                    number = read["tree"]
                while True:
                    answer = put(client, "A", f"{number + 1} " * 20_000, etag, number + 1)
                    etag, number = answer.json()["etag"], number + 1
        except httpx2.TransportError:
            pass
        finally:
            process.kill()
            process.communicate()
    text = (folder / "ravens/documents/A.md").read_text()
    assert number > 4
    assert set(text.split()) in ({str(number)}, {str(number + 1)}, {str(number - 1)})
