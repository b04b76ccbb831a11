"""A corpus for training: its text hashed, encoded to a memory-mapped token array, and split."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import attrs
import numpy as np

from textgen.contracts import checks
from textgen.contracts.guards import changed_text, read_pieces
from textgen.data import Dataset, Windows
from textgen.errors import CorpusError
from textgen.pipeline.options import DataOptions
from textgen.pipeline.pipeline import Pipeline
from textgen.plugin.component import Offer
from textgen.protocols import Corpus, Ids, Tokenizer

_RATIO_SAMPLE: Final = 1 << 20  # tokens decoded to measure how many characters a token stands for


@attrs.frozen
class CorpusDigest:
    """What identifies a text: the SHA-256 of its UTF-8 form, and how many characters it has."""

    sha256: str
    characters: int


class HashedPieces(Iterable[str]):
    """The text of a corpus in pieces, of which a digest is made as they pass."""

    def __init__(self, corpus: Corpus, offer: Offer) -> None:
        self._pieces = read_pieces(corpus, offer)
        self._hash = hashlib.sha256()
        self._characters = 0

    def __iter__(self) -> Iterator[str]:
        for piece in self._pieces:
            # surrogatepass: a lone surrogate is no valid text, but that is for the tokenizer to judge
            self._hash.update(piece.encode("utf-8", "surrogatepass"))
            self._characters += len(piece)
            yield piece

    def digest(self) -> CorpusDigest:
        """The digest of all that has passed."""
        return CorpusDigest(self._hash.hexdigest(), self._characters)


def fit_tokenizer(tokenizer: Tokenizer, corpus: Corpus, pipeline: Pipeline) -> CorpusDigest:
    """Fit the tokenizer, check it on the beginning of the corpus, and give the digest of all of it."""
    hashed = HashedPieces(corpus, pipeline.corpus.offer)
    pieces = iter(hashed)
    beginning = next(filter(None, pieces), "")
    tokenizer.fit(itertools.chain([beginning], pieces))
    for _ in pieces:  # what a tokenizer that needs no fitting has left unread counts too
        pass
    if not beginning:
        raise CorpusError("the corpus is empty: it has 0 characters, and training needs at least a window of text")
    checks.check_tokenizer(tokenizer, pipeline.tokenizer.offer, beginning)
    return hashed.digest()


@contextlib.contextmanager
def encoded_corpus(
    corpus: Corpus, tokenizer: Tokenizer, pipeline: Pipeline, digest: CorpusDigest, path: Path
) -> Iterator[Dataset]:
    """The corpus as tokens in the file `path`, mapped into memory, for as long as training needs it."""
    try:
        pieces = HashedPieces(corpus, pipeline.corpus.offer)
        tokens = encode_corpus(pieces, tokenizer, path)
        if pieces.digest() != digest:
            raise CorpusError(changed_text(pipeline.corpus.offer))
        yield split_tokens(tokens, pipeline.data, tokenizer)
    finally:
        with contextlib.suppress(PermissionError):  # Windows keeps what is still mapped; the next run sweeps it
            path.unlink(missing_ok=True)


def encode_corpus(pieces: Iterable[str], tokenizer: Tokenizer, path: Path) -> Ids:
    """Write the token ids of a corpus to the file `path` and map it into memory, (N,), read-only."""
    dtype = np.min_scalar_type(max(tokenizer.vocab_size - 1, 0))
    count = 0
    with path.open("wb") as file:
        for ids in tokenizer.encode_pieces(pieces):
            file.write(np.ascontiguousarray(ids, dtype).tobytes())
            count += len(ids)
    if not count:
        raise CorpusError("the corpus is empty: no token to train on; give it some text")
    return np.memmap(path, dtype, "r", shape=(count,))


def split_tokens(tokens: Ids, options: DataOptions, tokenizer: Tokenizer) -> Dataset:
    """Split as the `[data]` table says. Raises CorpusError when there is not a window to train on."""
    length = options.window_length
    stride = options.window_stride or length
    if options.training_windows is None and options.validation_windows is None:
        held_out = int(len(tokens) * options.validation_fraction)
        training, validation = tokens[: len(tokens) - held_out], tokens[len(tokens) - held_out :]
    else:
        training, validation = _split_windows(tokens, options, length, stride)
    window = f"one window of data.window_length = {length} needs {length + 1}"
    if len(training) <= length:
        cause = f"the corpus is too short: {len(training):,} training tokens, and {window}"
        raise CorpusError(f"{cause}; shorten the window or use a longer text")
    if 0 < len(validation) <= length:
        cause = f"the held-out part is too short: {len(validation):,} tokens, and {window}"
        advice = "raise data.validation_fraction, set it to 0, shorten the window or use a longer text"
        raise CorpusError(f"{cause}; {advice}")
    sample = (validation if len(validation) else training)[:_RATIO_SAMPLE]
    return Dataset(
        training=training,
        validation=validation,
        vocab_size=tokenizer.vocab_size,
        window_length=length,
        window_stride=stride,
        characters_per_token=len(tokenizer.decode(sample)) / len(sample),
    )


def _split_windows(tokens: Ids, options: DataOptions, length: int, stride: int) -> tuple[Ids, Ids]:
    """The tokens of so many windows to train on, and of so many after those."""
    available = len(Windows(tokens, length, stride))
    held_out = options.validation_windows
    if held_out is None:
        held_out = max(0, int((available - (options.training_windows or 0)) * options.validation_fraction))
    count = options.training_windows or available - held_out
    if count + held_out > available or count < 1:
        raise CorpusError(
            f"the corpus has {available:,} windows of {length} tokens at stride {stride}, and the pipeline wants "
            f"{max(count, 1):,} to train on and {held_out:,} to validate on; lower data.training_windows, "
            "data.validation_windows or data.window_stride, or use a longer text"
        )

    def windows(first: int, count: int) -> Ids:
        return tokens[first * stride : (first + count - 1) * stride + length + 1 if count else first * stride]

    return windows(0, count), windows(count, held_out)
