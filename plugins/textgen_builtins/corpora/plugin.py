"""The built-in corpora: files, the included story, and The Time Machine."""

from __future__ import annotations

from pathlib import Path

from textgen import BuildContext, Component, hookimpl
from textgen.protocols import Corpus
from textgen_builtins.corpora.config import FileConfig, StoryConfig, TimeMachineConfig


def build_file(config: FileConfig, context: BuildContext) -> Corpus:
    """A corpus of text files. Only to train are addresses fetched."""
    from textgen_builtins.corpora.text_files import FileCorpus

    return FileCorpus(config, console=context.console, offline=not context.training)


def build_story(config: StoryConfig, context: BuildContext) -> Corpus:
    """The included story."""
    from textgen_builtins.corpora.text_files import FileCorpus

    return FileCorpus(FileConfig(path=Path(__file__).with_name("story.txt"), encoding="utf-8"))


def build_time_machine(config: TimeMachineConfig, context: BuildContext) -> Corpus:
    """The book, from the cache or the network."""
    from textgen_builtins.corpora.text_files import FileCorpus
    from textgen_builtins.corpora.time_machine import cached_book

    book = cached_book(console=context.console, offline=not context.training)
    return FileCorpus(FileConfig(path=book, encoding="utf-8"))


@hookimpl
def textgen_corpora() -> list[Component]:
    """Offer `file`, `story` and `time-machine`."""
    return [
        Component("file", FileConfig, build_file),
        Component("story", StoryConfig, build_story),
        Component("time-machine", TimeMachineConfig, build_time_machine),
    ]
