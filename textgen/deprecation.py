"""Deprecates what plugins may use: a warning with a date and what to use instead."""

from __future__ import annotations

import datetime
import warnings


def deprecated(
    what: str,
    *,
    since: str,
    removed: datetime.date,
    instead: str,
    distribution: str = "textgen-engine",
) -> None:
    """Warn that the caller's caller uses `what`: a DeprecationWarning, shown where the use is.

    since         the version of the distribution that first warned
    removed       from this day on a release may lack it; at least a year after `since`, see docs/publishing-plugins.md
    instead       what to use
    distribution  the one that it is part of, whose version `since` is
    """
    when = f"deprecated since {distribution} {since} and may be removed from {removed:%Y-%m-%d} on"
    warnings.warn(f"{what} is {when}; use {instead}", DeprecationWarning, stacklevel=3)
