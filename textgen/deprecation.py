"""How something that plugins may use goes away: a warning first, with a date and what to use instead."""

from __future__ import annotations

import datetime
import warnings


def deprecated(
    what: str, *, since: str, removed: datetime.date, instead: str, distribution: str = "textgen-engine"
) -> None:
    """Warn that the caller's caller uses `what`: a DeprecationWarning, shown where the use is.

    since         the version of the distribution that first warned
    removed       from this day on a release may lack it; at least a year after `since`, see docs/publishing-plugins.md
    instead       what to use, so that the reader need not look further
    distribution  whose it is, and whose version
    """
    text = (
        f"{what} is deprecated since {distribution} {since} and may be gone from {removed:%Y-%m-%d} on; use {instead}"
    )
    warnings.warn(text, DeprecationWarning, stacklevel=3)
