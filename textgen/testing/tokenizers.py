"""The contract of tokenizers."""

from __future__ import annotations

import contextlib
import json
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any, Final

import attrs
import numpy as np
from hypothesis import strategies as strategy

from textgen.contracts.checks import FAILURES, BrokenContract, check_ids, unfit
from textgen.documents import DOCUMENT_END
from textgen.errors import TextgenError
from textgen.plugin.component import Component
from textgen.plugin.registry import PluginSet
from textgen.protocols import Ids
from textgen.testing.environment import TEXT, Subject, subject
from textgen.testing.examples import cuts, for_all, in_threads, texts
from textgen.testing.general import general_checks
from textgen.testing.outcomes import Check, Outcome, Skip, Violation, raise_first, run_checks
from textgen.testing.time_limit import TIME_LIMIT

__tracebackhide__ = True  # pytest shows the test and the code of the component

_EXAMPLES: Final = 40
_STRETCH: Final = 60  # characters of the sample that an example takes
_STATED: Final = 10_000  # ids that are decoded one by one after from_dict()
_LETTERS: Final = "漢字한글ЖЫқδωאשगतხნმთბ😀"  # of which most texts have none


def check_tokenizer(
    component: Component,
    *,
    options: Mapping[str, Any] | None = None,
    text: str = TEXT,
    plugin: object | str | None = None,
    plugins: PluginSet | None = None,
    time_limit: float = TIME_LIMIT,
) -> tuple[Outcome, ...]:
    """Hold a tokenizer to its contract. Raises ContractFailure.

    options     its TOML table; what has no default must be in it
    text        what it is fitted on, of a few hundred characters or more; examples are cut from it
    plugin      the module it comes from, or its name; found from the component if not given
    plugins     what its context offers; the built-in set if not given
    time_limit  seconds for each check
    """
    with subject("tokenizer", component, options, plugin, plugins, time_limit=time_limit) as made:
        return raise_first(run_checks(tokenizer_checks(made, text), made))


def tokenizer_checks(subject: Subject, text: str = TEXT) -> list[Check]:
    """The suite."""
    suite = _Suite(subject, text)
    return [
        *general_checks(subject, subject.build),
        Check("tokenizer-fit", suite.fit),
        Check("tokenizer-vocabulary", suite.vocabulary),
        Check("tokenizer-ids", lambda: suite.stretches(suite.check_ids)),
        Check("tokenizer-deterministic", suite.deterministic),
        Check("tokenizer-any-text", suite.any_text),
        Check("tokenizer-unknown", suite.unknown),
        Check("tokenizer-decode", suite.decode),
        Check("tokenizer-round-trip", lambda: suite.stretches(suite.round_trip)),
        Check("tokenizer-pieces", lambda: suite.stretches(suite.pieces, places=cuts(_STRETCH))),
        Check("tokenizer-stream", suite.stream),
        Check("tokenizer-end", suite.end),
        Check("tokenizer-saved", suite.saved),
        Check("tokenizer-apart", suite.apart),
    ]


@attrs.frozen
class _Suite:
    subject: Subject
    text: str

    @cached_property
    def tokenizer(self) -> Any:
        return self._fit_new()

    def fit(self) -> None:
        ended = []

        def pieces() -> Iterator[str]:
            yield from (self.text[:100], "", self.text[100:])
            ended.append(True)

        self.subject.build().fit(pieces())
        if not ended:
            raise Violation("it left pieces unread")
        if self._learnt(len(self.text)) != self._learnt(7):
            raise Violation("to_dict() differs after the same text in pieces of 7 characters")

    def vocabulary(self) -> None:
        size, unknown = self.tokenizer.vocab_size, self.tokenizer.unknown_id
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise Violation(f"vocab_size is {size!r} after fit()")
        if unknown is not None and not (isinstance(unknown, int) and 0 <= unknown < size):
            raise Violation(f"unknown_id is {unknown!r}, and vocab_size is {size}")
        with contextlib.suppress(ValueError):
            if (before := self.subject.build().vocab_size) != size:
                raise Violation(f"vocab_size is {before!r} before fit() and {size} after")

    def deterministic(self) -> None:
        again = self._fit_new()
        for tokenizer in (self.tokenizer, again):
            if not np.array_equal(tokenizer.encode(self.text), self.tokenizer.encode(self.text)):
                raise Violation("the same text was encoded to other ids a second time")
        if again.to_dict() != self.tokenizer.to_dict():
            raise Violation("to_dict() of a second tokenizer of the same corpus differs")

    def any_text(self) -> None:
        def one(text: str) -> None:
            try:
                self.tokenizer.encode(text)
            except TextgenError:
                return
            except FAILURES as error:
                kind = type(error).__name__
                raise Violation(f"encode({text!r}) raised {kind}: {error}") from error
            self.check_ids(text)

        for text in ("", "\0", "\U0010ffff", "a" * 3000):
            one(text)
        for_all(_EXAMPLES, one, text=texts())

    def unknown(self) -> None:
        """Check letters that the sample lacks, between words of it."""
        known = unicodedata.normalize("NFKD", self.text).casefold()
        place = self.text.find(" ", 3) + 1
        before, after = self.text[:place], self.text[place : place + _STRETCH]

        def ids(letter: str) -> bytes:
            return np.asarray(self.tokenizer.encode(f"{before}{letter}{after}")).tobytes()

        with contextlib.suppress(StopIteration, TextgenError):
            own = next(c for c in self.text if c.isalpha() and not c.isascii())
            if ids(own) in (ids(""), ids(" ")):
                raise Skip(f"it leaves out {own!r}, which its text has, and so may others")
        alike: dict[bytes, str] = {}
        for letter in (letter for letter in _LETTERS if letter not in known):
            try:
                made, without = ids(letter), ids("")
            except TextgenError:  # it says what it takes
                continue
            if made == without:
                raise Violation(f"encode() gave nothing for {letter!r} within a text")
            if self.tokenizer.unknown_id is None and alike.setdefault(made, letter) != letter:
                other = alike[made]
                raise Violation(f"unknown_id is None, and {letter!r} is encoded as {other!r} is")

    def decode(self) -> None:
        dtypes = strategy.sampled_from([np.uint8, np.int32, np.int64])

        def one(values: list[int], dtype: Any) -> None:
            ids = np.array(values, np.int64)
            if ids.size and ids.max() > np.iinfo(dtype).max:
                return
            given = ids.astype(dtype)
            given.setflags(write=False)
            text = self.tokenizer.decode(given)
            if not isinstance(text, str):
                raise Violation(f"decode() gave {type(text).__name__}")
            if text != self.tokenizer.decode(ids):
                raise Violation(f"the same ids gave other text as {np.dtype(dtype)}")

        for_all(_EXAMPLES, one, values=self._any_ids(), dtype=dtypes)
        if self.tokenizer.decode(np.empty(0, np.int64)) != "":
            raise Violation("no ids decode to some text")

    def round_trip(self, text: str) -> None:
        ids = np.asarray(self.tokenizer.encode(text))
        if self.tokenizer.unknown_id is not None and (ids == self.tokenizer.unknown_id).any():
            return
        decoded = self.tokenizer.decode(ids)
        again = np.asarray(self.tokenizer.encode(decoded))
        if not np.array_equal(again, ids):
            seen = (
                f"{text!r} is {_shown(ids)}, which decodes to {decoded!r}, which is {_shown(again)}"
            )
            raise Violation(seen)

    def pieces(self, text: str, places: list[int]) -> None:
        pieces = [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]
        parts = [np.asarray(part) for part in self.tokenizer.encode_pieces(iter(pieces))]
        joined = np.concatenate([np.empty(0, np.int64), *parts])
        whole = np.asarray(self.tokenizer.encode(text))
        if not np.array_equal(joined, whole):
            raise Violation(f"{pieces} gave {_shown(joined)}, joined {_shown(whole)}")

    def stream(self) -> None:
        def one(values: list[int], places: list[int], final_empty: bool) -> None:
            ids = np.array(values, np.int64)
            decoder = self.tokenizer.incremental_decoder()
            places = [place for place in places if place < len(ids)]
            parts = [ids[a:b] for a, b in zip([0, *places], [*places, len(ids)], strict=True)]
            if final_empty:
                parts.append(ids[:0])
            last = len(parts) - 1
            streamed = "".join(
                decoder.decode(part, final=i == last) for i, part in enumerate(parts)
            )
            if streamed != self.tokenizer.decode(ids):
                seen = (
                    f"{_shown(ids)} in {len(parts)} pieces gave {streamed!r}, at once "
                    f"{self.tokenizer.decode(ids)!r}"
                )
                raise Violation(seen)

        flags = strategy.booleans()
        for_all(_EXAMPLES, one, values=self._any_ids(), places=cuts(20), final_empty=flags)
        natural = np.asarray(self.tokenizer.encode(self.text[:300])).tolist()
        one(natural, list(range(1, len(natural))), True)

    def saved(self) -> None:
        try:
            state = json.loads(json.dumps(self.tokenizer.to_dict()))
        except (TypeError, ValueError) as error:
            raise Violation(f"to_dict() holds what JSON cannot: {error}") from error
        made = self.subject.build().from_dict(state)
        if fault := unfit(made, "tokenizer"):
            raise Violation(f"what from_dict() gave {fault}")
        for name in ("vocab_size", "unknown_id"):
            before, after = getattr(self.tokenizer, name), getattr(made, name)
            if before != after:
                raise Violation(f"{name} was {before!r} and came back as {after!r}")
        ids = np.asarray(self.tokenizer.encode(self.text))
        every = np.arange(min(made.vocab_size, _STATED))
        if not np.array_equal(made.encode(self.text), ids) or any(
            made.decode(some) != self.tokenizer.decode(some) for some in (ids, *every[:, None])
        ):
            raise Violation("what came back encodes or decodes otherwise")

    def apart(self) -> None:
        """Check a tokenizer after another was fitted on the first line alone, and while threads use
        it.
        """
        alone = self._there_and_back(0)
        with contextlib.suppress(Exception):  # a line may be too little
            self.subject.build().fit(iter([self.text[: self.text.find("\n") + 1]]))
        if self._there_and_back(0) != alone:
            raise Violation("its ids changed when a second tokenizer was fitted")
        together = in_threads(lambda i: {self._there_and_back(i) for _ in range(20)})
        if together != [{self._there_and_back(i)} for i in range(len(together))]:
            raise Violation("a text came out otherwise while other threads encoded too")

    def _there_and_back(self, index: int) -> tuple[bytes, str]:
        ids = np.asarray(self.tokenizer.encode(self.text[index * 40 :][:200]), np.int64)
        decoder = self.tokenizer.incremental_decoder()
        return ids.tobytes(), "".join([*(decoder.decode(ids[i : i + 1]) for i in range(len(ids)))])

    def end(self) -> None:
        """Check the ends of documents: the text as two of them."""
        tokenizer, text = self.subject.build(), self.text
        if not hasattr(tokenizer, "end_id"):
            raise Skip("no end_id: it takes no corpus of documents")
        tokenizer.fit(iter([text[:70], DOCUMENT_END, text[70:], DOCUMENT_END]))
        end, size = tokenizer.end_id, tokenizer.vocab_size
        if end is None:
            raise Skip("no end_id after documents: it takes no corpus of them")
        loaded = self.subject.build().from_dict(json.loads(json.dumps(tokenizer.to_dict())))
        if loaded.end_id != end:
            raise Violation(f"end_id was {end!r} and came back as {loaded.end_id!r}")
        if not isinstance(end, int) or not 0 <= end < size or end == tokenizer.unknown_id:
            others = f"vocab_size {size}, and unknown_id {tokenizer.unknown_id!r}"
            raise Violation(f"end_id is {end!r}, {others}")
        ids = np.asarray(tokenizer.encode(text))
        if end in ids:
            raise Violation(f"a text of the corpus was encoded to its end_id, {end}")
        stream, ended = tokenizer.incremental_decoder(), np.array([end])
        stream.decode(ids[:5])
        for how, given in (
            ("decode()", tokenizer.decode(ended)),
            ("an incremental decoder", stream.decode(ended)),
        ):
            if given:
                raise Violation(f"{how} gave {given!r} for end_id")

    def _learnt(self, size: int) -> str:
        """What a new tokenizer has learnt from the text in pieces of this size."""
        tokenizer = self.subject.build()
        tokenizer.fit(self.text[start : start + size] for start in range(0, len(self.text), size))
        return json.dumps(tokenizer.to_dict(), sort_keys=True, default=repr)

    def _fit_new(self) -> Any:
        tokenizer = self.subject.build()
        tokenizer.fit(iter([self.text[:70], self.text[70:]]))
        return tokenizer

    def _any_ids(self) -> Any:
        return strategy.lists(strategy.integers(0, self.tokenizer.vocab_size - 1), max_size=20)

    def stretches(self, check: Callable[..., None], **more: Any) -> None:
        """Make a check with stretches of the sample."""
        start = strategy.integers(0, max(0, len(self.text) - _STRETCH))
        text = strategy.builds(self._stretch, start, strategy.integers(0, _STRETCH))
        for_all(_EXAMPLES, check, text=text, **more)

    def _stretch(self, start: int, length: int) -> str:
        """A stretch of the sample; its whole lines if the tokenizer refuses what does not end with
        one.
        """
        end = start + length
        try:
            self.tokenizer.encode(self.text[start:end])
        except TextgenError:
            start, end = self.text.rfind("\n", 0, start) + 1, self.text.find("\n", end) + 1
            return self.text[start : end or None]
        return self.text[start:end]

    def check_ids(self, text: str) -> None:
        ids, size = self.tokenizer.encode(text), self.tokenizer.vocab_size
        if not isinstance(ids, np.ndarray):
            raise Violation(f"encode({text[:30]!r}) gave a {type(ids).__name__}")
        try:
            check_ids(ids, self.tokenizer, size)
        except BrokenContract as error:
            raise Violation(f"it {error}, for {text[:30]!r}") from error


def _shown(ids: Ids) -> str:
    """The first ids, in brackets."""
    shown = ", ".join(map(str, ids[:8].tolist()))
    return f"[{shown}{', …' if len(ids) > 8 else ''}]"
