"""The book of the experiment, as a run would have fetched it."""

import hashlib

import pytest

from textgen.files.cache import downloads
from textgen_builtins.corpora.plugin import BOOK


@pytest.fixture
def book_cached(book, tmp_path, monkeypatch):
    """The Time Machine as the corpus `time-machine` has fetched it."""
    monkeypatch.setenv("TEXTGEN_CACHE_DIR", str(tmp_path / "cache"))
    key = hashlib.sha256(BOOK.encode()).hexdigest()
    downloads().add(key, "timemachine.txt", [book.read_bytes()], {"address": BOOK})
