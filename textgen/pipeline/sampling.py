"""Applies the sampling options of a request to a chain of samplers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from textgen.errors import Fault, UsageError
from textgen.plugin.component import ComponentSource, Offer, taken_twice
from textgen.plugin.structure import Choice, Reader, plain, show


def changed(
    chain: Sequence[Choice], options: Mapping[str, Any], plugins: ComponentSource
) -> list[Choice]:
    """The chain with options by name, such as temperature=0.5.

    Each changes the key of the sampler of the chain that has it (`option(argument=...)`). If none has it, the one that
    does joins before the first with a higher `Component.place`. Raises UsageError with every fault.
    """
    faults: list[Fault] = []
    made = list(chain)
    given: dict[
        str, tuple[Offer, dict[str, Any]]
    ] = {}  # by sampler, since an option may need another one
    for name, value in options.items():
        found = _taker(name, chain) or plugins.sampling_option(name)
        if isinstance(found, Fault):
            faults.append(found)
            continue
        offer, key = found
        given.setdefault(offer.qualified_name, (offer, {}))[1][key] = value
        made = [choice for choice in made if name not in choice.offer.component.gives_way_to]
    for offer, values in given.values():
        places = [place for place, choice in enumerate(made) if choice.offer == offer]
        before = plain(made[places[-1]].options) if places else {}
        reader = Reader(Path.cwd(), plugins)
        settings = reader.table(offer.component.config, {**before, **values}, "")
        faults += named(
            (fault if fault.path else _of_several(fault, offer, values) for fault in reader.faults),
            [offer],
        )
        if settings is None:
            continue
        if places:
            made[places[-1]] = attrs.evolve(made[places[-1]], options=settings)
        else:
            made.insert(_place(made, offer), Choice(offer.name, offer, settings))
    if faults:
        raise UsageError(faults=faults)
    return made


def _taker(name: str, chain: Sequence[Choice]) -> tuple[Offer, str] | Fault | None:
    """The sampler of the chain that has an option, and its key; a Fault where several have it, None where none has."""
    offers = {choice.offer.qualified_name: choice.offer for choice in chain}
    takers = [offer for offer in offers.values() if name in offer.component.arguments()]
    if len(takers) > 1:
        return taken_twice(name, takers)
    return (takers[0], takers[0].component.arguments()[name]) if takers else None


def _of_several(fault: Fault, offer: Offer, values: Mapping[str, Any]) -> Fault:
    """A fault of a sampler's options taken together, which says whose they are, and which of them were given."""
    given = (
        f"{n} = {show(values[key], kind=False)}"
        for n, key in offer.component.arguments().items()
        if key in values
    )
    return attrs.evolve(
        fault, expected=f"sampler {offer.name!r}: {fault.expected}", given=", ".join(given)
    )


def named(faults: Iterable[Fault], offers: Iterable[Offer]) -> list[Fault]:
    """The faults, with samplers' keys replaced by their names in requests."""
    names = {key: name for offer in offers for name, key in offer.component.arguments().items()}
    return [
        attrs.evolve(fault, path=re.sub(r"^\w+", lambda key: names.get(key[0], key[0]), fault.path))
        for fault in faults
    ]


def _place(chain: Sequence[Choice], offer: Offer) -> int:
    """The index at which a sampler joins a chain: before those with a higher place, where it has one."""
    own, places = offer.component.place, [choice.offer.component.place for choice in chain]
    later = (
        at
        for at, place in enumerate(places)
        if place is not None and own is not None and place > own
    )
    return next(later, len(chain))
