"""Generators whose sampler or decoder is watched: what they are fed, how often, and when."""

import itertools
import threading
import weakref
from types import SimpleNamespace
from typing import Any

import attrs

from textgen import load


def failing_at(run, call):
    """A generator whose sampler fails at its call of that number."""
    calls = itertools.count()

    def sample(logits, history):
        if next(calls) == call:
            raise KeyError("lost")
        return logits

    return load(run, sampler=sample)


@attrs.define(eq=False)
class Watcher:
    """Counts the calls of a sampler that changes nothing, or of a decoder; `gate` holds the first
    one up.
    """

    gate: threading.Event = attrs.field(factory=threading.Event)
    begun: threading.Event = attrs.field(factory=threading.Event)
    calls: int = 0
    fed: int = 0
    sizes: list[int] = attrs.field(factory=list)
    histories: list[Any] = attrs.field(factory=list)

    def wait(self):
        self.begun.set()
        assert self.gate.wait(60), "nobody opened the gate"

    def sample(self, logits, history):
        self.calls += 1
        self.sizes.append(len(logits))
        self.histories.append(weakref.ref(history))
        self.wait()
        return logits


def watched(run, *, closed=False):
    """A generator with a watched sampler; its gate is open unless `closed`."""
    watcher = Watcher()
    if not closed:
        watcher.gate.set()
    return watcher, load(run, sampler=watcher.sample)


def counting(run):
    """A generator whose model is that of a run, with what it is fed counted, and a closed gate."""
    watcher, inner = Watcher(), load(run)

    class Model:
        def decoder(self, batch_size):
            decoder = inner.model.decoder(batch_size)

            def extend(tokens):
                if tokens.size:
                    watcher.fed += tokens.size
                    watcher.wait()
                return decoder.extend(tokens)

            return SimpleNamespace(
                extend=extend,
                score=decoder.score,
                read_state=decoder.read_state,
                write_state=decoder.write_state,
            )

    return watcher, attrs.evolve(inner, model=Model(), record={})  # nothing before a prompt


def scoring(run, watcher):
    """A generator whose model counts blocks of tokens that it scores as calls, and waits for the
    gate before the first.
    """
    inner = load(run)

    class Model:
        def decoder(self, batch_size):
            decoder = inner.model.decoder(batch_size)

            def score(tokens):
                watcher.calls += 1
                watcher.wait()
                return decoder.score(tokens)

            return SimpleNamespace(
                extend=decoder.extend,
                score=score,
                read_state=decoder.read_state,
                write_state=decoder.write_state,
            )

    return attrs.evolve(inner, model=Model())


async def text_of(stream):
    return "".join([piece async for piece in await stream])


def encoding(generator):
    """The generator, and what its tokenizer encodes, in which thread."""
    encoded = []

    class Noting:
        def __getattr__(self, name):
            return getattr(generator.tokenizer, name)

        def encode(self, text):
            encoded.append((text, threading.current_thread()))
            return generator.tokenizer.encode(text)

    return encoded, attrs.evolve(generator, tokenizer=Noting())


def join_background():
    """Wait until no thread of asynchronous streams has anything to do."""
    for thread in threading.enumerate():
        if thread.name == "textgen-generation":
            thread.join(60)
            assert not thread.is_alive()
