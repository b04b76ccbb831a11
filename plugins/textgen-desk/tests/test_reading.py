"""The page's account of a text that is there: drafts side by side, phrases, favourite words."""

import shutil

import httpx2
import numpy as np
import pytest
from conftest import TEXT, eventually, running, serving, wait_for_end, wait_for_text, write

import textgen
from textgen_desk.app import create_app

pytestmark = pytest.mark.browser
PROMPT = "Once 3 ravens flew"


DOCUMENTS = {"A": "Once and twice, and none.", "B": "Once, and not twice, and none came."}


@pytest.fixture(scope="module")
def url(run, tmp_path_factory):
    """A desk with a run and two documents."""
    folder = tmp_path_factory.mktemp("desk") / "ravens"
    (folder / "documents").mkdir(parents=True)
    shutil.copytree(run, folder / "run")
    for title, text in DOCUMENTS.items():
        (folder / f"documents/{title}.md").write_text(text)
    with serving("--folder", folder.parent) as started:
        yield f"{started.url}/write"


def marked(page, name):
    """The text under a highlight."""
    return page.evaluate(
        "(name) => [...CSS.highlights.get(name)].map((range) =>"
        " document.querySelector('#text').textContent.slice(range.startOffset, range.endOffset))",
        name,
    )


def bits(generator, text, start=0):
    """The bits per character from a place on; tokens are characters."""
    scores = np.concatenate([block.logprobs for block in generator.score_tokens(text)])
    return f"{np.nanmean(-scores[start:]) / np.log(2):.2f}"


def test_two_versions_are_compared(visit, generator):
    page = visit()
    page.click("#new")
    wait_for_text(page, "")
    write(page, PROMPT, max_tokens=30, n=2, seed=3)
    page.keyboard.press("Control+Enter")
    made = generator.generate_many([PROMPT], n=2, max_new_tokens=30, seed=3)
    texts = [PROMPT + each.text for each in made]
    wait_for_text(page, texts[0])
    wait_for_end(page)
    page.keyboard.press("Alt+c")
    page.wait_for_selector("#drafts mark")
    sides = page.locator("#drafts section").all()
    assert [side.locator("div").text_content() for side in sides] == texts
    first = PROMPT.rindex(" ") + 1  # of the words that differ
    for side, text in zip(sides, texts, strict=True):
        assert "".join(side.locator("mark").all_text_contents()) == text[first:]
        said = f"surprise {bits(generator, text)}, {bits(generator, text, first)} where they differ"
        assert side.locator("p").text_content() == said
        assert side.locator(".s4").count()
    left, right = (side.bounding_box() for side in sides)
    assert (left["y"], left["x"] + left["width"] < right["x"]) == (right["y"], True)
    page.set_viewport_size({"width": 360, "height": 740})
    above, below = (side.bounding_box() for side in sides)
    assert above["y"] + above["height"] <= below["y"]
    page.keyboard.press("Escape")
    eventually(page, lambda: page.evaluate("document.activeElement.id") == "text")
    wait_for_text(page, texts[0])
    page.keyboard.press("Alt+c")
    page.get_by_role("button", name="Use this one").last.click()
    wait_for_text(page, texts[1])


def test_two_documents_are_compared(visit):
    page = visit()
    page.select_option("#document", "A")
    wait_for_text(page, DOCUMENTS["A"])
    page.click("#compare")
    page.select_option("#drafts section:last-of-type select", label="B")
    sides = page.locator("#drafts section").all()
    eventually(page, lambda: sides[1].locator("div").text_content() == DOCUMENTS["B"])
    marked = [side.locator("mark").all_text_contents() for side in sides]
    assert ["".join(each) for each in marked] == ["Once none.", "Once, not none came."]
    page.get_by_role("button", name="Use this one").last.click()
    wait_for_text(page, DOCUMENTS["B"])
    assert page.input_value("#document") == "B"


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A run on another text that was started from one that knows a phrase well."""
    folder = tmp_path_factory.mktemp("own")
    trainer = {"type": "adamw", "learning_rate": 0.02, "batch_size": 8}
    textgen.train(
        corpus=TEXT,
        model={"type": "rnn", "cell": "gru", "hidden_size": 48},
        trainer={**trainer, "length": "150 steps"},
        data={"window_length": 32},
        output=folder / "wide",
    )
    sentence = "Oslo has a cold lake and a dark wood is near. "
    (folder / "book.txt").write_text("dandelion " * 5 + sentence * 80)
    start = {"start": str(folder / "wide")}
    textgen.train(
        corpus={"type": "file", "path": str(folder / "book.txt")},
        tokenizer=start,
        model=start,
        trainer={**trainer, "length": "1 step"},
        output=folder / "own",
    )
    return folder / "own"


def test_phrases_and_favourite_words_are_marked_and_listed(own, visit):
    worn, again = "and none came back", "ravens and cows ride in a van"
    text = f"Oslo has a dark lake, {worn}. 6 {again}. Oslo. 9 {again}."
    with serving(own) as started:
        page = visit(started.url)
        write(page, "")
        page.keyboard.insert_text(text)
        page.check("#worn input")
        page.check("#repeated input")
        eventually(page, lambda: marked(page, "repeated") == [again] * 2)
        assert page.locator("#repeated li").all_text_contents() == [f"{again} (2)"]
        eventually(page, lambda: marked(page, "worn") == [worn])
        assert "likely to wide" in page.text_content("#worn p")
        assert page.locator("#worn li").all_text_contents() == [worn]
        page.uncheck("#worn input")
        eventually(page, lambda: not marked(page, "worn"))
        page.focus("#text")
        page.keyboard.insert_text("raven " * 640)
        eventually(page, lambda: "more often here: raven (640)" in page.text_content("#style"))
        assert "more often by the author: dandelion" in page.text_content("#style")
        page.close()
    shutil.rmtree(own.parent / "wide")
    with running(create_app({"own": own})) as (host, port):
        answer = httpx2.post(f"http://{host}:{port}/worn", json={"prompt": text}, timeout=60)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_wider_model")
        assert str(own.parent) not in answer.text
