"""The text of a document in Rich Text Format: a line for each paragraph, also of a table.

The document is scanned once, so the time is linear in its length. Notes, headers, pictures and the
codes of fields are left out; the text that a field shows is kept.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs

from textgen.errors import CorpusError
from textgen_builtins.corpora.compression import read_bytes
from textgen_builtins.corpora.encodings import decode

# A control word with its number, a byte in hexadecimal, a control symbol, a brace, or text.
_TOKEN: Final = re.compile(
    r"""\\(?P<word>[A-Za-z]{1,32})(?P<number>-?\d{1,10})?[ ]?
    |   \\'(?P<byte>[0-9A-Fa-f]{2})
    |   \\(?P<symbol>[^A-Za-z])
    |   (?P<brace>[{}])
    |   [\r\n\0]+
    |   (?P<text>[^\\{}\r\n\0]+)""",
    re.DOTALL | re.VERBOSE,
)
_CHARACTERS: Final = {
    **dict.fromkeys(("par", "line", "sect", "page", "column", "cell", "nestcell"), "\n"),
    **dict.fromkeys("\n\r", "\n"),  # after a backslash they are paragraphs
    **{character: character for character in "\\{}"},
    "~": "\N{NO-BREAK SPACE}",
    "_": "-",
    "tab": "\t",
    "emspace": "\N{EM SPACE}",
    "enspace": "\N{EN SPACE}",
    "qmspace": "\N{FOUR-PER-EM SPACE}",
    "emdash": "\N{EM DASH}",
    "endash": "\N{EN DASH}",
    "bullet": "\N{BULLET}",
    "lquote": "\u2018",
    "rquote": "\u2019",
    "ldblquote": "\u201c",
    "rdblquote": "\u201d",
}
_HIDDEN: Final = """
    annotation atnauthor atnid bkmkend bkmkstart colortbl datastore do fldinst fonttbl footer
    footerf footerl footerr footnote ftncn ftnsep ftnsepc generator header headerf headerl
    headerr info latentstyles listtable nonesttables objdata pict pntext private rsidtbl
    shpinst stylesheet tc themedata txe xe xmlnstbl
"""
_HIDDEN_GROUPS: Final = frozenset(_HIDDEN.split())  # those that begin with \* are hidden besides
_CHARSETS: Final = {  # of fonts: by number, the encoding as Python names it
    77: "mac_roman",
    128: "cp932",
    129: "cp949",
    130: "johab",
    134: "gbk",
    136: "cp950",
    161: "cp1253",
    162: "cp1254",
    163: "cp1258",
    177: "cp1255",
    178: "cp1256",
    186: "cp1257",
    204: "cp1251",
    222: "cp874",
    238: "cp1250",
    254: "cp437",
    255: "cp850",
}
_ENCODINGS: Final = {"mac": "mac_roman", "pc": "cp437", "pca": "cp850"}
_USUAL_ENCODING: Final = "cp1252"


def is_rtf(path: Path) -> bool:
    """Whether a file begins as Rich Text Format does. Raises OSError."""
    with path.open("rb") as file:
        return file.read(5) == b"{\\rtf"


def text_of_rtf(path: Path) -> Iterator[str]:
    """Yield the text of a file. Raises CorpusError for one that is damaged."""
    # Characters beyond ASCII are escaped, or bytes in an encoding that the file names.
    document = "".join(decode(read_bytes(path), path, "latin-1"))
    try:
        text = _Reader().read(document)
    except (ValueError, OverflowError) as error:
        raise CorpusError("it is not Rich Text Format (.rtf), or is damaged", path) from error
    # Word writes characters beyond 16 bits as two surrogates.
    yield text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@attrs.frozen
class _Group:
    """What holds until a group ends.

    fallback   number of characters after a \\u that are for readers without Unicode
    encoding   of the font; "" for that of the document
    """

    is_hidden: bool = False
    is_font_table: bool = False
    fallback: int = 1
    encoding: str = ""


class _Reader:
    """Reads a document from its beginning to its end."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._bytes = bytearray()  # of characters that may have several bytes
        self._encoding = _USUAL_ENCODING
        self._fonts: dict[int, str] = {}
        self._font = 0  # that is described in the font table
        self._group, self._outer = _Group(), list[_Group]()
        self._skipped = 0  # characters of a fallback that are still to come

    def read(self, document: str) -> str:
        """The text. Raises ValueError and OverflowError for a number that is of no character."""
        at = 0
        while found := _TOKEN.match(document, at):
            at = found.end()
            if found["brace"] == "{":
                self._outer.append(self._group)
                self._skipped = 0
            elif found["brace"]:
                self._flush()
                self._skipped = 0
                if len(self._outer) < 2:  # what follows the outermost group is no document
                    break
                self._group = self._outer.pop()
            elif word := found["word"] or found["symbol"]:
                number = None if found["number"] is None else int(found["number"])
                if word == "bin":
                    at += max(0, number or 0)
                elif self._skipped:
                    self._skipped -= 1
                else:
                    self._control(word, number)
            elif found["byte"]:
                self._add(bytes.fromhex(found["byte"]))
            elif found["text"]:
                self._add(found["text"].encode("latin-1"))
        self._flush()
        return "".join(self._text)

    def _add(self, data: bytes) -> None:
        rest = data[self._skipped :]
        self._skipped -= len(data) - len(rest)
        if not self._group.is_hidden:
            self._bytes += rest

    def _control(self, word: str, number: int | None) -> None:
        if word == "*" or word in _HIDDEN_GROUPS:
            is_font_table = self._group.is_font_table or word == "fonttbl"
            self._change(is_hidden=True, is_font_table=is_font_table)
        elif self._group.is_font_table:
            if word == "f":
                self._font = number or 0
            elif word == "fcharset":
                self._fonts[self._font] = _CHARSETS.get(number or 0, "")
        elif word in _ENCODINGS or word == "ansicpg":
            self._flush()
            self._encoding = _ENCODINGS.get(word) or _code_page(number)
        elif word == "uc":
            self._change(fallback=max(0, number or 0))
        elif word == "u" and number is not None:
            self._skipped = self._group.fallback
            self._write(chr(number + 0x10000 if number < 0 else number))
        elif word in ("f", "plain"):
            self._change(encoding=self._fonts.get(number or 0, ""))
        elif word in _CHARACTERS:
            self._write(_CHARACTERS[word])

    def _change(self, **facts: Any) -> None:
        self._flush()
        self._group = attrs.evolve(self._group, **facts)

    def _write(self, character: str) -> None:
        self._flush()
        if not self._group.is_hidden:
            self._text.append(character)

    def _flush(self) -> None:
        """Decode the bytes that were held."""
        if self._bytes:
            encoding = self._group.encoding or self._encoding
            self._text.append(self._bytes.decode(encoding, "replace"))
            self._bytes.clear()


def _code_page(number: int | None) -> str:
    """The encoding of a number of Windows; the usual one where Python does not know it."""
    name = {65001: "utf-8", 10000: "mac_roman"}.get(number or 0, f"cp{number}")
    try:
        codecs.lookup(name)
    except LookupError:
        return _USUAL_ENCODING
    return name
