"""The text of an EPUB book: its chapters in reading order, each read as a page."""

from __future__ import annotations

import html
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from textgen.errors import CorpusError
from textgen_builtins.corpora import zipped_parts
from textgen_builtins.corpora.encodings import decode
from textgen_builtins.corpora.html_text import encoding_of_page, text_of_html

_CONTAINER: Final = "META-INF/container.xml"
_ENCRYPTION: Final = "META-INF/encryption.xml"
_COMMENT: Final = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_ELEMENT: Final = re.compile(r"<(?:\w+:)?(rootfile|item|itemref|CipherReference)\s([^<>]*)>")
# A name is tried at its beginning alone, so that the time is linear.
_ATTRIBUTE: Final = re.compile(r"""(?<![\w:-])([\w:-]++)\s*+=\s*+(?:"([^"]*)"|'([^']*)')""")
_PAGES: Final = ("application/xhtml+xml", "text/html")


def text_of_epub(path: Path) -> Iterator[str]:
    """Yield the text, an empty line between chapters; tables of contents are left out.

    Raises CorpusError for a file that is none, is damaged or encrypted, or is too long to be held
    in memory.
    """
    with zipped_parts.opened(path, "an EPUB book (.epub)") as parts:
        chapters = _chapters(parts)
        if _ENCRYPTION in parts:
            encrypted = _elements(parts.read(_ENCRYPTION), "CipherReference")
            if not {unquote(each["URI"]) for each in encrypted}.isdisjoint(chapters):
                cause = "it is encrypted, so that only a reader of its shop opens it"
                raise CorpusError(f"{cause}; use a copy without protection", path)
        texts = []
        for name in chapters:
            data = parts.read(name)
            page = "".join(decode(iter([data]), path, encoding_of_page(data)))
            texts.append("".join(text_of_html([page.removeprefix("\ufeff")], path)))
        yield "\n".join(filter(None, texts))


def _chapters(parts: zipped_parts.Parts) -> list[str]:
    """The names of the chapters in reading order, none twice. Raises KeyError for one that is
    missing.
    """
    package = _elements(parts.read(_CONTAINER), "rootfile")[0]["full-path"]
    opened = parts.read(package)
    items = {item.get("id"): item for item in _elements(opened, "item")}
    references = _elements(opened, "itemref")
    identifiers = [each.get("idref") for each in references if each.get("linear") != "no"]
    names = list[str]()
    for identifier in dict.fromkeys(identifiers):  # each item is looked at once
        item = items[identifier]
        properties = item.get("properties", "").split()
        if item.get("media-type") not in _PAGES or "nav" in properties:
            continue
        name = posixpath.join(posixpath.dirname(package), unquote(item["href"]))
        name = posixpath.normpath(name)
        if name not in parts:
            raise KeyError(name)
        names.append(name)
    return list(dict.fromkeys(names))


def _elements(document: bytes, name: str) -> list[dict[str, str]]:
    """The attributes of each element of a name."""
    return [
        {key: html.unescape(double or single) for key, double, single in _ATTRIBUTE.findall(given)}
        for found, given in _ELEMENT.findall(_COMMENT.sub("", document.decode("utf-8-sig")))
        if found == name
    ]
