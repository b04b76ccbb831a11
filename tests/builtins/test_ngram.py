"""The contracts of the model, its decoder and its trainer."""

from __future__ import annotations

import json
import threading
import tomllib
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from counted import CONTEXT, HELD_OUT, count, dataset, pipeline

from textgen import ContractError, Engine, Interrupted, PluginSet, Run, UsageError
from textgen.protocols import Model
from textgen.runs.directory import RunDirectory
from textgen.runs.record import described, pipeline_text
from textgen_builtins.models.ngram.counting import CountTrainer
from textgen_builtins.models.ngram.model import NgramModel

TOKENS = np.random.default_rng(7).integers(0, 11, 3000) // np.array([1, 2, 3] * 1000)


@pytest.fixture(scope="module", params=[(11, 1), (11, 2), (11, 5), (60_000, 4)], ids=str)
def model(request: pytest.FixtureRequest) -> Model:
    size, order = request.param
    return count(TOKENS[:600] if size > 11 else TOKENS, size, order)


def test_step_by_step_in_one_go_and_scored_are_the_same(model: Model) -> None:
    fed = TOKENS[:66].reshape(3, 22)
    scored = model.decoder(3).score(fed)
    stepped = model.decoder(3)
    for t in range(22):
        np.testing.assert_array_equal(stepped.extend(fed[:, t : t + 1]), scored[:, t])
    np.testing.assert_array_equal(model.decoder(3).extend(fed), scored[:, -1])
    np.testing.assert_array_equal(stepped.extend(fed[:, :0]), scored[:, -1])
    resumed = model.decoder(3)
    resumed.extend(fed[:, :9])
    np.testing.assert_array_equal(resumed.score(fed[:, 9:]), scored[:, 9:])


def test_a_row_is_the_same_alone_and_in_any_batch(model: Model) -> None:
    fed = TOKENS[100:400].reshape(20, 15)
    together, scored = model.decoder(20), model.decoder(20).score(fed)
    alone = [model.decoder(1) for _ in fed]
    for t in range(15):
        rows = together.extend(fed[:, t : t + 1])
        for i, decoder in enumerate(alone):
            np.testing.assert_array_equal(decoder.extend(fed[i : i + 1, t : t + 1])[0], rows[i])
            np.testing.assert_array_equal(scored[i, t], rows[i])


def test_state_forks_and_drops_rows(model: Model) -> None:
    decoder = model.decoder(2)
    decoder.extend(np.array([[1, 2, 3], [3, 2, 1]]))
    state = decoder.read_state()
    after = decoder.extend(np.array([[4], [4]])).copy()
    fork = model.decoder(1)
    fork.write_state({name: array[[1, 0, 1]] for name, array in state.items()})
    assert fork.batch_size == 3
    np.testing.assert_array_equal(fork.extend(np.array([[4], [4], [4]])), after[[1, 0, 1]])
    if len(model.tensors()["keys"]) > 11:
        with pytest.raises(ValueError, match="numbers from 0 to"):
            fork.write_state({"context": np.array([1 << 40])})


def test_before_training_every_token_is_equally_likely() -> None:
    model = NgramModel(3, 4)
    np.testing.assert_allclose(
        np.exp(model.decoder(2).extend(np.array([[1, 2], [0, 0]]))), 0.25, rtol=1e-15
    )
    np.testing.assert_allclose(np.exp(model.decoder(1).score(np.array([[1, 2]]))), 0.25, rtol=1e-15)


def test_weights_make_the_same_model_again(model: Model) -> None:
    assert isinstance(model, NgramModel)
    again = NgramModel(model.order, model.trie.vocab_size)
    again.load_tensors(model.tensors())
    fed = TOKENS[None, :50]
    np.testing.assert_array_equal(again.decoder(1).score(fed), model.decoder(1).score(fed))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keys": None}, "the weights are counts, sizes"),
        ({"counts": np.zeros(3, np.int32)}, "counts is int32"),
        ({"counts": np.ones(3, np.int64)}, "do not fit together"),
        ({"sizes": np.ones(9, np.int64)}, "up to order 9, and the model's order is 2"),
    ],
)
def test_refuses_weights_of_something_else(change: dict[str, Any], message: str) -> None:
    tensors = count(TOKENS, 11, 2).tensors() | change
    with pytest.raises(ValueError, match=message):
        NgramModel(2, 11).load_tensors(
            {name: array for name, array in tensors.items() if array is not None}
        )


@pytest.mark.parametrize("damage", ["order", "count", "parent", "suffix"])
def test_refuses_counts_that_contradict_each_other(damage: str) -> None:
    tensors = {name: array.copy() for name, array in count(TOKENS, 11, 3).tensors().items()}
    if damage == "order":
        tensors["keys"][[0, 1]] = tensors["keys"][[1, 0]]
    elif damage == "count":
        tensors["counts"][5] = 0
    elif damage == "parent":
        tensors["keys"][-1] = 11**6
    else:  # "0 0" is there, and no 0
        tensors = {
            "keys": np.array([1, 11]),
            "counts": np.array([1, 1]),
            "sizes": np.array([1, 1, 0]),
        }
    model = NgramModel(3, 11)
    with pytest.raises(ValueError, match=r"rise|below 1|go on from|ends in"):
        model.load_tensors(tensors)


@pytest.fixture(scope="module")
def ngram_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("ngram")
    return Engine().run(
        pipeline(folder, {"type": "ngram", "order": 3}, {"type": "count"}), output=folder / "run"
    )


@pytest.mark.parametrize("stop", [0, 1, 3, 4, 5])
def test_training_goes_on_exactly_from_every_yield(stop: int) -> None:
    data, whole = dataset(TOKENS, 11), NgramModel(4, 11)
    events = list(CountTrainer().train(whole, data, CONTEXT))
    trainer, model = CountTrainer(), NgramModel(4, 11)
    training = trainer.train(model, data, CONTEXT)
    first = [next(training) for _ in range(stop)]
    resumed, fresh = CountTrainer(), NgramModel(4, 11)
    resumed.load_state(trainer.state())
    fresh.load_tensors(model.tensors())
    assert first + list(resumed.train(fresh, data, CONTEXT)) == events
    for name, array in whole.tensors().items():
        np.testing.assert_array_equal(fresh.tensors()[name], array)


def test_losses_are_those_of_models_of_each_order(ngram_run: Run) -> None:
    data = dataset(TOKENS, 11)
    *steps, last = CountTrainer().train(NgramModel(4, 11), data, CONTEXT)
    for event in steps:
        model = count(TOKENS, 11, event.step)
        rows = model.decoder(1).score(data.training[None, :-1])[0]
        loss = -rows[np.arange(len(rows)), data.training[1:]].mean(dtype=np.float64)
        assert event.loss == pytest.approx(loss, rel=1e-5)
    assert last.training_loss == steps[-1].loss
    record = json.loads((ngram_run.path / "run.json").read_text())
    assert record["best_loss"] == pytest.approx(ngram_run.generator.score(HELD_OUT).loss, rel=1e-5)


def test_an_interrupted_run_ends_as_one_that_was_not(tmp_path: Path, ngram_run: Run) -> None:
    tables = pipeline(
        tmp_path, {"type": "ngram", "order": 3}, {"type": "count"}, checkpoint={"seconds": 0}
    )
    asked = iter([False, True])
    with pytest.raises(Interrupted):
        Engine().run(tables, output=tmp_path / "run", cancelled=lambda: next(asked))
    run = Engine().run(tables, output=tmp_path / "run")
    assert run.outcome == "resumed"
    name = "model.safetensors"
    assert (run.path / name).read_bytes() == (ngram_run.path / name).read_bytes()


def test_a_trainer_and_a_model_that_do_not_fit_are_an_error_that_says_so(tmp_path: Path) -> None:
    tables = pipeline(tmp_path, {"type": "rnn", "hidden_size": 4}, {"type": "count"})
    with pytest.raises(UsageError, match='trainer \'count\' goes with model "ngram", given "rnn"'):
        Engine().run(tables, output=tmp_path / "run")


def _samplers() -> list[dict[str, Any]]:
    """A table for every sampler that is installed, with a value for each required option."""
    values = {int: 3, float: 0.5, str: "a", dict[str, float]: {"e": 1.0}}
    tables = []
    for offer in PluginSet.discover().offers("sampler"):
        if offer.name in ("json", "regex"):  # which end a text where it is complete
            continue
        required = {
            n: values[o.type]
            for n, o in offer.component.options().items()
            if o.default is attrs.NOTHING
        }
        tables.append({"type": offer.qualified_name, **required})
    return tables


@pytest.mark.parametrize("table", _samplers(), ids=lambda table: table["type"])
def test_generates_through_every_sampler(ngram_run: Run, table: dict[str, Any]) -> None:
    generator = Engine().load(ngram_run.path, sampler=[table])
    text = generator.generate("The ", max_new_tokens=50)
    assert len(text.tokens) == 50
    assert "".join(generator.stream("The ", max_new_tokens=50)) == text.text


def test_threads_share_a_model(ngram_run: Run) -> None:
    generator = Engine().load(ngram_run.path)
    expected = [generator.generate(max_new_tokens=80, index=i).text for i in range(8)]
    fresh = Engine().load(ngram_run.path)  # its table is not made yet
    found: dict[int, str] = {}
    threads = [
        threading.Thread(
            target=lambda i=i: found.update({i: fresh.generate(max_new_tokens=80, index=i).text})
        )
        for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i] for i in range(8)] == expected


def test_damaged_counts_are_blamed_on_the_plugin(tmp_path: Path, ngram_run: Run) -> None:
    tables = pipeline(tmp_path, {"type": "ngram", "order": 2}, {"type": "count"})
    run = Engine().run(tables, output=tmp_path / "run")
    tables = tomllib.loads(
        (run.path / "pipeline.toml").read_text().replace("order = 2", "order = 1")
    )
    (run.path / "pipeline.toml").write_bytes(pipeline_text(tables))
    directory = RunDirectory(run.path)
    directory.write_run(described(tables, directory.read_run()))
    with pytest.raises(ContractError, match=r"model 'ngram' refuses the weights"):
        Engine().load(run.path)
