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
    return [Component("char", CharConfig, build, default=True)]
