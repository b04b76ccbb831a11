"""The tokenizers."""

from __future__ import annotations

from textgen import BuildContext, Component, hookimpl
from textgen.protocols import Tokenizer
from textgen_builtins.tokenizers.config import BPEConfig, CharConfig


def build_char(config: CharConfig, context: BuildContext) -> Tokenizer:
    """An unfitted tokenizer."""
    from textgen_builtins.tokenizers.char import CharTokenizer

    return CharTokenizer(config)


def build_bpe(config: BPEConfig, context: BuildContext) -> Tokenizer:
    """An unfitted tokenizer."""
    from textgen_builtins.tokenizers.bpe import BPETokenizer

    return BPETokenizer(config, context=context)


@hookimpl
def textgen_tokenizers() -> list[Component]:
    """Offer `char` and `bpe`."""
    return [
        Component("char", CharConfig, build_char, default=True),
        Component("bpe", BPEConfig, build_bpe),
    ]
