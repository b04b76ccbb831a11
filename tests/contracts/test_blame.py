"""What fails in a component is blamed on its plugin, as an error of the tree; what is broken harms
nothing else.
"""

import functools
import sys
import types
from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
import pytest
from components import engine_of, letters, make, plugin_of, with_odd
from raising import raises

import textgen
from textgen import Component, option
from textgen.events import Evaluated, StepDone
from textgen.plugin import Plugin
from textgen.protocols import TrainerState
from textgen_builtins.models.ngram.model import NgramDecoder, NgramModel
from textgen_builtins.tokenizers.char import CharTokenizer
from textgen_builtins.tokenizers.config import CharConfig


def leaving(*_):
    sys.exit()


def tokenizer(**changed):
    """One of characters, with other methods."""
    return type("Changed", (CharTokenizer,), changed)(CharConfig())


@attrs.frozen
class Reading:
    """A corpus that reads what a function gives."""

    give: Any

    def read(self):
        return self.give()


class Training:
    """A trainer of two steps."""

    def train(self, model, data, context):
        for step in (1, 2):
            yield StepDone(step=step, steps=2, epoch=1, loss=1.0, tokens=10)
        yield Evaluated(step=2, epoch=1, training_loss=1.0)

    def state(self):
        return TrainerState()

    def load_state(self, state):
        pass


def trainer(**changed):
    return type("Changed", (Training,), changed)()


def model(context, **changed):
    """A model that has counted nothing, and whose decoder has other methods."""
    made, decoder = NgramModel(1, context.vocab_size), type("Changed", (NgramDecoder,), changed)
    made.decoder = lambda batch_size: decoder(made, batch_size)
    return made


def gives(value):
    """A model of other logits."""
    extend = NgramDecoder.extend
    return functools.partial(model, extend=lambda *given: value(extend(*given)))


def without_forward(context):
    """A torch module whose `forward` is misspelt: torch raises, and no code of the plugin."""
    import torch

    from textgen.gradient import GradientModel

    return type("Changed", (torch.nn.Module, GradientModel), {})()


@attrs.frozen
class Announcing:
    """A sampler that says what of the history it reads."""

    history: str
    read: Callable[[Any], Any]

    def __call__(self, logits, history):
        return logits + 0 * self.read(history)


def broken(value):
    return lambda context: value


ROUND_TRIP = tokenizer(decode=lambda self, ids: CharTokenizer.decode(self, ids).replace("e", "i"))
LOADED = {"from_dict": lambda self, state: CharTokenizer(self.config, "eth")}

BLAMED = [
    # Corpora
    ("corpus", broken(Reading), "what `build` made is the class Reading itself"),
    ("corpus", broken(Reading(lambda: iter([b"a"]))), "yielded bytes from read"),
    ("corpus", broken(Reading(lambda: iter(["a\ud800"]))), r"half of a surrogate pair"),
    ("corpus", broken(Reading(lambda: None)), "gave None from read"),
    ("corpus", broken(Reading(leaving)), "test_blame.py:"),
    ("corpus", leaving, "cannot be built: SystemExit"),
    # Tokenizers
    ("tokenizer", broken(tokenizer(**LOADED)), "saved and loaded"),
    (
        "tokenizer",
        broken(tokenizer(to_dict=lambda self: {"a": set()})),
        "set is not JSON serializable",
    ),
    ("tokenizer", broken(tokenizer(to_dict=None)), "Changed, which has no method 'to_dict'"),
    (
        "tokenizer",
        broken(tokenizer(from_dict=lambda self, state: None)),
        "'NoneType' object has no attribute 'encode'",
    ),
    ("tokenizer", broken(tokenizer(fit=lambda self, pieces: {}["lost"])), "KeyError: 'lost' ("),
    ("tokenizer", broken(ROUND_TRIP), "fails its round trip"),
    (
        "tokenizer",
        broken(tokenizer(encode=lambda self, text: [1] * len(text))),
        "to list, and must",
    ),
    # Samplers
    ("sampler", broken(None), "what `build` made is of type NoneType"),
    ("sampler", lambda context: 1 / 0, "cannot be built: ZeroDivisionError"),
    ("sampler", lambda context: __import__("lost"), "No module named 'lost'"),
    ("sampler", broken(lambda logits: logits), "cannot be called with (logits, hist"),
    ("sampler", broken(lambda logits, history: None), "gave NoneType, and must give logits"),
    ("sampler", broken(lambda logits, history: logits - np.inf), "forbade every token"),
    ("sampler", broken(lambda logits, history: logits * np.nan), "gave NaN or infinite logits"),
    ("sampler", broken(Announcing("all", lambda history: 0)), "history"),
    ("sampler", broken(Announcing("none", lambda h: h.counts)), "announced that it reads"),
    (
        "sampler",
        broken(Announcing("counts", lambda h: h.tokens(0)[0])),
        "announced that it reads tokens",
    ),
    # Models
    ("model", gives(lambda logits: None), "gave NoneType, and must give logits of shape (1, "),
    ("model", gives(lambda logits: logits[:, :2]), "of shape (1, 2), and must give logits"),
    ("model", gives(np.float16), "gave float16 of shape (1, "),
    ("model", broken(types.SimpleNamespace(decoder=len)), "has no method 'tensors'"),
    ("model", without_forward, 'the required "forward" function'),
    ("model", functools.partial(model, write_state=None), "no method 'write_state'"),
    # Trainers and observers
    ("trainer", broken(trainer(train=lambda self, model, data, context: None)), "not iterable"),
    ("trainer", broken(trainer(train=lambda *_: iter([2.5]))), "yielded float from train"),
    ("trainer", broken(trainer(state=lambda self: {})), "gave dict from state"),
    ("trainer", broken(trainer(train=lambda self, model: None)), "called with (model, data, c"),
    ("observer", broken(types.SimpleNamespace(observe=lambda: 0)), "cannot be called with (event)"),
]


def run_odd(tables, observers=(), **parts):
    """A run with these parts."""
    return engine_of(**parts).run(with_odd(tables, *parts), observers=observers)


@pytest.mark.fault(30)
@pytest.mark.parametrize(
    ("kind", "build", "said"), BLAMED, ids=[f"{kind}-{said}" for kind, _, said in BLAMED]
)
def test_what_breaks_a_contract_is_blamed(kind, build, said, tiny_pipeline):
    events = []
    watching = types.SimpleNamespace(observe=events.append)
    with pytest.raises(textgen.ContractError) as caught:
        run_odd(tiny_pipeline(), [watching], **{kind: build})
    error = caught.value
    assert (error.kind, error.component) == (kind, "odd")
    assert error.plugin == Plugin("odd", "textgen-odd", "2.1")
    assert said in error.cause
    assert kind == "trainer" or events == []  # before a step is trained


def test_ids_beyond_the_vocabulary_are_found_wherever_they_are(tiny_pipeline):
    size = property(lambda self: CharTokenizer.vocab_size.fget(self) - 1)
    tables = tiny_pipeline(text="a quick model\n" * 300 + "zzz\n")
    with raises(textgen.ContractError, kind="tokenizer"):
        run_odd(tables, tokenizer=broken(tokenizer(vocab_size=size)))


def wrapping(dtype):
    """A tokenizer whose ids from 256 on become those of other characters."""

    def encode_pieces(self, pieces):
        for ids in CharTokenizer.encode_pieces(self, pieces):
            yield ids.astype(np.uint8).astype(dtype)

    def encode(self, text):
        nothing = np.empty(0, dtype)
        return np.concatenate([nothing, *self.encode_pieces([text])])

    return broken(tokenizer(encode_pieces=encode_pieces, encode=encode))


def test_ids_that_their_dtype_cannot_hold_are_refused(tiny_pipeline):
    with raises(textgen.ContractError, kind="tokenizer", component="odd"):
        run_odd(tiny_pipeline(text=letters(300) * 3), tokenizer=wrapping(np.uint8))


@pytest.mark.filterwarnings("ignore:.*outside the vocabulary")  # an id of 256 becomes 0
def test_a_text_that_comes_back_with_other_letters_is_warned_of(tiny_pipeline):
    with pytest.warns(textgen.PluginWarning, match="tokenizer 'odd'"):
        run_odd(tiny_pipeline(text=letters(300) * 3), tokenizer=wrapping(np.int64))


def test_a_tokenizer_may_change_case_and_accents(tiny_pipeline):
    def encode_pieces(self, pieces):
        plain = (piece.lower().replace("é", "e") for piece in pieces)
        return CharTokenizer.encode_pieces(self, plain)

    tables = tiny_pipeline(text="Le Café  du Xérès\n" * 200 + "abcdefghijklmnopqrstuvwxyz")
    odd = broken(tokenizer(encode_pieces=encode_pieces))
    assert run_odd(tables, tokenizer=odd).outcome == "trained"


def test_a_loss_that_is_no_number_names_its_trainer(tiny_pipeline):
    def train(self, model, data, context):
        for step, loss in ((1, 2.0), (2, float("nan"))):
            yield StepDone(step=step, steps=2, epoch=1, loss=loss, tokens=10, learning_rate=0.1)

    with raises(textgen.TrainingError, step=2) as caught:
        run_odd(tiny_pipeline(), trainer=broken(trainer(train=train)))
    assert "trainer 'odd'" in str(caught.value)


def test_weights_that_are_no_numbers_name_their_trainer(tiny_pipeline):
    def train(self, model, data, context):
        model.load_tensors({name: array * np.nan for name, array in model.tensors().items()})
        yield StepDone(step=1, steps=2, epoch=1, loss=2.0, tokens=10)
        yield Evaluated(step=1, epoch=1, training_loss=2.0)

    with raises(textgen.TrainingError, step=1) as caught:
        run_odd(tiny_pipeline(), trainer=broken(trainer(train=train)))
    assert "trainer 'odd'" in str(caught.value)


def test_a_corpus_that_draws_another_text_each_time_is_named(tiny_pipeline):
    numbers = iter(range(100))
    corpus = Reading(lambda: iter(["to and fro " * 99, f"{next(numbers)}"]))
    with pytest.raises(textgen.CorpusError) as caught:
        run_odd(tiny_pipeline(), corpus=broken(corpus))
    assert "corpus 'odd' of plugin 'odd' (textgen-odd" in str(caught.value)


def test_a_forward_that_gives_no_state_is_named(tiny_pipeline):
    def build(context):
        made = make("model", "rnn", context, hidden_size=4)
        good = type(made)
        changed = {"forward": lambda *given: good.forward(*given)[0]}
        made.__class__ = type("Stateless", (good,), changed)
        return made

    with raises(textgen.ContractError, kind="model", component="odd"):
        run_odd(tiny_pipeline(), model=build)


INNER = """
from textgen import Component, NoOptions, hookimpl

def build(config, context):
    return lambda logits, history: {}["lost"]

@hookimpl
def textgen_samplers():
    return [Component("inner", NoOptions, build)]
"""


@attrs.frozen
class Around:
    """A sampler around another."""

    inner: Any = option(kind="sampler", help="the other")


def test_of_a_component_of_one_plugin_in_that_of_another_the_inner_is_blamed(
    tmp_path, tiny_pipeline
):
    def build(config, context):
        inner = context.build(config.inner)
        return lambda logits, history: inner(logits, history)

    engine = engine_of(sampler=[Component("odd", Around, build)])
    (tmp_path / "other.py").write_text(INNER)
    engine.plugins().register_file(tmp_path / "other.py")
    tables = tiny_pipeline(sampler=[{"type": "odd", "inner": {"type": "inner"}}])
    with raises(textgen.ContractError, component="inner") as caught:
        engine.run(tables)
    assert caught.value.plugin.name == "other"
    assert "other.py:5" in caught.value.cause


def test_a_loss_that_is_not_a_number_names_all_who_may_be_at_fault(tiny_pipeline):
    step = StepDone(step=1, steps=1, epoch=1, loss=float("nan"), tokens=10)
    odd = broken(trainer(train=lambda *_: iter([step])))
    with raises(textgen.TrainingError, step=1) as caught:
        run_odd(tiny_pipeline(), trainer=odd)
    for component in ("model 'rnn'", "trainer 'odd' of plugin 'odd' (textgen-odd 2.1)"):
        assert component in str(caught.value)


def test_a_run_finds_its_own_packages_component_when_another_takes_the_name(tiny_pipeline):
    engine = engine_of(tokenizer=broken(tokenizer()))
    run = engine.run(with_odd(tiny_pipeline(), "tokenizer"))
    other = plugin_of(tokenizer=leaving)
    engine.plugins().register(other, "other", distribution="textgen-other", version="1.0")
    again, first = (
        made.generate("", max_new_tokens=5) for made in (engine.load(run.path), run.generator)
    )
    assert again.text == first.text


def test_what_fails_in_a_sample_costs_no_training(tiny_pipeline):
    def failing(logits, history):
        return {}["late"] if history.lengths.max() > 5 else logits

    tables, parts = tiny_pipeline(observers=True), {"sampler": broken(failing)}
    with (
        pytest.warns(textgen.PluginWarning, match="sampler 'odd'") as warned,
        raises(textgen.ContractError, kind="sampler", component="odd"),
    ):
        run_odd(tables, **parts)
    assert len(warned) == 1
    with engine_of(**parts).load(tables["output"], sampler=[]) as generator:
        assert generator.record["status"] == "finished"
        assert len(generator.generate("the", max_new_tokens=10).tokens) == 10
