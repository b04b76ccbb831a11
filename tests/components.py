"""Builds single components as a program that embeds textgen does, plugins of components, a
tokenizer and an observer.
"""

from __future__ import annotations

import functools
import types
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from textgen import BuildContext, Component, Engine, NoOptions, PluginSet, hookimpl
from textgen.plugin.component import HOOKS


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
    return bare if vocabulary is None else attrs.evolve(bare, tokenizer=_fitted(vocabulary))


@functools.cache
def _fitted(vocabulary: str) -> Any:
    char = component("tokenizer", "char")
    tokenizer = char.build(char.config(), context())
    tokenizer.fit([vocabulary])
    return tokenizer


def make(kind: str, name: str, context: BuildContext, **options: Any) -> Any:
    """Build a component with options."""
    made = component(kind, name)
    return made.build(made.config(**options), context)


def letters(count: int) -> str:
    """So many different characters."""
    return "".join(chr(0x4E00 + i) for i in range(count))


def plugin_of(**parts: Any) -> Any:
    """A plugin.

    It offers a list of components of a kind, or the one component `odd` that `build(context)`
    makes.
    """
    hooks = {
        hook: _hook(part if isinstance(part, list) else [_odd(part)])
        for hook, kind in HOOKS.items()
        if (part := parts.get(kind)) is not None
    }
    return types.SimpleNamespace(**hooks)


def _hook(offered: list[Any]) -> Any:
    @hookimpl
    def hook() -> list[Any]:
        return offered

    return hook


def _odd(part: Any) -> Component:
    def build(config: NoOptions, context: BuildContext) -> Any:
        return part(context)

    build.__module__ = getattr(part, "func", part).__module__  # which errors are traced to
    return Component("odd", NoOptions, build)


@attrs.define
class Recorder:
    """An observer that keeps the events of a run."""

    events: list[Any] = attrs.field(factory=list)

    def observe(self, event: Any) -> None:
        self.events.append(event)

    def of(self, cls: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, cls)]


class Utf8:
    """A tokenizer of bytes without a decoder of its own, so that textgen holds back what is not yet
    a whole character.
    """

    vocab_size = 256

    def fit(self, pieces: Any) -> None:
        pass

    def encode(self, text: str) -> Any:
        return np.frombuffer(text.encode(), np.uint8)

    def decode(self, ids: Any) -> str:
        return np.asarray(ids, np.uint8).tobytes().decode(errors="replace")

    def to_dict(self) -> dict[str, Any]:
        return {}

    def from_dict(self, state: Any) -> Utf8:
        return self


def with_odd(tables: dict[str, Any], *kinds: str) -> dict[str, Any]:
    """A pipeline with `odd` as its component of these kinds."""
    odd = {"type": "odd"}
    return tables | {kind: [odd] if kind in ("sampler", "observer") else odd for kind in kinds}


def engine_of(**parts: Any) -> Engine:
    """The built-in set, and the plugin `odd` of textgen-odd 2.1 with these parts."""
    plugins = PluginSet.discover()
    plugins.register(plugin_of(**parts), "odd", distribution="textgen-odd", version="2.1")
    return Engine(plugins)
