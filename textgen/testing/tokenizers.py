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
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from typing import Any, Final

import attrs
import numpy as np

from textgen.contracts.checks import FAILURES, check_ids, other_letters, unfit
from textgen.documents import DOCUMENT_END
from textgen.errors import TextgenError
from textgen.protocols import Ids
from textgen.testing.outcomes import Skip, Violation
from textgen.testing.process import KEPT_BYTES, check_memory, in_threads
from textgen.testing.suite import Suite
from textgen.tokenizers import encode_pieces, incremental_decoder, unknown_id

__tracebackhide__ = True  # pytest shows the test and the code of the component

_EXAMPLES: Final = 40
_STRETCH: Final = 60  # characters of the sample that an example takes
_THREADS, _THREAD_TEXTS = 4, 100  # threads that use it, and texts of each
_MEMORY_TEXTS, _WORDS = 2000, 8  # texts to measure memory with, and words of each
_PIECE: Final = 70  # characters of a piece that it is fitted on
_LONG_CHARACTERS: Final = 1500  # characters of a stream
_WHOLE_CHARACTERS: Final = 300_000  # characters of a text that has to be whole
_DECODED_IDS: Final = 10_000  # ids that are decoded one by one after from_dict()
_ALPHABET: Final = "aeInotz 019.,;\n\t\r\0-_'\"<>/\\éßΣŁ–“”…ﬁ漢字é́‍👩🏽\u200b\ufeff\u2028한️"  # noqa: RUF001
"""Characters of many scripts, controls and combining characters among them."""
_PLAIN_CHARACTERS: Final = string.ascii_letters + string.digits
_RARE_CHARACTERS: Final = "漢字한글ЖЫқδωאशगतხნმთბ😀—«¿§→☃"
"""Letters and marks of which most texts have none."""
_MANY_LETTERS: Final = "".join(map(chr, range(0x4E00, 0x4E00 + 300)))
"""More letters than a byte can count, without cases or accents."""
_ELSEWHERE: Final = """
import importlib, json, sys
from textgen.plugin.single_file import file_plugin, import_file, is_file
from textgen.testing.plugin import prepared
given = json.load(sys.stdin)
name = given["module"]
module = import_file(file_plugin(name)) if is_file(name) else importlib.import_module(name)
(component,) = [c for c in module.textgen_tokenizers() if c.name == given["name"]]
with prepared("tokenizer", component, options=given["options"]) as suite:
    tokenizer = suite.new()
    tokenizer.fit(iter([given["text"]]))
    json.dump(tokenizer.to_dict(), sys.stdout)
"""


@attrs.frozen(kw_only=True)
class TokenizerSuite(Suite):
    """The checks of a tokenizer, fitted on plain text, or on the beginning of a corpus of its
    package where it refuses that.
    """

    @cached_property
    def text(self) -> str:
        """The text that it is fitted on; examples are cut from it."""
        refusals = []
        for table in self.tables("corpus", None):
            pieces = self.pieces if table is None else self.sample(table)
            text = "".join(piece for piece in pieces if isinstance(piece, str))
            try:
                self.new().fit(iter([text]))
            except TextgenError as error:
                refusals.append(str(error))
            else:
                return text
        raise Skip(f"it takes no corpus that is known here: {'; '.join(refusals)}")

    @cached_property
    def fitted(self) -> Any:
        """A tokenizer of the text."""
        return self._learn(_PIECE)

    @cached_property
    def literate(self) -> Any:
        """A tokenizer of a text with more letters than a byte can count, unless it refuses that."""
        tokenizer = self.new()
        tokenizer.fit(iter([f"{self.text}{' '.join(_MANY_LETTERS)}\n" * 2]))
        return tokenizer

    def tokenizer_fit(self) -> None:
        pieces = iter([self.text[:100], "", self.text[100:]])
        self.new().fit(pieces)
        if [*pieces]:
            raise Violation("it left pieces unread")
        if self._learn(7).to_dict() != self.fitted.to_dict():
            raise Violation("to_dict() differs after the same text in pieces of 7 characters")
        size, unknown = self.fitted.vocab_size, unknown_id(self.fitted)
        if type(size) is not int or size < 1:
            raise Violation(f"vocab_size is {size!r} after fit()")
        if unknown is not None and unknown not in range(size):
            raise Violation(f"unknown_id is {unknown!r}, and vocab_size is {size}")

    def tokenizer_deterministic(self) -> None:
        known, ids = self.fitted.to_dict(), self.fitted.encode(self.text)
        with contextlib.suppress(Exception):  # a line may be too little
            self.new().fit(iter([self.text[: self.text.find("\n") + 1]]))
        if not np.array_equal(self.fitted.encode(self.text), ids):
            raise Violation("its ids changed when a second tokenizer was fitted")
        for seed in "12":
            if self._elsewhere(seed) not in (None, known):
                seen = "to_dict() of the same corpus differs in another process"
                raise Violation(f"{seen}, where a set has another order")

    def tokenizer_any_text(self) -> None:
        letters = [*_ALPHABET]
        random = ("".join(rng.choice(letters, rng.integers(41))) for rng in _generators())
        for text in ("", "\U0010ffff", "a" * 3000, *_ALPHABET, *random):
            with contextlib.suppress(TextgenError):  # it says what it takes
                check_ids(self.fitted.encode(text), self.fitted, self.fitted.vocab_size)
        with contextlib.suppress(TextgenError):
            check_ids(self.literate.encode(_MANY_LETTERS), self.literate, self.literate.vocab_size)

    def tokenizer_unknown(self) -> None:
        """Letters that the sample lacks, between words of it."""
        known = unicodedata.normalize("NFKD", self.text).casefold()
        cut = self.text.find(" ", 3) + 1
        before, after = self.text[:cut], self.text[cut : cut + _STRETCH]

        def ids(letter: str) -> bytes | None:
            with contextlib.suppress(TextgenError):  # it says what it takes
                return np.asarray(self.fitted.encode(f"{before}{letter}{after}")).tobytes()
            return None

        nothing = {ids(""), ids(" ")} - {None}
        own = {
            letter for letter in self.text if not (letter.isspace() or letter in _PLAIN_CHARACTERS)
        }
        if lost := [letter for letter in sorted(own) if ids(letter) in nothing]:
            raise Skip(f"it leaves out {lost[0]!r}, which its text has, and so may others")
        alike: dict[bytes, str] = {}
        for letter in _RARE_CHARACTERS:
            if letter in known or (made := ids(letter)) is None:
                continue
            if made == ids(""):
                raise Violation(f"encode() gave nothing for {letter!r} within a text")
            if unknown_id(self.fitted) is None and alike.setdefault(made, letter) != letter:
                other = alike[made]
                raise Violation(f"unknown_id is None, and {letter!r} is encoded as {other!r} is")
        for letter in string.ascii_lowercase:
            with contextlib.suppress(TextgenError):
                once, twice = (np.asarray(self.fitted.encode(f"a{letter * n}a")) for n in (1, 2))
                if len(once) > 1 and np.array_equal(once, twice):
                    raise Violation(f"{letter * 2!r} is encoded as {letter!r} is")

    def tokenizer_round_trip(self) -> None:
        for text, _ in self._stretches():
            ids = np.asarray(self.fitted.encode(text))
            if unknown_id(self.fitted) in ids.tolist():
                continue
            decoded = self.fitted.decode(ids)
            again = np.asarray(self.fitted.encode(decoded))
            if not np.array_equal(again, ids):
                seen = f"{text!r} is {_shown(ids)}, which decodes to {decoded!r}, which is"
                raise Violation(f"{seen} {_shown(again)}")
        with contextlib.suppress(TextgenError):
            ids = np.asarray(self.literate.encode(_MANY_LETTERS))
            decoded = self.literate.decode(ids[ids != unknown_id(self.literate)])
            if other := other_letters(_MANY_LETTERS, decoded):
                raise Violation(f"ids of {len(_MANY_LETTERS)} Chinese characters gave {other!r}")
        times = _WHOLE_CHARACTERS // len(self.text) + 1
        once, whole = (self.fitted.decode(self.fitted.encode(self.text * n)) for n in (1, times))
        if len(whole) < 0.99 * len(once) * times:
            lost = f"{len(whole):,} characters of the {len(once) * times:,}"
            raise Violation(f"of a text that is as long as a book, {lost} are left")

    def tokenizer_pieces(self) -> None:
        for text, rng in self._stretches():
            pieces = [text[a:b] for a, b in itertools.pairwise(_bounds(rng, len(text)))]
            parts = [np.asarray(part) for part in encode_pieces(self.fitted, iter(pieces))]
            joined = np.concatenate([np.empty(0, np.int64), *parts])
            whole = np.asarray(self.fitted.encode(text))
            if not np.array_equal(joined, whole):
                raise Violation(f"{pieces} gave {_shown(joined)}, joined {_shown(whole)}")

    def tokenizer_decode(self) -> None:
        """Ids in any order, and those of a long text."""
        size = self.fitted.vocab_size
        natural = np.asarray(self.fitted.encode(self.text[:_LONG_CHARACTERS]))
        examples = [(natural, [*range(len(natural) + 1), len(natural)])]
        for rng in _generators():
            ids = rng.integers(0, size, rng.integers(21))
            examples.append((ids, _bounds(rng, len(ids))))
        for ids, ends in examples:
            small = ids.astype(np.min_scalar_type(size))  # as they are stored
            small.setflags(write=False)
            whole, decoder = self.fitted.decode(ids), incremental_decoder(self.fitted)
            if not isinstance(whole, str) or whole != self.fitted.decode(small):
                raise Violation(f"decode() of {_shown(ids)} as {small.dtype} gave another text")
            streamed = "".join(
                decoder.decode(small[a:b], final=index == len(ends) - 1)
                for index, (a, b) in enumerate(itertools.pairwise(ends), 1)
            )
            if streamed != whole:
                pairs = enumerate(zip(streamed, whole, strict=False))
                first = next((i for i, (a, b) in pairs if a != b), len(whole))
                texts = [text[max(0, first - 20) : first + 20] for text in (streamed, whole)]
                raise Violation(f"{_shown(ids)} gave {texts[0]!r}, and at once {texts[1]!r}")

    def tokenizer_saved(self) -> None:
        self._saved("")
        for key, field in self.component.options().items():
            if not isinstance(field.default, bool) or key in self.options:
                continue
            value = not field.default
            other = attrs.evolve(self, options={**self.options, key: value})
            try:
                assert other.fitted
            except (Skip, *FAILURES):  # it may not go with the other options, or with the text
                continue
            other._saved(f" with {key} = {value}")

    def _saved(self, which: str) -> None:
        """Save and load, and compare."""
        fitted = self.fitted
        try:
            state = json.loads(json.dumps(fitted.to_dict()))
        except (TypeError, ValueError) as error:
            raise Violation(f"to_dict() holds what JSON cannot: {error}") from error
        made = self.new().from_dict(state)
        if fault := unfit(made, "tokenizer"):
            raise Violation(f"what from_dict() gave {fault}")
        for name in ("vocab_size", "unknown_id"):
            before, after = (getattr(each, name, None) for each in (fitted, made))
            if before != after:
                raise Violation(f"{name} was {before!r} and came back as {after!r}")
        every = np.arange(min(made.vocab_size, _DECODED_IDS))[:, None]
        if not np.array_equal(made.encode(self.text), fitted.encode(self.text)) or any(
            made.decode(one) != fitted.decode(one) for one in every
        ):
            raise Violation(f"what came back{which} encodes or decodes otherwise")

    def tokenizer_threads(self) -> None:
        texts = [text for text, _ in self._stretches()]
        alone = [self._there_and_back(text) for text in texts]
        in_threads(partial(self._check_again, texts, alone), range(_THREADS))

    def tokenizer_memory(self) -> None:
        """Memory after many texts, each with the same words in another order, or after stretches
        where it refuses those.
        """
        tokenizer, rng = self._learn(_PIECE), np.random.default_rng(0)
        letters = sorted({letter for letter in self.text if letter.isalpha()}) or [*self.text]
        words = ["".join(rng.choice(letters, 5)) for _ in range(_WORDS)]
        stretches = [text for text, _ in self._stretches()]

        def call(number: int) -> None:
            shuffled = np.random.default_rng(number).permutation(words)
            try:
                ids = tokenizer.encode(" ".join(shuffled))
            except TextgenError:
                ids = tokenizer.encode(stretches[number % len(stretches)])
            tokenizer.decode(ids)
            incremental_decoder(tokenizer).decode(ids, final=True)

        check_memory(call, _MEMORY_TEXTS, KEPT_BYTES)

    def _there_and_back(self, text: str) -> tuple[bytes, str, str]:
        """The ids of a text as bytes, and what they decode to, at once and as a stream."""
        ids = np.asarray(self.fitted.encode(text))
        decoder, last = incremental_decoder(self.fitted), len(ids) - 1
        pieces = [decoder.decode(ids[i : i + 1], final=i == last) for i in range(len(ids))]
        return ids.tobytes(), self.fitted.decode(ids), "".join(pieces)

    def _check_again(
        self, texts: Sequence[str], alone: Sequence[tuple[bytes, str, str]], turn: int
    ) -> None:
        """Raise a Violation unless texts are encoded and decoded as before, beginning with another
        one in each thread.
        """
        for number in range(turn, turn + _THREAD_TEXTS):
            index = number % len(texts)
            pairs = zip(self._there_and_back(texts[index]), alone[index], strict=True)
            for what, (again, one) in zip(("encode()", "decode()", "a stream"), pairs, strict=True):
                if again != one:
                    raise Violation(
                        f"with other threads at work, {what} gave something else for "
                        f"{texts[index]!r}"
                    )

    def tokenizer_end(self) -> None:
        """The ends of documents: the text as two of them."""
        tokenizer, text = self.new(), self.text
        if not hasattr(tokenizer, "end_id"):
            raise Skip("no end_id: it takes no corpus of documents")
        tokenizer.fit(iter([text[:70], DOCUMENT_END, text[70:], DOCUMENT_END]))
        end = tokenizer.end_id
        if end is None:
            raise Skip("no end_id after documents: it takes no corpus of them")
        loaded = self.new().from_dict(json.loads(json.dumps(tokenizer.to_dict())))
        is_own = end in range(tokenizer.vocab_size) and end != unknown_id(tokenizer)
        if not is_own or loaded.end_id != end or end in np.asarray(tokenizer.encode(text)):
            raise Violation(f"its end_id {end!r} is no id of its own, or is lost by from_dict()")
        ended = np.array([end])
        if given := tokenizer.decode(ended) or incremental_decoder(tokenizer).decode(ended):
            raise Violation(f"its end_id was decoded to {given!r}")

    def _elsewhere(self, seed: str) -> Any:
        """The result of to_dict() in a process where sets have another order; None where the plugin
        cannot be imported there.
        """
        given = {"module": self.module, "name": self.component.name, "text": self.text}
        done = subprocess.run(  # noqa: S603  # this interpreter, and a program of our own
            [sys.executable, "-Pc", _ELSEWHERE],
            input=json.dumps({**given, "options": self.options}, default=str),
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        return json.loads(done.stdout) if done.returncode == 0 else None

    def _learn(self, size: int) -> Any:
        """A new tokenizer of the text in pieces of this size."""
        tokenizer = self.new()
        tokenizer.fit(self.text[start : start + size] for start in range(0, len(self.text), size))
        return tokenizer

    def _stretches(self) -> Iterator[tuple[str, np.random.Generator]]:
        """Stretches of the sample, each with a source of other choices; whole lines if the
        tokenizer refuses what does not end with one.
        """
        for rng in _generators():
            start = int(rng.integers(max(1, len(self.text) - _STRETCH)))
            end = start + int(rng.integers(_STRETCH + 1))
            try:
                self.fitted.encode(self.text[start:end])
            except TextgenError:
                start = self.text.rfind("\n", 0, start) + 1
                end = self.text.find("\n", end) + 1 or len(self.text)
            yield self.text[start:end], rng


def _generators() -> Iterator[np.random.Generator]:
    """A source of choices for each example."""
    return map(np.random.default_rng, range(_EXAMPLES))


def _bounds(rng: np.random.Generator, size: int) -> list[int]:
    """0, up to four indices at which something of this size is cut, and the size."""
    return [0, *sorted(rng.integers(0, size + 1, rng.integers(5)).tolist()), size]


def _shown(ids: Ids) -> str:
    """The first ids, in brackets."""
    shown = ", ".join(map(str, ids[:8].tolist()))
    return f"[{shown}{', …' if len(ids) > 8 else ''}]"
