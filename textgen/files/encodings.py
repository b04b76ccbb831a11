"""How the bytes of a text become characters: by their byte order mark, as UTF-8, or by a guess that is told."""

from __future__ import annotations

import codecs
import warnings
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Final, TypeAlias

from textgen.errors import CorpusError
from textgen.files.reading import encoding_of_mark

Tell: TypeAlias = Callable[[Path, str, str], None]
AUTO: Final = "auto"
"""In place of an encoding: find out which."""
_DAMAGED: Final = "what is around it is utf-8, so the file is damaged there: mend it"
_SAMPLE: Final = 1 << 16  # bytes that a guess looks at
_NO_TEXTS: Final = {
    b"%PDF": "a PDF",
    b"PK\3\4": "a ZIP archive, as DOCX, ODT and EPUB files are",
    b"{\\rtf": "an RTF document",
    b"\xd0\xcf\x11\xe0": "a DOC document",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x89PNG": "a PNG image",
}
_CONTROLS: Final = bytes({*range(32), 127} - set(b"\t\n\v\f\r\x1b"))
_MOST_CONTROLS: Final = 0.05  # share of them in a text
_UNPRINTABLE: Final = (
    "\t\n\f\r\x1b\xad\u200b\u200c\u200d\u200e\u200f\ufeff"  # and in texts all the same
)
# By charset-normalizer's names. Of those that it finds equally plausible the first: its own ranking reads French as
# cp1250, and Hebrew letters as Cyrillic ones.
_GUESSED: Final = [
    "cp1252",
    "cp1255",
    "cp1251",
    "cp932",
    "gb18030",
    "cp1250",
    "big5",
    "euc_jp",
    "cp949",
    "koi8_r",
    "cp1253",
    "cp1254",
    "cp1256",
    "cp866",
    "mac_roman",
    "cp850",
    "iso8859_2",
    "iso8859_5",
]
_EQUAL: Final = 0.02  # difference of its measure of chaos that says nothing


def warn(path: Path, encoding: str, why: str) -> None:
    """Say which encoding a file is read as, in a warning."""
    warnings.warn(
        f"{path}: read as {encoding}, {why}; if that is wrong, give the encoding", stacklevel=3
    )


def decode(
    pieces: Iterable[bytes],
    path: Path,
    encoding: str = AUTO,
    *,
    declared: str = "",
    tell: Tell = warn,
) -> Iterator[str]:
    """The text of a file in pieces, as its bytes come in pieces of a megabyte, say.

    encoding   of the file. With "auto" it is that of the byte order mark, which only UTF-8 keeps as U+FEFF; else UTF-8;
               else UTF-16 or UTF-32 where zero bytes show them; else a guess. The last two are told
    declared   by the file itself: what it is if it is not UTF-8
    tell       called with the path, the encoding, and why

    Raises CorpusError that names `path` and the offset of a byte that is not of the encoding, or what is no text.
    """
    pieces = iter(pieces)
    first = next(pieces, b"")
    pieces = chain([first], pieces)
    if encoding != AUTO:
        yield from _decode(pieces, path, encoding)
    elif name := encoding_of_mark(first):
        yield from _decode(pieces, path, name)
    elif name := _unmarked(first[: _SAMPLE // 16]):
        tell(path, name, "by its zero bytes")
        yield from _decode(pieces, path, name)
    else:
        _check_is_text(first[:_SAMPLE], path)
        yield from _as_utf8_or_guess(pieces, path, declared, tell)


def _decode(pieces: Iterable[bytes], path: Path, encoding: str, offset: int = 0) -> Iterator[str]:
    """The text of bytes that begin at an offset of the file."""
    decoder = codecs.getincrementaldecoder(encoding)()
    beginning = piece = b""
    try:
        for piece in chain(pieces, [b""]):
            beginning = beginning or piece
            yield decoder.decode(piece, final=not piece)
            offset += len(piece)
    except UnicodeDecodeError as error:
        marked = encoding_of_mark(beginning) if offset <= len(beginning) else ""
        raise _undecodable(path, encoding, offset + len(piece), error, marked) from error
    except UnicodeError as error:  # UTF-16 and UTF-32 without a mark
        advice = f'set option encoding to {encoding}-le or -be, or to "{AUTO}"'
        cause = f"it has no byte order mark, and {encoding} needs one; {advice}"
        raise CorpusError(cause, path, encoding=encoding) from error


def _undecodable(
    path: Path,
    encoding: str,
    end: int,
    error: UnicodeDecodeError,
    suggested: str = "",
    advice: str = "",
) -> CorpusError:
    """The error for bytes of which the last are before the offset `end`; a decoder holds back some of those before."""
    place = end - len(error.object) + error.start
    if not suggested or codecs.lookup(encoding).name.startswith(suggested):
        suggested = "its own, such as cp1252 or latin-1"
    cause = f"it is not {encoding}: byte 0x{error.object[error.start]:02x} at offset {place} ({error.reason})"
    advice = advice or f"set the option encoding to {suggested}"
    return CorpusError(f"{cause}; {advice}", path, encoding=encoding, offset=place)


def _as_utf8_or_guess(
    pieces: Iterable[bytes], path: Path, declared: str, tell: Tell
) -> Iterator[str]:
    """UTF-8; or, from the first piece that is not and of which nothing but ASCII came before, what that looks like.

    So a file is read once. Where most characters beyond ASCII are UTF-8, the file is damaged, and there is no guess.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    pieces, offset, is_utf8 = iter(pieces), 0, False
    piece = next(pieces, b"")
    while piece:
        following = next(pieces, b"")
        held = decoder.getstate()[0]
        try:
            text = decoder.decode(piece, final=not following)
        except UnicodeDecodeError as error:
            end, piece = offset + len(piece), held + piece
            is_utf8 = is_utf8 or _is_mostly_utf8(piece, error)
            name = "" if is_utf8 else declared or _guess(piece, whole=not following)
            if not name:
                advice = _DAMAGED if is_utf8 else ""
                raise _undecodable(path, "utf-8", end, error, advice=advice) from error
            if name != declared:
                tell(path, name, "which is a guess: it is not UTF-8")
            yield from _decode(chain([piece, following], pieces), path, name, offset - len(held))
            return
        is_utf8 = is_utf8 or not text.isascii()
        offset += len(piece)
        piece = following
        yield text


def _is_mostly_utf8(piece: bytes, first: UnicodeDecodeError) -> bool:
    if (
        first.reason == "unexpected end of data" and first.end - first.start > 1
    ):  # it is cut off inside a character
        return True
    text = piece.decode("utf-8", "replace")
    wrong = text.count("\ufffd") - piece.count("\ufffd".encode())
    return len(text) - len(text.encode("ascii", "ignore")) - wrong >= wrong


def _guess(piece: bytes, *, whole: bool) -> str:
    """The likeliest encoding of text that holds more than ASCII, or "". `whole` if the text ends with the piece."""
    from charset_normalizer import from_bytes

    sample = b"".join(line for line in piece.splitlines(keepends=True) if not line.isascii())
    if not whole or len(sample) > _SAMPLE:  # not inside a character
        sample = sample[:_SAMPLE]
        sample = sample[: max(sample.rfind(b"\n"), sample.rfind(b" ")) + 1] or sample
    matches = list(from_bytes(sample, cp_isolation=list(_GUESSED)))
    least = min((match.chaos for match in matches), default=0.0)
    fitting = {
        name
        for match in matches
        if match.chaos <= least + _EQUAL
        for name in match.could_be_from_charset
    }
    for name in _GUESSED:
        if name in fitting and _decoded(piece, name, whole=whole) is not None:
            return name
    return ""


def _decoded(piece: bytes, encoding: str, *, whole: bool = False) -> str | None:
    """The text of a piece, `whole` or cut off anywhere; None where it is not of the encoding."""
    try:
        return codecs.getincrementaldecoder(encoding)().decode(piece, final=whole)
    except UnicodeDecodeError:
        return None


def _unmarked(sample: bytes) -> str:
    """UTF-16 or UTF-32 without a mark, by which bytes are zero, or ""."""
    if not sample.count(0):
        return ""
    names = ["utf-32-le", "utf-32-be"]
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if max(even, odd) >= len(sample) / 40 and min(even, odd) * 10 <= max(
        even, odd
    ):  # every other byte, and few else
        names.append("utf-16-le" if odd > even else "utf-16-be")
    for name in names:
        text = _decoded(sample, name)
        if text is not None and all(
            character.isprintable() or character in _UNPRINTABLE for character in text
        ):
            return name
    return ""


def _check_is_text(sample: bytes, path: Path) -> None:
    for magic, what in _NO_TEXTS.items():
        if sample.startswith(magic):
            raise CorpusError(f"it is {what}, not plain text; save it as text first", path)
    if len(sample) - len(sample.translate(None, _CONTROLS)) > _MOST_CONTROLS * len(sample):
        raise CorpusError("it is binary data, not plain text", path, argument="encoding")
