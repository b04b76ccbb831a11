"""Memory of endless generation, and of scoring a long text: resident megabytes as they go.

Usage: python benchmarks/memory.py [--characters 10000000] [--score-megabytes 20]
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

from generation import trained


def resident_megabytes() -> float:
    """Of this process, as Linux counts them."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def main() -> None:
    """Print a line for every tenth of the way."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--characters", type=int, default=10_000_000)
    parser.add_argument("--score-megabytes", type=int, default=20)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        generator = trained(Path(folder), "rnn", 32)
    stream = generator.stream("the ", max_new_tokens=None, temperature=1.0)
    tenth = arguments.characters // 10
    for part in range(11):
        print(f"{part * tenth:>12,} characters written: {resident_megabytes():7.1f} MB", flush=True)
        for _ in itertools.islice(stream, tenth if part < 10 else 0):
            pass
    piece = "it was the time machine and nothing else " * 25_000  # about a megabyte

    def text() -> Iterator[str]:
        for number in range(arguments.score_megabytes):
            if number % max(1, arguments.score_megabytes // 5) == 0:
                print(
                    f"{number:>12,} megabytes scored:   {resident_megabytes():7.1f} MB", flush=True
                )
            yield piece

    score = generator.score(text())
    print(f"{score.characters:>12,} characters scored:  {resident_megabytes():7.1f} MB", flush=True)


if __name__ == "__main__":
    main()
