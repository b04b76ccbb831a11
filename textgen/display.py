"""Results as HTML, for notebooks and pages. Whatever comes from a text is escaped."""

from __future__ import annotations

import itertools
import math
from bisect import bisect
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Final

import numpy as np

from textgen.documents import end_id
from textgen.protocols import Floats, Ids, Tokenizer
from textgen.tokenizers import incremental_decoder, unknown_id

MAX_TOKENS: Final = 50_000  # that are coloured
# Bits at which the colour changes; the style has a colour for each.
_COLOUR_BITS: Final = (0.5, 1, 2, 3, 4.5, 6, 8)


def styled(body: str) -> str:
    """HTML with the style that it takes."""
    style = Path(__file__).with_name("display.css").read_text(encoding="utf-8")
    return f'<div class="textgen"><style>\n{style}</style>\n{body}\n</div>'


def written(prompt: str, text: str, note: str) -> str:
    """A generated text after its prompt, and a note on it."""
    return f'<pre><b>{escape(prompt)}</b>{escape(text)}</pre><p class="note">{escape(note)}</p>'


def numbered(parts: Iterable[str]) -> str:
    """A table with a row for each part."""
    rows = (f'<tr><th scope="row">{n}</th><td>{part}</td></tr>' for n, part in enumerate(parts))
    return f"<table>{''.join(rows)}</table>"


def coloured(tokens: Ids, logprobs: Floats, tokenizer: Tokenizer) -> str:
    """A text of tokens (T,), each coloured by how much it surprised a model.

    Hovering over one shows its bits.

    Documents begin on lines of their own. What is outside the vocabulary is underlined. Shows at
    most MAX_TOKENS.
    """
    is_cut = len(tokens) > MAX_TOKENS
    tokens, bits = tokens[:MAX_TOKENS], -logprobs[:MAX_TOKENS] / math.log(2)
    decoder, spans = incremental_decoder(tokenizer), list[str]()
    unknown, end = unknown_id(tokenizer), end_id(tokenizer)
    for position, surprise in enumerate(np.nan_to_num(bits)):
        token = tokens[position : position + 1]
        # The text of a character of several tokens comes with the last of them.
        text = decoder.decode(token, position == len(tokens) - 1)
        if position and token == end:
            text += "\n"
        tag = "u" if token == unknown else "span"
        # An element around each line break lets the style put a mark there that is not text.
        shown = escape(text).replace("\n", "<i>\n</i>")
        opening = f'<{tag} class="s{bisect(_COLOUR_BITS, surprise)}" title="{surprise:.1f} bits">'
        spans.append(f"{opening}{shown}</{tag}>")
    note = (
        f"{np.nanmean(bits):.2f} bits per token on average over {np.isfinite(bits).sum():,} tokens"
    )
    if is_cut:
        note += ", the first of the text"
    if (tokens == unknown).any():
        note += "; underlined: outside the vocabulary"
    borders = [f"{low:g} to {high:g}" for low, high in itertools.pairwise((0, *_COLOUR_BITS))]
    names = enumerate([*borders, f"over {_COLOUR_BITS[-1]:g}"])
    legend = " ".join(f'<span class="s{level}">{name}</span>' for level, name in names)
    return (
        f'<p class="legend">bits of surprise: {legend}</p>\n<p class="note">{note}</p>\n'
        f"<pre>{''.join(spans)}</pre>"
    )
