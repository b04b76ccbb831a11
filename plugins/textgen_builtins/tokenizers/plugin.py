"""The character tokenizer."""

from __future__ import annotations

from textgen import BuildContext, Component, hookimpl
from textgen.protocols import Tokenizer
from textgen_builtins.tokenizers.config import CharConfig


def build(config: CharConfig, context: BuildContext) -> Tokenizer:
    """An unfitted tokenizer."""
    from textgen_builtins.tokenizers.char import CharTokenizer

    return CharTokenizer(config)


@hookimpl
def textgen_tokenizers() -> list[Component]:
    """Offer `char`."""
    elsewhere = "the package textgen-huggingface has it: huggingface-bpe, or huggingface-tokenizer for one that exists"
    names = ("bpe", "wordpiece", "sentencepiece", "tiktoken", "unigram", "word", "words", "subword")
    return [
        Component("char", CharConfig, build, default=True, hints=dict.fromkeys(names, elsewhere))
    ]
