"""Facts in the name of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Final

HTML: Final = (".html", ".htm", ".xhtml")
OFFICE: Final = (".docx", ".odt", ".epub", ".rtf")
TEXTS: Final = (".txt", ".text", ".md", ".markdown", ".rst", *HTML, *OFFICE)
JSON_LINES: Final = (".jsonl", ".ndjson")
COMPRESSED: Final = (".gz", ".zst")


def inner_suffix(name: str | Path) -> str:
    """The suffix of a file in small letters, without that of its compression: ".jsonl" of
    A.JSONL.GZ.
    """
    path = Path(name)
    return (Path(path.stem) if path.suffix.lower() in COMPRESSED else path).suffix.lower()
