"""Applies the sampling options of a request to a chain of samplers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs

from textgen.errors import Fault, PipelineError, UsageError
from textgen.plugin.component import ComponentSource, RegisteredComponent
from textgen.plugin.config_reader import ConfigReader, Faults
from textgen.plugin.configured import ConfiguredComponent, plain
from textgen.protocols import Table


def changed(
    chain: Sequence[ConfiguredComponent], options: Table, plugins: ComponentSource
) -> list[ConfiguredComponent]:
    """The chain, with its strategy if it has one, with the options of a request by name.

    Each changes the key of the chain's last sampler that has it (`option(argument=...)`). If none
    has it, the sampler that does joins before the first with a higher `Component.order`. Raises
    UsageError with every fault.
    """
    reader = ConfigReader(Path.cwd(), plugins)
    options, faults = dict(options), Faults()
    given: dict[RegisteredComponent, dict[str, Any]] = {}  # options of one may need each other
    if (strategy := options.pop("strategy", None)) is not None:
        offer = isinstance(strategy, str) and plugins.find("strategy", strategy)
        chain = _samplers(chain)
        if isinstance(offer, RegisteredComponent):
            arguments = offer.component.arguments().items()
            given[offer] = {key: options.pop(name) for name, key in arguments if name in options}
        else:
            with faults.collected():
                chain += (reader.at("strategy").choice("strategy", strategy),)
                given[chain[-1].offer] = {}
    for name, value in options.items():
        takers = [choice.offer for choice in chain if name in choice.offer.component.arguments()]
        offer = takers[-1] if takers else plugins.sampling_option(name)
        if isinstance(offer, Fault):
            faults.append(offer)
        else:
            given.setdefault(offer, {})[offer.component.arguments()[name]] = value
    made = [
        choice for choice in chain if not options.keys() & set(choice.offer.component.replaced_by)
    ]
    for offer, values in given.items():
        index = max((i for i, choice in enumerate(made) if choice.offer == offer), default=None)
        before = {} if index is None else plain(made[index].options)
        try:
            settings = reader.table(offer.component.config, {**before, **values})
        except PipelineError as error:
            found_at = (attrs.evolve(f, path=f.path or offer.name) for f in error.faults)
            faults += named(found_at, [offer])
            continue
        if index is None:
            if offer.kind == "strategy":
                made = _samplers(made)
            index = _index_to_join(made, offer)
            made.insert(index, ConfiguredComponent(offer.canonical_name, offer, settings))
        made[index] = attrs.evolve(made[index], options=settings)
    if len(named_by := [o.name for o in given if o.kind == "strategy"]) > 1:
        faults.append(Fault("strategy", f"options of {' and '.join(named_by)}: one makes a text"))
    if faults:
        raise UsageError(faults=faults)
    return made


def _samplers(chain: Iterable[ConfiguredComponent]) -> list[ConfiguredComponent]:
    """The chain without its strategy."""
    return [choice for choice in chain if choice.offer.kind != "strategy"]


def named(faults: Iterable[Fault], offers: Iterable[RegisteredComponent]) -> list[Fault]:
    """The faults, with samplers' keys replaced by their names in requests."""
    names = {key: name for offer in offers for name, key in offer.component.arguments().items()}
    return [
        attrs.evolve(fault, path=re.sub(r"^\w+", lambda key: names.get(key[0], key[0]), fault.path))
        for fault in faults
    ]


def _index_to_join(chain: Sequence[ConfiguredComponent], offer: RegisteredComponent) -> int:
    """The index at which a sampler joins a chain."""
    own = offer.component.order
    for index, choice in enumerate(chain):
        if own is not None and (choice.offer.component.order or 0) > own:
            return index
    return len(chain)
