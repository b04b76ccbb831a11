"""A text as an HTML page, each token coloured by how much it surprised the model."""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from textgen.documents import CorpusPiece
from textgen.generation.prompts import end_id
from textgen.generation.scoring import TokenScores
from textgen.protocols import Ids, Tokenizer

MAX_TOKENS = 50_000
_STEPS = (0.5, 1, 2, 3, 4.5, 6, 8)  # bits at which the colour changes
# Backgrounds from there on. In OKLab each differs from the one before by about as much, and the text keeps a contrast
# of at least 4.5 on all: light pages darken from yellow to red, dark ones brighten from blue over purple to orange.
_LIGHT = ("#faf5cf", "#f8e899", "#fed25f", "#ffb84f", "#fe9a42", "#fd7441", "#ee5459")
_DARK = ("#23223a", "#342556", "#4d2368", "#6d1b60", "#8a1842", "#9c2c20", "#9d5004")
_RUN = 12  # tokens whose bits one tooltip shows
_VISIBLE = str.maketrans({" ": "␣", "\n": "⏎", "\t": "⇥"})
_MARK = '<meta name="generator" content="textgen">'
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">{mark}<title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.7 system-ui, sans-serif; max-width: 48rem; margin: 2rem auto; padding: 0 1rem;
  background: light-dark(#ffffff, #17191c); color: light-dark(#1c1c1c, #e4e4e4); }}
pre {{ font: 15px/1.75 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }}
.legend span {{ padding: 0.15em 0.5em; display: inline-block; white-space: nowrap; }}
u {{ text-decoration: underline wavy; }} i::before {{ content: "⏎"; font-style: normal; opacity: 0.45; }}
.note {{ color: light-dark(#555555, #a8a8a8); }}
{colours}
</style></head><body>
<h1>{title}</h1>
<p class="legend">bits of surprise: {legend}</p>
<p class="note">{note}</p>
<pre>{body}</pre>
</body></html>
"""


def surprise_page(
    blocks: Iterable[TokenScores], tokenizer: Tokenizer, title: str, text: Iterable[CorpusPiece] | None = None
) -> str:
    """The page for scored tokens, at most MAX_TOKENS of them. Hovering shows tokens with the bits of each.

    `text`, in pieces, is what was scored: with it, characters outside the vocabulary are shown as they are and marked.
    """
    tokens, logprobs, cut = _beginning(blocks)
    bits = -logprobs / math.log(2)
    levels = np.searchsorted(_STEPS, np.nan_to_num(bits), side="right")
    unknown = _unknown_characters(tokens, tokenizer, text)
    texts = _texts(tokens, tokenizer)
    borders = sorted({*range(0, len(tokens), _RUN), *(np.flatnonzero(np.diff(levels)) + 1).tolist(), len(tokens)})
    body = "".join(
        _span(start, texts[start:end], bits[start:end], int(levels[start]), unknown)
        for start, end in itertools.pairwise(borders)
    )
    scored = max(len(tokens) - 1, 1)  # nothing comes before the first
    note = f"{np.nansum(bits) / scored:.2f} bits per token on average over {scored:,} tokens"
    note += ", the first of the text" * cut + "; underlined: outside the vocabulary" * bool(unknown)
    return _PAGE.format(
        mark=_MARK, title=html.escape(title), colours=_colours(), legend=_legend(), note=note, body=body
    )


def is_page(beginning: bytes) -> bool:
    """Whether a file that begins so is such a page."""
    return _MARK.encode() in beginning[:200]


def _beginning(blocks: Iterable[TokenScores]) -> tuple[Ids, npt.NDArray[np.float64], bool]:
    """At most MAX_TOKENS tokens and their log-probabilities, and whether there are more."""
    tokens: list[Ids] = [np.empty(0, np.int64)]
    logprobs, count = [np.empty(0)], 0
    for block in blocks:
        tokens.append(block.tokens[: MAX_TOKENS - count])
        logprobs.append(block.logprobs[: MAX_TOKENS - count])
        count += len(block.tokens)
        if count > MAX_TOKENS:
            break
    return np.concatenate(tokens), np.concatenate(logprobs), count > MAX_TOKENS


def _unknown_characters(tokens: Ids, tokenizer: Tokenizer, text: Iterable[CorpusPiece] | None) -> dict[int, str]:
    """The character of each unknown token by its place, where tokens and characters go side by side; else nothing.

    They do if every known token is its character, up to the tokenizer's small letters.
    """
    standing = np.flatnonzero(tokens != end_id(tokenizer))  # for text, and not for the end of a document
    tokens = tokens[standing]
    places = np.flatnonzero(tokens == tokenizer.unknown_id) if tokenizer.unknown_id is not None else ()
    if text is None or not len(places):
        return {}
    beginning = ""
    for piece in (piece for piece in text if isinstance(piece, str)):
        beginning += piece[: len(tokens) - len(beginning)]
        if len(beginning) == len(tokens):
            break
    known, decoded = tokens != tokenizer.unknown_id, tokenizer.decode(tokens)
    if not len(beginning) == len(decoded) == len(tokens):
        return {}
    pairs = zip(beginning, decoded, known.tolist(), strict=True)
    if any(is_known and decoded_one not in (one, one.lower()) for one, decoded_one, is_known in pairs):
        return {}
    return {int(standing[place]): beginning[place] for place in places}


def _texts(tokens: Ids, tokenizer: Tokenizer) -> list[str]:
    """What each token adds to the text: a character of several tokens stands at the last of them.

    Documents are shown on lines of their own.
    """
    decoder = tokenizer.incremental_decoder()
    texts = [decoder.decode(tokens[place : place + 1]) for place in range(len(tokens))]
    for place in np.flatnonzero(tokens == end_id(tokenizer))[1:]:
        texts[place] += "\n"
    if texts:
        texts[-1] += decoder.decode(tokens[:0], final=True)
    return texts


def _span(
    start: int, texts: Sequence[str], bits: npt.NDArray[np.float64], level: int, unknown: Mapping[int, str]
) -> str:
    """Tokens of one colour. Those at a place in `unknown` are each shown as that character."""
    parts, shown = [], []
    for place, (text, bit) in enumerate(zip(texts, bits.tolist(), strict=True), start):
        character = unknown.get(place)
        name = ((text or "…") if character is None else character).translate(_VISIBLE)
        shown.append(f"{name} {'-' if math.isnan(bit) else f'{bit:.1f}'}")
        if character is None:
            parts.append(_text(text))
        else:
            title = html.escape(f"{shown[-1]} bits, outside the vocabulary")
            parts.append(f'<u title="{title}">{_text(character)}</u>')
    return f'<span class="s{level}" title="{html.escape(" · ".join(shown))} bits">{"".join(parts)}</span>'


def _text(text: str) -> str:
    """Text with an element around each line break, so that style can put a mark there which is no text."""
    return html.escape(text).replace("\n", "<i>\n</i>")


def _colours() -> str:
    """No colour on the least surprising tokens, then one for each step, on light pages and on dark ones."""
    pairs = enumerate(zip(_LIGHT, _DARK, strict=True), 1)
    return "\n".join(f".s{level} {{ background: light-dark({light}, {dark}); }}" for level, (light, dark) in pairs)


def _legend() -> str:
    borders = [0, *_STEPS]
    names = [f"{low:g} to {high:g}" for low, high in zip(borders, _STEPS, strict=False)] + [f"over {_STEPS[-1]:g}"]
    return " ".join(f'<span class="s{level}">{name}</span>' for level, name in enumerate(names))
