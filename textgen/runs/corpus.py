"""Reads a corpus: hashes it, fits a tokenizer to it and encodes it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import numpy as np

from textgen.contracts import checks
from textgen.contracts.checks import encode_documents, read_pieces
from textgen.contracts.components import Components
from textgen.documents import DOCUMENT_END, CorpusPiece, end_id
from textgen.errors import ContractError, CorpusError, Fault, PipelineError
from textgen.pipeline.pipeline import Pipeline
from textgen.plugin.component import OBJECT, RegisteredComponent
from textgen.protocols import Corpus, Tokenizer
from textgen.runs.formats import CorpusDigest

_END_BYTE: Final = b"\xff"  # stands for DOCUMENT_END in the digest, and in no UTF-8


class HashedPieces(Iterable[CorpusPiece]):
    """The pieces of a corpus, which are hashed as they pass.

    progress   called with the bytes of each piece in UTF-8
    """

    def __init__(
        self,
        corpus: Corpus,
        offer: RegisteredComponent,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self._pieces, self._offer = read_pieces(corpus, offer), offer
        self._progress = progress
        self._hash = hashlib.sha256()
        self._characters = 0
        # Of the pieces that have passed: the first one of text, and whether there are documents.
        self.beginning = ""
        self.has_documents = False

    def __iter__(self) -> Iterator[CorpusPiece]:
        for piece in self._pieces:
            if piece is DOCUMENT_END:
                self.has_documents = True
                self._hash.update(_END_BYTE)
            else:
                self.beginning = self.beginning or piece
                self._characters += len(piece)
                try:
                    data = piece.encode()
                except UnicodeEncodeError as error:
                    what = f"yielded {error.object[error.start]!r}, half of a surrogate pair"
                    raise ContractError(self._offer, f"{what}, which is no character") from error
                self._hash.update(data)
                if self._progress is not None:
                    self._progress(len(data))
            yield piece

    def digest(self) -> CorpusDigest:
        """The digest of the pieces that have passed."""
        return CorpusDigest(self._hash.hexdigest(), self._characters)


def fit_tokenizer(
    tokenizer: Tokenizer,
    corpus: Corpus,
    pipeline: Pipeline,
    components: Components,
    progress: Callable[[int], None],
) -> CorpusDigest:
    """Fit the tokenizer, check it on the beginning of the corpus, and return the digest of the
    corpus.

    A tokenizer that keeps the vocabulary of another run is fitted already, and extended if it can
    be; so may be one that a program gave. Raises PipelineError for a corpus of documents and a
    tokenizer without an id for their end.
    """
    hashed = HashedPieces(corpus, pipeline.corpus.offer, progress)
    pieces = _checked(hashed, tokenizer, pipeline)
    if pipeline.tokenizer.start is None:
        if pipeline.tokenizer.offer.distribution != OBJECT or not _is_fitted(tokenizer):
            tokenizer.fit(pieces)
    elif (extend := getattr(tokenizer, "extend", None)) is not None:
        extend(pieces)
    for _ in pieces:  # a tokenizer may need no fitting, and the digest is of all pieces
        pass
    digest = hashed.digest()
    if not digest.characters:
        paths = [*corpus.sources()] if hasattr(corpus, "sources") else []
        raise CorpusError(
            "the corpus is empty: it has 0 characters, and training needs a window of text",
            paths[0] if len(paths) == 1 else None,
        )
    if hashed.has_documents and end_id(tokenizer) is None:
        raise _no_end(pipeline)
    components.add(
        checks.check_tokenizer(tokenizer, pipeline.tokenizer.offer, hashed.beginning),
        pipeline.tokenizer.offer,
    )
    return digest


def _is_fitted(tokenizer: Tokenizer) -> bool:
    try:
        return bool(tokenizer.vocab_size)
    except Exception:  # as before `fit`
        return False


def _checked(
    pieces: Iterable[CorpusPiece], tokenizer: Tokenizer, pipeline: Pipeline
) -> Iterator[Any]:
    """The pieces. Raises PipelineError for documents if the tokenizer has no id for their end."""
    can_end = hasattr(tokenizer, "end_id")
    for piece in pieces:
        if piece is DOCUMENT_END and not can_end:
            raise _no_end(pipeline)
        yield piece


def _no_end(pipeline: Pipeline) -> PipelineError:
    cause = "the corpus consists of documents, and this tokenizer has no id for their end (end_id)"
    hint = "choose another tokenizer, or a corpus that is one text"
    return PipelineError(
        [Fault("tokenizer.type", cause, repr(pipeline.tokenizer.name), hint)], pipeline.name
    )


def token_dtype(tokenizer: Tokenizer) -> np.dtype[Any]:
    """The dtype in which the tokens of a corpus are stored."""
    return np.dtype(np.min_scalar_type(max(tokenizer.vocab_size - 1, 0)))


def token_bytes(pieces: Iterable[CorpusPiece], tokenizer: Tokenizer) -> Iterator[bytes]:
    """The token ids of a corpus as a file holds them."""
    dtype = token_dtype(tokenizer)
    for ids in encode_documents(tokenizer, pieces):
        yield np.ascontiguousarray(ids, dtype).tobytes()
