"""The user's cache: where it is, and what is kept there."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final

import attrs


@attrs.frozen
class CachedFile:
    """A file of the cache whose content is known."""

    name: str
    size: int
    sha256: str

    def matches(self, data: bytes) -> bool:
        """Whether `data` is the content."""
        return len(data) == self.size and hashlib.sha256(data).hexdigest() == self.sha256


BOOK: Final = CachedFile("timemachine.txt", 178_979, "8424dbd9532ac81f7e5f0b6add90e6952baea29158309d7d1bf3884f4e12c516")
"""H. G. Wells, The Time Machine, as the corpus `time-machine` reads it."""


def cache_directory() -> Path:
    """TEXTGEN_CACHE_DIR, or the platform's place for caches."""
    if directory := os.environ.get("TEXTGEN_CACHE_DIR"):
        return Path(directory)
    import platformdirs

    return Path(platformdirs.user_cache_dir("textgen", appauthor=False))
