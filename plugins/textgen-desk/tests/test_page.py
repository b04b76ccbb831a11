"""The page in Chromium, against a server in a process of its own."""

import json
import re
import shutil
import subprocess
import sys
from bisect import bisect
from itertools import pairwise

import numpy as np
import pytest
from conftest import eventually, serving, train, wait_for_end, wait_for_text, write

import textgen

pytestmark = pytest.mark.browser
BITS = (0.5, 1, 2, 3, 4.5, 6, 8)  # at which `textgen evaluate --html` changes the colour
PROMPT = "The door was"


CORPUS = (
    "The door was shut. It was dark, and nobody came to open it.\n"
    "No. The window was open, and a cold wind came in from the sea!\n"
    """It's <b>\n"quoted"\n<script>document.title = 'hacked'</script> xX\n"""
) * 30


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    (folder / "corpus.txt").write_text(CORPUS)
    corpus = {"type": "file", "path": str(folder / "corpus.txt")}
    return train(folder / "doors", corpus=corpus)


@pytest.fixture(scope="module")
def bare(run):
    """A run without a sampler, with one loss."""
    table = {"corpus": CORPUS, "model": {"type": "rnn", "hidden_size": 8}, "sampler": []}
    folder = run.parent / "bare"
    textgen.train(**table, trainer={"type": "adamw", "length": "1 step"}, output=folder)
    return folder


@pytest.fixture(scope="module")
def generator(run):
    return textgen.load(run)


@pytest.fixture(scope="module")
def url(run):
    with serving(run) as started:
        yield started.url


@pytest.fixture
def page(visit):
    return visit()


def rest_on(page, x, y):
    """Rest the mouse on a place until the popover is there, as a person does: a scroll closes
    it.
    """
    for moved in range(30):
        page.mouse.move(x + moved % 2, y)
        page.wait_for_timeout(500)  # longer than the popover waits for the mouse to rest
        if page.query_selector("#alternatives:popover-open"):
            return
    raise AssertionError("no alternatives are shown")


def words(page):
    """What the popover offers, once pieces of words have become words."""

    def names():
        shown = page.locator("#alternatives .name").all_text_contents()
        return [name.replace("␣", " ").replace("⏎", "\n") for name in shown]

    eventually(page, lambda: any(len(name) > 2 for name in names()))
    return names()


def colours(page):
    """The level of each character."""
    ranges = page.evaluate(
        """() => [...CSS.highlights].filter(([name]) => /^s\\d$/.test(name))
             .flatMap(([name, all]) => [...all].map(
                 (range) => [Number(name[1]), range.startOffset, range.endOffset]))"""
    )
    levels = [0] * len(page.text_content("#text"))
    for level, start, end in ranges:
        levels[start:end] = [level] * (end - start)
    return levels


def marked(page, name):
    """The ranges of a highlight."""
    return page.evaluate(
        "(name) => [...CSS.highlights.get(name)]"
        ".map((range) => [range.startOffset, range.endOffset])",
        name,
    )


def expected_colours(generator, text):
    scores = np.concatenate([block.logprobs for block in generator.score_tokens(iter([text]))])
    return [bisect(BITS, bits) for bits in np.nan_to_num(-scores / np.log(2))]


def test_typed_text_is_coloured_by_surprise(page, generator):
    write(page, PROMPT)
    eventually(page, lambda: colours(page) == expected_colours(generator, PROMPT))
    page.keyboard.press("Home")
    page.keyboard.type("xX ")
    page.keyboard.press("Enter")
    text = f"xX \n{PROMPT}"
    wait_for_text(page, text)
    eventually(page, lambda: colours(page) == expected_colours(generator, text))
    assert any(colours(page))
    label = page.get_attribute("#ranks svg", "aria-label")
    assert re.search(r"Guesses for 16 .* typed and 0 written by the model; 1: \d+% and 0%", label)


def test_characters_outside_the_vocabulary_are_marked_and_read_as_unknown(page, generator):
    text = f"No~ {PROMPT}"
    write(page, text, max_tokens=20, seed=2)
    expected = expected_colours(generator, text)
    expected[2] = 0
    eventually(page, lambda: colours(page) == expected)
    assert marked(page, "unknown") == [[2, 3]]
    assert page.text_content("#status").endswith(": ~")
    assert page.locator("#likeliest button").count() == 10
    page.keyboard.press("Control+Enter")
    options = {"max_new_tokens": 20, "seed": 2, "unknown_characters": "unknown"}
    wait_for_text(page, text + generator.generate(text, **options).text)
    wait_for_end(page)
    page.click("#share")
    assert '"unknown_characters":"unknown"' in page.input_value("#curl")


def test_a_long_text_is_scored_around_an_edit_first(page, generator):
    text = (CORPUS * 3)[:6000]
    page.focus("#text")
    page.keyboard.insert_text(text)
    eventually(page, lambda: colours(page) == expected_colours(generator, text))
    scored = []
    page.on("request", lambda sent: "echo" in (sent.post_data or "") and scored.append(sent))
    page.evaluate("getSelection().collapse(document.querySelector('#text').firstChild, 3000)")
    page.keyboard.type("xX")
    text = f"{text[:3000]}xX{text[3000:]}"
    eventually(page, lambda: colours(page) == expected_colours(generator, text))
    sizes = [len(sent.post_data_json["prompt"]) for sent in scored]
    assert sizes[0] < 1000
    eventually(page, lambda: len(scored[-1].post_data_json["prompt"]) == len(text))


def test_of_a_book_what_surrounds_the_caret_is_scored(page):
    text = (CORPUS * 12)[:62_000]
    page.focus("#text")
    page.keyboard.insert_text(text)
    eventually(page, lambda: any(colours(page)[-100:]))
    assert not any(colours(page)[:40_000])
    page.evaluate("getSelection().collapse(document.querySelector('#text').firstChild, 20_000)")
    eventually(page, lambda: any(colours(page)[19_900:20_000]))
    eventually(page, lambda: any(colours(page)[20_000:20_100]))
    assert not page.text_content("#status")


def test_a_long_text_is_continued_in_view(page):
    text = (CORPUS * 3)[:12_000]
    write(page, "", max_tokens=40)
    page.keyboard.insert_text(text)
    page.keyboard.press("Control+Home")
    page.keyboard.press("Control+Enter")
    eventually(page, lambda: len(page.text_content("#text")) == len(text) + 40)
    wait_for_end(page)
    end = page.evaluate("document.querySelector('#text').getBoundingClientRect().bottom")
    assert end <= page.locator("#tools").bounding_box()["y"] + 1
    eventually(page, lambda: page.locator("#likeliest button").count() == 10)
    assert page.locator("#likeliest").bounding_box()["y"] >= 0


def test_continue_writes_the_text_of_the_seed(page, generator):
    write(page, PROMPT, max_tokens=60, seed=7)
    page.click("#continue")
    made = generator.generate(PROMPT, max_new_tokens=60, seed=7).text
    wait_for_text(page, PROMPT + made)
    write(page, "!")
    page.keyboard.press("Control+Enter")
    more = generator.generate(f"{PROMPT}{made}!", max_new_tokens=60, seed=7).text
    wait_for_text(page, f"{PROMPT}{made}!{more}")
    eventually(page, lambda: colours(page) == expected_colours(generator, f"{PROMPT}{made}!{more}"))


def test_a_text_is_stopped_edited_and_continued(page, generator):
    write(page, PROMPT, max_tokens=100_000)
    page.keyboard.press("Control+Enter")
    eventually(page, lambda: len(page.text_content("#text")) > 500)
    page.keyboard.press("Escape")
    wait_for_end(page)
    text = page.text_content("#text")
    assert text.startswith(PROMPT)
    assert len(text) < 100_000
    write(page, "", max_tokens=20, seed=3)
    page.keyboard.press("Control+a")
    page.keyboard.type("It was")
    page.keyboard.press("Control+Enter")
    wait_for_text(page, "It was" + generator.generate("It was", max_new_tokens=20, seed=3).text)


def test_typing_stops_a_text_that_comes_in(page):
    """Which a slow network brings more slowly than the model writes."""
    slow = {"offline": False, "latency": 0, "downloadThroughput": 50_000, "uploadThroughput": -1}
    page.context.new_cdp_session(page).send("Network.emulateNetworkConditions", slow)
    write(page, PROMPT, max_tokens=100_000)
    page.keyboard.press("Control+Enter")
    eventually(page, lambda: len(page.text_content("#text")) > 500)
    page.keyboard.press("Control+Home")
    page.keyboard.type("No. ")
    wait_for_end(page)
    text = page.text_content("#text")
    assert text.startswith(f"No. {PROMPT}")
    assert len(text) < 100_000


def a_word(text):
    """Where a word is that the model wrote."""
    return re.compile(r"(?<=\s)[A-Za-z]{4,}(?=\s)").search(text, len(PROMPT) + 2).span()


def test_hover_shows_ten_words_in_place_of_one(page, generator):
    write(page, PROMPT, max_tokens=60, seed=5)
    page.click("summary")
    page.locator("input[name=presence_penalty]").fill("2")
    page.focus("#text")
    page.keyboard.press("Control+Enter")
    options = {"seed": 5, "presence_penalty": 2}
    text = PROMPT + generator.generate(PROMPT, max_new_tokens=60, **options).text
    wait_for_text(page, text)
    wait_for_end(page)  # while a text comes in, nothing is shown
    start, end = a_word(text)
    eventually(page, lambda: any(colours(page)))
    box = page.evaluate(
        """(place) => {
             const range = new Range();
             const node = document.querySelector('#text').firstChild;
             range.setStart(node, place);
             range.setEnd(node, place + 1);
             const { x, y, width, height } = range.getBoundingClientRect();
             return [x + width / 2, y + height / 2];
           }""",
        start + 2,
    )
    rest_on(page, *box)
    shown = words(page)
    logits = generator.logits(text[:start])[-1]
    likeliest = [generator.tokenizer.decode([token]) for token in np.argsort(-logits)[:10]]
    assert [each[0] for each in shown[:5]] == likeliest[:5]
    assert len(shown) >= 10
    made = start - len(PROMPT)
    state = generator.generate(PROMPT, max_new_tokens=made, keep_state=True, **options).state
    drawn = generator.next_logprobs("", state=state, **options)[1]
    own = drawn[generator.prepare(text[start]).ids[0]]
    share = page.locator("#alternatives [aria-current=true] .share").text_content()
    assert abs(float(share.strip("%<")) / 100 - np.exp(own)) < 0.001
    taken = next(i for i, each in enumerate(shown) if len(each) > 1 and each.isalpha())
    begun = text[:start] + likeliest[taken]
    rest = generator.generate(begun, max_new_tokens=8, temperature=0).text
    assert shown[taken] == likeliest[taken] + re.match("[A-Za-z]*", rest)[0]
    page.locator("#alternatives button").nth(taken).click()
    wait_for_text(page, text[:start] + shown[taken] + text[end:])


def test_a_word_takes_the_place_of_the_one_at_the_caret_or_of_all_that_follows(page, generator):
    write(page, PROMPT, max_tokens=60, seed=5)
    page.keyboard.press("Control+Enter")
    text = PROMPT + generator.generate(PROMPT, max_new_tokens=60, seed=5).text
    wait_for_text(page, text)
    wait_for_end(page)
    start, end = a_word(text)

    def offered():
        collapse = "(at) => getSelection().collapse(document.querySelector('#text').firstChild, at)"
        page.evaluate(collapse, start + 2)
        page.keyboard.press("Control+Space")
        page.wait_for_selector("#alternatives button:focus")
        return words(page)

    eventually(page, lambda: any(colours(page)))
    taken, word = next((i, w) for i, w in enumerate(offered()) if w[0] != text[start] and w[1:])
    page.locator("#alternatives button").nth(taken).click()
    wait_for_text(page, text[:start] + word + text[end:])
    assert page.evaluate("getSelection().focusOffset") == start + len(word)
    made = marked(page, "made")
    assert (made[0], made[-1][1]) == ([len(PROMPT), start], len(text) - (end - start) + len(word))
    page.keyboard.press("Control+z")
    wait_for_text(page, text)
    offered()
    page.check("#goes-on")
    page.locator("#alternatives button").nth(taken).click()
    prompt = text[:start] + word
    wait_for_text(page, prompt + generator.generate(prompt, max_new_tokens=60, seed=5).text)
    page.locator("#tree button").first.click()
    wait_for_text(page, text)


def test_alternatives_by_keyboard(page):
    write(page, PROMPT)
    eventually(page, lambda: any(colours(page)))
    page.keyboard.press("Control+Space")
    page.wait_for_selector("#alternatives button:focus")
    page.keyboard.press("ArrowDown")
    second = words(page)[1]
    page.keyboard.press("Enter")
    wait_for_text(page, PROMPT + second)
    page.keyboard.press("Control+Space")
    page.wait_for_selector("#alternatives button:focus")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "text"


def test_undo_takes_back_some_words_or_what_was_deleted(page):
    said = "It was dark, and nobody came to open the door of the house by the sea"
    write(page, said)
    for _ in range(5):
        page.keyboard.press("Backspace")
    wait_for_text(page, said[:-5])
    page.keyboard.press("Control+z")
    texts = [page.text_content("#text")]
    assert texts == [said]
    while texts[-1]:
        page.keyboard.press("Control+z")
        texts.append(page.text_content("#text"))
    steps = [one[len(other) :] for one, other in pairwise(texts)]
    assert "".join(reversed(steps)) == said
    assert len(steps) > 4
    assert all(each[-1] == " " for each in steps[1:])
    page.keyboard.press("Control+Shift+z")
    wait_for_text(page, steps[-1])


def test_undo_redo_and_retry_by_key(page, generator):
    write(page, PROMPT, max_tokens=25, seed=1)
    first, second = (
        PROMPT + generator.generate(PROMPT, max_new_tokens=25, seed=seed).text for seed in (1, 2)
    )
    page.keyboard.press("Control+Enter")
    wait_for_text(page, first)
    page.keyboard.press("Alt+Enter")
    wait_for_text(page, second)
    page.keyboard.press("Control+z")
    wait_for_text(page, PROMPT)
    page.keyboard.press("Control+Shift+z")
    wait_for_text(page, second)
    page.keyboard.press("Alt+ArrowUp")
    wait_for_text(page, first)


def test_several_continuations_are_a_tree_that_is_kept(page, generator, tmp_path):
    write(page, PROMPT, max_tokens=25, seed=4, n=3)
    texts = [
        PROMPT + generator.generate(PROMPT, max_new_tokens=25, seed=4, index=index).text
        for index in range(3)
    ]
    page.keyboard.press("Control+Enter")
    wait_for_text(page, texts[0])
    page.keyboard.press("Alt+ArrowDown")
    wait_for_text(page, texts[1])
    assert page.text_content("#sibling") == "2 of 3"
    page.locator("#tree button").nth(2).click()
    wait_for_text(page, texts[2])
    page.reload()
    page.wait_for_selector("body[data-ready]")
    wait_for_text(page, texts[2])
    page.click("#export")
    with page.expect_download() as download:
        page.get_by_role("button", name="JSON").click()
    download.value.save_as(tmp_path / "tree.json")
    kept = json.loads((tmp_path / "tree.json").read_text())
    assert kept["text"] == texts[2]
    tails = [version["tail"] for version in kept["versions"] if version["made"]]
    assert [PROMPT + tail for tail in tails] == texts

    page.on("dialog", lambda dialog: dialog.accept())
    page.click("#new")
    wait_for_text(page, "")
    del kept["versions"][1]
    for name, content in (
        ("lacking.json", kept),
        ("null.json", None),
        ("length.json", {**kept, "versions": kept["versions"][:1], "current": "length"}),
    ):
        (tmp_path / name).write_text(json.dumps(content))
        page.set_input_files("#file", tmp_path / name)
        eventually(page, lambda name=name: page.text_content("#status").startswith(name))
    page.set_input_files("#file", tmp_path / "tree.json")
    wait_for_text(page, texts[2])
    assert page.text_content("#sibling") == "3 of 3"


def test_typing_goes_on_at_the_end_of_another_continuation(page):
    versions = [
        {
            "id": 0,
            "parent": None,
            "keep": 0,
            "tail": "",
            "rest": 0,
            "made": None,
            "children": [1, 2],
            "seen": 1,
        },
        {"id": 1, "parent": 0, "keep": 0, "tail": "No.", "children": [], "seen": None},
        {"id": 2, "parent": 0, "keep": 0, "tail": "It was.", "children": [], "seen": None},
    ]
    for version in versions[1:]:
        version |= {"rest": 0, "made": {"max_tokens": 9, "seed": version["id"]}}
    content = json.dumps({"versions": versions, "current": 1}).encode()
    file = {"name": "tree.json", "mimeType": "application/json", "buffer": content}
    page.on("dialog", lambda dialog: dialog.accept())
    page.set_input_files("#file", file)
    wait_for_text(page, "No.")
    page.focus("#text")
    page.keyboard.press("Alt+ArrowDown")
    wait_for_text(page, "It was.")
    page.keyboard.type("!")
    wait_for_text(page, "It was.!")


def test_a_slider_makes_the_text_anew_with_its_seed(page, generator):
    write(page, PROMPT, max_tokens=40, seed=11)
    page.keyboard.press("Control+Enter")
    first = PROMPT + generator.generate(PROMPT, max_new_tokens=40, seed=11).text
    wait_for_text(page, first)
    slider = page.locator("input[name=temperature]")
    for temperature in (0.3, 1.4):
        slider.fill(str(temperature))
        options = {"max_new_tokens": 40, "seed": 11, "temperature": temperature}
        wait_for_text(page, PROMPT + generator.generate(PROMPT, **options).text)
    page.keyboard.press("Alt+ArrowUp")
    wait_for_text(page, first)
    slider.focus()
    page.keyboard.press("Control+z")
    wait_for_text(page, PROMPT)


def test_an_answer_to_a_slider_that_comes_late_changes_nothing(page, generator):
    held = []

    def hold(route):
        body = route.request.post_data_json
        if "stream" in body or "echo" in body:
            route.continue_()
        else:
            held.append(route)

    page.route("**/v1/completions", hold)
    write(page, PROMPT, max_tokens=40, seed=11)
    page.keyboard.press("Control+Enter")
    text = PROMPT + generator.generate(PROMPT, max_new_tokens=40, seed=11).text
    wait_for_text(page, text)
    page.locator("input[name=temperature]").fill("0.3")
    eventually(page, lambda: held)
    page.focus("#text")
    page.keyboard.press("Control+End")
    page.keyboard.type("Indeed!")
    with page.expect_response(lambda answer: answer.request == held[0].request):
        held[0].continue_()
    page.keyboard.type("!")  # which the page sees after the answer
    page.wait_for_timeout(200)
    assert page.text_content("#text") == f"{text}Indeed!!"


def test_tabs_of_a_run_have_one_document(page, url):
    write(page, "One")
    other = page.context.new_page()
    other.goto(url)
    other.wait_for_selector("body[data-ready]")
    wait_for_text(other, "One")
    page.bring_to_front()
    page.keyboard.type(".")
    other.bring_to_front()
    other.focus("#text")
    other.keyboard.press("Control+z")
    other.keyboard.type("Two", delay=20)
    page.keyboard.type("!")
    for tab in (page, other):
        listed = tab.locator("#tree button").all_text_contents
        eventually(tab, lambda listed=listed: listed() == ["One.!", "Two"])
    other.reload()
    wait_for_text(other, other.locator("#tree button[aria-current]").text_content())
    assert other.locator("#tree button").count() == 2
    page.on("dialog", lambda dialog: dialog.accept())
    page.click("#new")
    wait_for_text(other, "")


def test_a_document_for_which_there_is_no_room_says_so(page):
    page.evaluate("localStorage.setItem('other', 'x'.repeat(5 * 1024 * 1024 - 300))")
    write(page, PROMPT * 30)
    page.wait_for_selector("#unkept:visible")
    page.evaluate("localStorage.removeItem('other')")
    write(page, "!")
    page.wait_for_selector("#unkept", state="hidden")


def test_copied_passages_are_marked(page):
    copied = " a cold wind came in from the sea!"
    write(page, f"xXxX{copied} xXxX")
    page.check("#copied input")
    eventually(page, lambda: marked(page, "copied") == [[4, 4 + len(copied)]])
    page.uncheck("#copied input")
    eventually(page, lambda: not marked(page, "copied"))


def test_runs_have_a_document_each(run, bare, visit):
    with serving(run, bare) as started:
        page = visit(started.url)
        write(page, PROMPT, max_tokens=5)
        page.keyboard.press("Control+Enter")
        eventually(page, lambda: "characters in" in page.text_content("#status"))
        assert page.is_visible("#losses")
        page.select_option("#model", "bare")
        wait_for_text(page, "")
        assert page.text_content("#status") == ""
        assert page.is_visible("input[name=temperature]")
        assert not page.is_visible("#losses")
        page.select_option("#model", run.name)
        eventually(page, lambda: page.text_content("#text").startswith(PROMPT))
        page.close()  # before the server, which it might still ask


def test_facts_follow_a_run_that_is_replaced(run, bare, visit, tmp_path):
    shutil.copytree(bare, tmp_path / "run")
    with serving(tmp_path / "run") as started:
        page = visit(started.url)
        before = page.text_content("#facts")
        (tmp_path / "run").rename(tmp_path / "old")
        shutil.copytree(run, tmp_path / "run")

        def changed():
            write(page, "a")
            return page.text_content("#facts") != before

        eventually(page, changed)
        page.close()


def test_a_request_that_fails_leaves_the_text_and_says_why(run, noisy):
    with serving(run, "--texts", 2) as started:
        page = noisy(started.url)
        page.wait_for_selector("body[data-ready]")
        write(page, PROMPT, n=3)
        eventually(page, lambda: any(colours(page)))
        page.keyboard.press("Control+Enter")
        page.wait_for_selector("#status.error")
        assert page.text_content("#text") == PROMPT
        assert not page.is_visible("#branches")
    write(page, "!")
    eventually(page, lambda: "does not answer" in page.text_content("#status"))
    assert page.text_content("#text") == f"{PROMPT}!"


def test_a_key_is_taken_from_the_link_or_asked_for(run, noisy, visit):
    with serving(run, TEXTGEN_API_KEY="secret") as started:
        page = visit(f"{started.url}/#key=secret")
        assert "secret" not in page.url
        write(page, PROMPT)
        eventually(page, lambda: any(colours(page)))
        page = noisy(started.url)
        page.fill("#key", "wrong")
        page.keyboard.press("Enter")
        eventually(page, lambda: page.text_content("#refused"))
        page.fill("#key", "secret")
        page.get_by_role("button", name="Open").click()
        page.wait_for_selector("body[data-ready]")


def test_links_and_commands_make_the_same_text(page, visit, generator):
    prompt = 'It\'s <b>\n"quoted"'
    write(page, "", max_tokens=30, seed=9)
    page.keyboard.insert_text(prompt)
    page.locator("input[name=temperature]").fill("0.6")
    page.focus("#text")
    page.keyboard.press("Control+Enter")
    made = generator.generate(prompt, max_new_tokens=30, seed=9, temperature=0.6).text
    wait_for_text(page, prompt + made)
    page.click("#share")
    link, curl, program = (page.input_value(f"#{name}") for name in ("link", "curl", "python"))
    page.keyboard.press("Escape")
    page.focus("#text")
    page.keyboard.press("Control+End")
    page.keyboard.type("!")
    asked = []
    page.on("request", lambda sent: "stream" in (sent.post_data or "") and asked.append(sent))
    for button in ("Cancel", "Write"):  # any page can open a link
        page.goto(link)
        page.wait_for_selector("#linked-facts:visible")
        assert prompt[-8:] in page.text_content("#linked-facts")
        assert (page.text_content("#text"), asked) == (f"{prompt}{made}!", [])
        page.click(f"#linked button:text('{button}')")
    wait_for_text(page, prompt + made)
    wait_for_end(page)
    beginnings = page.locator("#tree > li > button")
    assert beginnings.count() == 2
    beginnings.first.click()
    wait_for_text(page, prompt)
    wait_for_text(opened := visit(link), "")
    opened.click("#linked button:text('Write')")
    wait_for_text(opened, prompt + made)
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert said.stdout == made + "\n", said.stderr
    if shutil.which("curl"):
        answer = subprocess.run(["bash", "-c", curl], capture_output=True, text=True)
        assert json.loads(answer.stdout)["choices"][0]["text"] == made


def test_markup_in_a_text_is_text(page):
    markup = "<script>document.title = 'hacked'</script>"
    write(page, markup)
    wait_for_text(page, markup)
    page.reload()
    page.wait_for_selector("body[data-ready]")
    wait_for_text(page, markup)
    assert page.locator("#text *").count() == 1  # the line break at its end
    assert "hacked" not in page.title()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 900), (360, 740)], ids=["desktop", "phone"])
def test_the_page_is_accessible(visit, scheme, size):
    sync = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = visit(color_scheme=scheme, viewport=dict(zip(("width", "height"), size, strict=True)))
    write(page, PROMPT, max_tokens=30, n=2)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#siblings:not([hidden])")
    wait_for_end(page)
    page.keyboard.press("Control+Space")
    page.wait_for_selector("#alternatives:popover-open")
    ground = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert (int(ground.split("(")[1].split(",")[0]) < 128) == (scheme == "dark")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator("#continue").bounding_box()["y"] < size[1]
    for dialog in (None, "#compare", "#share", "#export", "#help"):
        if dialog:
            page.keyboard.press("Escape")
            page.click(dialog)
        found = sync.Axe().run(page)
        assert not found.response["violations"], found.generate_report()


def test_a_sentence_is_written_anew_so_that_the_rest_fits(page, generator):
    before, sentence, rest = "The door was shut. ", "It was dark", ". No. The window was open"
    write(page, before + sentence + rest, seed=3)
    place = len(before) + 4
    page.evaluate(
        "(place) => getSelection().collapse(document.querySelector('#text').firstChild, place)",
        place,
    )
    page.keyboard.press("Alt+r")
    page.wait_for_selector("#sentences button:focus")
    options = {"stop": [".", "!", "?", "…", "\n"], "max_new_tokens": 40 + len(sentence), "seed": 3}
    made = generator.generate_many([before], n=5, suffix=rest, candidates=6, **options)
    ended = [each for each in made if each.finish_reason == "stop"] or made
    expected = list(dict.fromkeys(text for each in ended if (text := each.text.strip())))
    shown = page.locator("#sentences button").all_text_contents()
    assert shown == [text for text in expected if text != sentence]
    page.keyboard.press("Enter")
    wait_for_text(page, before + shown[0] + rest)
    page.keyboard.press("Control+z")
    wait_for_text(page, before + sentence + rest)
    page.keyboard.press("Alt+r")
    page.wait_for_selector("#sentences button:focus")
    page.keyboard.press("Escape")
    eventually(page, lambda: page.evaluate("document.activeElement.id") == "text")
    phrase = shown[0].split()[0]
    page.fill("#avoid", phrase)
    page.focus("#text")
    page.evaluate(  # the whole sentence with its mark, which stays
        """([start, end]) => { const text = document.querySelector('#text').firstChild;
        getSelection().setBaseAndExtent(text, start, text, end) }""",
        [len(before), len(before) + len(sentence) + 1],
    )
    page.keyboard.press("Alt+r")
    left = [text for text in shown if phrase not in text]
    eventually(page, lambda: page.locator("#sentences button").all_text_contents() == left)


def test_a_sentence_is_put_in_at_the_caret_so_that_the_rest_fits(page, generator):
    before, rest = "The door was shut. ", "No. The window was open"
    write(page, before + rest, seed=3)
    page.evaluate(
        "(place) => getSelection().collapse(document.querySelector('#text').firstChild, place)",
        len(before),
    )
    page.click("#insert")
    page.wait_for_selector("#sentences button:focus")
    options = {"stop": [".", "!", "?", "…", "\n"], "max_new_tokens": 120, "seed": 3}
    made = generator.generate_many([before], n=5, suffix=f". {rest}", candidates=6, **options)
    ended = [each for each in made if each.finish_reason == "stop"] or made
    shown = page.locator("#sentences button").all_text_contents()
    assert shown == list(dict.fromkeys(text for each in ended if (text := each.text.strip())))
    page.keyboard.press("Enter")
    wait_for_text(page, f"{before}{shown[0]}. {rest}")


def test_other_sentences_are_shown_in_the_window_wherever_the_caret_is(page):
    write(page, "No.\n" * 60)
    page.evaluate("scrollTo(0, 0)")
    page.keyboard.press("Alt+r")
    page.wait_for_selector("#sentences button:focus")
    box = page.locator("#sentences").bounding_box()
    assert 0 <= box["y"] < box["y"] + box["height"] <= page.viewport_size["height"]


def test_a_text_ends_with_a_sentence_or_a_paragraph_and_without_phrases(page, generator):
    page.select_option("#unit", "sentences")
    page.fill("#avoid", "window, cold wind")
    write(page, PROMPT, max_tokens=3, seed=5)
    page.keyboard.press("Control+Enter")
    wait_for_end(page)
    phrases = ["window", "cold wind"]
    made = generator.generate(PROMPT, max_new_tokens=360, seed=5, ban_phrase=phrases).text
    ends = [each.end() for each in re.finditer(r"[.!?…]+(?=\s)", made)]
    wait_for_text(page, PROMPT + made[: ends[2]])
    page.keyboard.press("Control+z")
    page.select_option("#unit", "paragraphs")
    page.fill("#avoid", "")
    page.fill("#max_tokens", "1")
    page.focus("#text")
    page.keyboard.press("Control+Enter")
    wait_for_end(page)
    made = generator.generate(PROMPT, max_new_tokens=600, seed=5).text
    wait_for_text(page, PROMPT + made[: made.lstrip().index("\n") + len(made) - len(made.lstrip())])


def test_names_are_more_likely(page, generator):
    page.fill("#likely", " Sea, window")
    write(page, PROMPT, max_tokens=60, seed=5)
    names = ["Sea", "window"]
    page.keyboard.press("Control+Enter")
    made = generator.generate(PROMPT, max_new_tokens=60, seed=5, likely_names=names).text
    wait_for_text(page, PROMPT + made)
    plain, likelier = (
        " ".join(
            each.text
            for each in generator.generate_many([PROMPT], n=40, max_new_tokens=60, **options)
        ).count("window")
        for options in ({}, {"likely_names": ["window"]})
    )
    assert likelier > 2 * plain


def test_colours_can_be_off_and_stay_so(page):
    write(page, PROMPT)
    page.select_option("#colours", "off")
    page.reload()
    page.wait_for_selector("body[data-ready]")
    assert page.input_value("#colours") == "off"
    eventually(page, lambda: any(colours(page)))
    style = "getComputedStyle(document.querySelector('#text'), '::highlight(s5)').backgroundColor"
    assert page.evaluate(style) == "rgba(0, 0, 0, 0)"
    page.select_option("#colours", "")
    assert page.evaluate(style) != "rgba(0, 0, 0, 0)"


def test_the_caret_stays_above_the_tools(page):
    write(page, "A line.\n" * 40)
    page.keyboard.type("x")
    page.keyboard.press("Shift+ArrowLeft")
    line = page.evaluate("getSelection().getRangeAt(0).getBoundingClientRect().bottom")
    assert line <= page.locator("#tools").bounding_box()["y"]


def test_fields_are_as_they_were_left(page):
    fields = {"avoid": "cold wind", "likely": "Nell", "max_tokens": "4", "n": "2"}
    for name, value in fields.items():
        page.fill(f"#{name}", value)
    page.select_option("#unit", "sentences")
    page.reload()
    page.wait_for_selector("body[data-ready]")
    assert {name: page.input_value(f"#{name}") for name in fields} == fields
    assert page.input_value("#unit") == "sentences"
