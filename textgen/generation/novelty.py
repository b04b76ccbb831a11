"""Is it reciting? What a generated text shares with the corpus that its model was trained on.

The index is a suffix array over the training tokens: for any place of a text, the longest run that the corpus holds too
is found by bisection (Manber and Myers, "Suffix arrays", 1993). It is made once per run directory, block by block in
bounded memory, and mapped from disk.
"""

from __future__ import annotations

import errno
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import attrs
import numpy as np
import numpy.typing as npt

from textgen.errors import RunError
from textgen.files import inside, read_json
from textgen.protocols import Ids, Tokenizer

FOLDER: Final = "copy-index"
_WORKSHOP: Final = ".copy-index"
LONGEST: Final = 10_000  # a run is followed so far; each block knows so much of the text after it
NGRAMS: Final = (8, 16, 32)
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
        shares = ", ".join(f"{n}-grams {share:.0%}" for n, share in self.ngram_shares.items() if share is not None)
        lines = [
            f"novelty: the longest run found in the training corpus is {self.longest} of {self.tokens} tokens: "
            f"{self.longest_text!r}",
            *(f"  at token {place.offset:,}: …{place.excerpt}…" for place in self.places),
            f"  found in the corpus: {shares or 'nothing to count'}",
        ]
        return "\n".join(lines)


class CopyIndex:
    """The index of one run. Reports may be made from any thread."""

    def __init__(self, folder: Path, tokenizer: Tokenizer) -> None:
        self._place: tempfile.TemporaryDirectory[str] | None = None
        header = read_json(folder / "index.json")
        self._tokenizer = tokenizer
        self._width, count = header["width"], header["tokens"]
        self._text = _map(folder / "tokens.bin", np.uint8, count * self._width)
        self._suffixes = _map(folder / "suffixes.bin", np.uint32, count)

    @classmethod
    def open(cls, run: Path, model_id: str, tokenizer: Tokenizer, training_tokens: Callable[[Path], Ids]) -> CopyIndex:
        """The index of a run directory, made if it is not there: `training_tokens(file)` gives the tokens, (N,)."""
        folder = run / FOLDER
        if not _is_whole(folder, model_id):
            try:
                _make(run, folder, model_id, tokenizer.vocab_size, training_tokens)
            except OSError as error:
                return cls._aside(run, model_id, tokenizer, training_tokens, error)
        return cls(folder, tokenizer)

    @classmethod
    def _aside(
        cls,
        run: Path,
        model_id: str,
        tokenizer: Tokenizer,
        training_tokens: Callable[[Path], Ids],
        refused: OSError,
    ) -> CopyIndex:
        """An index for this object alone, where the run directory cannot be written to."""
        if refused.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            cause = f"the index of the corpus cannot be written: {refused.strerror or refused}"
            raise RunError(f"{run}: {cause}", run) from refused
        place = tempfile.TemporaryDirectory(prefix="textgen-", ignore_cleanup_errors=True)
        folder = Path(place.name, FOLDER)
        _make(Path(place.name), folder, model_id, tokenizer.vocab_size, training_tokens)
        index = cls(folder, tokenizer)
        index._place = place  # which goes with it
        return index

    def report(self, text: str) -> CopyReport:
        """What `text` shares with the training corpus."""
        ids = self._tokenizer.encode(text)
        data = _to_bytes(ids, self._width)
        runs = np.zeros(len(ids), np.int64)
        places = np.zeros(len(ids), np.int64)
        for i in range(len(ids)):
            runs[i], places[i] = self._longest(data[i * self._width :])
        longest = int(runs.max(initial=0))
        start = int(runs.argmax()) if longest else 0
        run = ids[start : start + longest]
        shares = {n: float((runs[: len(ids) - n + 1] >= n).mean()) if len(ids) >= n else None for n in NGRAMS}
        return CopyReport(
            tokens=len(ids),
            longest=longest,
            longest_text=self._tokenizer.decode(run),
            places=tuple(self._places(_to_bytes(run, self._width), int(places[start]))) if longest else (),
            ngram_shares=shares,
        )

    def _longest(self, pattern: bytes) -> tuple[int, int]:
        """The most tokens at the beginning of `pattern` that the corpus holds, and where."""
        best, place = 0, 0
        for begin in range(0, len(self._suffixes), _BLOCK):
            block = self._suffixes[begin : begin + _BLOCK]
            at = self._bisect(block, begin, pattern[: LONGEST * self._width])
            for neighbour in (at - 1, at):  # the longest match is next to where the pattern would stand
                if 0 <= neighbour < len(block):
                    offset = begin + int(block[neighbour])
                    length = _common(pattern, self._bytes(offset, LONGEST)) // self._width
                    if length > best:
                        best, place = length, offset
        return best, place

    def _places(self, pattern: bytes, first: int) -> list[CopyPlace]:
        """Some places where `pattern` stands whole, `first` among them."""
        offsets = [first]
        for begin in range(0, len(self._suffixes), _BLOCK):
            block = self._suffixes[begin : begin + _BLOCK]
            at = self._bisect(block, begin, pattern)
            while at < len(block) and len(offsets) < _PLACES:
                offset = begin + int(block[at])
                if self._bytes(offset, len(pattern) // self._width) != pattern:
                    break
                if offset not in offsets:
                    offsets.append(offset)
                at += 1
        return [CopyPlace(o, self._excerpt(o, len(pattern) // self._width)) for o in sorted(offsets)]

    def _excerpt(self, offset: int, length: int) -> str:
        start = max(0, offset - _CONTEXT)
        data = self._bytes(start, offset - start + min(length, 200) + _CONTEXT)
        ids = np.frombuffer(data, f">u{self._width}").astype(np.int64)
        return " ".join(self._tokenizer.decode(ids).split())

    def _bisect(self, block: npt.NDArray[np.uint32], begin: int, pattern: bytes) -> int:
        """How many suffixes of the block come before `pattern`."""
        low, high, length = 0, len(block), len(pattern) // self._width
        while low < high:
            middle = (low + high) // 2
            if self._bytes(begin + int(block[middle]), length) < pattern:
                low = middle + 1
            else:
                high = middle
        return low

    def _bytes(self, offset: int, length: int) -> bytes:
        return self._text[offset * self._width : (offset + length) * self._width].tobytes()


def _map(path: Path, dtype: Any, count: int) -> npt.NDArray[Any]:
    return np.memmap(path, dtype, "r", shape=(count,)) if count else np.empty(0, dtype)


def _is_whole(folder: Path, model_id: str) -> bool:
    """Whether an index of this model is there, with as much in each file as its header says."""
    try:
        header = json.loads((folder / "index.json").read_bytes())
        count, width = header["tokens"], header["width"]
        sizes = [(folder / name).stat().st_size for name in ("tokens.bin", "suffixes.bin")]
        return bool(header["model"] == model_id and sizes == [count * width, count * 4])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _make(run: Path, folder: Path, model_id: str, vocab_size: int, training_tokens: Callable[[Path], Ids]) -> None:
    """Build the index beside its place, and put it there once it is whole. Who comes second waits, and finds it made.

    No run sweeps the place where it is built: only the lock tells living work from what a killed process left.
    """
    import filelock

    (run / _WORKSHOP).mkdir(exist_ok=True)
    with filelock.FileLock(inside(run, f"{_WORKSHOP}/lock")):
        if _is_whole(folder, model_id):
            return
        partial = run / _WORKSHOP / "partial"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir()
            _build(training_tokens(partial / "corpus.bin"), vocab_size, model_id, partial)
            (partial / "corpus.bin").unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _build(tokens: Ids, vocab_size: int, model_id: str, folder: Path) -> None:
    width = np.min_scalar_type(max(vocab_size - 1, 0)).itemsize
    with (folder / "tokens.bin").open("wb") as text, (folder / "suffixes.bin").open("wb") as suffixes:
        for begin in range(0, len(tokens), _BLOCK):
            text.write(_to_bytes(tokens[begin : begin + _BLOCK], width))
            block = np.asarray(tokens[begin : begin + _BLOCK + LONGEST], np.int64)
            order = suffix_array(block)
            suffixes.write(order[order < min(_BLOCK, len(tokens) - begin)].astype(np.uint32).tobytes())
    header: dict[str, Any] = {"model": model_id, "width": width, "tokens": len(tokens)}
    (folder / "index.json").write_text(json.dumps(header), encoding="utf-8")


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
    if left[:size] == right[:size]:
        return size
    differ = np.frombuffer(left, np.uint8, size) != np.frombuffer(right, np.uint8, size)
    return int(differ.argmax())
