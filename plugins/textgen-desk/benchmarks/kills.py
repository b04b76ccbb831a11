"""Kills the server, the training and the browser of a desk at random moments, and tells what is
lost.

    python benchmarks/kills.py --kills 200

A person in Chromium types words without a pause, or has the model write, while another model is
trained. By turns each of the three, and then all at once, are killed with SIGKILL and started
again. What was on the disk, and what was on the page two seconds before (--within), has to be on
the disk and the page then, and all of it where the browser lives; the training has to go on after
its newest checkpoint. Prints a line of JSON for each kill, and ends with 1 if anything was lost.
On Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
from playwright.sync_api import Error, Page, Playwright, sync_playwright

import textgen

VICTIMS = ["server"], ["training"], ["browser"], ["server", "training", "browser"]
TEXT = "".join(f"Once {n} ravens flew over {n % 7} hills, and none came back.\n" for n in range(99))
PIPELINE = """
corpus = { type = "file", path = "text/ravens.txt" }
tokenizer.type = "char"
model = { type = "rnn", hidden_size = 8 }
trainer = { type = "adamw", length = "100000 epochs" }
checkpoint.seconds = 1
"""
LONGEST = 4.0  # seconds before a kill
PATIENCE = 90.0  # seconds


def main() -> int:
    """Kill, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--within", type=float, default=2.0, help="seconds after which a text is on the disk"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # which ends what was started
    draw, lost = random.Random(options.seed), 0
    folders = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)  # Chromium ends a while later
    with folders as folder, sync_playwright() as playwright:
        desk = Desk(Path(folder), playwright, options.within)
        try:
            desk.prepare()
            for number in range(options.kills):
                victims = VICTIMS[number % len(VICTIMS)]
                said = desk.kill(victims, draw.uniform(0, LONGEST), writes=draw.random() < 0.3)
                print(json.dumps({"killed": victims, **said}), flush=True)
                lost += bool(said["lost"])
        finally:
            for name in VICTIMS[-1]:
                desk.end(name)
    print(json.dumps({"kills": options.kills, "lost": lost}))
    return int(lost > 0)


@attrs.define
class Desk:
    """A desk with a model to write with and one that is trained, and a person."""

    folder: Path
    playwright: Playwright
    within: float
    port: int = attrs.field(factory=lambda: free_port())
    processes: dict[str, subprocess.Popen[bytes]] = attrs.field(factory=dict)
    page: Page = attrs.field(init=False)
    number: int = 0

    def prepare(self) -> None:
        """Make the models, and start everything."""
        textgen.train(
            corpus=TEXT,
            tokenizer="char",
            model={"type": "ngram"},
            trainer={"type": "count"},
            output=self.folder / "notes/run",
        )
        run = self.folder / "ravens"
        (run / "text").mkdir(parents=True)
        (run / "text/ravens.txt").write_text(TEXT)
        (run / "pipeline.toml").write_text(PIPELINE)
        for name in VICTIMS[-1]:
            self.start(name)

    def kill(self, victims: list[str], seconds: float, *, writes: bool) -> dict[str, Any]:
        """Kill after so many seconds, in which the model writes or the person, start again, and
        tell what was lost.
        """
        shown = self.worked(seconds, writes)
        on_disk, checkpoint, when = self.kept(), self.checkpoint(), time.monotonic()
        for name in victims:
            self.end(name)
        earlier = [text for noted, text in shown if noted <= when - self.within]
        due = max([on_disk, *earlier], key=len)
        faults = []
        try:
            for name in victims:
                self.start(name)
            if "browser" not in victims:
                due = self.text()  # which may still grow
            else:
                until(lambda: self.text().startswith(due), "the page", lambda: self.lost(due))
            until(lambda: self.kept() == self.text(), "the disk", self.kept)
            if not self.text().startswith(due):
                faults.append(self.lost(due))
            until(lambda: self.state()["status"] == "running", "the training", self.state)
            until(lambda: (self.state()["step"] or 0) >= checkpoint, "its step", self.state)
        except (AssertionError, Error, OSError) as error:
            faults.append(str(error)[:2000])
        took = round(time.monotonic() - when, 1)
        facts = {"characters": len(self.text()), "step": checkpoint, "seconds": took}
        return {"after": round(seconds, 2), "writes": writes, **facts, "lost": faults}

    def worked(self, seconds: float, writes: bool) -> list[tuple[float, str]]:
        """Texts that were on the page, and when."""
        self.page.focus("#text")
        self.page.keyboard.press("Control+End")
        shown, end = [(time.monotonic(), self.text())], time.monotonic() + seconds
        if writes:
            self.page.keyboard.press("Control+Enter")
        while time.monotonic() < end:
            if not writes:
                self.number += 1
                self.page.keyboard.type(f"{self.number} ")
            text = self.text()
            shown.append((time.monotonic(), text))
        return shown

    def start(self, name: str) -> None:
        """Start one of the three."""
        if name == "server":
            line = [sys.executable, "-m", "textgen", "desk", "--port", str(self.port)]
            self.spawn(name, [*line, "--folder", str(self.folder)])
            until(lambda: self.asked("health") is not None, "the server", str)
        elif name == "training":
            until(lambda: self.state()["status"] != "running", "the lock", self.state)
            self.asked("desk/runs/ravens/resume", {})
            until(lambda: self.state()["status"] == "running", "the training", self.state)
        else:
            self.browse()

    def end(self, name: str) -> None:
        """Kill one, if it lives."""
        if name == "training":
            owner = self.folder / "ravens/run/.lock-owner.json"
            if owner.exists():
                os.kill(json.loads(owner.read_text())["pid"], signal.SIGKILL)
        elif process := self.processes.pop(name, None):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def browse(self) -> None:
        """Open the document in Chromium, whose profile stays."""
        port = free_port()
        line = [str(shutil.which("chromium") or shutil.which("google-chrome")), "--headless=new"]
        line += ["--no-sandbox", "--disable-gpu", f"--user-data-dir={self.folder}/.chromium"]
        self.spawn("browser", [*line, f"--remote-debugging-port={port}", "about:blank"])
        address = f"http://127.0.0.1:{port}"
        until(lambda: asked(f"{address}/json/version") is not None, "Chromium", str)
        browser = self.playwright.chromium.connect_over_cdp(address)
        self.page = browser.contexts[0].new_page()
        self.page.goto(f"http://127.0.0.1:{self.port}/write#model=notes")
        self.page.wait_for_selector("body[data-ready]")
        self.page.fill("#max_tokens", "2000")

    def spawn(self, name: str, line: list[str]) -> None:
        """A process in a group of its own."""
        null = subprocess.DEVNULL
        self.processes[name] = subprocess.Popen(
            line, stdout=null, stderr=null, start_new_session=True
        )

    def text(self) -> str:
        """The text on the page."""
        return self.page.text_content("#text") or ""

    def lost(self, text: str) -> str:
        """Characters of a text that the page lacks."""
        return f"{self.text()[-99:]!r} is there, {text[-99:]!r} was"

    def kept(self) -> str:
        """The text on the disk."""
        path = self.folder / "notes/documents/Untitled.md"
        return path.read_text() if path.exists() else ""

    def checkpoint(self) -> int:
        """The step of the newest checkpoint."""
        found = self.folder.glob("ravens/run/checkpoints/step-*/manifest.json")
        return max((int(path.parent.name.removeprefix("step-")) for path in found), default=0)

    def state(self) -> dict[str, Any]:
        """State of the training."""
        return self.asked("desk/runs/ravens") or {"status": "no answer", "step": -1}

    def asked(self, path: str, body: Any = None) -> Any:
        """The server's answer; None if there is none."""
        return asked(f"http://127.0.0.1:{self.port}/{urllib.parse.quote(path)}", body)


def asked(url: str, body: Any = None) -> Any:
    """The JSON at an address; None if nothing answers."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())
    except OSError:
        return None


def until(condition: Callable[[], bool], what: str, found: Callable[[], object]) -> None:
    """Wait. Raises AssertionError where it lasts."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"{what}: {found()}"
        time.sleep(0.05)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


if __name__ == "__main__":
    raise SystemExit(main())
