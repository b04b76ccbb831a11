"""The samplers that let through only text of a given form, on outlines-core."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Set
from functools import lru_cache
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt

from textgen import BuildContext
from textgen.errors import Fault, PipelineError
from textgen.protocols import Array, History, Ids, Sampler, Tensors, Tokenizer
from textgen_builtins.samplers import config as configs
from textgen_builtins.samplers import logits as ops

_OVER: Final = -1  # the state after the end of the document
_MASKS: Final = 256  # states whose tokens are kept
_SHOWN: Final = 40  # characters that a message lists
_NAMED: Final = re.compile(r"at least one of the following characters: \[(.*)\]", re.DOTALL)
_REPLACED = "\ufffd"  # what bytes that are no whole character decode to


class Constrained:
    """Keeps the tokens that a finite automaton allows, whose state goes with the row.

    index       of outlines_core: the tokens that each state of the automaton allows
    complete    the states from which it can be completed; tokens that lead elsewhere are forbidden
    vocab_size  V
    end_id      allowed where the text is complete; None if the tokenizer has none
    """

    history = "none"
    ends = True

    def __init__(self, index: Any, complete: Set[int], vocab_size: int, end_id: int | None) -> None:
        self._index, self._complete, self._vocab_size, self._end_id = (
            index,
            complete,
            vocab_size,
            end_id,
        )
        self._mask: Callable[[int], npt.NDArray[np.bool_]] = lru_cache(_MASKS)(self._allowed)

    def start(self, prompt: Ids) -> Tensors:
        """`state` (), of the automaton: the prompt is no part of the constrained text."""
        return {"state": np.array(self._index.get_initial_state(), np.int64)}

    def __call__(self, logits: Array, history: History) -> Array:
        """(B, V) with tokens forbidden: all of them in a row that is complete."""
        masks = np.stack([self._mask(state) for state in history.state["state"].tolist()])
        return ops.keep(logits, ops.like(masks, logits))

    def accept(self, tokens: Ids, logits: Array, history: History) -> Tensors:
        """`state` (B,)."""
        states = history.state["state"].tolist()
        after = [
            self._after(state, token) for state, token in zip(states, tokens.tolist(), strict=True)
        ]
        return {"state": np.array(after, np.int64)}

    def _allowed(self, state: int) -> npt.NDArray[np.bool_]:
        """(V,) whether each token may follow."""
        mask = np.zeros(
            self._vocab_size + 1, bool
        )  # the last stands for the end, which outlines_core asks for
        if state != _OVER:
            tokens = self._index.get_allowed_tokens(state)
            mask[
                [
                    token
                    for token in tokens
                    if self._index.get_next_state(state, token) in self._complete
                ]
            ] = True
            mask[-1] = self._index.is_final_state(state)
            if mask[-1] and self._end_id is not None:
                mask[self._end_id] = True
        return mask[:-1]

    def _after(self, state: int, token: int) -> int:
        after = (
            None
            if state == _OVER or token == self._end_id
            else self._index.get_next_state(state, token)
        )
        return _OVER if after is None else int(after)


def regex(config: configs.RegexConfig, context: BuildContext) -> Sampler:
    """Raises PipelineError for an expression that is wrong, or that the vocabulary has no tokens for."""
    return _constrained(config.pattern, "pattern", config.pattern, context)


def json_schema(config: configs.JsonConfig, context: BuildContext) -> Sampler:
    """The schema as a regular expression. Raises PipelineError as `regex`."""
    outlines_core = _library("json", "schema")
    try:
        json.loads(config.schema)
        expression = outlines_core.json_schema.build_regex_from_schema(config.schema)
    except Exception as error:  # the library raises several kinds of ValueError and TypeError
        cause = str(error).partition("\n")[0].strip()  # what follows is about the library
        _wrong("schema", f"not a JSON schema that can be followed: {cause}", config.schema, error)
    return _constrained(expression, "schema", config.schema, context)


def _constrained(expression: str, key: str, given: str, context: BuildContext) -> Sampler:
    outlines_core = _library("regex", key)
    tokenizer = context.tokenizer
    assert tokenizer is not None
    size = tokenizer.vocab_size
    try:
        re.compile(expression)
    except re.error as error:
        _wrong(key, f"not a valid regular expression: {error}", given, error)
    texts = _token_texts(tokenizer)
    try:
        index = outlines_core.Index(expression, outlines_core.Vocabulary(size, texts))
    except ValueError as error:
        _wrong(key, _refusal(str(error), expression, texts), given, error)
    complete = _completable(index)
    if index.get_initial_state() not in complete:
        _wrong(key, "the vocabulary has no tokens to complete it with", given)
    return Constrained(index, complete, size, getattr(tokenizer, "end_id", None))


def _refusal(said: str, expression: str, texts: Iterable[str]) -> str:
    """Why outlines_core made no automaton, without its own words."""
    named = _NAMED.search(said)
    if named is None:
        return "it cannot be followed: anchors, look-around, word boundaries and references are not supported"
    escaped = re.findall(r'"((?:[^"\\]|\\.)*)"', named[1])
    missing = [
        each[-1]
        for each in escaped
        if each in ('\\"', "\\\\") or (len(each) == 1 and each.isprintable())
    ]
    begun = {int(each[3:], 16) for each in escaped if re.fullmatch(r"\\\\x[0-9a-f]{2}", each)}
    known = set("".join(texts))  # of a character that is not ASCII, its first byte alone is named
    missing += [
        each
        for each in dict.fromkeys(expression)
        if each not in known and each.encode()[0] in begun
    ]
    shown = "".join(missing[:_SHOWN]) + ("…" if len(missing) > _SHOWN else "")
    which = (
        ""
        if not missing
        else f": it has {'none of the characters' if len(missing) > 1 else 'no'} {shown!r}"
    )
    return f"the vocabulary cannot write it{which}"


def _completable(index: Any) -> set[int]:
    """The states from which a final one can be reached with tokens of the vocabulary."""
    before: dict[int, set[int]] = {}
    for state, tokens in index.get_transitions().items():
        for after in set(tokens.values()):
            before.setdefault(after, set()).add(state)
    found: set[int] = set()
    rest = list(index.get_final_states())
    while rest:
        state = rest.pop()
        if state not in found:
            found.add(state)
            rest += before.get(state, ())
    return found


def _library(sampler: str, key: str) -> Any:
    try:
        import outlines_core
        import outlines_core.json_schema
    except ImportError as error:
        message = (
            f"the sampler {sampler!r} needs outlines-core; pip install 'textgen-engine[regex]'"
        )
        raise PipelineError([Fault(key, message)], "sampler") from error
    return outlines_core


def _token_texts(tokenizer: Tokenizer) -> dict[str, list[int]]:
    """The ids of each text that a token can add. Tokens that are a part of a character only are left out.

    A token's text may depend on what is before it (a space between words): it is what the token adds after itself.
    """
    texts: dict[str, list[int]] = {}
    for token in range(tokenizer.vocab_size):
        ids = np.array([token, token])
        text = tokenizer.decode(ids)[len(tokenizer.decode(ids[:1])) :]
        if text and _REPLACED not in text and token != tokenizer.unknown_id:
            texts.setdefault(text, []).append(token)
    return texts


def _wrong(key: str, message: str, value: str, error: Exception | None = None) -> NoReturn:
    raise PipelineError([Fault(key, message, repr(value))], "sampler") from error
