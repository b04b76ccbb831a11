"""Every component that has something to close is closed, once, whatever happens."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import textgen
from textgen import Component, NoOptions
from textgen.events import StepDone, Stop
from textgen.plugin.component import HOOKS

KINDS = ("corpus", "tokenizer", "model", "trainer", "sampler", "observer")
INNER = {
    "corpus": {"type": "story"},
    "tokenizer": {"type": "char"},
    "model": {"type": "rnn", "hidden_size": 4},
    "trainer": {"type": "sgd", "length": "1 epoch"},
    "sampler": {"type": "temperature"},
    "observer": {"type": "progress"},
}


class Wrapped:
    """A built-in component that writes down when it is closed."""

    def __init__(self, kind: str, inner: Any, book: Closings) -> None:
        self.kind, self.inner, self.book = kind, inner, book
        book.built.append(self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __call__(self, *arguments: Any) -> Any:
        return self.inner(*arguments)

    def from_dict(self, state: Any) -> Any:
        return Wrapped(self.kind, self.inner.from_dict(state), self.book)

    def train(self, model: Any, data: Any, context: Any) -> Any:
        return self.inner.train(model.inner, data, context)

    def close(self) -> None:
        self.book.closed.append(self)
        if self.kind in self.book.failing:
            raise OSError("cannot let go")


class Closings:
    """What was built and closed, and a plugin of all kinds whose components take part."""

    def __init__(self, *failing: str) -> None:
        self.failing = failing
        self.built: list[Wrapped] = []
        self.closed: list[Wrapped] = []

    def plugin(self) -> Any:
        return type(
            "Plugin",
            (),
            {hook: self._hook(hook, kind) for hook, kind in HOOKS.items() if kind in KINDS},
        )

    def _hook(self, hook: str, kind: str) -> Any:
        def build(config: Any, context: textgen.BuildContext) -> Any:
            return Wrapped(
                kind, textgen.Engine(context.plugins).build(kind, INNER[kind], context), self
            )

        def offer() -> list[Component]:
            return [Component("wrapped", NoOptions, build)]

        offer.__name__ = hook
        return staticmethod(textgen.hookimpl(offer))

    def engine(self) -> textgen.Engine:
        plugins = textgen.PluginSet.discover()
        plugins.register(self.plugin(), "wrapped")
        return textgen.Engine(plugins)

    def check(self, *open_kinds: str) -> None:
        """Each was closed once, but for one each of the kinds that are still open."""
        assert {id(each) for each in self.closed} <= {id(each) for each in self.built}
        assert not [each for each in Counter(map(id, self.closed)).values() if each > 1]
        left = [each.kind for each in self.built if all(each is not other for other in self.closed)]
        assert sorted(left) == sorted(open_kinds)


def tables(folder: Path) -> dict[str, Any]:
    wrapped = {"type": "wrapped"}
    return {
        **dict.fromkeys(KINDS[:4], wrapped),
        "sampler": [wrapped],
        "observer": [wrapped],
        "data": {"window_length": 16, "windows": [40, 4]},
        "device": "cpu",
        "output": str(folder / "run"),
        "generate": {"max_new_tokens": 5},
    }


def test_all_are_closed_once_when_a_run_ends(tmp_path: Path) -> None:
    closings = Closings()
    run = closings.engine().run(tables(tmp_path))
    assert {each.kind for each in closings.closed} == set(KINDS)
    closings.check(
        "model", "sampler", "tokenizer", "tokenizer"
    )  # those of Run.generator, and what it was loaded by
    assert (
        len(run.generator.generate("The", max_new_tokens=3, temperature=0.5).text) == 3
    )  # with a chain of its own
    run.generator.close()
    run.generator.close()
    closings.check()


def test_a_skipped_run_closes_what_it_built(tmp_path: Path) -> None:
    closings = Closings()
    engine = closings.engine()
    engine.run(tables(tmp_path)).generator.close()
    engine.run(tables(tmp_path)).generator.close()
    closings.check()


def test_the_end_of_a_with_block_closes_a_generator(tmp_path: Path) -> None:
    closings = Closings()
    engine = closings.engine()
    engine.run(tables(tmp_path)).generator.close()
    with engine.load(tmp_path / "run") as generator:
        closings.check("model", "sampler", "tokenizer", "tokenizer")
        assert len(generator.generate("The", max_new_tokens=3).text) == 3
    closings.check()


def test_what_ends_a_run_early_closes_all_the_same(tmp_path: Path) -> None:
    class Observer:
        answer: Any = None

        def observe(self, event: Any) -> Any:
            if isinstance(event, StepDone) and self.answer is None:
                raise RuntimeError("no more")
            return self.answer

    closings, observer = Closings(), Observer()
    engine = closings.engine()
    with pytest.raises(RuntimeError, match="no more"):
        engine.run(tables(tmp_path), observers=[observer])
    closings.check()
    with pytest.raises(textgen.Interrupted):
        engine.run(tables(tmp_path), cancelled=lambda: True)
    closings.check()
    with pytest.raises(textgen.CorpusError, match="windows"):
        engine.run(tables(tmp_path), {"data.windows": [10**6, 0]}, output=tmp_path / "other")
    closings.check()
    observer.answer = Stop()
    engine.run(tables(tmp_path), observers=[observer]).generator.close()
    closings.check()


def test_a_load_that_fails_closes_what_it_built(tmp_path: Path) -> None:
    closings = Closings()
    engine = closings.engine()
    engine.run(tables(tmp_path)).generator.close()
    (tmp_path / "run/model.safetensors").write_bytes(b"spoilt")
    with pytest.raises(textgen.CorruptFileError):
        engine.load(tmp_path / "run")
    closings.check()


def test_a_corpus_that_is_only_read_is_closed(tmp_path: Path) -> None:
    closings = Closings()
    assert len("".join(closings.engine().read_corpus({"type": "wrapped"}))) > 1000
    closings.engine().read_corpus({"type": "wrapped"})  # nobody reads it
    closings.check()


def test_what_fails_to_close_is_a_warning_and_the_others_are_closed(tmp_path: Path) -> None:
    closings = Closings("model", "observer")
    with pytest.warns(textgen.PluginWarning) as warned:
        closings.engine().run(tables(tmp_path)).generator.close()
    closings.check()
    said = [str(warning.message) for warning in warned]
    for kind in ("model", "observer"):
        begins = f"{kind} 'wrapped' of plugin 'wrapped'"
        assert any(
            text.startswith(begins) and "failed in close: OSError: cannot let go" in text
            for text in said
        )


def test_what_the_caller_made_the_caller_closes(tmp_path: Path) -> None:
    class Own:
        def observe(self, event: Any) -> None:
            pass

        def close(self) -> None:
            raise AssertionError

    textgen.run({**tables(tmp_path), **INNER, "sampler": [], "observer": []}, observers=[Own()])
