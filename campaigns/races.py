"""Loads of a run while another process replaces it, extends it and fails to: each gets the old run or a new one.

python -m campaigns.races [--loads 5000] [--extend]
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import textgen

TEXT = "".join(
    f"Once {n} ravens flew over {n * n % 7} hills, and none came back.\n" for n in range(60)
)


class Fails:
    """An observer that ends a run before it has a checkpoint."""

    def observe(self, event: Any) -> None:
        raise InterruptedError("on purpose")


def tables(folder: Path, **changes: Any) -> dict[str, Any]:
    """A pipeline that trains in some milliseconds, with n-grams without torch."""
    return {
        "device": "cpu",
        "threads": 1,  # or a child that is forked after a training could not train
        "corpus": {"type": "file", "path": str(folder / "text.txt")},
        "tokenizer": {"type": "char"},
        "trainer": {"type": "count"},
        "observer": [],
        "generate": {"max_new_tokens": 1},
        "output": str(folder / "run"),
        **changes,
    }


def pipelines(folder: Path, *, extend: bool) -> dict[str, dict[str, Any]]:
    """What replaces the run in turn; the last of them goes on from the one before."""
    made = {
        f"order {order}": tables(folder, model={"type": "ngram", "order": order})
        for order in (2, 3)
    }
    if extend:
        sgd = {"type": "sgd", "batch_size": 16, "learning_rate": 2.0}
        model = {"type": "rnn", "hidden_size": 8}
        made |= {
            f"epoch {n}": tables(folder, model=model, trainer={**sgd, "length": f"{n} epochs"})
            for n in (1, 2)
        }
    return made


def replace(folder: Path, made: dict[str, dict[str, Any]]) -> None:
    """Replace the run by each in turn, again and again, and in between fail to; end with the parent process."""
    parent = os.getppid()
    for number in itertools.count(1):
        if os.getppid() != parent:
            os._exit(0)
        for name, pipeline in made.items():
            textgen.run(pipeline, overwrite=name != "epoch 2")
        with contextlib.suppress(InterruptedError):
            textgen.run(made["order 2"], overwrite=True, observers=[Fails()])
        (folder / "replaced").write_text(str(number * (len(made) + 1)))


def load(folder: Path, loads: int, expected: dict[str, str]) -> Counter[str]:
    """Load the run so many times; how often it was which, by its text, and what was raised."""
    found: Counter[str] = Counter()
    for _ in range(loads):
        try:
            found[expected[text_of(folder / "run")]] += 1
        except Exception as error:
            found[f"{type(error).__name__}: {str(error)[-150:]}"] += 1
    return found


def text_of(run: Path) -> str:
    """What the model of a run writes."""
    with textgen.load(run) as generator:
        return generator.generate("Once", max_new_tokens=30, seed=1).text


def main() -> int:
    """Run the campaign; 1 if a load raised, or was none of these runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loads", type=int, default=2000)
    parser.add_argument(
        "--extend", action="store_true", help="train a network too, and go on with it; needs torch"
    )
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "text.txt").write_text(TEXT, encoding="utf-8")
        (folder / "replaced").write_text("0")
        made = pipelines(folder, extend=arguments.extend)
        expected = {}
        for name, pipeline in made.items():
            expected[text_of(textgen.run(pipeline, output=folder / name).path)] = name
        textgen.run(made["order 2"])
        child = os.fork()
        if not child:
            try:
                replace(folder, made)
            finally:
                os._exit(1)  # what follows is for the parent
        begun = time.perf_counter()
        try:
            found = load(folder, arguments.loads, expected)
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        replaced = (folder / "replaced").read_text()
    print(
        f"{found.total()} loads in {time.perf_counter() - begun:.0f} s, while the run was replaced {replaced} times"
    )
    for what, count in found.most_common():
        print(f"{count:6}  {what}")
    return 0 if set(found) <= set(made) and len(expected) == len(made) else 1


if __name__ == "__main__":
    sys.exit(main())
