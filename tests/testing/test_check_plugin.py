"""`check_plugin` and the statements it checks, as a plugin author meets them."""

import os
from types import ModuleType

import attrs
import numpy as np
import pytest
from broken import refuse
from checking import LIGHT, PLUGIN, raising
from components import plugin_of
from good import GOOD, Corpus, Model, Observer, Tokenizer, Trainer, offered

import textgen
from textgen import testing
from textgen.errors import CorpusError, PipelineError, PluginError, UsageError
from textgen.testing import ContractFailure


@pytest.mark.slow
def test_check_plugin_checks_all_that_is_not_left_out(tmp_path, monkeypatch):
    (tmp_path / "plugin_of_three.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)

    def checked(**arguments):
        outcomes = testing.check_plugin("plugin_of_three", **arguments)
        return {o.component.split()[1] for o in outcomes if o.status == "ok"}

    assert checked(leave_out=["needy"]) == {"'halve'", "'watch'"}
    assert checked(options={"needy": {"size": 3}}) == {"'halve'", "'watch'", "'needy'"}
    no_such = "'neady', .*; did you mean 'needy'"
    unchecked = r"needy\.size\. .*leave_out=\["
    for error, arguments, said in (
        (UsageError, {}, unchecked),
        (UsageError, {"options": {"neady": {"size": 3}}}, no_such),
        (UsageError, {"leave_out": ["neady"]}, f"leave_out has {no_such}"),
        (
            PipelineError,
            {"options": {"needy": {"sise": 3}}},
            "(?s)2 faults\n.*sise: ",
        ),
    ):
        with pytest.raises(error, match=said):
            checked(**arguments)


def test_check_plugin_refuses_what_is_none():
    with pytest.raises(PluginError):
        testing.check_plugin(type("Unmarked", (), {"textgen_samplers": staticmethod(list)}))
    with pytest.raises(UsageError):
        testing.check_plugin(plugin_of(sampler=[]))
    with pytest.raises(UsageError, match="did you mean 'sampler'"):
        testing.check("samplers", offered(Tokenizer))


def check_alone(kind, **parts):
    """Check the component `good` of one kind of a plugin that is imported in no time."""
    module = ModuleType(LIGHT)
    vars(module).update(vars(plugin_of(**parts)))
    others = {name for name in parts if name != kind}
    return testing.check_plugin(module, leave_out=[*(f"{name}:good" for name in others)])


def but(base, **changes):
    return [offered(type("But", (base,), changes))]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("tokenizer", "corpus"),
        ("trainer", "model"),
    ],
)
def test_check_plugin_says_what_has_no_counterpart(kind, said):
    parts = {
        "corpus": [GOOD["corpus"]],
        "tokenizer": but(Tokenizer, fit=refuse),
        "model": [GOOD["model"]],
        "trainer": but(Trainer, train=refuse),
    }
    with pytest.raises(UsageError, match=f"not checked: .*no {said} "):
        check_alone(kind, **parts)


def open_root(self, context):
    """As a package does that looks where the disk begins."""
    os.close(os.open("/", os.O_RDONLY))


@pytest.mark.unix
def test_a_component_may_open_the_root_of_the_disk():
    check_alone("corpus", corpus=but(Corpus, __init__=open_root))


def test_what_cannot_be_built_or_read_here_was_not_checked():
    for kind, base, error in (
        ("corpus", Corpus, CorpusError("gone")),
        ("observer", Observer, UsageError("gone")),
    ):
        with pytest.raises(UsageError, match="gone"):
            check_alone(kind, **{kind: but(base, __init__=raising(error))})


class DigitTokenizer(Tokenizer):
    unknown_id = 99

    def fit(self, pieces):
        super().fit(pieces)
        if "e" in str(self.characters):
            raise UsageError("digits alone")


def spoil(self, model, data, context):
    if hasattr(model, "forward"):
        raise UsageError("no network")
    model.weights[:] = np.nan
    yield from ()


@pytest.mark.parametrize(
    ("kind", "anchor"),
    [
        ("tokenizer", "tokenizer-fit"),
        ("model", "model-logits"),
        ("trainer", "trainer-events"),
    ],
)
def test_check_plugin_finds_the_counterpart_in_the_same_package(kind, anchor):
    """The statement can only be broken with the counterpart that fits."""
    with pytest.raises(ContractFailure) as caught:
        check_alone(
            kind,
            corpus=but(Corpus, read=lambda self: iter(["1 2 3\n" * 400])),
            tokenizer=but(DigitTokenizer),
            model=[GOOD["model"]],
            trainer=but(Trainer, train=spoil),
        )
    assert caught.value.statement.anchor == anchor


class Weightless(Model):
    """Has nothing to learn."""

    def __init__(self, context):
        self.weights = np.eye(context.vocab_size)

    def tensors(self):
        return {}

    def load_tensors(self, tensors):
        if tensors:
            raise ValueError("there are no weights")


def train_nothing(self, model, data, context):
    if model.tensors():
        raise UsageError("only models without weights")
    yield from Trainer.train(self, model, data, context)


def test_a_trainer_of_a_model_without_weights_need_not_lower_the_loss():
    no_update = {"train": train_nothing, "update": lambda self, model, goal: None}
    outcomes = check_alone("trainer", model=but(Weightless), trainer=but(Trainer, **no_update))
    skipped = [each.statement.anchor for each in outcomes if each.status == "skipped"]
    assert "trainer-losses" in skipped


@pytest.mark.parametrize(
    ("kind", "base", "method"),
    [
        ("tokenizer", Tokenizer, "fit"),
        ("model", Model, "__init__"),
        ("trainer", Trainer, "__init__"),
        ("trainer", Trainer, "train"),
    ],
)
def test_what_raises_while_its_counterpart_is_sought_fails(kind, base, method):
    with pytest.raises(ContractFailure) as caught:
        check_alone(kind, **{kind: but(base, **{method: lambda self, *_: 1 / 0})})
    assert "ZeroDivisionError" in str(caught.value)


def needing(part):
    """A trainer of runs or documents alone: of what has this in its vocabulary."""

    class Needing(Trainer):
        def __init__(self, context):
            if part not in str(context.tokenizer.to_dict()):
                raise UsageError(f"no {part} in this vocabulary")

        def done(self, data):
            return attrs.evolve(super().done(data), loss=np.log(data.vocab_size))

    return offered(Needing)


def test_a_corpus_a_tokenizer_or_a_run_make_a_component_checkable(tmp_path):
    """Which is a failure to be checked without, and says why."""
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"text": "Queens at the door."}\n' * 50)
    textgen.train(
        corpus="Zebras and zephyrs. " * 40,
        model={"type": "rnn", "hidden_size": 4},
        trainer={"type": "sgd", "length": "1 step"},
        output=tmp_path / "run",
    )
    for part, pipeline in {
        "Q": {"corpus": {"type": "file", "path": str(lines)}},
        "Z": {"model": {"start": str(tmp_path / "run")}},
        "merges": {"tokenizer": {"type": "bpe"}},
    }.items():
        with pytest.raises(UsageError, match=f"no {part} "):
            testing.check("trainer", needing(part), plugin=LIGHT)
        outcomes = testing.check("trainer", needing(part), plugin=LIGHT, pipeline=pipeline)
        assert {outcome.status for outcome in outcomes} == {"ok"}
