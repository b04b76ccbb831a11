"""The words of a training corpus, and phrases that a model which has read more finds too likely."""

from __future__ import annotations

import asyncio
import math
import re
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import numpy as np

from textgen import Generator, TextgenError
from textgen_desk.copies import finder
from textgen_serve.errors import ApiError, ClientGone, logger
from textgen_serve.logprobs import Spelling
from textgen_serve.models import Runs

WORD: Final = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
_COUNTED_TOKENS: Final = 1_000_000  # tokens of a corpus whose words are counted
_LISTED_WORDS: Final = 5000  # of its words
_KEPT_PARAGRAPHS: Final = 4096  # paragraphs
_WORDS: Final = 4  # of a phrase at least, and one less without what follows its last rare word
_BITS: Final = 6.5  # of each word of a phrase but the first, at most, by the wider model
_RARE_WORD_BITS: Final = 9.0  # bits of a word by its frequency alone, from which it counts
_PHRASE_GAIN_BITS: Final = (
    14.0  # bits that the words before take from a phrase's rare ones, at least
)
_MEAN: Final = 2.5  # of these bits for each word, at least


@attrs.frozen
class Word:
    """A word of a text with its position, and its surprise in bits."""

    start: int
    end: int
    bits: float


@attrs.frozen(eq=False)
class Wider:
    """A model that has read more than one text, and what it said of paragraphs."""

    name: str
    generator: Generator
    _known: dict[str, list[Word]] = attrs.field(factory=dict, init=False)

    def words(self, paragraph: str, is_gone: Callable[[], bool]) -> list[Word]:
        """The words of a paragraph, with what each surprises after those before it.

        Raises ClientGone once `is_gone` gives true.
        """
        if (found := self._known.get(paragraph)) is None:
            if len(self._known) >= _KEPT_PARAGRAPHS:
                self._known.clear()
            found = self._known[paragraph] = list(self._scored(paragraph, is_gone))
        return found

    def _scored(self, text: str, is_gone: Callable[[], bool]) -> Iterator[Word]:
        blocks = []
        for block in self.generator.score_tokens(iter([text])):
            if is_gone():  # a paragraph may be as long as a book
                raise ClientGone
            blocks.append(block)
        ids = np.concatenate([block.tokens for block in blocks])
        bits = -np.nan_to_num(np.concatenate([block.logprobs for block in blocks])) / math.log(2)
        offsets = Spelling(self.generator.tokenizer).offsets(text, ids)[:-1]
        until = np.concatenate([[0.0], np.cumsum(bits)])
        for match in WORD.finditer(text):
            begin = match.start() - (text[match.start() - 1 : match.start()] == " ")
            first, last = np.searchsorted(offsets, [begin, match.end()])
            yield Word(*match.span(), float(until[last] - until[first]))


class WiderModels:
    """Models that have read more than the text of a run. The last one stays loaded.

    offered   names of the models that packages offer
    """

    def __init__(self, runs: Runs, offered: Sequence[str]) -> None:
        self._runs, self._offered = runs, offered
        self._last: Wider | None = None
        self._opening = asyncio.Lock()

    async def of(self, generator: Generator) -> Wider:
        """The model that a run was started from, or else one that a package offers. Raises ApiError
        where there is none.
        """
        start = generator.tables.get("model", {}).get("start")
        name = start or next(iter(self._offered), None)
        if name is None:
            cause = "no model that has read more than this one's text is installed"
            raise ApiError(404, cause, code="no_wider_model")
        async with self._opening:
            if self._last is None or self._last.name != name:
                self._last = Wider(name, await asyncio.to_thread(self._loaded, name))
            return self._last

    def _loaded(self, name: str) -> Generator:
        try:
            return self._runs.load(name)
        except TextgenError as error:  # its message may name paths
            logger.warning("%s", error)
            cause = f"{Path(name).name}, which has read more, cannot be loaded"
            raise ApiError(404, cause, code="no_wider_model") from error


class CorpusWords:
    """Counts of the words in training corpora, which are kept as long as their generators are."""

    def __init__(self) -> None:
        self._kept = weakref.WeakKeyDictionary[Generator, Counter[str]]()

    def of(self, generator: Generator) -> Counter[str]:
        """Those of the corpus, or of the beginning of a long one. Raises ApiError where the corpus
        is not what it was.
        """
        if (found := self._kept.get(generator)) is None:
            tokens = finder(generator).tokens[:_COUNTED_TOKENS]
            words = WORD.findall(generator.tokenizer.decode(tokens))
            found = self._kept[generator] = Counter(word.lower() for word in words)
        return found


def listed(words: Counter[str]) -> dict[str, Any]:
    """The commonest words, and how many there are in all."""
    return {"total": words.total(), "words": dict(words.most_common(_LISTED_WORDS))}


def worn_passages(
    words: Counter[str], wider: Wider, text: str, is_gone: Callable[[], bool]
) -> dict[str, Any]:
    """The phrases of a text whose words the wider model guesses from those before, though they are
    rare in the training corpus. Raises ClientGone once `is_gone` gives true.
    """
    paragraph = r"(?:.+\n?)+" if "\n\n" in text else ".+"
    passages = []
    for match in re.finditer(paragraph, text):
        for start, end in _phrases(match[0], wider.words(match[0], is_gone), words):
            passages.append({"start": match.start() + start, "end": match.start() + end})
    return {"model": Path(wider.name).name, "passages": passages}


def _phrases(text: str, words: list[Word], counts: Counter[str]) -> Iterator[tuple[int, int]]:
    total, first = max(1, counts.total()), 0
    while first < len(words):
        last = first + 1  # after the words that follow one another and are likely
        while last < len(words) and words[last].bits <= _BITS:
            if text[words[last - 1].end : words[last].start].strip():
                break
            last += 1
        run = words[first:last]
        rarities = [math.log2(total / (counts[text[w.start : w.end].lower()] + 1)) for w in run]
        rare = [index for index, rarity in enumerate(rarities) if rarity >= _RARE_WORD_BITS]
        gain = sum(rarities[index] - run[index].bits for index in rare if index)
        enough = max(_PHRASE_GAIN_BITS, _MEAN * rare[-1]) if len(rare) > 1 else math.inf
        if len(run) >= _WORDS and rare[-1:] >= [_WORDS - 2] and gain >= enough:
            yield run[0].start, run[rare[-1]].end
        first = last
