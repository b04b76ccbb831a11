"""Loads of a run while another process replaces it, extends it and fails to: each gets the old run or a new one.

python -m tests.faults.races --loads 5000
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import textgen

TEXT = "".join(f"Once {n} ravens flew over {n * n % 7} hills, and none came back.\n" for n in range(60))


class Fails:
    """An observer that ends a run before it has a checkpoint."""

    def observe(self, event: Any) -> None:
        raise InterruptedError("on purpose")


def tables(folder: Path, order: int) -> dict[str, Any]:
    """A pipeline that trains in some milliseconds, without torch."""
    return {
        "device": "cpu",
        "corpus": {"type": "file", "path": str(folder / "text.txt")},
        "tokenizer": {"type": "char"},
        "model": {"type": "ngram", "order": order, "words": False},
        "trainer": {"type": "count"},
        "observer": [],
        "generate": {"max_new_tokens": 1},
        "output": str(folder / "run"),
    }


def replace(folder: Path) -> None:
    """Replace the run with one of another order, again and again; every third time fail to."""
    for number in range(10**9):
        fails = [Fails()] if number % 3 == 2 else []
        with contextlib.suppress(InterruptedError):
            textgen.run(tables(folder, 2 + number % 2), overwrite=True, observers=fails)


def load(folder: Path, loads: int) -> Counter[str]:
    """Load the run so many times; how often it was of which order, and what was raised."""
    expected = {text_of(folder / f"order-{order}"): f"order {order}" for order in (2, 3)}
    found: Counter[str] = Counter()
    for _ in range(loads):
        try:
            found[expected[text_of(folder / "run")]] += 1
        except Exception as error:
            found[f"{type(error).__name__}: {str(error)[-150:]}"] += 1
            if found.total() - sum(found[name] for name in expected.values()) == 1:
                traceback.print_exc()
    return found


def text_of(run: Path) -> str:
    """What the model of a run writes."""
    with textgen.load(run) as generator:
        return generator.generate("Once", max_new_tokens=30, seed=1).text


def main() -> int:
    """Run the campaign; 1 if a load raised, or was never of one of both runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loads", type=int, default=2000)
    loads: int = parser.parse_args().loads
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "text.txt").write_text(TEXT, encoding="utf-8")
        for order in (2, 3):
            textgen.run(tables(folder, order), output=folder / f"order-{order}")
        textgen.run(tables(folder, 2))
        child = os.fork()
        if not child:
            replace(folder)
        begun = time.perf_counter()
        try:
            found = load(folder, loads)
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    print(f"{found.total()} loads in {time.perf_counter() - begun:.0f} s")
    for what, count in found.most_common():
        print(f"{count:6}  {what}")
    return 0 if set(found) == {"order 2", "order 3"} else 1


if __name__ == "__main__":
    sys.exit(main())
