"""Takes the pictures of the page in docs/, with playwright and Chromium, and measures how soon it
answers.

textgen run docs/pipelines/quickstart.toml
python plugins/textgen-serve/screenshots.py runs/quickstart
"""

import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

DOCS = Path(__file__).parents[2] / "docs"
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync")
SIZES = {"desktop": (1240, 860), "phone": (390, 844)}
PROMPT = "The ferry"
TIMES = 20
# The milliseconds until an edit's last character has a colour, and from a slider until there is
# another text.
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
    """Serve the run, take the pictures, and print the times."""
    line = [sys.executable, "-m", "textgen", "serve", "--port", "0", sys.argv[1]]
    server = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        url = re.findall(r"https?://\S+", server.stderr.readline())[0]
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=FLAGS
            )
            for name, size, scheme in (
                ("light", "desktop", "light"),
                ("dark", "desktop", "dark"),
                ("phone", "phone", "light"),
            ):
                width, height = SIZES[size]
                page = browser.new_page(
                    viewport={"width": width, "height": height},
                    color_scheme=scheme,
                    device_scale_factor=2,
                )
                page.goto(url)
                page.wait_for_selector("body[data-ready]")
                show(page, hovers=size == "desktop")
                page.screenshot(path=DOCS / f"page-{name}.png")
                page.close()
            page = browser.new_page()
            page.goto(url)
            page.wait_for_selector("body[data-ready]")
            measure(page)
            browser.close()
    finally:
        server.terminate()
        server.wait()


def show(page: Page, *, hovers: bool) -> None:
    """A text with three continuations, and the alternatives to one of its tokens."""
    page.fill("#n", "3")
    page.fill("#max_tokens", "240")
    page.focus("#text")
    page.keyboard.type(PROMPT)
    generate(page)
    page.keyboard.press("Alt+ArrowDown")
    page.fill("#n", "2")
    page.fill("#max_tokens", "160")
    page.focus("#text")
    generate(page)
    if hovers:
        box = page.evaluate(
            """() => {
              const range = new Range();
              range.setStart(document.querySelector("#text").firstChild, 26);
              range.setEnd(range.startContainer, 27);
              const { x, y, width, height } = range.getBoundingClientRect();
              return [x + width / 2, y + height / 2];
            }"""
        )
        page.mouse.move(*box)
        page.wait_for_selector("#alternatives:popover-open")
    page.wait_for_timeout(300)


def generate(page: Page) -> None:
    """Continue, and wait for the end and the colours."""
    page.keyboard.press("Control+Enter")
    page.wait_for_timeout(100)
    page.get_by_role("button", name="Continue", exact=True).wait_for()
    page.wait_for_timeout(300)


def measure(page: Page) -> None:
    """Print the median and the longest of some times."""
    page.fill("#n", "1")
    page.fill("#max_tokens", "200")
    page.focus("#text")
    page.keyboard.press("Control+a")
    page.keyboard.type(PROMPT)
    generate(page)
    remade = [page.evaluate(REMADE, 1.3 if i % 2 else 0.3) for i in range(TIMES)]
    page.focus("#text")
    page.keyboard.press("Control+End")
    coloured = [page.evaluate(COLOURED) for _ in range(TIMES)]
    for what, times in (
        ("an edit to its colours", coloured),
        ("a slider to 200 new tokens", remade),
    ):
        print(f"{what}: median {statistics.median(times):.0f} ms, longest {max(times):.0f} ms")


if __name__ == "__main__":
    main()
