"""The sampler that lets through only text of a given form, on llguidance."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, NoReturn
from weakref import WeakKeyDictionary

import attrs
import numpy as np
import numpy.typing as npt

from textgen import BuildContext
from textgen.documents import end_id
from textgen.errors import Fault, PipelineError, UsageError
from textgen.protocols import Array, History, Ids, Sampler, Table, Tensors, Tokenizer
from textgen.tokenizers import unknown_id
from textgen_builtins.samplers import logits as ops
from textgen_builtins.samplers.config import FormatConfig
from textgen_builtins.samplers.links import OFF
from textgen_builtins.token_texts import token_texts

_LIMITS: Final[Table] = {
    "initial_lexer_fuel": 300_000,
    "step_lexer_fuel": 20_000,
    "step_max_items": 100_000,
    "max_items_in_row": 20_000,
    "max_lexer_states": 20_000,
    "max_grammar_size": 100_000,
    "precompute_large_lexemes": False,
    "verbose_errors": False,
}
"""What a form may cost: about 0.1 s and 20 MB to compile, and 10 ms for a token."""
_ABANDONED_AFTER: Final = 1024  # questions for other texts after which a text has ended
_DEAD_END_ERROR: Final = "NoExtensionBias"  # what llguidance says where no token can follow
_SHOWN_CHARACTERS: Final = 40  # characters that a message lists
_REPLACEMENT: Final = "\ufffd"  # what bytes that are not a whole character decode to


@attrs.frozen
class _Vocabulary:
    """A vocabulary as llguidance reads it: an id after the last stands for the end of a text.

    characters  all that its tokens are made of
    texts       of its tokens
    bytes       the vocabulary of all bytes
    """

    size: int
    end_id: int | None
    characters: frozenset[str]
    texts: list[bytes]
    tokens: Any
    bytes: Any


class Format:
    """Keeps the tokens that continue a text of a form; where nothing can follow, the text ends.

    The state is `begin`, the index of the text's first token in the history, or -1 before it.
    A prompt that is added later to a saved text belongs to the text, and has to follow the form.

    make   makes llguidance's matcher for the beginning of a text, whose copies share tables of a
           limited size; for texts of a vocabulary, or of bytes
    """

    history = "tokens"
    ends = True

    def __init__(self, make: Callable[[Any], Any], vocabulary: _Vocabulary) -> None:
        self._make, self._first, self._vocabulary = make, make(vocabulary.tokens), vocabulary
        self._texts: dict[int, tuple[Any, bytes, int]] = {}  # the least recently asked for first
        self._asked = 0
        self._lock = threading.Lock()

    def start(self, prompt: Ids) -> Tensors:
        """`begin` (): the prompt is no part of the text."""
        return {"begin": np.array(-1, np.int64)}

    def __call__(self, logits: Array, history: History) -> Array:
        """(B, V) with tokens forbidden: all of them in a row that is complete."""
        masks = np.zeros(tuple(logits.shape), bool)
        for row, begin in enumerate(history.state["begin"].tolist()):
            ids = history.tokens(row)[begin:] if begin >= 0 else np.empty(0, np.int64)
            masks[row] = self.allowed(ids)
        return ops.keep(logits, ops.like(masks, logits))

    def accept(self, tokens: Ids, logits: Array, history: History) -> Tensors:
        """`begin` (B,)."""
        begin = history.state["begin"].copy()
        for row in np.flatnonzero(begin < 0).tolist():
            begin[row] = len(history.tokens(row))
        return {"begin": begin}

    def allowed(self, ids: Ids) -> npt.NDArray[np.bool_]:
        """(V,) whether each token may follow the text `ids` (T,)."""
        size, end_id = self._vocabulary.size, self._vocabulary.end_id
        if end_id is not None and end_id in ids:
            return np.zeros(size, bool)
        with self._lock:
            packed = self._packed(ids)
        bits = np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little").astype(bool)
        is_complete, mask = bool(bits[size]), bits[:size]
        if is_complete and end_id is not None:
            mask[end_id] = True
        elif not is_complete and not mask.any():
            raise UsageError(self._lacking(ids))
        return mask

    def _packed(self, ids: Ids) -> bytes:
        """Mask of the tokens that may follow `ids`, a bit for each.

        The matcher of a text goes on with it. It is made anew, in about a microsecond for a token,
        where another text has gone on with it, or where the shared tables are full.
        """
        key, self._asked = hash(ids.tobytes()), self._asked + 1
        known = self._texts.pop(key, None)
        matcher, packed = known[:2] if known else self._read(ids)
        self._texts[key] = matcher, packed, self._asked
        while self._texts[oldest := next(iter(self._texts))][2] <= self._asked - _ABANDONED_AFTER:
            del self._texts[oldest]
        return packed

    def _read(self, ids: Ids) -> tuple[Any, bytes]:
        for matcher, rest in self._matchers(ids):
            matcher.consume_tokens(rest.tolist())
            packed = matcher.compute_bitmask()
            if not matcher.is_error():
                return matcher, packed
        if (cause := _cause(matcher)) == _DEAD_END_ERROR:
            raise UsageError(self._lacking(ids))
        raise UsageError(f"the form cannot be followed any further: {cause}")

    def _lacking(self, ids: Ids) -> str:
        """Text that would have to follow `ids`, and that the vocabulary lacks."""
        matcher = self._make(self._vocabulary.bytes)
        matcher.consume_tokens([*b"".join(self._vocabulary.texts[i] for i in ids.tolist())])
        bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")
        after = {chr(each) for each in np.flatnonzero(bits[:128]).tolist()}
        if not after:
            return "no text of this vocabulary has this form"
        lacking = "".join(sorted(after - self._vocabulary.characters))
        return f"the vocabulary cannot write it: it lacks {lacking[:_SHOWN_CHARACTERS]!r}"

    def _matchers(self, ids: Ids) -> Iterator[tuple[Any, Ids]]:
        """Matchers with what each has to read until `ids` are read."""
        if len(ids) and (before := self._texts.pop(hash(ids[:-1].tobytes()), None)):
            yield before[0], ids[-1:]
        yield self._first.deep_copy(), ids
        self._first = self._make(self._vocabulary.tokens)
        yield self._first.deep_copy(), ids


def build(config: FormatConfig, context: BuildContext) -> Sampler:
    """Raises PipelineError for a form that is wrong, or that the vocabulary cannot write."""
    key = "regex" if config.schema is None else "schema"
    given = getattr(config, key)
    if given is None:
        return OFF
    assert context.tokenizer is not None
    try:
        import llguidance
    except ImportError as error:
        message = "needs llguidance; pip install llguidance"
        raise PipelineError([Fault(key, message)], "sampler") from error
    vocabulary = _vocabulary(context.tokenizer, llguidance)
    grammar = _regex_grammar(given, vocabulary) if key == "regex" else _schema_grammar(given)
    limits = llguidance.LLParserLimits(**_LIMITS)
    make = partial(llguidance.LLMatcher, grammar=grammar, log_level=0, limits=limits)
    if (matcher := make(vocabulary.tokens)).is_error():
        _refuse(key, f"it cannot be followed: {_cause(matcher)}", given)
    made = Format(make, vocabulary)
    try:
        made.allowed(np.empty(0, np.int64))
    except UsageError as error:
        _refuse(key, str(error), given)
    return made


def _regex_grammar(expression: str, vocabulary: _Vocabulary) -> str:
    """A grammar of what matches and the vocabulary can write, so that no dead end is entered."""
    # A slash ends the expression in a grammar. What is escaped is taken at once, so that the time
    # is linear.
    parts = re.compile(r"\\[^/]|\\?/", re.DOTALL)
    escaped = parts.sub(lambda part: r"\/" if part[0].endswith("/") else part[0], expression)
    writable = "".join(f"\\x{{{ord(each):x}}}" for each in sorted(vocabulary.characters))
    return f"{_HEAD}start: TEXT\nTEXT: /(?:{escaped})/ & /[{writable}]*/\n"


def _schema_grammar(given: str) -> str:
    """A grammar of a JSON schema, with a space at most between its parts."""
    try:
        schema = json.loads(given)
        if not isinstance(schema, dict):
            raise ValueError("expected an object")
        schema["x-guidance"] = {"whitespace_pattern": " ?"}
        return f"{_HEAD}start: %json {json.dumps(schema)}"
    except (ValueError, RecursionError) as error:
        _refuse("schema", f"not a JSON schema: {error}", given)


_HEAD: Final = '%llguidance {"no_forcing": true}\n'  # each spelling of a text may be drawn
_vocabularies: WeakKeyDictionary[Tokenizer, _Vocabulary] = WeakKeyDictionary()


def _vocabulary(tokenizer: Tokenizer, llguidance: Any) -> _Vocabulary:
    """The texts that tokens add. Tokens that are a part of a character only are never allowed."""
    with contextlib.suppress(TypeError, KeyError):  # a plugin's may be unhashable
        return _vocabularies[tokenizer]
    size, characters = tokenizer.vocab_size, set[str]()
    texts: list[bytes] = []
    for token, text in enumerate(token_texts(tokenizer)):
        if not text or _REPLACEMENT in text or token == unknown_id(tokenizer):
            texts.append(b"\xff<%d>" % token)  # a special token, which no form contains
        else:
            texts.append(text.encode())
            characters.update(text)
    of_tokens, of_bytes = (
        llguidance.LLTokenizer(
            llguidance.TokenizerWrapper(_Tokens([*each, b"\xff<end>"])), slices=[]
        )
        for each in (texts, [bytes([i]) for i in range(256)])
    )
    made = _Vocabulary(size, end_id(tokenizer), frozenset(characters), texts, of_tokens, of_bytes)
    with contextlib.suppress(TypeError):
        _vocabularies[tokenizer] = made
    return made


class _Tokens:
    """The tokenizer that llguidance.TokenizerWrapper asks for. Nothing is encoded, since nothing is
    forced.
    """

    bos_token_id = None

    def __init__(self, tokens: list[bytes]) -> None:
        self.tokens, self.eos_token_id = tokens, len(tokens) - 1
        self.special_token_ids = [i for i, text in enumerate(tokens) if text[:1] == b"\xff"]

    def __call__(self, text: Any) -> list[int]:
        return []


def _cause(matcher: Any) -> str:
    """The reason in llguidance's words, without what it says of the grammar around it."""
    said = matcher.get_error().split("\n   1 | ")[0]
    reasons = re.findall(r"^error: (.*)", said, re.M)
    return str(reasons[0] if reasons else said.rpartition("JSON schema: ")[2].split("\n")[0])


def _refuse(key: str, message: str, value: str) -> NoReturn:
    raise PipelineError([Fault(key, message, repr(value[:_SHOWN_CHARACTERS]))], "sampler")
