"""Builds single components as a program that embeds textgen does, plugins of components, a
tokenizer and an observer.
"""

import functools
import types
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from textgen import BuildContext, Component, Engine, NoOptions, PluginSet, hookimpl
from textgen.plugin.component import HOOKS


@functools.cache
def component(kind, name):
    """A built-in component."""
    offer = PluginSet.discover().find(kind, name)
    assert not hasattr(offer, "hint"), offer
    return offer.component


def context(*, vocabulary=None, training=False, device="cpu", seed=0):
    """A context whose character tokenizer knows `vocabulary`; "<unk>" comes on top as id 0."""
    bare = BuildContext(folder=Path.cwd(), requested_device=device, seed=seed, training=training)
    return bare if vocabulary is None else attrs.evolve(bare, tokenizer=_fitted(vocabulary))


@functools.cache
def _fitted(vocabulary):
    char = component("tokenizer", "char")
    tokenizer = char.build(char.config(), context())
    tokenizer.fit([vocabulary])
    return tokenizer


def make(kind, name, context, **options):
    """Build a component with options."""
    made = component(kind, name)
    return made.build(made.config(**options), context)


def letters(count):
    """So many different characters."""
    return "".join(chr(0x4E00 + i) for i in range(count))


def plugin_of(**parts):
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


def _hook(offered):
    @hookimpl
    def hook():
        return offered

    return hook


def _odd(part):
    def build(config, context):
        return part(context)

    build.__module__ = getattr(part, "func", part).__module__  # which errors are traced to
    return Component("odd", NoOptions, build)


@attrs.define
class Recorder:
    """An observer that keeps the events of a run."""

    events: list[Any] = attrs.field(factory=list)

    def observe(self, event):
        self.events.append(event)

    def of(self, cls):
        return [event for event in self.events if isinstance(event, cls)]


class Utf8:
    """A tokenizer of bytes without a decoder of its own, so that textgen holds back what is not yet
    a whole character.
    """

    vocab_size = 256

    def fit(self, pieces):
        pass

    def encode(self, text):
        return np.frombuffer(text.encode(), np.uint8)

    def decode(self, ids):
        return np.asarray(ids, np.uint8).tobytes().decode(errors="replace")

    def to_dict(self):
        return {}

    def from_dict(self, state):
        return self


def with_odd(tables, *kinds):
    """A pipeline with `odd` as its component of these kinds."""
    odd = {"type": "odd"}
    return tables | {kind: [odd] if kind in ("sampler", "observer") else odd for kind in kinds}


def engine_of(**parts):
    """The built-in set, and the plugin `odd` of textgen-odd 2.1 with these parts."""
    plugins = PluginSet.discover()
    plugins.register(plugin_of(**parts), "odd", distribution="textgen-odd", version="2.1")
    return Engine(plugins)


def engine_with(path, plugin):
    """The built-in set, and a plugin that is written to a file."""
    path.write_text(plugin)
    plugins = PluginSet.discover()
    plugins.register_file(path)
    return Engine(plugins)
