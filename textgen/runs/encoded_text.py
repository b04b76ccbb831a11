"""The text of a run: the tokenizer is fitted to it, and it is encoded, once for all runs."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs
import numpy as np

from textgen.contracts.components import Components
from textgen.data import Dataset
from textgen.errors import CorpusError, TextgenError
from textgen.files.cache import encoded_texts
from textgen.files.opening import MALFORMED_DATA
from textgen.pipeline.options import DataOptions
from textgen.pipeline.pipeline import Pipeline
from textgen.plugin.component import OWN_DISTRIBUTION
from textgen.plugin.structure import ConfiguredComponent
from textgen.protocols import Corpus, Ids, Table, Tokenizer
from textgen.runs.corpus import HashedPieces, fit_tokenizer, token_bytes, token_dtype
from textgen.runs.formats import CorpusDigest
from textgen.runs.identity import text_key
from textgen.runs.outside import announce_files
from textgen.runs.progress import ReadingProgress
from textgen.runs.splitting import lost_share, split_tokens, unknown_share

logger = logging.getLogger("textgen")
_MANY_UNKNOWN: Final = 0.01  # share of unknown tokens above which bits per character mislead
_MUCH_LOST: Final = 0.05  # share of characters that are not decoded again


@attrs.define
class EncodedText:
    """A text, the tokenizer for it, and its tokens.

    vocabulary   that of the tokenizer, unless it is fitted to this text
    folder       where tokens are written that the cache cannot take; None for temporary files
    lost_share   the share of characters that its tokens do not give again, by `dataset`
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
    _key: str = attrs.field(init=False, default="")
    _tokens: Ids | None = attrs.field(init=False, default=None)

    def find(self) -> bool:
        """Take digest, fitted tokenizer and tokens from the cache, if they are there.

        Any fault of an entry means that they are not.
        """
        choices = self.corpus_choice, self.tokenizer_choice
        key = text_key(self.corpus, self.tokenizer, choices, self.vocabulary)
        self._key, self.progress.total = key
        if not self._key or (entry := encoded_texts().find(self._key)) is None:
            return False
        try:
            tokenizer = self.tokenizer.from_dict(entry.facts["vocabulary"])
            self._tokens = np.memmap(entry.path, token_dtype(tokenizer), "r")
            self.digest, self.tokenizer = CorpusDigest(**entry.facts["corpus"]), tokenizer
        except (TextgenError, OSError, *MALFORMED_DATA):
            self._tokens = None
        return self._tokens is not None

    def prepare(self, pipeline: Pipeline, components: Components) -> None:
        """Fit the tokenizer to the text, unless both are in the cache."""
        announce_files(self.corpus, self.corpus_choice, pipeline.folder, self.progress.console)
        if not self.find():
            self.digest = fit_tokenizer(
                self.tokenizer, self.corpus, pipeline, components, self.progress.read
            )
        components.add(self.tokenizer, self.tokenizer_choice.offer)

    def dataset(self, options: DataOptions) -> Dataset:
        """The tokens, split as the `[data]` table says."""
        tokens = self.tokens(
            f"{self.corpus_choice.offer} gave another text when it was read again: run again once "
            "the text is complete; each call of `read` must start from the beginning, and what it "
            "draws must follow from context.seed"
        )
        data = split_tokens(tokens, options, self.tokenizer)
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

    def tokens(self, changed: str) -> Ids:
        """The tokens (N,), mapped, and kept in the cache if that can be written to.

        Raises CorpusError with the message `changed` if the text has another digest.
        """
        if self._tokens is None:
            self._tokens = self._encode(changed)
            self.progress.close()
        return self._tokens

    def _encode(self, changed: str) -> Ids:
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
        folder = self.folder or tempfile.gettempdir()
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                file.writelines(self._bytes(changed))
                file.flush()
                return np.memmap(file, dtype, "r")  # which keeps the file
        except OSError as error:  # the file has no name
            error.filename = error.filename or str(folder)
            raise

    def _bytes(self, changed: str) -> Iterator[bytes]:
        pieces = HashedPieces(self.corpus, self.corpus_choice.offer, self.progress.read)
        size = 0
        for data in token_bytes(pieces, self.tokenizer):
            size += len(data)
            yield data
        if pieces.digest() != self.digest:
            raise CorpusError(changed)
        if not size:
            raise CorpusError("the corpus is empty: no token to train on; give it some text")


def kept_tokens(digest: CorpusDigest, tokenizer: Tokenizer) -> Ids | None:
    """The tokens (N,) of a text whose files may have changed, if the cache still has them."""
    told = {"corpus": attrs.asdict(digest), "vocabulary": tokenizer.to_dict()}
    for entry in encoded_texts().entries():
        if told.items() <= entry.facts.items():
            return np.memmap(entry.path, token_dtype(tokenizer), "r")
    return None
