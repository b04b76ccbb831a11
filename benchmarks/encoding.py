"""From a text to tokens: characters a second of a first run, and of a second one.

Usage: python benchmarks/encoding.py [--megabytes 10 100 1000]

The text is the story that comes with textgen, repeated with changes. The run is one of the public
door, from its start to the event RunStarted: it reads the text twice, hashes it, fits the
vocabulary and writes the tokens to an empty cache, which the second run has.
"""

import os
import tempfile
import time
from pathlib import Path

import textgen
from shared import parser


def write_text(path, size):
    """A text of so many bytes; each repetition has other digits in some parts.

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


def main():
    """Print the table."""
    options = parser(__doc__)
    options.add_argument("--megabytes", type=int, nargs="+", default=[10, 100, 1000])
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["TEXTGEN_CACHE_DIR"] = str(folder / "cache")
        run({"type": "story"}, folder / "imported")
        for megabytes in given.megabytes:
            path = folder / f"{megabytes}.txt"
            characters = write_text(path, megabytes * 1_000_000)
            for what in ("first run", "second run"):
                spent = run({"type": "file", "path": path}, folder / f"{megabytes} {what}")
                speed = f"{characters / spent / 1e6:7.1f} M characters/s"
                print(f"{megabytes:5} MB {what:10} {spent:6.2f} s {speed}", flush=True)


if __name__ == "__main__":
    main()
