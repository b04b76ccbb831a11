"""Corpora: one that keeps the contract, and some that break one statement of it each."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

from broken_components.cases import Case, offered


class GoodCorpus:
    def __init__(self, context: Any) -> None:
        pass

    def read(self) -> Any:
        yield from ("The first piece.\n", "", "And the second.\n")


class BytesCorpus(GoodCorpus):
    def read(self) -> Any:
        yield b"not text"


class HugePieceCorpus(GoodCorpus):
    def read(self) -> Any:
        yield "a" * 20_000_000


class EmptyCorpus(GoodCorpus):
    def read(self) -> Any:
        yield ""


class SurrogateCorpus(GoodCorpus):
    def read(self) -> Any:
        yield "half of a character: \ud83d"


class OtherEachTimeCorpus(GoodCorpus):
    numbers = iter(range(10**6))

    def read(self) -> Any:
        yield f"text {next(self.numbers)}"


class OnceCorpus(GoodCorpus):
    def __init__(self, context: Any) -> None:
        self.pieces = iter(["the only", " text"])

    def read(self) -> Any:
        return self.pieces


class SharedCorpus(GoodCorpus):
    pieces = iter(["the only text"])

    def read(self) -> Any:
        return self.pieces


class NoFilesCorpus(GoodCorpus):
    def sources(self) -> Any:
        return ["https://example.org/text.txt"]


class SeededCorpus(GoodCorpus):
    """Its text would be taken for that of another seed."""

    def __init__(self, context: Any) -> None:
        self.seed = context.seed

    def sources(self) -> Any:
        return [Path(__file__)]

    def read(self) -> Any:
        yield f"The text of seed {self.seed}."


class OneReaderCorpus(GoodCorpus):
    """Reads well, if one reader is done before the next begins."""

    place = 0

    def read(self) -> Any:
        self.place = 0
        while self.place < 200:
            self.place += 1
            yield f"line {self.place}"


def unreadable(config: Any, context: Any) -> Any:
    raise FileNotFoundError(2, "No such file", "nowhere.txt")


class StrCorpus(GoodCorpus):
    def read(self) -> Any:
        return "one character per piece"


class NoneCorpus(GoodCorpus):
    def read(self) -> Any:
        pass


class SeedingCorpus(GoodCorpus):
    def read(self) -> Any:
        random.seed(3)
        yield f"{random.random()}"


class CyclingCorpus(GoodCorpus):
    def read(self) -> Any:
        return itertools.repeat("again and again\n" * 4000)


class CountingCorpus(GoodCorpus):
    """Without an end, and never the same."""

    def read(self) -> Any:
        return (f"line {number}\n" * 1000 for number in itertools.count())


class OpenCorpus(GoodCorpus):
    """Opens a file in every call, and keeps them all."""

    files: ClassVar[list[Any]] = []

    def read(self) -> Any:
        self.files.append(Path(__file__).open(encoding="utf-8"))  # noqa: SIM115
        yield "some text"


class ProcessCorpus(GoodCorpus):
    """Reads what a process writes that never ends."""

    processes: ClassVar[list[Any]] = []

    def read(self) -> Any:
        command = [sys.executable, "-c", "print('text', flush=True); import time; time.sleep(5)"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8")
        self.processes.append(process)
        assert process.stdout is not None
        with process.stdout:
            yield process.stdout.readline()


CORPORA = [
    Case(
        "corpus",
        "corpus-ends",
        "it had not ended after 100,0",
        offered(CyclingCorpus),
        {"largest": 100_000_000},
    ),
    Case(
        "corpus",
        "corpus-ends",
        "it had not ended after",
        offered(CountingCorpus, "counting"),
        {"largest": 10_000_000},
    ),
    Case("corpus", "component-leaks", "the open file", offered(OpenCorpus)),
    Case("corpus", "component-leaks", "it left the process", offered(ProcessCorpus, "process")),
    Case("corpus", "corpus-pieces", "read() gave a str", offered(StrCorpus)),
    Case("corpus", "corpus-pieces", "read() gave None", offered(NoneCorpus)),
    Case(
        "corpus",
        "component-calls",
        "it changed the random state of `random`",
        offered(SeedingCorpus),
    ),
    Case("corpus", "corpus-pieces", "of type bytes", offered(BytesCorpus)),
    Case("corpus", "corpus-pieces", "20,000,000 characters", offered(HugePieceCorpus)),
    Case("corpus", "corpus-text", "no character", offered(EmptyCorpus)),
    Case("corpus", "corpus-text", "U+D83D", offered(SurrogateCorpus)),
    Case("corpus", "corpus-again", "another text a second time", offered(OtherEachTimeCorpus)),
    Case("corpus", "corpus-again", "no text a second time", offered(OnceCorpus)),
    Case("corpus", "corpus-again", "gave no text a second time", offered(SharedCorpus)),
    Case("corpus", "corpus-readers", "in turn", offered(OneReaderCorpus)),
    Case(
        "corpus",
        "corpus-sources",
        "'https://example.org/text.txt', no file",
        offered(NoFilesCorpus, "no-files"),
    ),
    Case(
        "corpus", "corpus-sources", "another text for another seed", offered(SeededCorpus, "seeded")
    ),
    Case("corpus", "corpus-errors", "it raised nothing", offered(GoodCorpus), {"unreadable": {}}),
]


class PrintingCorpus(GoodCorpus):
    def read(self) -> Any:
        print("here")
        return super().read()


class RaisingCorpus(GoodCorpus):
    def read(self) -> Any:
        yield str(1 / 0)
