"""Decodes the bytes of a text: by their byte order mark, or as UTF-8, or as an option
says.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Final

from textgen.errors import CorpusError

AUTO: Final = "auto"
"""In place of an encoding: that of the byte order mark, or UTF-8."""
_SAMPLE: Final = 1 << 16  # bytes that are looked at
_MARKS: Final = {  # the longer first: UTF-32 begins as UTF-16 does
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_USUAL_ENCODING: Final = "cp1252"  # charset-normalizer alone reads French as cp1250
_EQUAL_CHAOS: Final = 0.02  # difference of its measure of chaos that says nothing
_NO_TEXTS: Final = {
    b"%PDF": "a PDF, which has positions of letters and no paragraphs",
    b"PK\3\4": "a ZIP archive: unpack it, or if it is .docx, .odt or .epub, give it that suffix",
    b"{\\rtf": "an RTF document, which is read by the name .rtf",
    b"\xd0\xcf\x11\xe0": "a DOC document of before 2007",
}
_CONTROLS: Final = bytes({*range(32), 127} - set(b"\t\n\v\f\r\x1b"))
_MOST_CONTROLS: Final = 0.05  # share of them in a text


def decode(pieces: Iterable[bytes], path: Path, encoding: str = AUTO) -> Iterator[str]:
    """The text of a file in pieces, as its bytes come in pieces of a megabyte, say.

    Raises CorpusError that names `path`, the offset of a byte that is not of the encoding, and the
    likeliest encoding.
    """
    pieces = iter(pieces)
    first = next(pieces, b"")
    suggested = marked = encoding_of_mark(first)
    if encoding == AUTO:
        encoding, suggested = marked or "utf-8", ""
        if not marked:
            _check_is_text(first[:_SAMPLE], path)
    decoder, offset, is_ascii = codecs.getincrementaldecoder(encoding)(), 0, True
    try:
        for piece in chain([first], pieces, [b""]):
            text = decoder.decode(piece, final=not piece)
            is_ascii = is_ascii and text.isascii()
            offset += len(piece)
            yield text
    except UnicodeDecodeError as error:
        data, start = error.object, error.start
        position = offset + len(piece) - len(data) + start
        cause = (
            f"it is not {encoding}: byte 0x{data[start]:02x} at offset {position} ({error.reason})"
        )
        if encoding == "utf-8" and not (is_ascii and data[:start].isascii()):
            advice = "text before it is utf-8, so the file is damaged there: mend it"
        else:
            likeliest = suggested or _likeliest(data)
            advice = f"set the option encoding to its own, probably {likeliest}"
            advice += f" (textgen init: --encoding {likeliest})"
        raise CorpusError(f"{cause}; {advice}", path) from error
    except UnicodeError as error:  # UTF-16 and UTF-32 without a mark
        raise CorpusError(f"it is not {encoding}: {error}", path) from error


def encoding_of_mark(beginning: bytes) -> str:
    """ "utf-16" or "utf-32" where a file begins with the mark of one, else ""."""
    return next((name for mark, name in _MARKS.items() if beginning.startswith(mark)), "")


def _likeliest(data: bytes) -> str:
    """The encoding that a text beyond ASCII looks like."""
    from charset_normalizer import from_bytes

    lines = [line for line in data.splitlines(keepends=True) if not line.isascii()]
    matches = list(from_bytes(b"".join(lines)[:_SAMPLE]))
    equal = [match for match in matches if match.chaos <= matches[0].chaos + _EQUAL_CHAOS]
    if any(_USUAL_ENCODING in match.could_be_from_charset for match in equal):
        return _USUAL_ENCODING
    return matches[0].encoding if matches else _USUAL_ENCODING


def _check_is_text(sample: bytes, path: Path) -> None:
    for magic, what in _NO_TEXTS.items():
        if sample.startswith(magic):
            if path.suffix.lower() == ".pages":
                what = "a document of Pages, which exports it as Word (.docx)"
            raise CorpusError(f"it is {what}; save it as text first, and read that", path)
    if len(sample) - len(sample.translate(None, _CONTROLS)) > _MOST_CONTROLS * len(sample):
        raise CorpusError("it is binary data, not plain text; see the option encoding", path)
