"""How something that plugins may use goes away: a warning first, with a date and what to use instead."""

from __future__ import annotations

import datetime
import warnings


def deprecated(what: str, *, since: str, removed: datetime.date, instead: str) -> None:
    """Warn that the caller's caller uses `what`: a DeprecationWarning, shown where the use is.

    since    the version of textgen that first warned
    removed  from this day on a release may lack it; at least a year after `since`, see docs/publishing-plugins.md
    instead  what to use, so that the reader need not look further
    """
    text = f"{what} is deprecated since textgen {since} and may be gone from {removed:%Y-%m-%d} on; use {instead}"
    warnings.warn(text, DeprecationWarning, stacklevel=3)
