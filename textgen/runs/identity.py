"""Identities of components, and the cache key of an encoded text."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from textgen.files.opening import file_signature
from textgen.files.reading import VOCABULARY, WEIGHTS, json_checksum
from textgen.plugin.component import OBJECT, UNPACKAGED
from textgen.plugin.structure import ConfiguredComponent, Run, plain
from textgen.protocols import Corpus, Table, Tokenizer
from textgen.runs.starting import located, naming

_FORMAT: Final = 2  # of what the engine makes of a text; counted up when that changes


def identity(choice: ConfiguredComponent) -> Table:
    """The options of a component that determine what it makes.

    A config class may define `fingerprint() -> dict` to choose which of its options count.
    """
    own: dict[str, Any] = {"type": choice.offer.canonical_name}
    if choice.start is not None:
        weights = {"weights": choice.start.weights} if choice.offer.kind == "model" else {}
        own["start"] = {**weights, "tokenizer": choice.start.tokenizer}
    if hasattr(choice.options, "fingerprint"):
        return {**own, **plain(choice.options.fingerprint())}
    parts = {key: identity(part) for key, part in choice.parts().items()}
    runs = {key: _contents(run) for key, run in choice.runs().items()}
    return {**choice.table(), **own, **parts, **runs}


def _contents(run: Run) -> Table:
    """The checksums of a finished run, or the tables that a plugin offers in its place; nothing of
    one that is gone.
    """
    if run.offer is None and not Path(run.name).exists():
        return {}
    with naming(run):
        found = located(run)
        if isinstance(found, Mapping):
            return dict(plain(found))
        sums = found.read_run()["files"]
        return {name: sums[name] for name in (WEIGHTS, VOCABULARY)}


def text_key(
    corpus: Corpus,
    tokenizer: Tokenizer,
    choices: Sequence[ConfiguredComponent],
    vocabulary: Table | None,
) -> str:
    """The cache key of an encoded text, found without reading it; "" if it cannot be cached.

    Cached are corpora with `sources` (textgen.protocols.CorpusOfFiles), unless a program gave them
    or the tokenizer.

    choices      of corpus and tokenizer
    vocabulary   the tokenizer's, unless it is to be fitted to this text
    """
    paths = corpus.sources() if hasattr(corpus, "sources") else ()
    files = [(os.path.abspath(path), file_signature(path)) for path in paths]
    code = list(map(_code, (corpus, tokenizer), choices))
    # A program may register the same class of tokenizer again with other values in it.
    plugin = choices[1].offer.plugin
    is_registered = plugin.distribution == UNPACKAGED and not plugin.path
    if not files or None in code or is_registered or any(each is None for _, each in files):
        return ""
    options = [identity(attrs.evolve(choice, start=None)) for choice in choices]
    return json_checksum([_FORMAT, files, code, options, vocabulary])


def _code(made: Any, choice: ConfiguredComponent) -> list[Any] | None:
    """The plugins of a component's code, and its file's size and time; None for an object of a
    program."""
    plugins = [part.offer.plugin for part in choice.flattened()]
    if any(plugin.distribution == OBJECT for plugin in plugins):
        return None
    # A version stays while someone works on a plugin, so size and time of the file count too.
    file = getattr(sys.modules.get(type(made).__module__), "__file__", None)
    code = None if file is None else file_signature(file)
    return None if code is None else [*(plugin.facts() for plugin in plugins), *code[:2]]
