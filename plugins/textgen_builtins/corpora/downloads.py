"""Files from web addresses, fetched once into the user's cache and read from there ever after.

A file comes under its own name only when it is whole: it is written beside, checked for its length and checksum, and
then renamed. Beside it stands what it is: its address, size, time and SHA-256.
"""

from __future__ import annotations

import contextlib
import hashlib
import http
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import IO, Any, Final, TextIO

import attrs

from textgen.errors import CorpusError
from textgen.files.durable import sync_file, write_json
from textgen.files.reading import cache_directory
from textgen.plugin.component import OWN_DISTRIBUTION
from textgen.visible import byte_count
from textgen_builtins.corpora.file_facts import HTML, JSON_LINES, TEXTS, checksum, inner_suffix

_TIMEOUT_SECONDS: Final = 30
_PAUSES: Final = (0.5, 2.0)  # seconds before another attempt
_LARGEST: Final = 20 * 10**9  # bytes
_PIECE: Final = 1 << 18
_RECORD: Final = "download.json"
_PASSING: Final = (408, 425, 429, 500, 502, 503, 504)  # answers that may be others in a moment
_SUFFIXES: Final = {
    "text/html": ".html",
    "application/xhtml+xml": ".html",
    "text/markdown": ".md",
    "application/jsonl": ".jsonl",
    "application/x-ndjson": ".jsonl",
}


def fetched(address: str, sha256: str | None, *, console: TextIO | None, offline: bool) -> Path:
    """The file of an address, from the cache, or fetched into it. Raises CorpusError.

    sha256    that it must have
    console   where the progress of a download is shown
    offline   whether to raise CorpusError where it is not in the cache
    """
    folder = cache_directory() / "downloads" / hashlib.sha256(address.encode()).hexdigest()[:24]
    if (path := _cached(folder)) is None:
        if offline:
            cause = f"{address} is not in the cache of this machine, and only a run fetches it"
            raise CorpusError(f"{cause}; textgen run with this pipeline does")
        path = _fetch_into(folder, address, sha256, console)
    if sha256 is not None and checksum(path) != sha256.lower():
        cause = f"it was fetched from {address}, and its SHA-256 is not that of option sha256"
        raise CorpusError(f"{cause} but {checksum(path)}; remove it to fetch it again", path)
    return path


def _cached(folder: Path) -> Path | None:
    """The file in a folder of the cache, if it is what was fetched. One that was changed is fetched again."""
    try:
        record = json.loads((folder / _RECORD).read_bytes())
        path = folder / str(record["name"])
        status = path.stat()
        is_known = (status.st_size, status.st_mtime_ns) == (record["size"], record["time"])
        return path if is_known or checksum(path) == record["sha256"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _fetch_into(folder: Path, address: str, sha256: str | None, console: TextIO | None) -> Path:
    from filelock import FileLock

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".lock-{folder.name[:2]}"):
            if (path := _cached(folder)) is not None:  # another process has fetched it
                return path
            folder.mkdir(exist_ok=True)
            temporary = folder / f".{uuid.uuid4().hex}.part"
            try:
                answer = download(address, temporary, console=console)
                if sha256 is not None and answer.sha256 != sha256.lower():
                    cause = f"{address} gave a file with SHA-256 {answer.sha256}, and option sha256 is {sha256}"
                    raise CorpusError(f"{cause}; set it if that is the text you want")
                path = folder / answer.name
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # nothing came, and nothing was there
                    folder.rmdir()
            facts = {
                "address": address,
                "name": answer.name,
                "size": answer.size,
                "sha256": answer.sha256,
            }
            write_json(folder / _RECORD, {**facts, "time": path.stat().st_mtime_ns})
            return path
    except OSError as error:
        cause = f"cannot be written: {error.strerror or error}"
        raise CorpusError(f"{cause}; set TEXTGEN_CACHE_DIR to a folder that can", folder) from error


@attrs.frozen
class Download:
    """A file that was fetched: the name that suits it, its size and its SHA-256."""

    name: str
    size: int
    sha256: str


def download(
    address: str, path: Path, *, console: TextIO | None = None, largest: int = _LARGEST
) -> Download:
    """Fetch an address into the file `path`, whole and synced. Raises CorpusError, and OSError of the disk.

    What breaks off is resumed where the server can, up to three attempts in all.
    """
    transfer = _Transfer(address, largest, console)
    with path.open("w+b") as file:
        for pause in (*_PAUSES, None):
            try:
                transfer.attempt(file)
                break
            except _Broken as broken:
                if pause is None:
                    raise CorpusError(f"{address} cannot be fetched: {broken}") from broken
                time.sleep(pause)
        sync_file(file)
        file.seek(0)
        beginning = file.read(1024).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
    name = _file_name(address, transfer.kind)
    if beginning.startswith((b"<!doctype html", b"<html")) and inner_suffix(name) not in HTML:
        raise CorpusError(
            f"{address} gave a web page, not the file: open it in a browser to see what it says"
        )
    if not size:
        raise CorpusError(f"{address} gave an empty file")
    return Download(name, size, sha256)


class _Broken(Exception):
    """A transfer that may succeed if it is tried again."""


@attrs.define
class _Transfer:
    """The attempts to fetch an address, and what its server said of it."""

    address: str
    largest: int
    console: TextIO | None
    kind: str = ""
    tag: str = ""

    def attempt(self, file: IO[bytes]) -> None:
        """Fetch what is missing in `file`. Raises _Broken, CorpusError, and OSError of the disk."""
        begun = file.seek(0, os.SEEK_END)
        with self._errors():
            response = _opener().open(self._request(begun), timeout=_TIMEOUT_SECONDS)
        with response:
            if begun and response.status != http.HTTPStatus.PARTIAL_CONTENT:  # it has begun anew
                file.seek(begun := 0)
                file.truncate()
            self.kind = response.headers.get_content_type()
            self.tag = response.headers.get("ETag", "")
            length = response.headers.get("Content-Length", "")
            whole = begun + int(length) if length.isdecimal() else None
            self._check_size(whole or 0, Path(file.name))
            got = begun
            for piece in self._received(response, begun, whole):
                file.write(piece)
                got += len(piece)
                self._check_size(got, None)
        if whole is not None and got != whole:
            raise _Broken(f"the connection broke off after {got:,} of {whole:,} bytes")

    def _request(self, begun: int) -> urllib.request.Request:
        quoted = urllib.parse.quote(
            urllib.parse.urldefrag(self.address)[0], safe="%/:=&?~+!$,;'@()*[]"
        )
        version = metadata.version(OWN_DISTRIBUTION)
        headers = {"User-Agent": f"textgen/{version}", "Accept-Encoding": "identity"}
        if begun:
            headers |= {"Range": f"bytes={begun}-", **({"If-Range": self.tag} if self.tag else {})}
        return urllib.request.Request(quoted, headers=headers)  # noqa: S310  # only http and https are opened

    def _received(self, response: Any, begun: int, whole: int | None) -> Iterator[bytes]:
        from tqdm import tqdm

        hidden = self.console is None or not self.console.isatty()
        with (
            self._errors(),
            tqdm(
                total=whole,
                initial=begun,
                file=self.console,
                unit="B",
                unit_scale=True,
                leave=False,
                disable=hidden,
            ) as bar,
        ):
            while piece := response.read(_PIECE):
                yield piece
                bar.update(len(piece))

    def _check_size(self, size: int, path: Path | None) -> None:
        if size > self.largest:
            raise CorpusError(
                f"{self.address} has more than {byte_count(self.largest)}, the most that is fetched"
            )
        if path is not None and size > (free := shutil.disk_usage(path.parent).free):
            shown = f"{byte_count(size)}, and {byte_count(free)} are free in {path.parent}"
            raise CorpusError(
                f"{self.address} has {shown}; set TEXTGEN_CACHE_DIR to a folder with more space"
            )

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turns what networks raise into _Broken where another attempt may help, and CorpusError where not."""
        try:
            yield
        except urllib.error.HTTPError as error:
            error.close()
            cause, passing = _answer(error.code), error.code in _PASSING
        except (OSError, http.client.HTTPException, ValueError) as error:  # URLError is an OSError
            cause, passing = _cause(
                getattr(error, "reason", error)
                if isinstance(error, urllib.error.URLError)
                else error
            )
        else:
            return
        if passing:
            raise _Broken(cause)
        raise CorpusError(f"{self.address} cannot be fetched: {cause}")


def _opener() -> urllib.request.OpenerDirector:
    """What opens http and https, through the proxies of the environment; a redirection leads to nothing else."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        *(
            urllib.request.ProxyHandler(),
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(),
        ),
        *(urllib.request.HTTPDefaultErrorHandler(), urllib.request.HTTPRedirectHandler()),
        *(urllib.request.HTTPErrorProcessor(), urllib.request.UnknownHandler()),
    ):
        opener.add_handler(handler)
    return opener


def _answer(code: int) -> str:
    """ "HTTP 404 (Not Found)": with the words of the standard, not those of a server."""
    known = code in http.HTTPStatus._value2member_map_
    return f"HTTP {code} ({http.HTTPStatus(code).phrase})" if known else f"HTTP {code}"


def _cause(error: object) -> tuple[str, bool]:
    """What went wrong, and whether another attempt may help."""
    if isinstance(error, socket.gaierror):
        return "the name of its server is not known; is this machine connected to a network?", False
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate of its server is not valid ({error.verify_message})", False
    if isinstance(error, ssl.SSLError):
        return f"no secure connection ({error.reason or error})", False
    if isinstance(error, ConnectionRefusedError):
        return "its server refuses the connection", False
    if isinstance(error, TimeoutError):
        return f"no answer in {_TIMEOUT_SECONDS} seconds", True
    if isinstance(error, http.client.InvalidURL | ValueError | str):
        return f"the address is not valid ({error})", False
    broken = isinstance(error, http.client.HTTPException | ConnectionError)
    return "the connection broke off" if broken else str(
        getattr(error, "strerror", "") or error
    ), True


def _file_name(address: str, kind: str) -> str:
    """A safe name with a suffix by which the file is read: that of the address, or of what its server says it is."""
    last = urllib.parse.unquote(urllib.parse.urlsplit(address).path).rpartition("/")[2]
    name = re.sub("[^A-Za-z0-9._-]+", "-", last)[-100:]
    name = name if name[:1].isalnum() else f"text{name}"
    known = (*TEXTS, *JSON_LINES)
    return name if inner_suffix(name) in known else name + _SUFFIXES.get(kind, ".txt")
