"""Generators whose samplers or decoders are watched: what they are fed, how often, and when."""

from __future__ import annotations

import threading
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs

from textgen import (
    Component,
    Engine,
    Generator,
    NoOptions,
    PluginSet,
    hookimpl,
    load,
)


@attrs.define(eq=False)
class Watcher:
    """A plugin with one sampler, which changes nothing, counts its calls and may be made to wait."""

    calls: int = 0
    histories: list[Any] = attrs.field(factory=list)
    begun: threading.Event = attrs.field(factory=threading.Event)
    gate: threading.Event | None = None

    @hookimpl
    def textgen_samplers(self) -> list[Component]:
        def sample(logits: Any, history: Any) -> Any:
            self.calls += 1
            self.histories.append(weakref.ref(history))
            self.begun.set()
            if self.gate is not None:
                assert self.gate.wait(60), "nobody opened the gate"
            return logits

        return [Component("watch", NoOptions, lambda config, context: sample)]


def watched(run: Path, **options: Any) -> tuple[Watcher, Generator]:
    watcher = Watcher(**options)
    plugins = PluginSet.discover()
    plugins.register(watcher, "watcher")
    return watcher, Engine(plugins).load(run, sampler=[{"type": "watch"}])


@attrs.define(eq=False)
class Counter:
    """Counts what a decoder is fed, and waits once it has been fed something."""

    fed: int = 0
    begun: threading.Event = attrs.field(factory=threading.Event)
    gate: threading.Event = attrs.field(factory=threading.Event)


def counting(run: Path) -> tuple[Counter, Generator]:
    """A generator whose model is that of a run, counted."""
    counter, inner = Counter(), load(run)

    class Model:
        def decoder(self, batch_size: int) -> Any:
            decoder = inner.model.decoder(batch_size)
            extend = decoder.extend

            def counted(tokens: Any) -> Any:
                if tokens.size:
                    counter.fed += tokens.size
                    counter.begun.set()
                    assert counter.gate.wait(60), "nobody opened the gate"
                return extend(tokens)

            return SimpleNamespace(
                extend=counted, read_state=decoder.read_state, write_state=decoder.write_state
            )

    return counter, attrs.evolve(inner, model=Model())
