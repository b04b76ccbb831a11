"""Texts, torch modules and other objects in place of components of plugins."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from components import Recorder, Utf8
from networks import Recurrent
from raising import raises
from small_run import TEXT

import textgen
from textgen.events import RunFinished, StepDone
from textgen.gradient import GradientModel, GradientOptions, GradientTrainer

SGD = {"type": "sgd", "length": "2 epochs", "batch_size": 16}
COUNTED = {"model": {"type": "ngram", "order": 4}, "trainer": "count"}
DIGITS = "".join(filter(str.isdigit, TEXT)) * 6
TABLES = {
    "model": {"type": "rnn", "hidden_size": 8},
    "trainer": SGD,
    "data": {"window_length": 16},
    "device": "cpu",
}


class Net(Recurrent):
    """A GRU that knows nothing of textgen, for bytes."""

    def __init__(self, vocab_size=256):
        super().__init__(vocab_size)


class Offering(Net):
    """All that a module may offer beside `forward`."""

    distributed = False

    def parameter_roles(self):
        return {"head.weight": "head"}

    def set_dropout_seed(self, seed):
        self.scale = 1 + seed % 5

    def set_rows(self, first, total):
        self.total = total

    def token_losses(self, tokens, targets, state=None):
        logits, after = self(tokens, state)
        losses = torch.nn.functional.cross_entropy(logits.mT, targets, reduction="none")
        return losses * (self.scale * len(tokens) / self.total if self.training else 1), after


class Inheriting(Offering, GradientModel):
    """The same, made for textgen."""


class Lines:
    """A corpus."""

    def read(self):
        return (f"line {n} of many\n" for n in range(60))


def spelling(text):
    """A sampler that leaves the bytes of a text alone, one after the other, again and again."""
    data = text.encode()

    def spell(logits, history):
        changed = np.full_like(logits, -np.inf)
        for row, step in enumerate(history.lengths):
            changed[row, data[step % len(data)]] = 0
        return changed

    return spell


@pytest.fixture(autouse=True)
def _own_temporary_folder(tmp_path, monkeypatch):
    """Nothing is left on the disk."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    monkeypatch.chdir(place)
    yield
    assert [path for path in place.iterdir() if not path.name.startswith("torch")] == []


def train(**changes):
    """A run with a text, and what else is given."""
    return textgen.train(**{"corpus": TEXT, **TABLES, **changes})


def test_a_training_in_memory_that_is_cancelled_gives_the_model_as_it_is(tmp_path):
    steps = []

    def watch(event):
        if isinstance(event, StepDone):
            steps.append(event.step)

    options = {"observers": [watch], "generate": {"max_new_tokens": 5}}
    run = train(cancelled=lambda: len(steps) == 3, **options)
    assert (run.path, run.outcome, run.generations) == (None, "interrupted", ())
    assert run.generator.record["step"] == 3
    assert run.generator.model_id != train().generator.model_id
    run.save(tmp_path / "run")
    loaded = textgen.load(tmp_path / "run")
    assert loaded.generate("Once").text == run.generator.generate("Once").text


def test_a_text_trains_a_model_in_memory():
    run = train(sampler={"type": "top-k", "k": 3})
    assert (run.path, run.outcome, run.generations) == (None, "trained", ())
    assert set(run.generator.generate("Once", max_new_tokens=20).text) <= set(TEXT)
    assert len(run.generator.chain.links) == 1
    assert run.generator.copy_finder().report(TEXT[:40]).longest == 40


def test_it_is_what_a_run_of_the_same_pipeline_makes(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    corpus = {"type": "file", "path": str(tmp_path / "text.txt")}
    tables = {**TABLES, "tokenizer": {"type": "char"}, "corpus": corpus}
    asked = {"seed": 5, "generate": {"max_new_tokens": 30}}
    run = textgen.run({**tables, **asked}, output=tmp_path / "run")
    same = train(**asked)
    assert same.generations == run.generations
    assert same.generator.model_id == run.generator.model_id


def test_a_torch_module_is_trained_as_it_is():
    module = Net()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    generator = train(model=module, tokenizer=Utf8()).generator
    after = module.state_dict()
    assert not any(torch.equal(after[name], tensor) for name, tensor in before.items())
    text = generator.generate("Once", max_new_tokens=30).text
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()  # what becomes of the module is not the generator's concern
    assert generator.generate("Once", max_new_tokens=30).text == text
    assert generator.module() is not generator.module()


def test_what_a_module_offers_is_used_as_if_it_were_a_gradient_model():
    runs, roles = {}, {}
    for cls in (Net, Offering, Inheriting):

        def make(weights, cls=cls):
            roles[cls] = weights.roles
            return torch.optim.SGD(weights, lr=0.5)

        trainer = GradientTrainer(GradientOptions(length="6 steps", batch_size=8), make)
        torch.manual_seed(0)
        runs[cls] = train(model=cls(), tokenizer=Utf8(), trainer=trainer)
        assert type(runs[cls].generator.module()) is cls
    assert "head" not in roles[Net]
    assert (
        roles[Offering]
        == roles[Inheriting]
        == ("embedding", *["matrix"] * 2, *["vector"] * 2, "head", "vector")
    )
    assert len({run.generator.model_id for run in runs.values()}) == 2
    assert runs[Offering].generator.model_id == runs[Inheriting].generator.model_id
    assert GradientModel.of(Offering()).distributed is False


def test_a_function_makes_a_module_for_the_vocabulary(tmp_path):
    def net(context):
        torch.manual_seed(context.seed)
        return Net(vocab_size=context.vocab_size)

    run = train(model=net)
    run.save(tmp_path / "saved")
    loaded = textgen.load(tmp_path / "saved", model=net)
    assert np.array_equal(loaded.logits("Once"), run.generator.logits("Once"))


def test_every_kind_of_component_may_be_an_object(tmp_path):
    recorder = Recorder()

    def run():
        objects = {"corpus": Lines(), "tokenizer": Utf8(), "model": Net(), "observer": [recorder]}
        sampler = [spelling("e"), {"type": "temperature"}]
        tables = {**TABLES, **objects, "sampler": sampler, "generate": {"max_new_tokens": 5}}
        return textgen.run(tables, output=tmp_path / "run")

    first = run()
    assert first.generations[0].text == "eeeee"
    assert isinstance(recorder.events[-1], RunFinished)
    origins = {(c["kind"], c["distribution"]) for c in first.generator.record["components"]}
    objects = {(kind, "object") for kind in ("corpus", "tokenizer", "model", "sampler", "observer")}
    own = {(kind, "textgen-engine") for kind in ("trainer", "sampler", "observer")}
    assert origins == objects | own  # the default observers are beside the object
    again = run()
    assert (again.outcome, again.generations) == ("skipped", first.generations)


def test_a_text_is_given_again_for_the_report_on_copies(tmp_path):
    train(tokenizer=Utf8(), output=tmp_path / "run")
    Path("text.txt").write_text(TEXT)  # in the current folder
    for given, error in (
        ({}, textgen.PipelineError),
        ({"corpus": TEXT * 2}, textgen.CorpusError),
        ({"corpus": TEXT}, None),
        ({"corpus": {"type": "file", "path": "text.txt"}}, None),
    ):
        generator = textgen.load(tmp_path / "run", tokenizer=Utf8(), **given)
        if error:
            with pytest.raises(error):
                generator.copy_finder()
        else:
            assert generator.copy_finder().report("Once 3 ravens").longest == 13
    Path("text.txt").unlink()


def test_tokens_do_not_depend_on_how_a_text_comes_in_pieces():
    class Pairs(Utf8):
        """Two digits a token, as no white space ends them."""

        vocab_size = 11 * 11

        def encode(self, text):
            pairs = (text[i : i + 2].ljust(2, ":") for i in range(0, len(text), 2))
            return np.array([11 * ord(a) + ord(b) - 12 * ord("0") for a, b in pairs])

        def decode(self, ids):
            pairs = (divmod(i, 11) for i in ids.tolist())
            return "".join(chr(48 + each) for pair in pairs for each in pair).rstrip(":")

    class Pieces(Lines):
        def __init__(self, size):
            self.size = size

        def read(self):
            yield from (DIGITS[i : i + self.size] for i in range(0, len(DIGITS), self.size))

    made = [train(corpus=Pieces(size), tokenizer=Pairs(), **COUNTED) for size in (7, 999)]
    assert made[0].generator.model_id == made[1].generator.model_id


def test_a_tokenizer_without_an_incremental_decoder_streams_whole_characters():
    text = "é € 漢字 " * 9
    size = len(text.encode())
    generator = train(tokenizer=Utf8(), sampler=spelling(text)).generator
    pieces = list(generator.stream("Once", max_new_tokens=size))
    assert len(pieces) > 1
    assert "".join(pieces) == text
    unfinished = generator.generate(max_new_tokens=size - 3)
    assert unfinished.text == text.encode()[:-3].decode(errors="replace")


@pytest.mark.parametrize(
    ("changes", "argument", "word"),
    [
        ({"model": torch.nn.Linear}, "model", "Linear"),
        ({"tokenizer": object()}, "tokenizer", "'fit'"),
        ({"corpus": __file__}, "corpus", "read_text"),
        ({"trainer": torch.optim.SGD(Net().parameters())}, "trainer", "'train'"),
        ({"model": "rmn"}, "model.type", "'rnn'"),
        ({"data": {"window": 5}}, "data.window", "'windows'"),
        ({"threads": 0}, "threads", "1"),
        ({"corpus": 42}, "corpus", "table"),
        ({"corpus": ["a", 3]}, "corpus", "table"),
        ({"trainer": [SGD]}, "trainer", "table"),
        ({"sampler": [None]}, "sampler.0", "table"),
    ],
)
def test_what_cannot_be_a_component_is_an_error_before_any_work(changes, argument, word):
    with raises(textgen.UsageError, argument=argument) as caught:
        train(**changes)
    assert word in str(caught.value)


def test_what_fails_in_an_object_is_shown_with_its_line():
    def failing(logits, history):
        raise ZeroDivisionError

    with raises(textgen.ContractError, kind="sampler", component="failing") as caught:
        train(sampler=[failing])
    assert "test_objects.py:" in caught.value.cause


def test_text_that_a_tokenizer_loses_is_noticed(tmp_path):
    class Stopping(Utf8):
        def encode(self, text):
            return super().encode(text[:2500])

    with pytest.warns(UserWarning):
        train(tokenizer=Stopping(), output=tmp_path / "run", **COUNTED)
    data = json.loads((tmp_path / "run/run.json").read_text())["data"]
    assert data["lost_share"] == pytest.approx(1 - 2500 / len(TEXT))
