"""The text of a run: hashed, the tokenizer fitted to it, and encoded once for all runs."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import numpy as np

from textgen.contracts.checks import check_tokenizer, encode_documents, read_pieces
from textgen.contracts.components import Components
from textgen.data import Dataset
from textgen.documents import DOCUMENT_END, CorpusPiece, end_id
from textgen.errors import ContractError, CorpusError, Fault, PipelineError, TextgenError
from textgen.files.cache import encoded_texts
from textgen.files.opening import MALFORMED_DATA, file_signature
from textgen.files.reading import json_checksum
from textgen.pipeline.options import DataOptions
from textgen.pipeline.pipeline import Pipeline
from textgen.plugin.component import OBJECT, OWN_DISTRIBUTION, UNPACKAGED
from textgen.plugin.configured import ConfiguredComponent
from textgen.protocols import Corpus, Ids, Table, Tokenizer
from textgen.runs.formats import CorpusDigest
from textgen.runs.reading_progress import ReadingProgress
from textgen.runs.split import lost_share, split_tokens, unknown_share
from textgen.runs.starting import identity

logger = logging.getLogger("textgen")
_FORMAT: Final = 2  # of what the engine makes of a text; counted up when that changes
_END_BYTE: Final = b"\xff"  # stands for DOCUMENT_END in the digest, and in no UTF-8
_MANY_UNKNOWN: Final = 0.01  # share of unknown tokens above which bits per character mislead
_MUCH_LOST: Final = 0.05  # share of characters that are not decoded again


@attrs.define
class EncodedText:
    """A text, the tokenizer for it, and its tokens.

    vocabulary   that of the tokenizer, unless it is fitted to this text
    folder       where tokens are written that the cache cannot take; None for temporary files
    lost_share   the share of characters that its tokens do not give again, by `dataset`
    held_out     begin and end of the held-out tokens, if they are not the last ones, by `dataset`
    """

    corpus: Corpus
    tokenizer: Tokenizer
    corpus_choice: ConfiguredComponent
    tokenizer_choice: ConfiguredComponent
    vocabulary: Table | None
    progress: ReadingProgress = attrs.field(factory=ReadingProgress)
    folder: Path | None = None
    digest: CorpusDigest = attrs.field(init=False)
    lost_share: float = attrs.field(init=False, default=0.0)
    held_out: tuple[int, ...] = attrs.field(init=False, default=())
    _key: str = attrs.field(init=False, default="")
    _tokens: Ids | None = attrs.field(init=False, default=None)
    # Of the pieces that were read: the first text, whether there are documents, and all's digest.
    _beginning: str = attrs.field(init=False, default="")
    _has_documents: bool = attrs.field(init=False, default=False)
    _read_digest: CorpusDigest = attrs.field(init=False)

    def find(self) -> bool:
        """Take digest, fitted tokenizer and tokens from the cache, if they are there.

        Any fault of an entry means that they are not.
        """
        self._key = self._cache_key()
        if not self._key or (entry := encoded_texts().find(self._key)) is None:
            return False
        try:
            tokenizer = self.tokenizer.from_dict(entry.facts["vocabulary"])
            self._tokens = np.memmap(entry.path, token_dtype(tokenizer), "r")
            self.digest, self.tokenizer = CorpusDigest(**entry.facts["corpus"]), tokenizer
        except (TextgenError, OSError, *MALFORMED_DATA):
            self._tokens = None
        return self._tokens is not None

    def _cache_key(self) -> str:
        """The key of the encoded text, found without reading it; "" if it cannot be cached.

        Cached are corpora with `sources` (textgen.protocols.CorpusOfFiles), unless a program gave
        them or the tokenizer.
        """
        choices = self.corpus_choice, self.tokenizer_choice
        paths = self.corpus.sources() if hasattr(self.corpus, "sources") else ()
        files = [(os.path.abspath(path), file_signature(path)) for path in paths]
        code = list(map(_code, (self.corpus, self.tokenizer), choices))
        # A program may register the same class of tokenizer again with other values in it.
        plugin = self.tokenizer_choice.offer.plugin
        is_registered = plugin.distribution == UNPACKAGED and not plugin.path
        if not files or None in code or is_registered or any(each is None for _, each in files):
            return ""
        options = [identity(attrs.evolve(choice, start=None)) for choice in choices]
        return json_checksum([_FORMAT, files, code, options, self.vocabulary])

    def prepare(self, pipeline: Pipeline, components: Components) -> None:
        """Fit the tokenizer to the text, unless both are in the cache, and check it.

        Raises PipelineError for a corpus of documents and a tokenizer without an id for their end.
        """
        if not self.find():
            can_end = hasattr(self.tokenizer, "end_id")
            self._fit(piece for piece in self._pieces() if can_end or piece is not DOCUMENT_END)
            self.digest = self._read_digest
            if not self.digest.characters:
                raise CorpusError(
                    "the corpus is empty: it has 0 characters, and training needs a window of text"
                )
            if self._has_documents and end_id(self.tokenizer) is None:
                cause = (
                    "the corpus consists of documents, and this tokenizer has no id for their end"
                )
                hint = "choose another tokenizer, or a corpus that is one text"
                shown = repr(self.tokenizer_choice.name)
                fault = Fault("tokenizer.type", f"{cause} (end_id)", shown, hint)
                raise PipelineError([fault], pipeline.name)
            offer = self.tokenizer_choice.offer
            with components.blaming(offer):
                components.add(check_tokenizer(self.tokenizer, offer, self._beginning), offer)
        components.add(self.tokenizer, self.tokenizer_choice.offer)

    def _pieces(self) -> Iterator[CorpusPiece]:
        """The pieces of the corpus; `_read_digest` is theirs once the last one was read."""
        offer = self.corpus_choice.offer
        digest, characters = hashlib.sha256(), 0
        for piece in read_pieces(self.corpus, offer):
            if piece is DOCUMENT_END:
                self._has_documents = True
                digest.update(_END_BYTE)
            else:
                self._beginning = self._beginning or piece
                characters += len(piece)
                try:
                    digest.update(piece.encode())
                except UnicodeEncodeError as error:
                    what = f"yielded {error.object[error.start]!r}, half of a surrogate pair"
                    raise ContractError(offer, f"{what}, which is no character") from error
                self.progress.read()
            yield piece
        self._read_digest = CorpusDigest(digest.hexdigest(), characters)

    def _fit(self, pieces: Iterator[Any]) -> None:
        """Fit the tokenizer, and read all pieces.

        One that keeps the vocabulary of another run is fitted already, and extended if it can be;
        so may be one that a program gave.
        """
        tokenizer, choice = self.tokenizer, self.tokenizer_choice
        if choice.start is None:
            if choice.offer.distribution != OBJECT or not _is_fitted(tokenizer):
                tokenizer.fit(pieces)
        elif (extend := getattr(tokenizer, "extend", None)) is not None:
            extend(pieces)
        for _ in pieces:  # a tokenizer may need no fitting, and the digest is of all pieces
            pass

    def dataset(self, options: DataOptions, held_out: Sequence[int] = ()) -> Dataset:
        """The tokens, split as the `[data]` table says, or with other ones held out, or with
        what is left of them where the text has become shorter.
        """
        tokens = self.tokens(
            f"{self.corpus_choice.offer} gave another text when it was read again: run again once "
            "the text is complete; each call of `read` must start from the beginning, and what it "
            "draws must follow from context.seed"
        )
        self.held_out = self._still_held_out(held_out, len(tokens), options.window_length)
        data = split_tokens(tokens, options, self.tokenizer, self.held_out)
        self.lost_share = lost_share(tokens, self.tokenizer, self.digest.characters)
        # What a built-in tokenizer leaves out is what its options say.
        offer = self.tokenizer_choice.offer
        if self.lost_share > _MUCH_LOST and offer.distribution != OWN_DISTRIBUTION:
            warnings.warn(
                f"{offer} loses {self.lost_share:.0%} of the text: its tokens decode to fewer "
                "characters than there are",
                stacklevel=2,
            )
        if (share := unknown_share(data, self.tokenizer)) > _MANY_UNKNOWN:
            warnings.warn(
                f"{share:.0%} of the tokens stand for text outside the vocabulary, whose spelling "
                "costs no bits; losses and bits per character are too low to compare with others",
                stacklevel=2,
            )
        return data

    @staticmethod
    def _still_held_out(held_out: Sequence[int], size: int, length: int) -> tuple[int, ...]:
        """Begin and end of what is held out of a text of `size` tokens; () for its last ones."""
        if not held_out:
            return ()
        begin, stop = held_out
        stop = min(stop, size)
        if stop - begin > length:
            return begin, stop
        warnings.warn(
            "the part of the text that was held out is no longer there, so its last part is held "
            "out, on which the model was trained: the validation loss will be too good",
            stacklevel=2,
        )
        return ()

    def tokens(self, changed: str) -> Ids:
        """The tokens (N,), mapped, and kept in the cache if that can be written to.

        Raises CorpusError with the message `changed` if the text has another digest.
        """
        if self._tokens is not None:  # they were found
            return self._tokens
        cache, dtype = encoded_texts(), token_dtype(self.tokenizer)
        if self._key:
            facts = {
                "text": self.corpus_choice.table(),
                "tokenizer": self.tokenizer_choice.table(),
                "vocabulary": self.tokenizer.to_dict(),
                "corpus": attrs.asdict(self.digest),
            }
            try:
                entry = cache.add(self._key, "tokens.bin", self._bytes(changed), facts)
                return np.memmap(entry.path, dtype, "r")
            except OSError as error:
                said = "the cache %s takes no text: %s; TEXTGEN_CACHE_DIR names another folder"
                logger.warning(said, cache.folder, error.strerror or error)
        with tempfile.TemporaryFile(dir=self.folder) as file:
            file.writelines(self._bytes(changed))
            file.flush()
            return np.memmap(file, dtype, "r")  # which keeps the file

    def _bytes(self, changed: str) -> Iterator[bytes]:
        dtype, size = token_dtype(self.tokenizer), 0
        for ids in encode_documents(self.tokenizer, self._pieces()):
            size += len(ids)
            yield np.ascontiguousarray(ids, dtype).tobytes()
        if self._read_digest != self.digest:
            raise CorpusError(changed)
        if not size:
            raise CorpusError("the corpus is empty: no token to train on; give it some text")


def _code(made: Any, choice: ConfiguredComponent) -> list[Any] | None:
    """The plugins of a component's code, and its file's size and time; None for an object of a
    program."""
    plugins = [part.offer.plugin for part in choice.flattened()]
    if any(plugin.distribution == OBJECT for plugin in plugins):
        return None
    # A version stays while someone works on a plugin, so size and time of the file count too.
    file = getattr(sys.modules.get(type(made).__module__), "__file__", None)
    code = None if file is None else file_signature(file)
    return None if code is None else [*(plugin.facts() for plugin in plugins), *code[:2]]


def kept_tokens(digest: CorpusDigest, tokenizer: Tokenizer) -> Ids | None:
    """The tokens (N,) of a text whose files may have changed, if the cache still has them."""
    told = {"corpus": attrs.asdict(digest), "vocabulary": tokenizer.to_dict()}
    for entry in encoded_texts().entries():
        if told.items() <= entry.facts.items():
            return np.memmap(entry.path, token_dtype(tokenizer), "r")
    return None


def _is_fitted(tokenizer: Tokenizer) -> bool:
    try:
        return bool(tokenizer.vocab_size)
    except Exception:  # as before `fit`
        return False


def token_dtype(tokenizer: Tokenizer) -> np.dtype[Any]:
    """The dtype in which the tokens of a corpus are stored."""
    return np.dtype(np.min_scalar_type(max(tokenizer.vocab_size - 1, 0)))
