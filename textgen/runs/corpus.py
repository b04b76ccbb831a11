"""A corpus for training: its text hashed, encoded to a memory-mapped token array, and split."""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import numpy as np

from textgen.contracts import checks
from textgen.contracts.guards import changed_text, read_pieces
from textgen.contracts.lifetime import Components
from textgen.data import Dataset, Windows
from textgen.documents import DOCUMENT_END, CorpusPiece
from textgen.errors import CorpusError, Fault, PipelineError
from textgen.generation.prompts import encode_documents, end_id
from textgen.pipeline.options import DataOptions
from textgen.pipeline.pipeline import Pipeline
from textgen.plugin.component import Offer
from textgen.protocols import Corpus, Ids, Tokenizer

_RATIO_SAMPLE: Final = 1 << 20  # tokens decoded to measure how many characters a token stands for
_MANY_UNKNOWN: Final = 0.01  # share of unknown tokens above which bits per character mislead
_END_BYTE: Final = b"\xff"  # stands for DOCUMENT_END in the digest, and in no UTF-8


@attrs.frozen
class CorpusDigest:
    """What identifies a text: the SHA-256 of its UTF-8 form and its documents' ends, and how many characters it has."""

    sha256: str
    characters: int


class HashedPieces(Iterable[CorpusPiece]):
    """The text of a corpus in pieces, of which a digest is made as they pass."""

    def __init__(self, corpus: Corpus, offer: Offer) -> None:
        self._pieces = read_pieces(corpus, offer)
        self._hash = hashlib.sha256()
        self._characters = 0

    def __iter__(self) -> Iterator[CorpusPiece]:
        for piece in self._pieces:
            if piece is DOCUMENT_END:
                self._hash.update(_END_BYTE)
            else:
                # surrogatepass: a lone surrogate is no valid text, but that is for the tokenizer to judge
                self._hash.update(piece.encode("utf-8", "surrogatepass"))
                self._characters += len(piece)
            yield piece

    def digest(self) -> CorpusDigest:
        """The digest of all that has passed."""
        return CorpusDigest(self._hash.hexdigest(), self._characters)


def fit_tokenizer(tokenizer: Tokenizer, corpus: Corpus, pipeline: Pipeline, components: Components) -> CorpusDigest:
    """Fit the tokenizer, check it on the beginning of the corpus, and give the digest of all of it.

    If the pipeline starts from another run, it is fitted already. Raises PipelineError for a corpus of documents and a
    tokenizer without an id for their end.
    """
    hashed = HashedPieces(corpus, pipeline.corpus.offer)
    beginning = _beginning(corpus, pipeline)
    can_end, has_documents = hasattr(tokenizer, "end_id"), False

    def checked() -> Iterator[Any]:
        nonlocal has_documents
        first = beginning
        for piece in hashed:
            if piece is DOCUMENT_END:
                has_documents = True
                if not can_end:  # which does not know the mark
                    raise _no_end(pipeline)
            elif piece and first:
                if piece != first:
                    raise CorpusError(changed_text(pipeline.corpus.offer))
                first = ""
            yield piece

    pieces = checked()
    if pipeline.start is None:
        tokenizer.fit(pieces)
    for _ in pieces:  # what a tokenizer that needs no fitting has left unread counts too
        pass
    digest = hashed.digest()
    if beginning and not digest.characters:
        raise CorpusError(changed_text(pipeline.corpus.offer))
    if not digest.characters:
        raise CorpusError("the corpus is empty: it has 0 characters, and training needs at least a window of text")
    if has_documents and end_id(tokenizer) is None:
        raise _no_end(pipeline)
    offer = pipeline.tokenizer.offer
    components.add(checks.check_tokenizer(tokenizer, offer, beginning), offer)
    return digest


def _beginning(corpus: Corpus, pipeline: Pipeline) -> str:
    """The first piece of text. Reading it twice finds at once what cannot be read again."""
    pieces = read_pieces(corpus, pipeline.corpus.offer)
    return next((piece for piece in pieces if piece and piece is not DOCUMENT_END), "")


def _no_end(pipeline: Pipeline) -> PipelineError:
    cause = "the corpus consists of documents, and this tokenizer has no id for their end (end_id)"
    hint = "choose another tokenizer, or a corpus that is one text"
    return PipelineError([Fault("tokenizer.type", cause, repr(pipeline.tokenizer.name), hint)], pipeline.name)


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
        data = split_tokens(tokens, pipeline.data, tokenizer)
        _warn_of_unknown(data, tokenizer)
        yield data
    finally:
        with contextlib.suppress(PermissionError):  # Windows keeps what is still mapped; the next run sweeps it
            path.unlink(missing_ok=True)


def _warn_of_unknown(data: Dataset, tokenizer: Tokenizer) -> None:
    sample = (data.validation if len(data.validation) else data.training)[:_RATIO_SAMPLE]
    share = float(np.mean(sample == tokenizer.unknown_id)) if tokenizer.unknown_id is not None else 0.0
    if share > _MANY_UNKNOWN:
        cause = f"{share:.0%} of the tokens stand for text outside the vocabulary, whose spelling costs no bits"
        warnings.warn(f"{cause}; losses and bits per character are too low to compare with others", stacklevel=2)


def encode_corpus(pieces: Iterable[CorpusPiece], tokenizer: Tokenizer, path: Path) -> Ids:
    """Write the token ids of a corpus to the file `path` and map it into memory, (N,), read-only."""
    dtype = np.min_scalar_type(max(tokenizer.vocab_size - 1, 0))
    count = 0
    with path.open("wb") as file:
        for ids in encode_documents(tokenizer, pieces):
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
        training, validation = _split_fraction(tokens, options.validation_fraction, end_id(tokenizer))
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


def _split_fraction(tokens: Ids, fraction: float, end: int | None) -> tuple[Ids, Ids]:
    """All but the last part, and the last part: between two documents, if there are several.

    The id between them belongs to both parts: it ends the one, and the other starts from it.
    """
    place = len(tokens) - int(len(tokens) * fraction)
    if end is None or place == len(tokens):
        return tokens[:place], tokens[place:]
    reach = 1 << 10
    while True:
        low, high = max(1, place - reach), min(len(tokens) - 1, place + reach)
        borders = np.flatnonzero(tokens[low:high] == end) + low
        if len(borders):
            border = int(borders[np.abs(borders - place).argmin()])
            return tokens[: border + 1], tokens[border:]
        if low == 1 and high == len(tokens) - 1:
            return tokens[:place], tokens[place:]
        reach *= 4


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
