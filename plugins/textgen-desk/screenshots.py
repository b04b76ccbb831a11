"""Takes the pictures of the page in docs/ with playwright and Chromium, or measures how soon it
answers.

Pride and Prejudice with each paragraph on a line, without "_", and textgen-english installed:

textgen init pride-and-prejudice.txt --minutes 1.5
textgen run pride-and-prejudice.toml --set "trainer.length=150 steps"
python plugins/textgen-desk/screenshots.py runs/pride-and-prejudice
python plugins/textgen-desk/screenshots.py --times RUN
"""

from __future__ import annotations

import contextlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

HERE = Path(__file__).resolve().parent
DOCS = HERE.parents[1] / "docs"
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync")
SIZES = {"desktop": (1240, 930), "phone": (390, 844)}
PROMPT = "“My dear Lizzy"
TIMES = 20
LONG = 20_000  # characters
SETTLED = 2000  # milliseconds until a text has all its colours
# The milliseconds of each key until its letter is painted; until an edit's last character has a
# colour; and from a slider until there is another text.
PAINTED = """() => {
  window.painted = [];
  addEventListener("keydown", (event) => requestAnimationFrame(() => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => window.painted.push(performance.now() - event.timeStamp);
    port2.postMessage(null);
  }), true);
}"""
COLOURED = """() => new Promise((done) => {
  const began = performance.now();
  document.execCommand("insertText", false, "T");
  const end = document.querySelector("#text").textContent.length;
  const surprise = [...CSS.highlights].filter(([name]) => /^s\\d/.test(name));
  const levels = surprise.map(([, level]) => level);
  const look = () => {
    const time = performance.now() - began;
    const isDone = levels.some((level) => [...level].some((range) => range.endOffset === end));
    isDone || time > 5000 ? done(time) : setTimeout(look);
  };
  look();
})"""
REMADE = """(value) => new Promise((done) => {
  const slider = document.querySelector("input[name=temperature]");
  const text = document.querySelector("#text");
  const [began, before] = [performance.now(), text.textContent];
  slider.value = value;
  slider.dispatchEvent(new Event("input"));
  const look = () => {
    const time = performance.now() - began;
    text.textContent !== before || time > 5000 ? done(time) : setTimeout(look);
  };
  look();
})"""


def main() -> None:
    """Serve the run, and take the pictures or print the times."""
    from playwright.sync_api import sync_playwright

    with serving(sys.argv[-1]) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        shots = () if "--times" in sys.argv else (("light", 0), ("dark", 0), ("phone", 1))
        for name, is_phone in shots:
            width, height = SIZES["phone" if is_phone else "desktop"]
            page = browser.new_page(
                viewport={"width": width, "height": height},
                color_scheme="dark" if name == "dark" else "light",
                device_scale_factor=2,
            )
            page.goto(url)
            page.wait_for_selector("body[data-ready]")
            page.click("#new")  # each picture is of a document of its own
            page.mouse.move(0, 0)
            show(page, hovers=not is_phone)
            page.screenshot(path=DOCS / f"page-{name}.png")
            page.close()
        page = browser.new_page(device_scale_factor=2)
        page.goto(url.removesuffix("write") if shots else url)
        page.wait_for_selector("body[data-ready]")
        if shots:
            page.locator("#desk-main").screenshot(path=DOCS / "page-desk.png")
        else:
            measure(page)
        browser.close()


@contextlib.contextmanager
def serving(run: str) -> Iterator[str]:
    """A desk with the run. Gives the address of its page to write with."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, Path(run).resolve().name)
        copy.mkdir()
        shutil.copytree(run, copy / "run")
        line = [sys.executable, "-m", "textgen", "desk", "--port", "0", "--folder", folder]
        server = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
        try:
            assert server.stderr is not None
            yield next(
                f"{found[0]}/write"
                for line in server.stderr
                if (found := re.findall(r"https?://\S+", line))
            )
        finally:
            server.terminate()
            server.wait()


def show(page: Page, *, hovers: bool) -> None:
    """A text with five continuations, of which one goes on, and the alternatives to a token."""
    page.click("summary")
    for name, value in (("temperature", "0.6"), ("dry_multiplier", "0")):
        page.locator(f"input[name={name}]").fill(value)
    page.click("summary")
    for prompt, texts, tokens in ((PROMPT, 5, 260), ("", 2, 110)):
        page.fill("#n", str(texts))
        page.fill("#max_tokens", str(tokens))
        page.focus("#text")
        page.keyboard.type(prompt)
        generate(page)
        page.keyboard.press("Alt+ArrowUp")
        page.wait_for_timeout(SETTLED)
    page.evaluate("scrollTo(0, 0)")
    if hovers:
        box = page.evaluate(
            """() => {
              const range = new Range();
              const node = document.querySelector("#text").firstChild;
              const place = node.data.lastIndexOf(" ", node.length - 39) + 1; // of a word
              range.setStart(node, place);
              range.setEnd(node, place + 1);
              const { x, y, width, height } = range.getBoundingClientRect();
              return [x + width / 2, y + height / 2];
            }"""
        )
        for moved in range(60):  # on a busy machine, the colours may come later
            page.mouse.move(box[0] + moved % 2, box[1])
            page.wait_for_timeout(500)
            if page.query_selector("#alternatives:popover-open"):
                break
    page.wait_for_timeout(SETTLED)


def generate(page: Page) -> None:
    """Continue, and wait for the end and the colours."""
    page.keyboard.press("Control+Enter")
    page.wait_for_timeout(100)
    page.get_by_role("button", name="Continue", exact=True).wait_for(timeout=120_000)
    page.wait_for_timeout(SETTLED)


def measure(page: Page) -> None:
    """Print the median and the longest of some times."""
    page.fill("#n", "1")
    page.fill("#max_tokens", "200")
    page.focus("#text")
    page.keyboard.press("Control+a")
    page.keyboard.type("The door")
    generate(page)
    remade = [page.evaluate(REMADE, 1.3 if i % 2 else 0.3) for i in range(TIMES)]
    page.focus("#text")
    page.keyboard.press("Control+End")
    coloured = [page.evaluate(COLOURED) for _ in range(TIMES)]
    text = page.text_content("#text") or ""
    page.keyboard.insert_text((text * LONG)[: LONG - len(text)])
    page.wait_for_timeout(5 * SETTLED)
    coloured_long = [page.evaluate(COLOURED) for _ in range(TIMES)]
    page.evaluate(PAINTED)
    page.keyboard.type("the door was " * 5, delay=100)
    page.wait_for_timeout(SETTLED)
    for what, times in (
        (f"a key to its letter, in {LONG:,} characters", page.evaluate("window.painted")),
        ("an edit to its colours", coloured),
        (f"an edit to its colours, in {LONG:,} characters", coloured_long),
        ("a slider to 200 new tokens", remade),
    ):
        print(f"{what}: median {statistics.median(times):.0f} ms, longest {max(times):.0f} ms")


if __name__ == "__main__":
    main()
