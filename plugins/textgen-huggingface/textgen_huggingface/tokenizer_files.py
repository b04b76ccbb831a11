"""Tokenizers of folders and GGUF files, as a tokenizer.json that gives every text back."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import Any, Final

import attrs

from textgen import Fault, PipelineError, TextgenError
from textgen.files import read_json
from textgen.protocols import Table
from textgen_huggingface.gguf_files import converted
from textgen_huggingface.model_folder import CONFIG, TOKENIZER_CONFIG, files_beside, is_gguf

_ENDS: Final = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>")
_MOST_IDS: Final = 1 << 22  # of a vocabulary
# What puts a space before a text or takes one away, and what normalises characters.
_CHANGES: Final = {"Prepend", "Strip", "NFC", "NFD", "NFKC", "NFKD", "Precompiled"}


@attrs.frozen
class TokenizerFile:
    """A tokenizer as it is read.

    state    the tokenizer.json
    named    tokens by their names in transformers, such as eos_token
    special  the tokens that are no text
    """

    state: dict[str, Any]
    named: Table
    special: frozenset[str]

    @property
    def end(self) -> str:
        """The token that ends a text: the eos_token, else one of the usual names; "" if none."""
        return self._special("eos_token") or next(
            (name for name in _ENDS if name in self.special), ""
        )

    def exact(self, end: str) -> dict[str, Any]:
        """The state without what changes a text on its way to the tokens and back, and with the
        unk_token, unless that is the `end` of documents.

        Texts are encoded in pieces and written token by token, so that a space that belongs to the
        beginning of a text alone has no place.
        """
        state = {**self.state, "truncation": None, "padding": None}
        for name in ("normalizer", "pre_tokenizer", "decoder"):
            state[name] = _exact(state[name])
        unknown, model = self._special("unk_token"), state["model"]
        if unknown != end and model.get("unk_token", "") is None and unknown in model["vocab"]:
            state["model"] = {**model, "unk_token": unknown}
        return state

    def _special(self, name: str) -> str:
        token = self.named.get(name)
        token = token.get("content") if isinstance(token, dict) else token
        return token if isinstance(token, str) and token in self.special else ""


def read(file: Path) -> TokenizerFile:
    """The tokenizer of a tokenizer.json or GGUF file. Raises PipelineError."""
    import tokenizers

    named: Table = {}
    rows = math.inf
    try:
        if is_gguf(file):
            made = converted(file)
            tokenizer, named = tokenizers.Tokenizer.from_str(made.tokenizer), made.named
        else:
            tokenizer = tokenizers.Tokenizer.from_file(str(file))
            check_ids(tokenizer)
            beside = files_beside(file, "tokenizer.path")
            with contextlib.suppress(KeyError, TextgenError):
                named = read_json(beside[TOKENIZER_CONFIG])
            with contextlib.suppress(KeyError, TextgenError, ValueError, TypeError):
                rows = int(read_json(beside[CONFIG])["vocab_size"])
    except PipelineError:
        raise
    except Exception as error:  # the library raises Exception itself
        raise PipelineError([Fault("tokenizer.path", f"{file} cannot be read: {error}")]) from error
    state = json.loads(tokenizer.to_str())
    # Gemma 3 has a token for images, and without them no row for it.
    state["added_tokens"] = [each for each in state["added_tokens"] if each["id"] < rows]
    special = frozenset(each["content"] for each in state["added_tokens"] if each["special"])
    return TokenizerFile(state, named, special)


def check_ids(tokenizer: Any) -> None:
    """Refuse a tokenizers.Tokenizer with an id so large that a table of all ids fills the memory.

    Raises ValueError.
    """
    largest = max(tokenizer.get_vocab().values(), default=0)
    if largest >= _MOST_IDS:
        raise ValueError(f"a token has the id {largest:,}, and ids are below {_MOST_IDS:,}")


def _exact(part: Any) -> Any:
    """A part of a tokenizer.json without what changes a text; None if nothing is left."""
    if not isinstance(part, dict):
        return part
    if part["type"] in _CHANGES:
        return None
    made = dict(part)
    for name, value in (("add_prefix_space", False), ("prepend_scheme", "never")):
        if name in made:
            made[name] = value
    for name in ("normalizers", "pretokenizers", "decoders"):
        if name in made:
            made[name] = [each for each in map(_exact, made[name]) if each is not None]
            if not made[name]:
                return None
    return made
