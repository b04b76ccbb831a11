"""One HTML page, which needs no other file, of what a command prints."""

from __future__ import annotations

from html import escape
from string import Template
from typing import Final

from textgen.cli import PAGE_MARK

_PAGE: Final = Template(
    f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">{PAGE_MARK}
<title>$title</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.7 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem;
  background: light-dark(#ffffff, #17191c); color: light-dark(#1c1c1c, #e4e4e4); }}
pre {{ overflow-x: auto; }} svg {{ max-width: 100%; height: auto; }}
.textgen {{ padding: 0; max-width: 48rem; }}
</style></head><body>
<h1>$title</h1>
$body
</body></html>
"""
)


def page(title: str, body: str) -> str:
    """The page; the body is HTML."""
    return _PAGE.substitute(title=escape(title), body=body)
