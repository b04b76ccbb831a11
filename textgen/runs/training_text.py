"""The text of a run: the tokenizer is fitted to it, and it is encoded, once for all runs."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import numpy as np

from textgen.contracts.checks import changed_text
from textgen.contracts.components import Components
from textgen.data import Dataset
from textgen.errors import CorpusError, TextgenError
from textgen.files.cache import encoded_texts
from textgen.files.opening import UNFORESEEN
from textgen.files.reading import VOCABULARY, read_tokenizer
from textgen.pipeline.pipeline import Pipeline
from textgen.plugin.structure import Choice
from textgen.protocols import Corpus, Ids, Tokenizer
from textgen.runs.corpus import HashedPieces, fit_tokenizer, token_bytes, token_dtype
from textgen.runs.formats import CorpusDigest
from textgen.runs.identity import TextKey
from textgen.runs.reading import ReadingProgress
from textgen.runs.splitting import split_tokens, unknown_share

logger = logging.getLogger("textgen")
_MANY_UNKNOWN: Final = 0.01  # share of unknown tokens above which bits per character mislead


@attrs.frozen
class EncodedText:
    """A text that was encoded: its digest, the fitted tokenizer, and its tokens (N,), mapped."""

    digest: CorpusDigest
    tokenizer: Tokenizer
    tokens: Ids

    @classmethod
    def find(cls, key: TextKey, tokenizer: Tokenizer) -> EncodedText | None:
        """The text of a key in the cache. Any fault of an entry means that there is none."""
        cache = encoded_texts()
        entry = cache.find(key.value) if key.value and cache.limit else None
        if entry is None:
            return None
        try:
            fitted = tokenizer.from_dict(entry.facts["vocabulary"])
            tokens = np.memmap(entry.path, token_dtype(fitted), "r")
            return cls(CorpusDigest(**entry.facts["corpus"]), fitted, tokens)
        except (TextgenError, OSError, *UNFORESEEN):
            return None


def encode_text(
    corpus: Corpus,
    corpus_choice: Choice,
    tokenizer: Tokenizer,
    tokenizer_choice: Choice,
    digest: CorpusDigest,
    key: TextKey,
    changed: str,
    folder: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> Ids:
    """The tokens (N,) of a text, mapped from the cache into which they are written.

    Where the cache is off or cannot be written to, they are in a file without a name in `folder`, or
    in the system's folder for temporary files. Raises CorpusError, with the message `changed`, for a
    text with another digest.
    """

    def encoded() -> Iterator[bytes]:
        pieces = HashedPieces(corpus, corpus_choice.offer, progress)
        yield from token_bytes(pieces, tokenizer)
        if pieces.digest() != digest:
            raise CorpusError(changed)

    cache, dtype = encoded_texts(), token_dtype(tokenizer)
    if key.value and cache.limit:
        facts = {
            "text": corpus_choice.table(),
            "tokenizer": tokenizer_choice.table(),
            "vocabulary": tokenizer.to_dict(),
            "corpus": attrs.asdict(digest),
        }
        try:
            entry = cache.add(key.value, "tokens.bin", encoded(), facts)
            return np.memmap(entry.path, dtype, "r")
        except OSError as error:
            advice = "TEXTGEN_CACHE_DIR names another folder, and TEXTGEN_CACHE_SIZE=0 does without"
            cause = error.strerror or error
            logger.warning("the cache %s takes no text: %s; %s", cache.folder, cause, advice)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.writelines(encoded())
        file.flush()
        return np.memmap(file, dtype, "r")  # which keeps the file


@attrs.define
class TrainingText:
    """The text of a pipeline.

    tokenizer   fitted once `prepare` is done
    digest      known once `prepare` is done
    folder      where tokens are written that the cache cannot take
    """

    corpus: Corpus
    tokenizer: Tokenizer
    pipeline: Pipeline
    components: Components
    folder: Path
    progress: ReadingProgress
    digest: CorpusDigest = attrs.field(init=False)
    _key: TextKey = attrs.field(init=False, factory=TextKey)
    _tokens: Ids | None = attrs.field(init=False, default=None)

    def prepare(self, recorded: Mapping[str, Any] | None = None) -> None:
        """Fit the tokenizer to the text, unless both are in the cache.

        recorded   the record of the run in `folder`, if that is enough where the text cannot be read
        """
        try:
            self._prepare()
        except CorpusError as error:
            if recorded is None:
                raise
            logger.info("the corpus is not compared with that of the finished run: %s", error)
            self.digest = CorpusDigest(**recorded["fingerprint"]["corpus"])
            sha256 = recorded["files"][VOCABULARY]
            self._take(read_tokenizer(self.tokenizer, self.folder, sha256))

    def _prepare(self) -> None:
        corpus, tokenizer = self.pipeline.corpus, self.pipeline.tokenizer
        vocabulary = None if self.pipeline.start is None else self.tokenizer.to_dict()
        self._key = TextKey.of(self.corpus, corpus, self.tokenizer, tokenizer, vocabulary)
        if (found := EncodedText.find(self._key, self.tokenizer)) is not None:
            self.digest, self._tokens = found.digest, found.tokens
            self._take(found.tokenizer)
            return
        self.progress.total = self._key.size
        self.digest = fit_tokenizer(
            self.tokenizer, self.corpus, self.pipeline, self.components, self.progress.read
        )

    def _take(self, fitted: Tokenizer) -> None:
        self.tokenizer = fitted
        self.components.add(self.tokenizer, self.pipeline.tokenizer.offer)

    def encoded(self) -> Dataset:
        """The corpus as tokens, mapped into memory."""
        corpus, tokenizer = self.pipeline.corpus, self.pipeline.tokenizer
        if self._tokens is None:
            self._tokens = encode_text(
                self.corpus,
                corpus,
                self.tokenizer,
                tokenizer,
                self.digest,
                self._key,
                changed_text(corpus.offer),
                self.folder,
                self.progress.read,
            )
        self.progress.close()
        data = split_tokens(self._tokens, self.pipeline.data, self.tokenizer)
        _warn_of_unknown(data, self.tokenizer)
        return data


def _warn_of_unknown(data: Dataset, tokenizer: Tokenizer) -> None:
    share = unknown_share(data, tokenizer)
    if share > _MANY_UNKNOWN:
        cause = f"{share:.0%} of the tokens stand for text outside the vocabulary"
        warnings.warn(
            f"{cause}, whose spelling costs no bits; losses and bits per character are too low to "
            "compare with others",
            stacklevel=2,
        )
