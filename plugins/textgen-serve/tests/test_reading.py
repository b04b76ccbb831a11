"""What the page tells of a text that is there: drafts side by side."""

import numpy as np
import pytest
from conftest import eventually, serving, wait_for_end, wait_for_text, write

pytestmark = pytest.mark.browser
PROMPT = "Once 3 ravens flew"


DOCUMENTS = {"A": "Once and twice, and none.", "B": "Once, and not twice, and none came."}


@pytest.fixture(scope="module")
def url(run, tmp_path_factory):
    """A desk with a run and two documents."""
    folder = tmp_path_factory.mktemp("desk") / "ravens"
    (folder / "documents").mkdir(parents=True)
    (folder / "run").symlink_to(run)
    for title, text in DOCUMENTS.items():
        (folder / f"documents/{title}.md").write_text(text)
    with serving("--folder", folder.parent) as started:
        yield f"{started.url}/write"


def bits(generator, text, start=0):
    """The bits per character from a place on; tokens are characters."""
    scores = np.concatenate([block.logprobs for block in generator.score_tokens(text)])
    return f"{np.nanmean(-scores[start:]) / np.log(2):.2f}"


def test_two_versions_are_compared(visit, generator):
    page = visit()
    page.click("#new")
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
        said = f"{bits(generator, text)} bits per character, {bits(generator, text, first)} where"
        assert side.locator("p").text_content().startswith(said)
        assert side.locator(".s4").count()
    left, right = (side.bounding_box() for side in sides)
    assert (left["y"], left["x"] + left["width"] < right["x"]) == (right["y"], True)
    page.set_viewport_size({"width": 360, "height": 740})
    above, below = (side.bounding_box() for side in sides)
    assert above["y"] + above["height"] <= below["y"]
    page.keyboard.press("Escape")
    eventually(page, lambda: page.evaluate("document.activeElement.id") == "text")
    wait_for_text(page, texts[0])


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
