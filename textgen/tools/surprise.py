"""A scored text as an HTML page, each token coloured by how much it surprised the model."""

from __future__ import annotations

import html
from string import Template
from typing import Final

from textgen.generation.scoring import TextScore

_MARK: Final = b'<meta name="generator" content="textgen">'
_PAGE: Final = Template(
    """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="generator" content="textgen">
<title>$title</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root { color-scheme: light dark; }
body { font: 16px/1.7 system-ui, sans-serif; max-width: 48rem; margin: 2rem auto; padding: 0 1rem;
  background: light-dark(#ffffff, #17191c); color: light-dark(#1c1c1c, #e4e4e4); }
.textgen { padding: 0; }
</style></head><body>
<h1>$title</h1>
$body
</body></html>
"""
)


def surprise_page(score: TextScore, title: str) -> str:
    """The page, which needs nothing else."""
    return _PAGE.substitute(title=html.escape(title), body=score._repr_html_())


def is_page(beginning: bytes) -> bool:
    """Whether a file that begins so is such a page."""
    return _MARK in beginning[:200]
