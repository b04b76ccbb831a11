"""The text of a run: read, fitted to and encoded once, and taken from the cache by every run after that."""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import numpy as np

from textgen.contracts.guards import changed_text
from textgen.contracts.lifetime import Components
from textgen.data import Dataset
from textgen.errors import CorpusError, RunError
from textgen.files.cache import UNUSABLE, Cache, Entry
from textgen.files.reading import VOCABULARY, json_checksum, read_tokenizer
from textgen.pipeline.pipeline import Pipeline
from textgen.plugin.structure import Choice
from textgen.protocols import Corpus, Tokenizer
from textgen.runs.corpus import HashedPieces, fit_tokenizer, token_bytes, token_dtype
from textgen.runs.formats import CorpusDigest
from textgen.runs.identity import TextKey, tokens_key
from textgen.runs.reading import ReadingProgress
from textgen.runs.splitting import split_tokens, unknown_share

logger = logging.getLogger("textgen")
_MANY_UNKNOWN: Final = 0.01  # share of unknown tokens above which bits per character mislead


@attrs.define
class TrainingText:
    """The text of a pipeline, to be used within `with`.

    tokenizer   fitted once `prepare` is done
    digest      known once `prepare` is done
    file        where the tokens are written if the cache cannot take them
    """

    corpus: Corpus
    tokenizer: Tokenizer
    pipeline: Pipeline
    components: Components
    file: Path
    progress: ReadingProgress
    digest: CorpusDigest = attrs.field(init=False)
    _cache: Cache = attrs.field(init=False, factory=Cache.of_user)
    _key: TextKey | None = attrs.field(init=False, default=None)
    _start: str | None = attrs.field(init=False, default=None)
    _entry: Entry | None = attrs.field(init=False, default=None)
    _work: contextlib.ExitStack = attrs.field(init=False, factory=contextlib.ExitStack)
    _has_work: bool = attrs.field(init=False, default=False)

    def __enter__(self) -> TrainingText:
        return self

    def __exit__(self, *_: object) -> None:
        self._work.close()
        if self._entry is not None:
            self._entry.close()

    def prepare(
        self,
        record: Mapping[str, Any] | None,
        folder: Path,
        recorded: Mapping[str, Any] | None = None,
    ) -> None:
        """Find out what the text is, and fit the tokenizer to it; read nothing if both are known.

        record     that of the run in `folder`, whose vocabulary is good for the same text
        recorded   the same if it is enough where the text cannot be read
        """
        try:
            self._prepare(record, folder)
        except CorpusError:
            if recorded is None:
                raise
            self.digest = CorpusDigest(**recorded["fingerprint"]["corpus"])
            self._take(read_tokenizer(self.tokenizer, folder, recorded["files"][VOCABULARY]))

    def _prepare(self, record: Mapping[str, Any] | None, folder: Path) -> None:
        if self.pipeline.start is not None:
            self._start = json_checksum(_json(self.tokenizer))
        if self._cache.limit and self._tokens_key({}):
            self._key = TextKey.of(self.corpus, self.pipeline.corpus)
        if self._recall(record, folder) or (self._begin_work() and self._recall(record, folder)):
            return
        self.progress.total = self._key.size if self._key is not None else 0
        self.digest = fit_tokenizer(
            self.tokenizer, self.corpus, self.pipeline, self.components, self.progress.read
        )
        if self._key is not None and not self._key.recent and self._is_unchanged():
            with self._excused():
                self._cache.note(self._key.value, attrs.asdict(self.digest))

    @contextlib.contextmanager
    def encoded(self) -> Iterator[Dataset]:
        """The corpus as tokens, mapped into memory, for as long as training needs it."""
        try:
            data = split_tokens(self._tokens(), self.pipeline.data, self.tokenizer)
            _warn_of_unknown(data, self.tokenizer)
            self._work.close()
            yield data
        finally:
            with contextlib.suppress(
                OSError
            ):  # Windows keeps what is still mapped; the next run sweeps it
                self.file.unlink(missing_ok=True)

    def _recall(self, record: Mapping[str, Any] | None, folder: Path) -> bool:
        """Take digest and vocabulary from where they are known."""
        note = None if self._key is None else self._cache.recall(self._key.value)
        if note is None:
            return False
        self.digest = CorpusDigest(**note)
        if record is not None and record["fingerprint"].get("corpus") == attrs.asdict(self.digest):
            with contextlib.suppress(RunError):  # a damaged vocabulary is made again
                self._take(read_tokenizer(self.tokenizer, folder, record["files"][VOCABULARY]))
                return True
        if not self._open():
            return False
        assert self._entry is not None
        self._take(self.tokenizer.from_dict(json.loads(self._entry.facts["vocabulary"])))
        return True

    def _take(self, fitted: Tokenizer) -> None:
        self.tokenizer = fitted
        self.components.add(self.tokenizer, self.pipeline.tokenizer.offer)

    def _tokens(self) -> np.memmap[Any, Any]:
        """The tokens (N,), mapped into memory."""
        path = self.file
        if self._open() or (self._begin_work() and (self._open() or self._add())):
            assert self._entry is not None
            path = self._entry.data
        else:
            with path.open("wb") as file:
                file.writelines(self._data())
        self.progress.close()
        return np.memmap(path, token_dtype(self.tokenizer), "r")

    def _tokens_key(self, text: Mapping[str, Any]) -> str:
        """What tokens are known by; "" where the tokenizer has no identity."""
        return tokens_key(text, self.tokenizer, self.pipeline.tokenizer, self._start)

    def _open(self) -> bool:
        """Use the tokens in the cache, if they are there."""
        if self._entry is None and self._key is not None:
            self._entry = self._cache.use(self._tokens_key(attrs.asdict(self.digest)))
        return self._entry is not None

    def _add(self) -> bool:
        """Encode the text into the cache."""
        facts = {
            "text": self.pipeline.corpus.table(),
            "characters": self.digest.characters,
            "tokenizer": self.pipeline.tokenizer.table(),
            "vocabulary": _json(self.tokenizer),
        }
        with self._excused():
            key = self._tokens_key(attrs.asdict(self.digest))
            self._entry = self._cache.add(
                key, self._data(), json.loads(json.dumps(facts, default=str))
            )
        return self._entry is not None

    def _data(self) -> Iterator[bytes]:
        """The tokens as a file holds them. Raises CorpusError at the end if the text is not what it was before."""
        known = self._key if self._key is not None and not self._key.recent else None
        pieces = HashedPieces(
            self.corpus, self.pipeline.corpus.offer, self.progress.read, hashing=known is None
        )
        if not self.progress.total and known is not None:
            self.progress.total, self.progress.passes = known.size, 1
        yield from token_bytes(pieces, self.tokenizer)
        digest = pieces.digest()
        if known is not None and self._is_unchanged():
            digest = attrs.evolve(digest, sha256=self.digest.sha256)
        if digest != self.digest:
            raise CorpusError(changed_text(self.pipeline.corpus.offer))

    def _is_unchanged(self) -> bool:
        now = TextKey.of(self.corpus, self.pipeline.corpus)
        return now is not None and self._key is not None and now.value == self._key.value

    def _begin_work(self) -> bool:
        """Hold off others who would encode the same text; False if nothing can be cached."""
        if self._key is not None and not self._has_work:
            key = self._tokens_key({"text": self._key.value})
            with self._excused():
                self._has_work = True
                self._work.enter_context(self._cache.working(key, self.progress.wait))
        return self._key is not None

    @contextlib.contextmanager
    def _excused(self) -> Iterator[None]:
        """Go on without the cache where it cannot be written to."""
        try:
            yield
        except UNUSABLE as error:
            self._key = None
            reason = getattr(error, "strerror", None) or error
            advice = "TEXTGEN_CACHE_DIR names another folder, and TEXTGEN_CACHE_SIZE=0 does without"
            logger.warning("the cache %s takes no text: %s; %s", self._cache.folder, reason, advice)


def cached_tokens(
    corpus: Corpus,
    corpus_choice: Choice,
    tokenizer: Tokenizer,
    tokenizer_choice: Choice,
    starts: bool,
    digest: Mapping[str, Any],
) -> np.memmap[Any, Any] | None:
    """The tokens (N,) of a run's corpus, without reading that; None if they are not in the cache.

    starts   whether the run started from another, whose tokenizer it has
    digest   what the run's record says of the corpus
    """
    cache, vocabulary = Cache.of_user(), _json(tokenizer)
    key = TextKey.of(corpus, corpus_choice) if cache.limit else None
    if key is None or cache.recall(key.value) != digest:
        return None
    start = json_checksum(vocabulary) if starts else None
    entry = cache.use(tokens_key(digest, tokenizer, tokenizer_choice, start))
    if entry is None:
        return None
    entry.close()  # what is mapped stays, whether the file does or not
    return (
        np.memmap(entry.data, token_dtype(tokenizer), "r")
        if entry.facts["vocabulary"] == vocabulary
        else None
    )


def _json(tokenizer: Tokenizer) -> str:
    """The vocabulary as JSON, with lone surrogates as escapes."""
    return json.dumps(tokenizer.to_dict(), sort_keys=True)


def _warn_of_unknown(data: Dataset, tokenizer: Tokenizer) -> None:
    share = unknown_share(data, tokenizer)
    if share > _MANY_UNKNOWN:
        cause = f"{share:.0%} of the tokens stand for text outside the vocabulary, whose spelling costs no bits"
        warnings.warn(
            f"{cause}; losses and bits per character are too low to compare with others",
            stacklevel=2,
        )
