"""The lines of `textgen plugins check`."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from textgen.errors import Fault, PluginWarning, UsageError
from textgen.messages import nearest
from textgen.pipeline.raw_pipeline import toml_value
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
from textgen.testing.suite import NO_DEFAULT

Line = tuple[str, str]


def check_named(
    name: str,
    plugins: PluginSet,
    values: Iterable[str],
    time_limit: float = TIME_LIMIT,
    **pipeline: str | None,
) -> Iterator[Line]:
    """Lines on the checks of the components that a name means, each with its status; a "note" is
    not a check.

    values      options as NAME.KEY=VALUE
    time_limit  seconds for each check
    pipeline    what models and trainers meet, `tokenizer` and `corpus`: a name, or a table; and
                `start`, a run whose vocabulary they have

    Raises UsageError where nothing is called so.
    """
    options, offers = _options(values), _matching(name, plugins)
    tables = {key: _table(key, text) for key, text in pipeline.items() if text is not None}
    if "start" in tables:
        tables["model"] = {"start": tables.pop("start")}
    left_out = [q for q in plugins.quarantined if _is_called(q.plugin, name)]
    if not offers and not left_out:
        raise UsageError(_unknown(name, plugins))
    for offer in offers:
        if line := _clash(offer, plugins):
            yield "note", line
    for quarantined in left_out:
        yield "failed", f"FAILED   {quarantined}"
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", DeprecationWarning)  # pytest shows them too
        warnings.simplefilter("ignore", PluginWarning)  # what is logged is not a fault
        noted = set()
        for outcome in check_offers(
            offers, plugins, options, pipeline=tables, time_limit=time_limit
        ):
            for line in (_warning(outcome.component, warning) for warning in warned):
                if line not in noted:
                    noted.add(line)
                    yield "note", line
            warned.clear()
            yield outcome.status, _line(outcome)


def _matching(name: str, plugins: PluginSet) -> list[RegisteredComponent]:
    """The offers that a name means: those of an entry point or a distribution, or one as
    `NAME:component`.
    """
    package, _, component = name.rpartition(":")
    return [
        offer
        for offer in plugins.offers()
        if _is_called(offer.plugin, package or name) and (not package or offer.name == component)
    ]


def _is_called(plugin: Plugin, name: str) -> bool:
    """Whether a name is that of its entry point or of its distribution."""
    return name == plugin.name or normalized(name) == plugin.distribution


def _unknown(name: str, plugins: PluginSet) -> str:
    """What to say where nothing that is installed as a plugin has a name."""
    known = [
        each
        for offer in plugins.offers()
        for each in (offer.plugin.name, offer.distribution, offer.qualified_name)
    ]
    hint = nearest(name, known) or "`textgen plugins` lists them"
    return f"no plugin, package or package:component is called {name!r}; {hint}"


def _warning(component: str, warning: warnings.WarningMessage) -> str:
    text = " ".join(str(warning.message).split())
    place = f"{warning.filename}:{warning.lineno}"
    return f"note: {component} warned: {warning.category.__name__}: {text} ({place})"


def _clash(offer: RegisteredComponent, plugins: PluginSet) -> str:
    """A note where others offer its kind and name too; none for a built-in component, which keeps
    its bare name.
    """
    if offer.kind == "command" and offer.name in COMMANDS:
        what = f"command {offer.name!r}"
        return (
            f"note: {what} has the name of one of textgen's own; users write textgen "
            f"{offer.qualified_name}"
        )
    others = [
        other.plugin.path or other.distribution
        for other in plugins.offers(offer.kind)
        if other.name == offer.name and other.plugin != offer.plugin
    ]
    if not others or offer.distribution == OWN_DISTRIBUTION:
        return ""
    what = f"{offer.kind} {offer.name!r}"
    return (
        f"note: {what} is also offered by {', '.join(others)}; users write {offer.qualified_name}"
    )


def _line(outcome: Outcome) -> str:
    statement = outcome.statement
    if statement is None:
        needed = _needed(outcome.reason)
        return f"FAILED   {outcome.component}: nothing checked it: {outcome.reason}{needed}"
    place = f"{outcome.component}: {statement.anchor}"
    if outcome.status == "failed":
        seen = " ".join(outcome.reason.split())
        advice = textwrap.fill(
            statement.advice, 110, initial_indent=" " * 9, subsequent_indent=" " * 9
        )
        return f"FAILED   {place}: {statement.sentence} Seen: {seen}\n{advice}"
    return f"ok       {place}" if outcome.status == "ok" else f"skipped  {place}: {outcome.reason}"


def _needed(reason: str) -> str:
    """What gives values to options that have no default, where that is why a component was
    skipped.
    """
    if not reason.startswith(NO_DEFAULT):
        return ""
    names = reason.removeprefix(NO_DEFAULT).split(" and ")
    return f"; check it with {' '.join(f'--set {name}=VALUE' for name in names)}"


def _table(key: str, text: str) -> Any:
    """A component that is written as its name, or as a table in TOML; a run by its path."""
    made = toml_value(text)
    return made if isinstance(made, Mapping) else text if key == "start" else {"type": text}


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
