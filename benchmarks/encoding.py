"""From a text to tokens: characters a second and memory of a first run, and of a second one.

Usage: python benchmarks/encoding.py [--megabytes 10 100 1000]

The text is the story that comes with textgen, repeated with changes. Each line is a process of its
own. The run is one of the public door, from its start to the event RunStarted: it reads the text
twice, hashes it, fits the vocabulary and writes the tokens to an empty cache, which the second run
has.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import textgen
from shared import parser


def write_text(path, size):
    """A text of so many bytes; each repetition has other digits at places.

    Returns its characters.
    """
    story = "".join(textgen.Engine().read_corpus({"type": "story"}))
    parts = [story.replace("\n\n", f"\n\n{n} ") for n in range(1 + size // len(story.encode()))]
    path.write_text("".join(parts), encoding="utf-8")
    os.utime(path, (0, 0))  # a file that was written just now is not cached
    return sum(map(len, parts))


def run(corpus, output):
    """Train a little; seconds until training begins."""
    begun, times = time.perf_counter(), {}

    class Clock:
        def observe(self, event):
            times.setdefault(type(event).__name__, time.perf_counter() - begun)

    tables = {
        "device": "cpu",
        "observer": [],
        "corpus": corpus,
        "tokenizer": {"type": "char"},
        "data": {"windows": [64, 0]},
        "model": {"type": "rnn", "hidden_size": 16},
        "trainer": {"type": "adamw", "length": "1 epoch"},
        "generate": {"max_new_tokens": 1},
    }
    textgen.run(tables, output=output, observers=[Clock()])
    return times["RunStarted"]


def measured(path):
    """Seconds of a run of a text, once all is imported."""
    with tempfile.TemporaryDirectory() as folder:
        run({"type": "story"}, Path(folder, "imported"))
        return run({"type": "file", "path": path}, Path(folder, "run"))


def main():
    """Print the table."""
    options = parser(__doc__)
    options.add_argument("--megabytes", type=int, nargs="+", default=[10, 100, 1000])
    options.add_argument("--measure", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.measure:
        spent, usage = measured(given.measure), resource.getrusage(resource.RUSAGE_SELF)
        print(json.dumps((spent, usage.ru_maxrss / 1024)))
        return
    for megabytes in given.megabytes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "text.txt")
            characters = write_text(path, megabytes * 1_000_000)
            environment = {**os.environ, "TEXTGEN_CACHE_DIR": str(Path(folder, "cache"))}
            for what in ("first run", "second run"):
                command = [sys.executable, __file__, "--measure", str(path)]
                said = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
                spent, peak = json.loads(said.stdout)
                speed = f"{characters / spent / 1e6:7.1f} M characters/s"
                print(f"{megabytes:5} MB {what:10} {spent:6.2f} s {speed}, peak {peak:4.0f} MB")


if __name__ == "__main__":
    main()
