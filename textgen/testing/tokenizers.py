"""The contract of tokenizers."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any, Final

import attrs
import numpy as np
from hypothesis import strategies as strategy

from textgen.contracts.checks import FAILURES, unfit
from textgen.errors import TextgenError
from textgen.plugin.component import Component
from textgen.plugin.registry import PluginSet
from textgen.protocols import Ids
from textgen.testing.environment import TEXT, Subject, close, subject
from textgen.testing.examples import cuts, for_all, in_threads, texts
from textgen.testing.general import calls_check, general_checks
from textgen.testing.other_process import process_check
from textgen.testing.outcomes import Check, Outcome, Violation, raise_first, run_checks
from textgen.testing.time_limit import TIME_LIMIT
from textgen.testing.tokenizer_texts import check_end, check_unknown, shown_ids

__tracebackhide__ = True  # what pytest shows is the test, and the code of the component

_EXAMPLES: Final = 40
_STRETCH: Final = 60  # characters of the sample that an example takes


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
        *general_checks(subject, subject.build, text=text),
        Check("tokenizer-fit", lambda: suite.tokenizer, trial=True),
        Check("tokenizer-vocabulary", suite.vocabulary, trial=True, whole=True),
        Check("tokenizer-ids", lambda: suite.check_ids(suite.text), trial=True),
        Check("tokenizer-decode", suite.plain_decode, trial=True),
        calls_check(suite.calls),
        Check("tokenizer-fit", suite.fit),
        Check("tokenizer-ids", suite.ids),
        Check("tokenizer-deterministic", suite.deterministic, after=("component-calls",)),
        process_check(subject, text=text),
        Check("tokenizer-any-text", suite.any_text),
        Check(
            "tokenizer-unknown",
            suite.unknown,
            after=("tokenizer-deterministic", "tokenizer-any-text"),
        ),
        Check("tokenizer-decode", suite.decode),
        Check("tokenizer-round-trip", lambda: suite.stretches(suite.round_trip)),
        Check("tokenizer-pieces", lambda: suite.stretches(suite.pieces, places=cuts(_STRETCH))),
        Check("tokenizer-stream", suite.stream),
        Check("tokenizer-end", lambda: check_end(subject, text)),
        Check("tokenizer-saved", suite.saved),
        Check("tokenizer-threads", suite.threads),
        Check("tokenizer-apart", suite.apart, after=("tokenizer-deterministic",)),
    ]


@attrs.frozen
class _Suite:
    subject: Subject
    text: str

    @cached_property
    def tokenizer(self) -> Any:
        return self._fit_new()

    def calls(self) -> None:
        tokenizer = self._fit_new()
        tokenizer.decode(np.asarray(tokenizer.encode(self.text)))
        close(tokenizer)

    def fit(self) -> None:
        ended = []

        def pieces() -> Iterator[str]:
            yield from (self.text[:100], "", self.text[100:])
            ended.append(True)

        self.subject.build().fit(pieces())
        if not ended:
            raise Violation("it left pieces unread")
        first, second = self._learnt(len(self.text)), self._learnt(7)
        # What differs although the text is cut alike is no matter of the cuts.
        if first != second and first == self._learnt(len(self.text)):
            raise Violation("to_dict() differs after the same text in pieces of 7 characters")

    def vocabulary(self) -> None:
        size, unknown = self.tokenizer.vocab_size, self.tokenizer.unknown_id
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise Violation(f"vocab_size is {size!r} after fit()")
        if unknown is not None and not (isinstance(unknown, int) and 0 <= unknown < size):
            raise Violation(f"unknown_id is {unknown!r}, and vocab_size is {size}")
        try:
            before = self.subject.build().vocab_size
        except ValueError:
            return
        except FAILURES as error:
            raise Violation(f"before fit() it raised {type(error).__name__}: {error}") from error
        if before != size:
            raise Violation(f"vocab_size is {before!r} before fit() and {size} after")

    def deterministic(self) -> None:
        again = self._fit_new()
        for tokenizer in (self.tokenizer, again):
            if not np.array_equal(tokenizer.encode(self.text), self.tokenizer.encode(self.text)):
                raise Violation("the same text was encoded to other ids a second time")
        if again.to_dict() != self.tokenizer.to_dict():
            raise Violation("to_dict() of a second tokenizer of the same corpus differs")

    def ids(self) -> None:
        self.check_ids(self.text)
        self.stretches(self.check_ids)

    def any_text(self) -> None:
        def one(text: str) -> None:
            try:
                self.tokenizer.encode(text)
            except TextgenError:
                return
            except FAILURES as error:
                raise Violation(
                    f"encode({text!r}) raised {type(error).__name__}: {error}"
                ) from error
            self.check_ids(text)

        for text in ("", "\0", "\U0010ffff", "a" * 3000):
            one(text)
        for_all(_EXAMPLES, one, text=texts())

    def unknown(self) -> None:
        check_unknown(self.tokenizer, self.text)

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

        if self.tokenizer.decode(np.empty(0, np.int64)) != "":
            raise Violation("no ids decode to some text")
        for_all(_EXAMPLES, one, values=self._any_ids(), dtype=dtypes)

    def round_trip(self, text: str) -> None:
        ids = np.asarray(self.tokenizer.encode(text))
        if self.tokenizer.unknown_id is not None and (ids == self.tokenizer.unknown_id).any():
            return
        decoded = self.tokenizer.decode(ids)
        again = np.asarray(self.tokenizer.encode(decoded))
        if not np.array_equal(again, ids):
            seen = f"{text!r} is {shown_ids(ids)}, which decodes to {decoded!r}, which is {shown_ids(again)}"
            raise Violation(seen)

    def pieces(self, text: str, places: list[int]) -> None:
        pieces = [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]
        parts = [np.asarray(part) for part in self.tokenizer.encode_pieces(iter(pieces))]
        joined = np.concatenate([np.empty(0, np.int64), *parts])
        whole = np.asarray(self.tokenizer.encode(text))
        if not np.array_equal(joined, whole):
            raise Violation(f"{pieces} gave {shown_ids(joined)}, joined {shown_ids(whole)}")

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
                seen = f"{shown_ids(ids)} in {len(parts)} pieces gave {streamed!r}, at once {self.tokenizer.decode(ids)!r}"
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
        if not np.array_equal(made.encode(self.text), ids) or made.decode(
            ids
        ) != self.tokenizer.decode(ids):
            raise Violation("what came back encodes or decodes otherwise")

    def threads(self) -> None:
        stretches = [self.text[i * 40 : i * 40 + 200] for i in range(6)]
        alone = [self._there_and_back(text) for text in stretches]
        together = in_threads(lambda i: {self._there_and_back(stretches[i]) for _ in range(20)})
        if together != [{expected} for expected in alone]:
            raise Violation("a text came out otherwise while other threads encoded too")

    def apart(self) -> None:
        """Another tokenizer, fitted on the first line alone."""
        before = json.dumps(self.tokenizer.to_dict(), sort_keys=True, default=repr)
        ids = np.asarray(self.tokenizer.encode(self.text)).copy()
        with contextlib.suppress(Exception):  # a line may be too little
            self.subject.build().fit(iter([self.text[: self.text.find("\n", 1) + 1 or None]]))
        if json.dumps(self.tokenizer.to_dict(), sort_keys=True, default=repr) != before:
            raise Violation("its to_dict() changed when a second tokenizer was fitted")
        if not np.array_equal(self.tokenizer.encode(self.text), ids):
            raise Violation("its ids changed when a second tokenizer was fitted")

    def _there_and_back(self, text: str) -> tuple[bytes, str]:
        ids = np.asarray(self.tokenizer.encode(text), np.int64)
        decoder = self.tokenizer.incremental_decoder()
        return ids.tobytes(), "".join([*(decoder.decode(ids[i : i + 1]) for i in range(len(ids)))])

    def plain_decode(self) -> None:
        self.tokenizer.decode(np.asarray(self.tokenizer.encode(self.text)))

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
        """A stretch of the sample; its whole lines if the tokenizer refuses what does not end with one."""
        end = start + length
        try:
            self.tokenizer.encode(self.text[start:end])
        except TextgenError:
            start, end = self.text.rfind("\n", 0, start) + 1, self.text.find("\n", end) + 1
            return self.text[start : end or None]
        return self.text[start:end]

    def check_ids(self, text: str) -> None:
        size = self.tokenizer.vocab_size
        ids: Ids = self.tokenizer.encode(text)
        if not isinstance(ids, np.ndarray) or ids.ndim != 1 or ids.dtype.kind not in "iu":
            kind = f"{ids.dtype} {ids.shape}" if isinstance(ids, np.ndarray) else type(ids).__name__
            raise Violation(f"encode({text[:30]!r}) gave {kind}")
        if ids.size and (int(ids.min()) < 0 or int(ids.max()) >= size):
            raise Violation(
                f"encode({text[:30]!r}) gave ids from {ids.min()} to {ids.max()}; vocab_size is {size}"
            )
