"""A text as an HTML page, each token coloured by how much it surprised the model."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable

import numpy as np

from textgen.protocols import Tokenizer
from textgen.scoring import TokenScores

MAX_TOKENS = 50_000
_STEPS = (0.5, 1, 2, 3, 4.5, 6, 8)  # bits at which the colour changes
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.7 system-ui, sans-serif; max-width: 48rem; margin: 2rem auto; padding: 0 1rem;
  background: light-dark(#ffffff, #17191c); color: light-dark(#1c1c1c, #e4e4e4); }}
pre {{ font: 15px/1.75 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }}
.legend span {{ padding: 0.15em 0.5em; }} .note {{ color: light-dark(#555555, #a8a8a8); }}
{colours}
</style></head><body>
<h1>{title}</h1>
<p class="legend">bits of surprise: {legend}</p>
<p class="note">{note}</p>
<pre>{body}</pre>
</body></html>
"""


def surprise_page(blocks: Iterable[TokenScores], tokenizer: Tokenizer, title: str) -> str:
    """The page for scored tokens, at most MAX_TOKENS of them. Hovering a run shows its bits per token."""
    parts: list[str] = []
    run: list[tuple[int, float]] = []
    count, total, level = 0, 0.0, 0
    cut = False
    for block in blocks:
        levels = _levels(block)
        for token, logprob, next_level in zip(block.tokens.tolist(), block.logprobs.tolist(), levels, strict=True):
            if count == MAX_TOKENS:
                cut = True
                break
            if run and next_level != level:
                parts.append(_span(run, level, tokenizer))
                run = []
            level = next_level
            run.append((token, logprob))
            count += 1
            total += 0.0 if math.isnan(logprob) else -logprob
        if cut:
            break
    if run:
        parts.append(_span(run, level, tokenizer))
    mean = total / math.log(2) / max(count - 1, 1)
    note = f"{mean:.2f} bits per token on average over {count:,} tokens" + (", the first of the text" if cut else "")
    return _PAGE.format(title=html.escape(title), colours=_colours(), legend=_legend(), note=note, body="".join(parts))


def _levels(block: TokenScores) -> list[int]:
    bits = np.nan_to_num(-block.logprobs / math.log(2))
    levels: list[int] = np.searchsorted(_STEPS, bits, side="right").tolist()
    return levels


def _span(run: list[tuple[int, float]], level: int, tokenizer: Tokenizer) -> str:
    text = html.escape(tokenizer.decode(np.array([token for token, _ in run])))
    bits = ", ".join("-" if math.isnan(p) else f"{-p / math.log(2):.1f}" for _, p in run[:12])
    return f'<span class="s{level}" title="{bits} bits">{text}</span>'


def _colours() -> str:
    """From no colour to a full one; the text keeps its contrast on every step, on light pages and on dark ones."""
    rules = []
    for level in range(len(_STEPS) + 1):
        share = 100 * level / len(_STEPS)
        light = f"color-mix(in srgb, #ffb066 {share:.0f}%, transparent)"
        dark = f"color-mix(in srgb, #a3480b {share:.0f}%, transparent)"
        rules.append(f".s{level} {{ background: light-dark({light}, {dark}); }}")
    return "\n".join(rules)


def _legend() -> str:
    borders = [0, *_STEPS]
    names = [f"{low:g} to {high:g}" for low, high in zip(borders, _STEPS, strict=False)] + [f"over {_STEPS[-1]:g}"]
    return " ".join(f'<span class="s{level}">{name}</span>' for level, name in enumerate(names))
