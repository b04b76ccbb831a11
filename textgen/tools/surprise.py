"""A text as an HTML page, each token coloured by how much it surprised the model."""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Template

import numpy as np
import numpy.typing as npt

from textgen.documents import CorpusPiece
from textgen.generation.prompts import end_id
from textgen.generation.scoring import TokenScores
from textgen.protocols import Ids, Tokenizer

MAX_TOKENS = 50_000
_STEPS = (
    0.5,
    1,
    2,
    3,
    4.5,
    6,
    8,
)  # bits at which the colour changes; the page has a colour for each
_RUN = 12  # tokens whose bits one tooltip shows
_VISIBLE = str.maketrans({" ": "␣", "\n": "⏎", "\t": "⇥"})
_MARK = b'<meta name="generator" content="textgen">'


def surprise_page(
    blocks: Iterable[TokenScores],
    tokenizer: Tokenizer,
    title: str,
    text: Iterable[CorpusPiece] = (),
) -> str:
    """The page for scored tokens, at most MAX_TOKENS of them. Hovering shows tokens with the bits of each.

    `text`, in pieces, is what was scored: with it, characters outside the vocabulary are shown as they are and marked.
    """
    tokens, logprobs, cut = _beginning(blocks)
    bits = -logprobs / math.log(2)
    levels = np.searchsorted(_STEPS, np.nan_to_num(bits), side="right")
    unknown = _unknown_characters(tokens, tokenizer, text)
    texts = _texts(tokens, tokenizer)
    borders = sorted(
        {*range(0, len(tokens), _RUN), *(np.flatnonzero(np.diff(levels)) + 1).tolist(), len(tokens)}
    )
    body = "".join(
        _span(start, texts[start:end], bits[start:end], int(levels[start]), unknown)
        for start, end in itertools.pairwise(borders)
    )
    scored = max(len(tokens) - 1, 1)  # nothing comes before the first
    note = f"{np.nansum(bits) / scored:.2f} bits per token on average over {scored:,} tokens"
    note += ", the first of the text" * cut + "; underlined: outside the vocabulary" * bool(unknown)
    page = Template(Path(__file__).with_name("surprise.html.template").read_text(encoding="utf-8"))
    return page.substitute(title=html.escape(title), legend=_legend(), note=note, body=body)


def is_page(beginning: bytes) -> bool:
    """Whether a file that begins so is such a page."""
    return _MARK in beginning[:200]


def _beginning(blocks: Iterable[TokenScores]) -> tuple[Ids, npt.NDArray[np.float64], bool]:
    """At most MAX_TOKENS tokens and their log-probabilities, and whether there are more."""
    taken: list[TokenScores] = []
    for block in blocks:
        taken.append(block)
        if sum(len(each.tokens) for each in taken) > MAX_TOKENS:
            break
    tokens = np.concatenate([np.empty(0, np.int64), *(block.tokens for block in taken)])
    logprobs = np.concatenate([np.empty(0), *(block.logprobs for block in taken)])
    return tokens[:MAX_TOKENS], logprobs[:MAX_TOKENS], len(tokens) > MAX_TOKENS


def _unknown_characters(
    tokens: Ids, tokenizer: Tokenizer, text: Iterable[CorpusPiece]
) -> dict[int, str]:
    """The character of each unknown token by its place, where tokens and characters correspond one to one; else {}.

    They do if every known token is its character, up to the tokenizer's lower case.
    """
    standing = np.flatnonzero(
        tokens != end_id(tokenizer)
    )  # for text, and not for the end of a document
    tokens = tokens[standing]
    is_unknown = tokens == tokenizer.unknown_id
    if tokenizer.unknown_id is None or not is_unknown.any():
        return {}
    characters = itertools.chain.from_iterable(piece for piece in text if isinstance(piece, str))
    beginning = "".join(itertools.islice(characters, len(tokens)))
    decoded = tokenizer.decode(tokens)
    if not len(beginning) == len(decoded) == len(tokens):
        return {}
    found = {}
    rows = zip(standing.tolist(), beginning, decoded, is_unknown.tolist(), strict=True)
    for place, character, shown, unknown in rows:
        if unknown:
            found[place] = character
        elif shown not in (character, character.lower()):
            return {}
    return found


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
    start: int,
    texts: Sequence[str],
    bits: npt.NDArray[np.float64],
    level: int,
    unknown: Mapping[int, str],
) -> str:
    """Tokens of one colour. Those at a place in `unknown` are each shown as that character."""
    parts, shown = [], []
    for place, (text, bit) in enumerate(zip(texts, bits.tolist(), strict=True), start):
        text = unknown.get(place, text)
        shown.append(
            f"{(text or '…').translate(_VISIBLE)} {'-' if math.isnan(bit) else f'{bit:.1f}'}"
        )
        # An element around each line break lets the style put a mark there that is not text.
        part = html.escape(text).replace("\n", "<i>\n</i>")
        title = html.escape(f"{shown[-1]} bits, outside the vocabulary")
        parts.append(f'<u title="{title}">{part}</u>' if place in unknown else part)
    return f'<span class="s{level}" title="{html.escape(" · ".join(shown))} bits">{"".join(parts)}</span>'


def _legend() -> str:
    borders = [0, *_STEPS]
    names = [f"{low:g} to {high:g}" for low, high in zip(borders, _STEPS, strict=False)] + [
        f"over {_STEPS[-1]:g}"
    ]
    return " ".join(f'<span class="s{level}">{name}</span>' for level, name in enumerate(names))
