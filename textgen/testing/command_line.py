"""The lines of `textgen plugins check`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from textgen.discovery import normalized
from textgen.document import toml_value
from textgen.errors import Fault, UsageError
from textgen.plugins import OWN_DISTRIBUTION, Offer, PluginSet
from textgen.suggest import nearest
from textgen.testing.outcomes import Outcome
from textgen.testing.plugin import check_offers, matching


def check_named(name: str, plugins: PluginSet, values: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The status and the line of every check of the components that a name means, after notes on them.

    values   options as NAME.KEY=VALUE

    Raises UsageError where nothing is called so.
    """
    options = _options(values)
    offers = matching(name, plugins)
    left_out = [q for q in plugins.quarantined if name == q.plugin.name or normalized(name) == q.plugin.distribution]
    if not offers and not left_out:
        known = sorted({n for offer in plugins.offers() for n in (offer.plugin.name, offer.plugin.distribution)})
        raise UsageError(
            f"no plugin, package or package:component is called {name!r}; "
            + (nearest(name, known) or f"there are {', '.join(known)}")
        )
    for offer in offers:
        if line := _clash(offer, plugins):
            yield "note", line
    for quarantined in left_out:
        yield "failed", f"FAILED   {quarantined}"
    with tempfile.TemporaryDirectory() as folder:
        # This process is the command's own, and hypothesis would keep its notes in the current folder.
        os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", folder)
        for outcome in check_offers(offers, plugins, options):
            yield outcome.status, _line(outcome)


def _clash(offer: Offer, plugins: PluginSet) -> str:
    """A note where others offer its kind and name too; none for a built-in component, which keeps its bare name."""
    others = [
        other.plugin.distribution
        for other in plugins.offers(offer.kind)
        if other.component.name == offer.component.name and other.plugin != offer.plugin
    ]
    if not others or offer.plugin.distribution == OWN_DISTRIBUTION:
        return ""
    what = f"{offer.kind} {offer.component.name!r}"
    return f"note: {what} is also offered by {', '.join(others)}; users write {offer.qualified_name}"


def _line(outcome: Outcome) -> str:
    statement = outcome.statement
    if statement is None:
        return f"skipped  {outcome.component}: {outcome.reason}"
    if outcome.status == "failed":
        seen = " ".join(outcome.reason.split())
        return f"FAILED   {outcome.component}: {statement.sentence} Seen: {seen} ({statement.link})"
    place = f"{outcome.component}: {statement.anchor}"
    return f"ok       {place}" if outcome.status == "ok" else f"skipped  {place}: {outcome.reason}"


def _options(values: Iterable[str]) -> Mapping[str, Mapping[str, Any]]:
    """Tables by component. Raises UsageError."""
    options: dict[str, dict[str, Any]] = {}
    for text in values:
        place, equals, value = text.partition("=")
        name, dot, key = place.strip().rpartition(".")
        made = toml_value(value.strip())
        if not equals or not dot or not name or not key:
            raise UsageError(f"--set takes NAME.KEY=VALUE, as in --set top-k.k=3, and got {text!r}")
        options.setdefault(name, {})[key] = value.strip() if isinstance(made, Fault) else made
    return options
