"""Counting n-grams of a large text: seconds, memory, and the rate against plain Python.

Usage: python benchmarks/counting.py [TEXT...] [--megabytes 2000] [--memory 600MB] [--processes 0] [--order 8]

The text is made of the texts given (The Time Machine if there is none), one byte a character: runs of one to eight
words from anywhere in them, in a seeded random order, so that new n-grams keep coming however much of it there is. It
is counted by the trainer `count`, and 2 MB of it by collections.Counter for each order, on which the ratio is based.
Resident memory is measured ten times a second, of this process and those that it starts. Ctrl-C ends it in good order.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import resource
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

import textgen
from textgen.data import Dataset
from textgen.events import Evaluated, StepDone
from textgen.protocols import TrainingContext
from textgen_builtins.models.ngram.bounded import Budget
from textgen_builtins.models.ngram.counting import CountTrainer
from textgen_builtins.models.ngram.model import NgramModel
from textgen_builtins.models.ngram.plugin import bytes_of

_BLOCK = 1 << 24
_HELD_OUT = 1 << 18
_BASELINE = 2_000_000
_WHO = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("texts", nargs="*", type=Path)
    parser.add_argument("--megabytes", type=int, default=2000)
    parser.add_argument("--memory", default="600MB")
    parser.add_argument("--processes", type=int, default=0)
    parser.add_argument("--order", type=int, default=8)
    parser.add_argument(
        "--prune", help="such as 0,0,1; as little as the memory allows if not given"
    )
    parser.add_argument("--prune-entropy", type=float, default=0.0)
    parser.add_argument(
        "--folder", type=Path, help="where the text and the shards are put for the time"
    )
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(dir=given.folder) as folder,
        contextlib.suppress(KeyboardInterrupt),
    ):
        path, size = Path(folder, "tokens.bin"), given.megabytes * 1_000_000 + _HELD_OUT
        vocab_size = write_text(given.texts, path, size)
        tokens = np.memmap(path, np.uint8, "r", shape=(size,))
        data = Dataset(
            training=tokens[:-_HELD_OUT],
            validation=np.array(tokens[-_HELD_OUT:]),
            vocab_size=vocab_size,
            window_length=32,
            window_stride=32,
        )
        ours, work = count(data, given)
        baseline = plain_python(tokens[:_BASELINE].tobytes(), given.order)
        print(f"plain Python, 2 MB          {1e-6 / baseline:8.2f} million characters a second")
        print(
            f"against plain Python        {baseline / ours:8.1f} times; {baseline / work:.1f} a core"
        )


def write_text(texts: list[Path], path: Path, size: int) -> int:
    """Write `size` ids, a byte each; return the size of the vocabulary."""
    whole = " ".join(text.read_text(encoding="utf-8-sig") for text in texts)
    whole = whole or "".join(textgen.Engine().read_corpus({"type": "time-machine"}))
    letters = sorted(collections.Counter(whole))[:256]
    number = {letter: i for i, letter in enumerate(letters)}
    ids = np.array([number.get(letter, 0) for letter in whole], np.uint8)
    borders = np.flatnonzero(ids == number[" "]) + 1
    random = np.random.default_rng(0)
    with path.open("wb") as file:
        while (missing := size - file.tell()) > 0:
            words = random.integers(0, len(borders) - 9, _BLOCK // 25)
            starts, stops = borders[words], borders[words + random.integers(1, 9, len(words))]
            lengths = stops - starts
            places = np.arange(lengths.sum()) + np.repeat(
                starts - (np.cumsum(lengths) - lengths), lengths
            )
            ids[places][:missing].tofile(file)
    return len(letters)


def count(data: Dataset, given: argparse.Namespace) -> tuple[float, float]:
    """Seconds a character, by the clock and of all processes' work."""
    model = NgramModel(given.order, data.vocab_size)
    prune = None if given.prune is None else tuple(int(part) for part in given.prune.split(","))
    trainer = CountTrainer(
        0.0, Budget(bytes_of(given.memory), given.processes, prune), given.prune_entropy
    )
    memory = Memory()
    begun, shown, work = time.perf_counter(), 0.0, cpu_seconds()
    longest, last = 0.0, begun
    with memory:
        for event in trainer.train(model, data, TrainingContext(seed=0, device="cpu")):
            assert isinstance(event, StepDone | Evaluated)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now
            if now - shown > 10:
                shown = now
                print(
                    f"  {now - begun:6.0f} s  step {event.step}  {memory.now():7.0f} MB", flush=True
                )
    seconds, work = time.perf_counter() - begun, cpu_seconds() - work
    trie = model.trie
    print(f"characters                  {len(data.training):12,}")
    print(f"seconds                     {seconds:8.1f}   longest without an event {longest:.2f}")
    print(
        f"rate                        {len(data.training) / seconds / 1e6:8.2f} million characters a second"
    )
    print(
        f"rate a core, by its clock   {len(data.training) / work / 1e6:8.2f} million characters a second"
    )
    print(
        f"resident memory, MB         {memory.greatest:8.0f} the largest process, {memory.most:.0f} all together"
    )
    print(
        f"n-grams                     {len(trie.keys):12,}   left out: counts up to {trainer.thresholds}"
    )
    print(
        f"the model, MB               {trie.nbytes / 1e6:8.0f}   bytes an n-gram {trie.nbytes / len(trie.keys):.1f}"
    )
    assert isinstance(event, Evaluated)
    print(f"loss of other text          {event.validation_loss:8.4f}")
    return seconds / len(data.training), work / len(data.training)


def cpu_seconds() -> float:
    """Of this process and of those that it has ended."""
    return sum(resource.getrusage(who).ru_utime + resource.getrusage(who).ru_stime for who in _WHO)


def plain_python(text: bytes, order: int) -> float:
    """Seconds a character."""
    begun = time.process_time()
    for n in range(1, order + 1):
        collections.Counter(text[i : i + n] for i in range(len(text) - n + 1))
    return (time.process_time() - begun) / len(text)


class Memory(contextlib.AbstractContextManager[Any]):
    """Watches the resident megabytes of this process and its children: the most of one, and of all at one time."""

    def __init__(self) -> None:
        self.greatest, self.most = 0.0, 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def now(self) -> float:
        """All together."""
        return sum(self._sizes())

    def _watch(self) -> None:
        while not self._ended.wait(0.1):
            sizes = self._sizes()
            self.greatest, self.most = max(self.greatest, *sizes), max(self.most, sum(sizes))

    @staticmethod
    def _sizes() -> list[float]:
        sizes = []
        children = "".join(path.read_text() for path in Path("/proc/self/task").glob("*/children"))
        for process in ("self", *children.split()):
            with contextlib.suppress(OSError, IndexError):
                status = Path("/proc", process, "status").read_text(encoding="ascii")
                sizes.append(int(status.split("VmRSS:")[1].split()[0]) / 1024)
        return sizes


if __name__ == "__main__":
    main()
