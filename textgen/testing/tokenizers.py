"""The contract of tokenizers."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import string
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from functools import cached_property
from typing import Any, ClassVar, Final, Unpack

import attrs
import numpy as np

from textgen.contracts.checks import FAILURES, check_ids, unfit
from textgen.documents import DOCUMENT_END
from textgen.errors import BrokenContract, TextgenError
from textgen.plugin.component import Component
from textgen.protocols import Ids
from textgen.testing.environment import TEXT
from textgen.testing.examples import ALPHABET, bounds, generators, in_threads
from textgen.testing.outcomes import Outcome, Skip, Violation
from textgen.testing.suite import Given, Suite, check
from textgen.testing.watching import later

__tracebackhide__ = True  # pytest shows the test and the code of the component

_EXAMPLES: Final = 40
_STRETCH: Final = 60  # characters of the sample that an example takes
_LONG: Final = 1500  # characters of a stream
_WHOLE: Final = 300_000  # characters of a text that has to be whole
_STATED: Final = 10_000  # ids that are decoded one by one after from_dict()
_MARKS: Final = "—«¿§→☃"
_LETTERS: Final = "漢字한글ЖЫқδωאשगतხნმთბ😀"  # of which most texts have none
_ELSEWHERE: Final = """
import importlib, json, sys
from textgen.contracts.tokenizers import complete
from textgen.plugin.single_file import import_file, is_file
from textgen.testing.environment import subject
given = json.load(sys.stdin)
name = given["module"]
module = import_file(name)[1] if is_file(name) else importlib.import_module(name)
(component,) = [c for c in module.textgen_tokenizers() if c.name == given["name"]]
with subject("tokenizer", component, given["options"]) as made:
    tokenizer = made.build()
    tokenizer.fit(iter([given["text"]]))
    json.dump(tokenizer.to_dict(), sys.stdout)
"""


def check_tokenizer(
    component: Component, *, text: str = TEXT, **given: Unpack[Given]
) -> tuple[Outcome, ...]:
    """Hold a tokenizer to its contract. Raises ContractFailure.

    text        what it is fitted on, of a few hundred characters or more; examples are cut from it
    """
    return check(TokenizerSuite, component, given, text=text)


@attrs.frozen
class TokenizerSuite(Suite):
    """The checks of a tokenizer."""

    kind: ClassVar[str] = "tokenizer"
    text: str = TEXT

    def new(self, **context: Any) -> Any:
        return self.subject.build()

    @cached_property
    def fitted(self) -> Any:
        """A tokenizer of the text."""
        return self._learn(70)

    def fit(self) -> None:
        ended = []

        def pieces() -> Iterator[str]:
            yield from (self.text[:100], "", self.text[100:])
            ended.append(True)

        self.new().fit(pieces())
        if not ended:
            raise Violation("it left pieces unread")
        learnt = [
            json.dumps(self._learn(size).to_dict(), sort_keys=True, default=repr)
            for size in (len(self.text), 7)
        ]
        if learnt[0] != learnt[1]:
            raise Violation("to_dict() differs after the same text in pieces of 7 characters")

    def vocabulary(self) -> None:
        size, unknown = self.fitted.vocab_size, self.fitted.unknown_id
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise Violation(f"vocab_size is {size!r} after fit()")
        if unknown is not None and not (isinstance(unknown, int) and 0 <= unknown < size):
            raise Violation(f"unknown_id is {unknown!r}, and vocab_size is {size}")
        with contextlib.suppress(ValueError):
            if (before := self.new().vocab_size) != size:
                raise Violation(f"vocab_size is {before!r} before fit() and {size} after")

    def deterministic(self) -> None:
        with later():
            again = self._learn(70)
        for tokenizer in (self.fitted, again):
            if not np.array_equal(tokenizer.encode(self.text), self.fitted.encode(self.text)):
                raise Violation("the same text was encoded to other ids a second time")
        if again.to_dict() != self.fitted.to_dict():
            raise Violation("to_dict() of a second tokenizer of the same corpus differs")
        for seed in "12":
            if self._elsewhere(seed) not in (None, self.fitted.to_dict()):
                seen = "to_dict() of the same corpus differs in another process"
                raise Violation(f"{seen}, where a set has another order")

    def any_text(self) -> None:
        random = (
            "".join(rng.choice(list(ALPHABET), rng.integers(41))) for rng in generators(_EXAMPLES)
        )
        sample = (text for text, _ in self._stretches())
        for text in ("", "\0", "\U0010ffff", "a" * 3000, *sample, *ALPHABET, *random):
            try:
                ids = self.fitted.encode(text)
            except TextgenError:
                continue
            except FAILURES as error:
                kind = type(error).__name__
                raise Violation(f"encode({text!r}) raised {kind}: {error}") from error
            try:
                check_ids(ids, self.fitted, self.fitted.vocab_size)
            except BrokenContract as error:
                raise Violation(f"it {error}, for {text[:30]!r}") from error

    def unknown(self) -> None:
        """Letters that the sample lacks, between words of it."""
        known = unicodedata.normalize("NFKD", self.text).casefold()
        place = self.text.find(" ", 3) + 1
        before, after = self.text[:place], self.text[place : place + _STRETCH]

        def ids(letter: str) -> bytes:
            return np.asarray(self.fitted.encode(f"{before}{letter}{after}")).tobytes()

        with contextlib.suppress(StopIteration, TextgenError):
            own = next(c for c in self.text if c.isalpha() and not c.isascii())
            if ids(own) in (ids(""), ids(" ")):
                raise Skip(f"it leaves out {own!r}, which its text has, and so may others")
        alike: dict[bytes, str] = {}
        marks = "".join(c for c in self.text if not c.isalnum() and not c.isspace())
        is_kept = False
        with contextlib.suppress(TextgenError):  # it says what it takes
            is_kept = all(ids(mark) not in (ids(""), ids(" ")) for mark in set(marks))
        for letter in _LETTERS + _MARKS * is_kept:
            if letter in known:
                continue
            try:
                made, without = ids(letter), ids("")
            except TextgenError:  # it says what it takes
                continue
            if made == without:
                raise Violation(f"encode() gave nothing for {letter!r} within a text")
            if self.fitted.unknown_id is None and alike.setdefault(made, letter) != letter:
                other = alike[made]
                raise Violation(f"unknown_id is None, and {letter!r} is encoded as {other!r} is")
        for letter in string.ascii_lowercase:
            with contextlib.suppress(TextgenError):
                once, twice = (np.asarray(self.fitted.encode(f"a{letter * n}a")) for n in (1, 2))
                if len(once) > 1 and np.array_equal(once, twice):
                    raise Violation(f"{letter * 2!r} is encoded as {letter!r} is")

    def decode(self) -> None:
        for ids, _ in self._any_ids():
            for dtype in (np.uint8, np.int32, np.int64):
                if ids.max(initial=0) > np.iinfo(dtype).max:
                    continue
                given = ids.astype(dtype)
                given.setflags(write=False)
                text = self.fitted.decode(given)
                if not isinstance(text, str):
                    raise Violation(f"decode() gave {type(text).__name__}")
                if text != self.fitted.decode(ids.copy()):
                    raise Violation(f"the same ids gave other text as {np.dtype(dtype)}")
        if self.fitted.decode(np.empty(0, np.int64)) != "":
            raise Violation("no ids decode to some text")

    def round_trip(self) -> None:
        for text, _ in self._stretches():
            ids = np.asarray(self.fitted.encode(text))
            if self.fitted.unknown_id in ids.tolist():
                continue
            decoded = self.fitted.decode(ids)
            again = np.asarray(self.fitted.encode(decoded))
            if not np.array_equal(again, ids):
                seen = f"{text!r} is {_shown(ids)}, which decodes to {decoded!r}, which is"
                raise Violation(f"{seen} {_shown(again)}")
        times = _WHOLE // len(self.text) + 1
        once, whole = (self.fitted.decode(self.fitted.encode(self.text * n)) for n in (1, times))
        if len(whole) < 0.99 * len(once) * times or not whole.endswith(once[-_STRETCH // 4 :]):
            lost = f"{len(whole):,} characters of the {len(once) * times:,}"
            raise Violation(f"of a text that is as long as a book, {lost} are left")

    def pieces(self) -> None:
        for text, rng in self._stretches():
            pieces = [text[a:b] for a, b in itertools.pairwise(bounds(rng, len(text)))]
            parts = [np.asarray(part) for part in self.fitted.encode_pieces(iter(pieces))]
            joined = np.concatenate([np.empty(0, np.int64), *parts])
            whole = np.asarray(self.fitted.encode(text))
            if not np.array_equal(joined, whole):
                raise Violation(f"{pieces} gave {_shown(joined)}, joined {_shown(whole)}")

    def stream(self) -> None:
        natural = np.asarray(self.fitted.encode(self.text[:_LONG]))
        examples = [(ids, bounds(rng, len(ids))) for ids, rng in self._any_ids()]
        for ids, ends in (*examples, (natural, [*range(len(natural) + 1), len(natural)])):
            decoder = self.fitted.incremental_decoder()
            streamed = "".join(
                decoder.decode(ids[a:b], final=place == len(ends) - 1)
                for place, (a, b) in enumerate(itertools.pairwise(ends), 1)
            )
            if streamed != (whole := self.fitted.decode(ids)):
                pairs = enumerate(zip(streamed, whole, strict=False))
                place = next((i for i, (a, b) in pairs if a != b), len(whole))
                begin, end = max(0, place - 20), place + 20
                seen = f"{_shown(ids)} gave {streamed[begin:end]!r} at {place:,}, and at once"
                raise Violation(f"{seen} {whole[begin:end]!r}")

    def saved(self) -> None:
        try:
            state = json.loads(json.dumps(self.fitted.to_dict()))
        except (TypeError, ValueError) as error:
            raise Violation(f"to_dict() holds what JSON cannot: {error}") from error
        made = self.new().from_dict(state)
        if fault := unfit(made, "tokenizer"):
            raise Violation(f"what from_dict() gave {fault}")
        for name in ("vocab_size", "unknown_id"):
            before, after = getattr(self.fitted, name), getattr(made, name)
            if before != after:
                raise Violation(f"{name} was {before!r} and came back as {after!r}")
        ids = np.asarray(self.fitted.encode(self.text))
        every = np.arange(min(made.vocab_size, _STATED))
        if not np.array_equal(made.encode(self.text), ids) or any(
            made.decode(some) != self.fitted.decode(some) for some in (ids, *every[:, None])
        ):
            raise Violation("what came back encodes or decodes otherwise")
        for key, field in self.subject.component.options().items():
            if isinstance(field.default, bool) and key not in self.subject.options:
                self._saved_with(key, not field.default)

    def _saved_with(self, key: str, value: bool) -> None:
        """An option that is not the default comes back too."""
        options = {**self.subject.options, key: value}
        changed = attrs.evolve(self, subject=attrs.evolve(self.subject, options=options))
        try:
            fitted = changed.fitted
        except (TextgenError, *FAILURES):  # it does not go with the others, or with this text
            return
        made = changed.new().from_dict(json.loads(json.dumps(fitted.to_dict())))
        for text in (self.text, self.text.swapcase()):
            if not np.array_equal(made.encode(text), fitted.encode(text)):
                raise Violation(f"what came back with {key} = {value} encodes otherwise")

    def _elsewhere(self, seed: str) -> Any:
        """What to_dict() gives in a process in which sets have another order; None where the plugin
        cannot be imported there.
        """
        subject = self.subject
        given = {"module": subject.module, "name": subject.component.name, "text": self.text}
        done = subprocess.run(  # noqa: S603  # this interpreter, and a program of our own
            [sys.executable, "-Pc", _ELSEWHERE],
            input=json.dumps({**given, "options": subject.options}, default=str),
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        return json.loads(done.stdout) if done.returncode == 0 else None

    def apart(self) -> None:
        """A tokenizer after another was fitted on the first line alone, and while threads use
        it.
        """
        alone = self._there_and_back(0)
        with contextlib.suppress(Exception):  # a line may be too little
            self.new().fit(iter([self.text[: self.text.find("\n") + 1]]))
        if self._there_and_back(0) != alone:
            raise Violation("its ids changed when a second tokenizer was fitted")
        together = in_threads(lambda i: {self._there_and_back(i) for _ in range(20)})
        if together != [{self._there_and_back(i)} for i in range(len(together))]:
            raise Violation("a text came out otherwise while other threads encoded too")

    def end(self) -> None:
        """The ends of documents: the text as two of them."""
        tokenizer, text = self.new(), self.text
        if not hasattr(tokenizer, "end_id"):
            raise Skip("no end_id: it takes no corpus of documents")
        tokenizer.fit(iter([text[:70], DOCUMENT_END, text[70:], DOCUMENT_END]))
        end, size = tokenizer.end_id, tokenizer.vocab_size
        if end is None:
            raise Skip("no end_id after documents: it takes no corpus of them")
        loaded = self.new().from_dict(json.loads(json.dumps(tokenizer.to_dict())))
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
        if given := tokenizer.decode(ended) or stream.decode(ended):
            raise Violation(f"its end_id was decoded to {given!r}")

    def _learn(self, size: int) -> Any:
        """A new tokenizer of the text in pieces of this size."""
        tokenizer = self.new()
        tokenizer.fit(self.text[start : start + size] for start in range(0, len(self.text), size))
        return tokenizer

    def _stretches(self) -> Iterator[tuple[str, np.random.Generator]]:
        """Stretches of the sample, each with a source of other choices; whole lines if the
        tokenizer refuses what does not end with one.
        """
        for rng in generators(_EXAMPLES):
            start = int(rng.integers(max(1, len(self.text) - _STRETCH)))
            end = start + int(rng.integers(_STRETCH + 1))
            try:
                self.fitted.encode(self.text[start:end])
            except TextgenError:
                start = self.text.rfind("\n", 0, start) + 1
                end = self.text.find("\n", end) + 1 or len(self.text)
            yield self.text[start:end], rng

    def _any_ids(self) -> Iterator[tuple[Ids, np.random.Generator]]:
        for rng in generators(_EXAMPLES):
            yield rng.integers(0, self.fitted.vocab_size, rng.integers(21)), rng

    def _there_and_back(self, index: int) -> tuple[bytes, str]:
        ids = np.asarray(self.fitted.encode(self.text[index * 40 :][:200]), np.int64)
        decoder = self.fitted.incremental_decoder()
        return ids.tobytes(), "".join([decoder.decode(ids[i : i + 1]) for i in range(len(ids))])


def _shown(ids: Ids) -> str:
    """The first ids, in brackets."""
    shown = ", ".join(map(str, ids[:8].tolist()))
    return f"[{shown}{', …' if len(ids) > 8 else ''}]"
