"""A text as an HTML page, each token coloured by how much it surprised the model."""

from __future__ import annotations

import html
import itertools
import math
from bisect import bisect
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Final

import numpy as np

from textgen.generation.prompts import end_id
from textgen.generation.scoring import TokenScores
from textgen.protocols import Tokenizer

MAX_TOKENS: Final = 50_000
# Bits at which the colour changes; the page has a colour for each.
_STEPS: Final = (0.5, 1, 2, 3, 4.5, 6, 8)
_MARK: Final = b'<meta name="generator" content="textgen">'


def surprise_page(blocks: Sequence[TokenScores], tokenizer: Tokenizer, title: str) -> str:
    """The page for scored tokens, at most MAX_TOKENS of them. Hovering over one shows its bits.

    Documents begin on lines of their own. What is outside the vocabulary is underlined.
    """
    all_tokens = np.concatenate([block.tokens for block in blocks])
    logprobs = np.concatenate([block.logprobs for block in blocks])
    tokens, bits = all_tokens[:MAX_TOKENS], -logprobs[:MAX_TOKENS] / math.log(2)
    decoder, spans = tokenizer.incremental_decoder(), []
    for place, surprise in enumerate(np.nan_to_num(bits)):
        token = tokens[place : place + 1]
        # The text of a character of several tokens comes with the last of them.
        text = decoder.decode(token, place == len(tokens) - 1)
        text += "\n" * bool(place and token == end_id(tokenizer))
        tag = "u" if token == tokenizer.unknown_id else "span"
        # An element around each line break lets the style put a mark there that is not text.
        shown = html.escape(text).replace("\n", "<i>\n</i>")
        opening = f'<{tag} class="s{bisect(_STEPS, surprise)}" title="{surprise:.1f} bits">'
        spans.append(f"{opening}{shown}</{tag}>")
    note = (
        f"{np.nanmean(bits):.2f} bits per token on average over {np.isfinite(bits).sum():,} tokens"
    )
    note += ", the first of the text" * (len(tokens) < len(all_tokens))
    note += "; underlined: outside the vocabulary" * bool((tokens == tokenizer.unknown_id).any())
    borders = [f"{low:g} to {high:g}" for low, high in itertools.pairwise((0, *_STEPS))]
    names = enumerate([*borders, f"over {_STEPS[-1]:g}"])
    legend = " ".join(f'<span class="s{level}">{name}</span>' for level, name in names)
    page = Template(Path(__file__).with_name("surprise.html.template").read_text(encoding="utf-8"))
    return page.substitute(title=html.escape(title), legend=legend, note=note, body="".join(spans))


def is_page(beginning: bytes) -> bool:
    """Whether a file that begins so is such a page."""
    return _MARK in beginning[:200]
