"""The built-in corpora: files, the included story, and The Time Machine."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from textgen import Address, BuildContext, Component, hookimpl
from textgen.protocols import Corpus
from textgen_builtins.corpora.config import FileConfig, StoryConfig, TimeMachineConfig

STORY: Final = Path(__file__).with_name("story.txt")
BOOK: Final = "http://d2l-data.s3-accelerate.amazonaws.com/timemachine.txt"
_SHA256: Final = "8424dbd9532ac81f7e5f0b6add90e6952baea29158309d7d1bf3884f4e12c516"


def build_file(config: FileConfig, context: BuildContext) -> Corpus:
    """A corpus of text files. Only to train are addresses fetched."""
    from textgen_builtins.corpora.text_files import FileCorpus

    return FileCorpus(config, console=context.console, offline=not context.training)


def build_story(config: StoryConfig, context: BuildContext) -> Corpus:
    """The included story."""
    from textgen_builtins.corpora.text_files import FileCorpus

    return FileCorpus(FileConfig(STORY))


def build_time_machine(config: TimeMachineConfig, context: BuildContext) -> Corpus:
    """The book, from the cache or the network."""
    from textgen_builtins.corpora.text_files import FileCorpus

    book, offline = FileConfig(path=Address(BOOK), encoding="utf-8"), not context.training
    return FileCorpus(book, console=context.console, offline=offline, sha256=_SHA256)


@hookimpl
def textgen_corpora() -> list[Component]:
    """Offer `file`, `story` and `time-machine`."""
    return [
        Component("file", FileConfig, build_file),
        Component("story", StoryConfig, build_story),
        Component("time-machine", TimeMachineConfig, build_time_machine),
    ]
