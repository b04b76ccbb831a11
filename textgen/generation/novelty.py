"""Is it reciting? What a generated text shares with the corpus that its model was trained on.

The index is a suffix array over the training tokens: for any place of a text, the longest run that the corpus holds too
is found by bisection (Manber and Myers, "Suffix arrays", 1993). It is made once per run directory, block by block in
bounded memory, and mapped from disk.
"""

from __future__ import annotations

import bisect
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import attrs
import numpy as np
import numpy.typing as npt
from attrs.validators import and_, ge, lt

from textgen.errors import CorruptFileError, RunError
from textgen.files.durable import new_file, remove, sync_folder, write_json
from textgen.files.opening import contents_of, opened
from textgen.files.reading import file_checksum, inside
from textgen.pipeline.records import each, is_sha256, read_structured
from textgen.protocols import Ids, Tokenizer

FOLDER: Final = "copy-index"
_WORKSHOP: Final = ".copy-index"
LONGEST: Final = 10_000  # a run is followed so far; each block knows so much of the text after it
NGRAMS: Final = (8, 16, 32)
_HEADER, _TOKENS, _SUFFIXES = _FILES = "index.json", "tokens.bin", "suffixes.bin"
_ARRAYS: Final = (_TOKENS, _SUFFIXES)
_BLOCK: Final = 1 << 22  # tokens; sorting them takes about 60 bytes each
_PLACES: Final = 3
_CONTEXT: Final = 30


@attrs.frozen
class CopyPlace:
    """Where in the training corpus a run stands: token `offset`, and the text around it."""

    offset: int
    excerpt: str


@attrs.frozen
class CopyReport:
    """What a text shares with the training corpus.

    longest       tokens of the longest run that both hold, and `longest_text` itself
    places        where it stands in the corpus, the first few
    ngram_shares  for each n, the share of the text's n-grams that the corpus holds; None where it is shorter than n
    """

    tokens: int
    longest: int
    longest_text: str
    places: tuple[CopyPlace, ...]
    ngram_shares: dict[int, float | None]

    def describe(self) -> str:
        """The report in a few lines."""
        shares = ", ".join(
            f"{n}-grams {share:.0%}" for n, share in self.ngram_shares.items() if share is not None
        )
        found = f"the longest run found in the training corpus is {self.longest} of {self.tokens} tokens"
        lines = [f"novelty: {found}: {self.longest_text!r}"]
        lines += [f"  at token {place.offset:,}: …{place.excerpt}…" for place in self.places]
        return "\n".join([*lines, f"  found in the corpus: {shares or 'nothing to count'}"])


@attrs.frozen
class IndexHeader:
    """index.json: whose index it is, bytes of a token, how many there are, and the SHA-256 of the other files."""

    model: str
    width: Literal[1, 2, 4]
    tokens: int = attrs.field(validator=and_(ge(0), lt(2**40)))
    files: Mapping[str, str] = attrs.field(validator=each(is_sha256))


class CopyIndex:
    """The index of one run. Reports may be made from any thread."""

    def __init__(self, folder: Path, tokenizer: Tokenizer) -> None:
        self._temporary: tempfile.TemporaryDirectory[str] | None = None  # removed with this object
        header = read_structured(IndexHeader, folder / _HEADER)
        self._tokenizer, self._folder = tokenizer, folder
        self._width, count = header.width, header.tokens
        self._text = _map(folder / _TOKENS, np.uint8, count * self._width)
        self._suffixes = _map(folder / _SUFFIXES, np.uint32, count)

    @classmethod
    def open(
        cls, run: Path, model_id: str, tokenizer: Tokenizer, training_tokens: Callable[[Path], Ids]
    ) -> CopyIndex:
        """The index of a run directory, made if it is not there: `training_tokens(file)` gives the tokens, (N,).

        Where the run directory cannot be written to, it is made for this object alone.
        """
        for name in ("", *(f"/{name}" for name in _FILES)):
            inside(run, f"{FOLDER}{name}")
        try:
            if not _is_whole(run / FOLDER, model_id, tokenizer.vocab_size):
                _make(run, model_id, tokenizer.vocab_size, training_tokens)
            return cls(run / FOLDER, tokenizer)
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                cause = f"the index of the corpus cannot be written: {error.strerror or error}"
                raise RunError(f"{run}: {cause}", run) from error
        temporary = tempfile.TemporaryDirectory(prefix="textgen-", ignore_cleanup_errors=True)
        _make(Path(temporary.name), model_id, tokenizer.vocab_size, training_tokens)
        index = cls(Path(temporary.name, FOLDER), tokenizer)
        index._temporary = temporary
        return index

    def report(self, text: str) -> CopyReport:
        """What `text` shares with the training corpus. Raises CorruptFileError where the index holds other tokens."""
        with contents_of(self._folder / _TOKENS, "it does not hold tokens of this run"):
            ids = self._tokenizer.encode(text)
            data = _to_bytes(ids, self._width)
            runs = np.zeros(len(ids), np.int64)
            places = np.zeros(len(ids), np.int64)
            for i in range(len(ids)):
                runs[i], places[i] = self._longest(data[i * self._width :])
            longest = int(runs.max(initial=0))
            start = int(runs.argmax()) if longest else 0
            run = ids[start : start + longest]
            shares = {
                n: float((runs[: len(ids) - n + 1] >= n).mean()) if len(ids) >= n else None
                for n in NGRAMS
            }
            return CopyReport(
                tokens=len(ids),
                longest=longest,
                longest_text=self._tokenizer.decode(run),
                places=tuple(self._places(_to_bytes(run, self._width), int(places[start])))
                if longest
                else (),
                ngram_shares=shares,
            )

    def _longest(self, pattern: bytes) -> tuple[int, int]:
        """The most tokens at the beginning of `pattern` that the corpus holds, and where."""
        best, place = 0, 0
        for begin, block in self._blocks():
            at = self._bisect(block, begin, pattern[: LONGEST * self._width])
            for start in block[
                max(0, at - 1) : at + 1
            ]:  # the longest match is next to where the pattern would stand
                offset = begin + int(start)
                length = _common(pattern, self._bytes(offset, LONGEST)) // self._width
                if length > best:
                    best, place = length, offset
        return best, place

    def _places(self, pattern: bytes, first: int) -> list[CopyPlace]:
        """Some places where `pattern` stands whole, `first` among them."""
        offsets, length = {first}, len(pattern) // self._width
        for begin, block in self._blocks():
            at = self._bisect(block, begin, pattern)
            for start in block[at : at + _PLACES]:
                offset = begin + int(start)
                if len(offsets) < _PLACES and self._bytes(offset, length) == pattern:
                    offsets.add(offset)
        return [CopyPlace(offset, self._excerpt(offset, length)) for offset in sorted(offsets)]

    def _excerpt(self, offset: int, length: int) -> str:
        start = max(0, offset - _CONTEXT)
        data = self._bytes(start, offset - start + min(length, 200) + _CONTEXT)
        ids = np.frombuffer(data, f">u{self._width}").astype(np.int64)
        return " ".join(self._tokenizer.decode(ids).split())

    def _blocks(self) -> Iterator[tuple[int, npt.NDArray[np.uint32]]]:
        """The first token of each block, and its suffixes in order."""
        for begin in range(0, len(self._suffixes), _BLOCK):
            yield begin, self._suffixes[begin : begin + _BLOCK]

    def _bisect(self, block: npt.NDArray[np.uint32], begin: int, pattern: bytes) -> int:
        """How many suffixes of the block come before `pattern`."""
        length = len(pattern) // self._width
        return bisect.bisect_left(
            block, pattern, key=lambda start: self._bytes(begin + int(start), length)
        )

    def _bytes(self, offset: int, length: int) -> bytes:
        return self._text[offset * self._width : (offset + length) * self._width].tobytes()


def _map(path: Path, dtype: Any, count: int) -> npt.NDArray[Any]:
    if not count:
        return np.empty(0, dtype)
    with opened(path) as file:
        return np.memmap(file, dtype, "r", shape=(count,))


def check_index(run: Path, model_id: str) -> None:
    """Check an index that is there, every byte. Raises RunError, CorruptFileError."""
    folder = inside(run, FOLDER)
    header = read_structured(IndexHeader, folder / _HEADER)
    if header.model != model_id:
        raise CorruptFileError(folder / _HEADER, "it is of another model")
    for name in _ARRAYS:
        path = inside(run, f"{FOLDER}/{name}")
        if (actual := file_checksum(path)) != header.files.get(name, ""):
            raise CorruptFileError(
                path, f"its SHA-256 is {actual[:12]}…, and another when it was made"
            )


def _is_whole(folder: Path, model_id: str, vocab_size: int) -> bool:
    """Whether an index of this model is there, with as much in each file as its header says."""
    try:
        header = read_structured(IndexHeader, folder / _HEADER)
        sizes = [(folder / name).stat().st_size for name in _ARRAYS]
        is_of_model = (header.model, header.width) == (model_id, _width(vocab_size))
        return is_of_model and sizes == [header.tokens * header.width, header.tokens * 4]
    except (OSError, CorruptFileError):
        return False


def _width(vocab_size: int) -> int:
    """Bytes of an id."""
    return int(np.min_scalar_type(max(vocab_size - 1, 0)).itemsize)


def _make(
    run: Path, model_id: str, vocab_size: int, training_tokens: Callable[[Path], Ids]
) -> None:
    """Build the index in a folder beside its own, and rename it once it is whole. A second process waits for the first.

    No run sweeps the folder where it is built: only the lock tells living work from what a killed process left.
    """
    import filelock

    (run / _WORKSHOP).mkdir(exist_ok=True)
    with filelock.FileLock(inside(run, f"{_WORKSHOP}/lock")):
        if _is_whole(run / FOLDER, model_id, vocab_size):
            return
        partial = run / _WORKSHOP / "partial"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir()
            _build(training_tokens(partial / "corpus.bin"), vocab_size, model_id, partial)
            (partial / "corpus.bin").unlink(missing_ok=True)
            if os.path.lexists(run / FOLDER):
                remove(run / FOLDER)
            partial.rename(run / FOLDER)
            sync_folder(run)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _build(tokens: Ids, vocab_size: int, model_id: str, folder: Path) -> None:
    width = _width(vocab_size)
    with new_file(folder / "tokens.bin") as text, new_file(folder / "suffixes.bin") as suffixes:
        for begin in range(0, len(tokens), _BLOCK):
            text.write(_to_bytes(tokens[begin : begin + _BLOCK], width))
            block = np.asarray(tokens[begin : begin + _BLOCK + LONGEST], np.int64)
            order = suffix_array(block)
            suffixes.write(
                order[order < min(_BLOCK, len(tokens) - begin)].astype(np.uint32).tobytes()
            )
    sums = {name: file_checksum(folder / name) for name in _ARRAYS}
    write_json(
        folder / _HEADER, {"model": model_id, "width": width, "tokens": len(tokens), "files": sums}
    )


def suffix_array(tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The starts of all suffixes of `tokens` (N,) in lexicographic order, by prefix doubling.

    Sorts by the first few tokens packed into a number, then by twice as many from the ranks so far, until all differ.
    """
    count = len(tokens)
    if not count:
        return np.empty(0, np.int64)
    base = int(tokens.max()) + 2  # 0 stands for the end of the text
    known = max(1, int(62 / np.log2(base)))
    keys = np.zeros(count, np.int64)
    for i in range(known):
        keys = keys * base
        keys[: max(count - i, 0)] += tokens[i:] + 1
    while True:
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        rank_of_sorted = np.concatenate([[0], np.cumsum(ordered[1:] != ordered[:-1])])
        if rank_of_sorted[-1] == count - 1:
            return order
        ranks = np.empty(count, np.int64)
        ranks[order] = rank_of_sorted
        keys = ranks * (count + 1)
        keys[: max(count - known, 0)] += ranks[known:] + 1
        known *= 2


def _to_bytes(ids: Ids, width: int) -> bytes:
    """Ids as big-endian bytes, so that bytes compare as ids do."""
    return np.asarray(ids).astype(f">u{width}").tobytes()


def _common(left: bytes, right: bytes) -> int:
    """How many bytes two texts share from the beginning."""
    size = min(len(left), len(right))
    differ = np.frombuffer(left, np.uint8, size) != np.frombuffer(right, np.uint8, size)
    return int(differ.argmax()) if differ.any() else size
