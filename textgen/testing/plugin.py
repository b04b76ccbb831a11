"""The checks of one component, and of every component of a plugin."""

from __future__ import annotations

import contextlib
import difflib
import tempfile
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from textgen.errors import UsageError
from textgen.messages import known_names
from textgen.plugin import discovery
from textgen.plugin.component import UNPACKAGED, Component, RegisteredComponent
from textgen.plugin.registry import PluginSet
from textgen.protocols import Table
from textgen.testing.commands import CommandSuite
from textgen.testing.corpora import CorpusSuite
from textgen.testing.environment import (
    isolated_plugins,
    module_name,
    required_options,
    started,
)
from textgen.testing.models import ModelSuite
from textgen.testing.objectives import ObjectiveSuite
from textgen.testing.observers import ObserverSuite
from textgen.testing.outcomes import Outcome, raise_first
from textgen.testing.process import TIME_LIMIT
from textgen.testing.runs import RunSuite
from textgen.testing.samplers import SamplerSuite
from textgen.testing.suite import Suite
from textgen.testing.texts import StrategySuite
from textgen.testing.tokenizers import TokenizerSuite
from textgen.testing.trainers import TrainerSuite

__tracebackhide__ = True  # pytest shows the test and the code of the component

_SUITES: Final[Mapping[str, type[Suite]]] = {
    "command": CommandSuite,
    "corpus": CorpusSuite,
    "model": ModelSuite,
    "objective": ObjectiveSuite,
    "observer": ObserverSuite,
    "run": RunSuite,
    "sampler": SamplerSuite,
    "strategy": StrategySuite,
    "tokenizer": TokenizerSuite,
    "trainer": TrainerSuite,
}


@contextlib.contextmanager
def prepared(
    kind: str,
    component: Component,
    *,
    options: Table | None = None,
    pipeline: Table | None = None,
    plugin: object | str | None = None,
    plugins: PluginSet | None = None,
    label: str = "",
    **given: Any,
) -> Iterator[Suite]:
    """The suite of a component, whose folder lasts as long as the block; see `check`.

    label   what failures call it
    given   other fields of Subject
    """
    # A package may have kinds of its own, but hardly one that is a letter away from these.
    if kind not in _SUITES and (meant := difflib.get_close_matches(kind, _SUITES, 1, 0.9)):
        cause = f"no kind of component is called {kind!r}; did you mean {meant[0]!r}?"
        raise UsageError(cause, argument="kind")
    plugins = plugins or isolated_plugins()
    module, options = module_name(component, plugin), dict(options or {})
    with tempfile.TemporaryDirectory(
        prefix="textgen-testing-", ignore_cleanup_errors=True
    ) as folder:
        suite = _SUITES.get(kind, Suite)(
            kind=kind,
            component=component,
            plugins=plugins,
            folder=Path(folder).resolve(),
            options=options,
            pipeline=started(dict(pipeline or {}), plugins),
            module=module,
            label=label or f"{kind} {component.name!r} of {module or 'a program'}",
            **given,
        )
        if options:
            suite.config()  # options that do not fit are the caller's fault
        yield suite


def check(
    kind: str,
    component: Component,
    *,
    options: Table | None = None,
    pipeline: Table | None = None,
    plugin: object | str | None = None,
    plugins: PluginSet | None = None,
    tolerance: float = 1e-4,
    time_limit: float = TIME_LIMIT,
) -> tuple[Outcome, ...]:
    """Hold a component to the contract of its kind.

    kind        such as "sampler"
    options     its TOML table; what has no default must be in it
    pipeline    tables of what it meets: corpus, tokenizer, trainer (of a model) and model (of a
                trainer or an objective); an observer is shown a run of it. `model.start` names a
                run whose vocabulary and model are used
    plugin      the module it comes from, or its name; found from the component if not given
    plugins     what its context offers; the built-in set if not given
    tolerance   how far logits of a model may differ that are computed in another order, relative to
                the largest
    time_limit  seconds for each check

    Raises the first ContractFailure, PipelineError for tables that do not fit, and UsageError where
    nothing could be checked.
    """
    with prepared(
        kind,
        component,
        options=options,
        pipeline=pipeline,
        plugin=plugin,
        plugins=plugins,
        tolerance=tolerance,
        time_limit=time_limit,
    ) as suite:
        return raise_first(suite.outcomes())


def check_plugin(
    plugin: object | str,
    *,
    options: Mapping[str, Table] | None = None,
    pipeline: Table | None = None,
    leave_out: Collection[str] = (),
    time_limit: float = TIME_LIMIT,
) -> tuple[Outcome, ...]:
    """Hold every component that a plugin offers to its contract.

    plugin      its module, or the module's name
    options     tables by the component's name, or `kind:name` where several kinds have that name
    pipeline    what its components meet, as `check` takes it
    leave_out   components that are not checked, or by other means, by their names
    time_limit  seconds for each check

    A model that does not train by gradient, a trainer that does not train such a model, and a
    tokenizer that cannot be fitted on plain text meet the trainers, models and corpora of the same
    plugin.

    Raises the first ContractFailure, PluginError where it is no plugin, and UsageError where a
    component could not be checked and is not left out.
    """
    module = import_module(plugin) if isinstance(plugin, str) else plugin
    plugins = isolated_plugins(module)
    offers = [o for o in plugins.offers() if o.distribution == UNPACKAGED]
    if not offers:
        raise UsageError(f"{plugin} offers no component, so there is nothing to check")
    _check_names(leave_out, offers, "leave_out has")
    offers = [o for o in offers if not {o.name, f"{o.kind}:{o.name}"} & set(leave_out)]
    outcomes = check_offers(
        offers, plugins, options or {}, plugin, pipeline=pipeline, time_limit=time_limit
    )
    with contextlib.closing(outcomes):  # type: ignore[type-var]  # it is a generator
        return raise_first(outcomes)


def check_offers(
    offers: Iterable[RegisteredComponent],
    plugins: PluginSet,
    options: Mapping[str, Table],
    module: object | str | None = None,
    **given: Any,
) -> Iterator[Outcome]:
    """The outcomes of every check of every offer, each up to its first failure.

    `module` is where they come from, their entry points' if not given; `given` is what `check`
    takes.

    Raises UsageError where `options` has a name that none of their packages' components has.
    """
    offers = list(offers)
    packages = {offer.distribution for offer in offers}
    near = [offer for offer in plugins.offers() if offer.distribution in packages]
    _check_names(options, [*offers, *near], "options are given for")
    neighbours: dict[str, list[Table]] = defaultdict(list)
    for offer in near:
        table = _options_of(offer, options, near)
        if not set(required_options(offer.component)) - set(table):
            neighbours[offer.kind].append({"type": offer.qualified_name, **table})
    for offer in offers:
        source = _module_of(offer) if module is None else module
        with prepared(
            offer.kind,
            offer.component,
            options=_options_of(offer, options, near),
            plugin=source,
            plugins=plugins,
            label=f"{offer.kind} {offer.name!r} of {_owner(offer)}",
            neighbours=neighbours,
            **given,
        ) as suite:
            yield from suite.outcomes()


def _check_names(names: Iterable[str], offers: Iterable[RegisteredComponent], what: str) -> None:
    known = {name for offer in offers for name in (offer.name, f"{offer.kind}:{offer.name}")}
    for name in names:
        if name not in known:
            hint = known_names(name, known)
            raise UsageError(f"{what} {name!r}, and no component is called so; {hint}")


def _owner(offer: RegisteredComponent) -> str:
    """The name of a plugin in failures: its file, its package or its module."""
    name = offer.plugin.name if offer.distribution == UNPACKAGED else offer.distribution
    return offer.plugin.path or name


def _options_of(
    offer: RegisteredComponent,
    options: Mapping[str, Table],
    others: Iterable[RegisteredComponent],
) -> Table:
    """The options that are given under `kind:name`, or under the name: then only for the kinds that
    have them, unless none has.
    """
    if f"{offer.kind}:{offer.name}" in options:
        return options[f"{offer.kind}:{offer.name}"]
    table = options.get(offer.name) or {}
    has_all = [
        other.kind
        for other in others
        if other.name == offer.name and set(table) <= set(other.component.options())
    ]
    return table if offer.kind in has_all or not has_all else {}


def _module_of(offer: RegisteredComponent) -> str | None:
    """The module of the offer's entry point, or its file; None for what a program registered."""
    entry_point = discovery.installed().get(offer.plugin)
    return entry_point.module if entry_point else offer.plugin.path or None
