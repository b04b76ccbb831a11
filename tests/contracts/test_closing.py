"""Every component that has something to close is closed, once, whatever happens."""

from typing import Any

import pytest
from components import engine_of, with_odd
from raising import raises

import textgen
from textgen import Engine
from textgen.events import StepDone, Stop

INNER = {
    "corpus": {"type": "story"},
    "tokenizer": {"type": "char"},
    "model": {"type": "rnn", "hidden_size": 4},
    "trainer": {"type": "sgd", "length": "1 epoch"},
    "sampler": {"type": "temperature"},
    "observer": {"type": "progress"},
}
OF_A_GENERATOR = ("model", "sampler", "tokenizer", "tokenizer")  # and what it was loaded by


class Wrapped:
    """A built-in component that writes down when it is closed."""

    def __init__(self, kind, inner, book):
        self.kind, self.inner, self.book = kind, inner, book
        self.closed = 0
        book.built.append(self)

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def __call__(self, *arguments):
        return self.inner(*arguments)

    def from_dict(self, state):
        return Wrapped(self.kind, self.inner.from_dict(state), self.book)

    def train(self, model, data, context):
        return self.inner.train(model.inner, data, context)

    def close(self):
        self.closed += 1
        if self.kind in self.book.failing:
            raise OSError("cannot let go")


class Closings:
    """What was built, and an engine whose components of all kinds take part."""

    def __init__(self, *failing):
        self.failing = failing
        self.built: list[Wrapped] = []
        self.engine = engine_of(**{kind: self.build(kind) for kind in INNER})

    def build(self, kind):
        return lambda context: Wrapped(
            kind, Engine(context.plugins).build(kind, INNER[kind], context), self
        )

    def check(self, *open_kinds):
        """Each was closed once, but for one each of the kinds that are still open."""
        assert {each.closed for each in self.built} <= {0, 1}
        left = [each.kind for each in self.built if not each.closed]
        assert sorted(left) == sorted(open_kinds)


@pytest.fixture
def tables(tmp_path):
    tables = {
        "data": {"window_length": 16, "windows": [40, 4]},
        "device": "cpu",
        "output": str(tmp_path / "run"),
        "generate": {"max_new_tokens": 5},
    }
    return with_odd(tables, *INNER)


def test_all_are_closed_once_when_a_run_or_its_generator_ends(tables, tmp_path):
    closings = Closings()
    run = closings.engine.run(tables)
    assert {each.kind for each in closings.built if each.closed} == {*INNER}
    closings.check(*OF_A_GENERATOR)
    assert len(run.generator.generate("The", max_new_tokens=3, temperature=0.5).text) == 3
    for _ in range(2):
        run.generator.close()
    closings.check()
    closings.engine.run(tables).generator.close()  # which is skipped
    closings.check()
    with closings.engine.load(tmp_path / "run") as generator:
        closings.check(*OF_A_GENERATOR)
        for number in range(1, 30):  # each a sampler of the request's own
            generator.generate("The", max_new_tokens=1, temperature=number)
        assert sum(not each.closed for each in closings.built) < 20
    closings.check()
    (tmp_path / "run/model.safetensors").write_bytes(b"spoilt")
    with pytest.raises(textgen.CorruptFileError):
        closings.engine.load(tmp_path / "run")
    closings.check()


def test_what_ends_a_run_early_closes_all_the_same(tables, tmp_path):
    class Observer:
        answer: Any = None

        def observe(self, event):
            if isinstance(event, StepDone) and self.answer is None:
                raise RuntimeError("no more")
            return self.answer

    closings, observer = Closings(), Observer()
    with raises(RuntimeError, args=("no more",)):
        closings.engine.run(tables, observers=[observer])
    closings.check()
    with pytest.raises(textgen.Interrupted):
        closings.engine.run(tables, cancelled=lambda: True)
    closings.check()
    with pytest.raises(textgen.CorpusError):
        closings.engine.run(tables, {"data.windows": [10**6, 0]}, output=tmp_path / "other")
    closings.check()
    observer.answer = Stop()
    closings.engine.run(tables, observers=[observer]).generator.close()
    closings.check()


def test_a_corpus_that_is_only_read_is_closed():
    closings = Closings()
    assert len("".join(closings.engine.read_corpus({"type": "odd"}))) > 1000
    closings.engine.read_corpus({"type": "odd"})  # nobody reads it
    closings.check()


def test_what_fails_to_close_is_a_warning_and_the_others_are_closed(tables):
    closings = Closings("model", "observer")
    with pytest.warns(textgen.PluginWarning) as warned:
        closings.engine.run(tables).generator.close()
    closings.check()
    assert {str(each.message).partition(" ")[0] for each in warned} == {"model", "observer"}


def test_what_the_caller_made_the_caller_closes(tables):
    class Own:
        def observe(self, event):
            pass

        def close(self):
            raise AssertionError

    textgen.run({**tables, **INNER, "sampler": [], "observer": []}, observers=[Own()])
