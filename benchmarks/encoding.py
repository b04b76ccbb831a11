"""From a text to tokens: characters a second and memory of a first run, beside plain Python; and a second run.

Usage: python benchmarks/encoding.py [--megabytes 10 100 1000] [--alphabet latin cyrillic] [--corpora FILE…]

The text is made of the given files, or of the story that comes with textgen, repeated with changes; `cyrillic` turns
its small letters into those of another alphabet, which take two bytes. Each line is a process of its own. The run is
one of the public door, from its start to the event RunStarted: it reads the text twice, hashes it, fits the vocabulary
and writes the tokens to an empty cache. The second run has the cache. Set against them, in characters a second on at
most 10 MB, since they hold every character as an object:

    loop        np.array([stoi[c] for c in text]) of a text that is in memory already
    in memory   all a script does that reads a file, takes set(text) as its vocabulary, encodes each part as a list and
                writes it as 16-bit numbers (as nanoGPT's prepare.py for characters)
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

STORY = Path(__file__).parents[1] / "plugins/textgen_builtins/corpora/story.txt"
LARGEST_IN_MEMORY = 10_000_000


def write_text(path: Path, sources: list[Path], size: int, alphabet: str) -> int:
    """A text of so many bytes; each repetition has other digits at places. Returns its characters."""
    text = "".join(source.read_text(encoding="utf-8") for source in sources)
    if alphabet == "cyrillic":
        text = text.translate({ord("a") + i: 0x430 + i for i in range(26)})
    written = characters = 0
    with path.open("w", encoding="utf-8") as file:
        for number in range(size):
            part = text.replace("\n\n", f"\n\n{number} ")
            file.write(part)
            written += len(part.encode())
            characters += len(part)
            if written >= size:
                break
    os.utime(path, (0, 0))  # as a file that was not written just now
    return characters


def measure_run(folder: Path) -> dict[str, float]:
    """Seconds to RunStarted and to the first step, and of the processor to RunStarted. What is imported is before."""
    run("it was not imported yet\n" * 1000, None)
    return run({"type": "file", "path": str(folder / "text.txt")}, folder / f"run-{time.time_ns()}")


def run(corpus: str | dict[str, str], output: Path | None) -> dict[str, float]:
    """Train a little; the times."""
    import textgen

    begun, used, times = time.perf_counter(), time.process_time(), {}

    class Clock:
        def observe(self, event: Any) -> None:
            times.setdefault(
                type(event).__name__, (time.perf_counter() - begun, time.process_time() - used)
            )

    textgen.run(
        {
            "device": "cpu",
            "observer": [],
            "corpus": corpus,
            "tokenizer": {"type": "char"},
            "data": {"window_length": 64, "windows": [64, 0]},
            "model": {"type": "rnn", "hidden_size": 16},
            "trainer": {"type": "adamw", "length": "1 epoch"},
            "generate": {"max_new_tokens": 1},
        },
        output=output or Path(tempfile.mkdtemp(), "run"),
        observers=[Clock()],
    )
    (seconds, processor), (step, _) = times["RunStarted"], times["StepDone"]
    return {"seconds": seconds, "processor": processor, "step": step}


def measure_loop(folder: Path) -> dict[str, float]:
    """A dict and a list."""
    text = (folder / "text.txt").read_text(encoding="utf-8")
    stoi = {character: i for i, character in enumerate(sorted(set(text)))}
    begun, used = time.perf_counter(), time.process_time()
    np.array([stoi[c] for c in text])
    return {"seconds": time.perf_counter() - begun, "processor": time.process_time() - used}


def measure_in_memory(folder: Path) -> dict[str, float]:
    """Read, vocabulary, split, two lists, two files."""
    begun, used = time.perf_counter(), time.process_time()
    text = (folder / "text.txt").read_text(encoding="utf-8")
    stoi = {character: i for i, character in enumerate(sorted(set(text)))}
    for name, part in (
        ("train", text[: len(text) * 9 // 10]),
        ("val", text[len(text) * 9 // 10 :]),
    ):
        np.array([stoi[c] for c in part], np.uint16).tofile(folder / f"{name}.bin")
    return {"seconds": time.perf_counter() - begun, "processor": time.process_time() - used}


MEASURES = {
    "first run": measure_run,
    "second run": measure_run,
    "loop": measure_loop,
    "in memory": measure_in_memory,
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--alphabet", nargs="+", choices=("latin", "cyrillic"), default=["latin"])
    parser.add_argument("--corpora", type=Path, nargs="+", default=[STORY])
    parser.add_argument("--measure", choices=MEASURES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        found = MEASURES[arguments.measure](arguments.corpora[0])
        print(
            json.dumps({**found, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024})
        )
        return
    for alphabet in arguments.alphabet:
        for megabytes in sorted(arguments.megabytes):
            with tempfile.TemporaryDirectory() as name:
                size = megabytes * 1_000_000
                characters = write_text(Path(name, "text.txt"), arguments.corpora, size, alphabet)
                _print_rows(Path(name), f"{alphabet}, {megabytes} MB", characters)


def _print_rows(folder: Path, title: str, characters: int) -> None:
    own = 0.0
    for name in MEASURES:
        if name in ("loop", "in memory") and characters > LARGEST_IN_MEMORY * 1.2:
            continue
        command = [sys.executable, __file__, "--measure", name, "--corpora", str(folder)]
        cache = {"TEXTGEN_CACHE_DIR": str(folder / "cache")}
        found = json.loads(
            subprocess.run(
                command, env={**os.environ, **cache}, check=True, capture_output=True
            ).stdout
        )
        own = own or found["processor"]
        row = f"{title:17} {name:10} {found['seconds']:6.2f} s {characters / found['seconds'] / 1e6:7.1f} M characters/s"
        row += f", of processor time {found['processor']:6.2f} s, {found['processor'] / own:5.2f} times the first run's"
        first = f", first step after {found['step']:.2f} s" if "step" in found else ""
        print(f"{row}, peak {found['peak']:4.0f} MB{first}", flush=True)


if __name__ == "__main__":
    main()
