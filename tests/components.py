"""Builds single components as a program that embeds textgen does: from a PluginSet, with a BuildContext."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import attrs

from textgen import BuildContext, Component, PluginSet


@functools.cache
def component(kind: str, name: str) -> Component:
    """A built-in component."""
    offer = PluginSet.discover().find(kind, name)
    assert not hasattr(offer, "hint"), offer
    return offer.component


def context(
    *, vocabulary: str | None = None, training: bool = False, device: str = "cpu", seed: int = 0
) -> BuildContext:
    """A context whose character tokenizer knows `vocabulary`; "<unk>" comes on top as id 0."""
    bare = BuildContext(folder=Path.cwd(), requested_device=device, seed=seed, training=training)
    if vocabulary is None:
        return bare
    char = component("tokenizer", "char")
    tokenizer = char.build(char.config(), bare)
    tokenizer.fit([vocabulary])
    return attrs.evolve(bare, tokenizer=tokenizer)


def make(kind: str, name: str, context: BuildContext, **options: Any) -> Any:
    """Build a component with options."""
    made = component(kind, name)
    return made.build(made.config(**options), context)


def letters(count: int) -> str:
    """So many different characters."""
    return "".join(chr(0x4E00 + i) for i in range(count))
