"""The lines of `textgen plugins check`."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from textgen.errors import UsageError
from textgen.messages import nearest
from textgen.pipeline.raw_pipeline import read_raw_pipeline, toml_value
from textgen.plugin import discovery
from textgen.plugin.component import (
    COMMANDS,
    OWN_DISTRIBUTION,
    Plugin,
    RegisteredComponent,
    normalized,
)
from textgen.plugin.registry import PluginSet
from textgen.testing.outcomes import Outcome
from textgen.testing.plugin import check_offers
from textgen.testing.process import TIME_LIMIT


def check_named(
    name: str,
    plugins: PluginSet,
    values: Iterable[str],
    time_limit: float = TIME_LIMIT,
    **pipeline: str | None,
) -> Iterator[tuple[str, str]]:
    """Lines on the checks of the components that a name means, each with its status; a "note" is
    not a check.

    values      options as NAME.KEY=VALUE, or KIND:NAME.KEY=VALUE
    time_limit  seconds for each check
    pipeline    what models and trainers meet, `tokenizer` and `corpus`: a name, or a table; and
                `start`, a run whose vocabulary they have

    Raises UsageError where nothing is called so.
    """
    options, offers = read_raw_pipeline({}, values).tables, _matching(name, plugins)
    if bare := [key for key, table in options.items() if not isinstance(table, Mapping)]:
        raise UsageError(f"--set takes NAME.KEY=VALUE, and got {bare[0]}")
    start = pipeline.pop("start", None)
    tables = {key: _table(text) for key, text in pipeline.items() if text is not None}
    if start is not None:
        tables["model"] = {"start": start}
    package = name.rpartition(":")[0] or name
    left_out = [q for q in plugins.quarantined if _is_called(q.plugin, package)]
    if not offers and not left_out:
        raise UsageError(_unknown(name, plugins))
    for offer in offers:
        if line := _clash(offer, plugins):
            yield "note", line
    for quarantined in left_out:
        yield "failed", f"FAILED   {quarantined}"
    for outcome in check_offers(offers, plugins, options, pipeline=tables, time_limit=time_limit):
        yield outcome.status, _line(outcome)


def _matching(name: str, plugins: PluginSet) -> list[RegisteredComponent]:
    """The offers that a name means: those of a file, or else of an entry point or a distribution,
    or one as `NAME:component`.
    """
    package, _, component = name.rpartition(":")
    found = [each for each in plugins.offers() if _is_called(each.plugin, package or name)]
    files = [offer for offer in found if offer.plugin.path]
    return [offer for offer in files or found if not package or offer.name == component]


def _is_called(plugin: Plugin, name: str) -> bool:
    """Whether a name is that of its entry point or of its distribution."""
    return name == plugin.name or normalized(name) == plugin.distribution


def _unknown(name: str, plugins: PluginSet) -> str:
    """The error where nothing that is installed as a plugin has a name."""
    is_plugin = any(plugin.is_called(name) for plugin in discovery.installed())
    if not is_plugin and (version := discovery.version(name)) is not None:
        return (
            f"{name} {version} is installed, and has no entry point in the group `textgen`, which "
            "makes a package a plugin: [project.entry-points.textgen] in its pyproject.toml; "
            "install it again after a change"
        )
    known = [
        each
        for offer in plugins.offers()
        for each in (offer.plugin.name, offer.distribution, offer.qualified_name)
    ]
    hint = nearest(name, known) or "`textgen plugins` lists them"
    return f"no plugin, package or package:component is called {name!r}; {hint}"


def _clash(offer: RegisteredComponent, plugins: PluginSet) -> str:
    """A note where others offer its kind and name too; none for a built-in component, which keeps
    its bare name.
    """
    others = [
        other.plugin.path or other.distribution
        for other in plugins.offers(offer.kind)
        if other.name == offer.name and other.plugin != offer.plugin
    ]
    if offer.kind == "command" and offer.name in COMMANDS:
        others.append("textgen")
    if not others or offer.distribution == OWN_DISTRIBUTION:
        return ""
    what = f"{offer.kind} {offer.name!r}"
    return (
        f"note: {what} is also offered by {', '.join(others)}; users write {offer.qualified_name}"
    )


def _line(outcome: Outcome) -> str:
    statement = outcome.statement
    if statement is None:
        advice = "give it --set NAME.KEY=VALUE, --tokenizer, --corpus or --start"
        return f"FAILED   {outcome.component}: nothing checked it: {outcome.reason}; {advice}"
    subject = f"{outcome.component}: {statement.anchor}"
    if outcome.status == "failed":
        seen = " ".join(outcome.reason.split())
        advice = textwrap.fill(
            statement.advice, 110, initial_indent=" " * 9, subsequent_indent=" " * 9
        )
        return f"FAILED   {subject}: {statement.sentence} Seen: {seen}\n{advice}"
    return (
        f"ok       {subject}" if outcome.status == "ok" else f"skipped  {subject}: {outcome.reason}"
    )


def _table(text: str) -> Any:
    """A component that is written as its name, or as a table in TOML."""
    made = toml_value(text)
    return made if isinstance(made, Mapping) else {"type": text}
