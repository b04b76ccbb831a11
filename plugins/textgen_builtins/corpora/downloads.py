"""Files from web addresses, fetched once into the user's cache and read from there afterwards."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TextIO

import textgen
from textgen.errors import CorpusError
from textgen.files import downloads
from textgen.messages import byte_count, visible
from textgen_builtins.corpora.file_facts import HTML, JSON_LINES, TEXTS, inner_suffix

_SILENCE: Final = 30.0  # seconds without a byte
_MAX_BYTES: Final = 20 * 10**9  # bytes
_PIECE: Final = 1 << 18
_SUFFIXES: Final = {
    "text/html": ".html",
    "application/xhtml+xml": ".html",
    "application/epub+zip": ".epub",
    "text/markdown": ".md",
    "application/jsonl": ".jsonl",
    "application/x-ndjson": ".jsonl",
}


def fetched(address: str, sha256: str | None, *, console: TextIO | None, offline: bool) -> Path:
    """The file of an address, from the cache, or fetched into it. Raises CorpusError.

    sha256    the SHA-256 that it must have
    console   where it is said what is read from the network
    offline   whether to raise CorpusError if it is not in the cache
    """
    cache, key = downloads(), hashlib.sha256(address.encode()).hexdigest()
    try:
        entry = cache.find(key)
        if entry is not None and sha256 in (None, _checksum(entry.path)):
            return entry.path
        if offline:
            cause = f"{address} is not in the cache of this machine, and only a run fetches it"
            raise CorpusError(f"{cause}; textgen run with this pipeline does")
        with _open(address, console) as response:
            name = _file_name(address, response.headers.get_content_type())
            pieces = _received(response, address, name, sha256)
            return cache.add(key, name, pieces, {"address": address}).path
    except OSError as error:
        cause = f"cannot be written: {error.strerror or error}"
        advice = "set TEXTGEN_CACHE_DIR to a folder that can"
        raise CorpusError(f"{cause}; {advice}", cache.folder) from error


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https, and names each before."""

    def __init__(self, console: TextIO | None) -> None:
        self._console = console

    def redirect_request(self, *given: Any) -> Any:
        _, response, *_, address = given
        if not textgen.Address.matches(address):
            response.close()
            raise urllib.error.URLError(f"it leads to {address}")
        if self._console is not None:
            self._console.write(visible(f"reading {address}\n"))
        return super().redirect_request(*given)


def _open(address: str, console: TextIO | None) -> Any:
    """The response to a request, through the proxies of the environment."""
    if console is not None:
        console.write(visible(f"reading {address}\n"))
    version = textgen.__version__
    headers = {"User-Agent": f"textgen/{version}", "Accept-Encoding": "identity"}
    with _network(address):
        page = urllib.parse.urldefrag(address)[0]
        quoted = urllib.parse.quote(page, safe="%/:=&?~+!$,;'@()*[]")
        request = urllib.request.Request(quoted, headers=headers)  # noqa: S310  # see above
        opener = urllib.request.build_opener(_Redirects(console))
        return opener.open(request, timeout=_SILENCE)


def _received(response: Any, address: str, name: str, sha256: str | None) -> Iterator[bytes]:
    """The bytes of a response, checked at the end to be whole. Raises CorpusError."""
    size, digest = 0, hashlib.sha256()
    whole = response.length  # None if it is not known
    while True:
        if max(size, whole or 0) > _MAX_BYTES:
            limit = byte_count(_MAX_BYTES)
            raise CorpusError(f"{address} has more than {limit}, the most that is fetched")
        with _network(address):
            piece = response.read1(_PIECE)
        if not piece:
            break
        start = piece[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
        is_page = start.startswith((b"<!doctype html", b"<html"))
        if not size and is_page and inner_suffix(name) not in HTML:
            cause = "gave a web page, not the file: open it in a browser to see what it says"
            raise CorpusError(f"{address} {cause}")
        size += len(piece)
        digest.update(piece)
        yield piece
    if whole is not None and size != whole:
        cause = f"the connection broke off after {size:,} of {whole:,} bytes"
        raise CorpusError(f"{address} cannot be fetched: {cause}")
    if not size:
        raise CorpusError(f"{address} gave an empty file")
    if sha256 not in (None, digest.hexdigest()):
        raise CorpusError(f"{address} gave a file with SHA-256 {digest.hexdigest()}, not {sha256}")


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _network(address: str) -> Iterator[None]:
    """Turn what networks raise into a CorpusError."""
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError) as error:
        cause = f"{address} cannot be fetched: {_cause(error)}"
        if isinstance(error, urllib.error.URLError) and not isinstance(
            error, urllib.error.HTTPError
        ):
            cause += '; with a copy of it, set corpus.type to "file" and corpus.path to the copy'
        raise CorpusError(cause) from error


def _cause(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        phrase = http.client.responses.get(error.code)
        return f"HTTP {error.code}" + (f" ({phrase})" if phrase else "")
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    cause = " ".join(str(getattr(reason, "strerror", None) or reason).split())
    return visible(cause) or type(error).__name__


def _file_name(address: str, kind: str) -> str:
    """A safe name with the suffix by which the file is read: that of the address, or one for its
    kind.
    """
    last = urllib.parse.unquote(urllib.parse.urlsplit(address).path).rpartition("/")[2]
    name = re.sub("[^A-Za-z0-9._-]+", "-", last)[-80:] or "text"
    known = inner_suffix(name) in (*TEXTS, *JSON_LINES)
    return name if known else name + _SUFFIXES.get(kind, ".txt")
