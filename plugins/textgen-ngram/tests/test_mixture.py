"""The mixture of an n-gram model and a small recurrent network."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from conftest import HELD_OUT, TEXT, count, dataset, pipeline
from textgen_ngram.mixture_model import Mixture, Part
from textgen_ngram.mixture_trainer import WeightTrainer
from textgen_ngram.ngram_model import NgramModel

from textgen import (
    BuildContext,
    CorpusError,
    Engine,
    Interrupted,
    PipelineError,
    PluginSet,
    Run,
    RunMismatchError,
    UsageError,
)
from textgen.protocols import TrainingContext

RNN = {"type": "rnn", "hidden_size": 32, "cell": "gru"}
ADAMW = {"type": "adamw", "epochs": 4, "batch_size": 8, "order": "streams", "learning_rate": 0.01}


@pytest.fixture(scope="module")
def rnn_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("rnn")
    return Engine().run(pipeline(folder, RNN, ADAMW), output=folder / "run")


def mixture_of(folder: Path, first: Run, second: Run, **tables: Any) -> dict[str, Any]:
    model = {"type": "mixture", "first": str(first.path), "second": str(second.path)}
    return pipeline(folder, model, {"type": "mixture"}, **tables)


@pytest.fixture(scope="module")
def mixture_run(tmp_path_factory: pytest.TempPathFactory, ngram_run: Run, rnn_run: Run) -> Run:
    folder = tmp_path_factory.mktemp("mixture")
    return Engine().run(mixture_of(folder, ngram_run, rnn_run), output=folder / "run")


def test_predicts_held_out_text_better_than_either(ngram_run: Run, rnn_run: Run, mixture_run: Run) -> None:
    losses = [run.generator.score(HELD_OUT).loss for run in (ngram_run, rnn_run, mixture_run)]
    assert losses[2] < min(losses[:2]) - 0.005
    record = json.loads((mixture_run.path / "run.json").read_text())
    assert record["best_loss"] == pytest.approx(losses[2], rel=1e-9)


def test_the_weight_is_where_the_loss_is_least(mixture_run: Run) -> None:
    model = mixture_run.generator.model
    tensors = model.tensors()
    weight = float(tensors["weight"][0])
    assert 0.1 < weight < 0.99
    best = mixture_run.generator.score(HELD_OUT).loss
    for other in (weight - 0.01, weight + 0.01):
        model.load_tensors({**tensors, "weight": np.array([other])})
        assert mixture_run.generator.score(HELD_OUT).loss > best
    model.load_tensors(tensors)


def test_probabilities_are_the_weighted_mean(ngram_run: Run, rnn_run: Run, mixture_run: Run) -> None:
    fed = mixture_run.generator.tokenizer.encode(HELD_OUT[:60]).reshape(2, 30)
    first, second, mixed = (
        np.exp(logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True))
        for logits in (
            run.generator.model.decoder(2).score(fed).astype(np.float64) for run in (ngram_run, rnn_run, mixture_run)
        )
    )
    weight = mixture_run.generator.model.tensors()["weight"][0]
    np.testing.assert_allclose(mixed, weight * first + (1 - weight) * second, rtol=1e-6)
    np.testing.assert_allclose(mixed.sum(axis=-1), 1, rtol=1e-12)


def test_decoder_agrees_with_itself_in_steps_batches_and_forks(mixture_run: Run) -> None:
    model = mixture_run.generator.model
    fed = mixture_run.generator.tokenizer.encode(HELD_OUT[:80]).reshape(4, 20)
    scored, together = model.decoder(4).score(fed), model.decoder(4)
    alone = [model.decoder(1) for _ in fed]
    for t in range(20):
        rows = together.extend(fed[:, t : t + 1])
        np.testing.assert_array_equal(rows, scored[:, t])
        for i, decoder in enumerate(alone):
            np.testing.assert_array_equal(decoder.extend(fed[i : i + 1, t : t + 1])[0], rows[i])
    fork = model.decoder(1)
    fork.write_state({name: array[[3, 1]] for name, array in together.read_state().items()})
    assert fork.batch_size == 2
    np.testing.assert_array_equal(fork.extend(fed[:2, :1]), together.extend(fed[[2, 1, 2, 0], :1])[[3, 1]])


def test_the_run_directory_is_all_that_another_machine_needs(
    tmp_path: Path, ngram_run: Run, rnn_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [shutil.copytree(run.path, tmp_path / name) for run, name in ((ngram_run, "a"), (rnn_run, "b"))]
    model = {"type": "mixture", "first": str(runs[0]), "second": str(runs[1])}
    run = Engine().run(pipeline(tmp_path, model, {"type": "mixture"}), output=tmp_path / "run")
    expected = run.generator.generate("The ", max_new_tokens=60).text
    there = tmp_path / "there"
    shutil.move(run.path, there)
    for folder in runs:
        shutil.rmtree(folder)
    assert Engine().load(there).generate("The ", max_new_tokens=60).text == expected


def test_generates_on_a_cpu_without_torch(
    mixture_run: Run, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    program = """
import sys
from textgen import load
print(load(sys.argv[1], device="cpu").generate("The ", max_new_tokens=5).text)
assert "torch" not in sys.modules
"""
    loaded = command(mixture_run.path, program=program)
    assert loaded.returncode == 0, loaded.stderr


def test_mixtures_mix(tmp_path: Path, ngram_run: Run, mixture_run: Run) -> None:
    run = Engine().run(mixture_of(tmp_path, mixture_run, ngram_run), output=tmp_path / "run")
    again = Engine().load(run.path)
    assert again.score(HELD_OUT).loss == pytest.approx(mixture_run.generator.score(HELD_OUT).loss, rel=1e-6)


def test_an_interrupted_fit_ends_as_one_that_was_not(
    tmp_path: Path, ngram_run: Run, rnn_run: Run, mixture_run: Run
) -> None:
    tables = mixture_of(tmp_path, ngram_run, rnn_run, checkpoint={"seconds": 0})
    asked: Iterator[bool] = iter([False] * 9 + [True])
    with pytest.raises(Interrupted):
        Engine().run(tables, output=tmp_path / "run", cancelled=lambda: next(asked))
    run = Engine().run(tables, output=tmp_path / "run")
    assert run.outcome == "resumed"
    name = "model.safetensors"
    assert (run.path / name).read_bytes() == (mixture_run.path / name).read_bytes()


def test_a_part_that_was_trained_anew_is_noticed_and_one_that_was_moved_is_the_same(tmp_path: Path) -> None:
    def train(order: int, **arguments: Any) -> Run:
        return Engine().run(
            pipeline(tmp_path, {"type": "ngram", "order": order}, {"type": "count"}), output=part, **arguments
        )

    part = tmp_path / "part"
    run = train(2)
    tables = mixture_of(tmp_path, run, run, checkpoint={"seconds": 0})
    asked = iter([False, False, True])
    with pytest.raises(Interrupted):
        Engine().run(tables, output=tmp_path / "run", cancelled=lambda: next(asked))
    train(3, overwrite=True)
    with pytest.raises(RunMismatchError, match=r"model\.first\.model\.order: 2 before, 3 now"):
        Engine().run(tables, output=tmp_path / "run")
    Engine().run(tables, output=tmp_path / "run", overwrite=True)
    train(2, overwrite=True)
    with pytest.raises(RunMismatchError, match=r"model\.second\.weights: "):  # a finished run is no answer either
        Engine().run(tables, output=tmp_path / "run")
    train(3, overwrite=True)
    part.rename(tmp_path / "moved")
    tables["model"] |= {"first": str(tmp_path / "moved"), "second": str(tmp_path / "moved")}
    assert Engine().run(tables, output=tmp_path / "run").outcome == "skipped"


@pytest.mark.parametrize("damage", ["gone", "unfinished", "garbled"])
def test_a_part_that_is_no_finished_run_is_named(tmp_path: Path, ngram_run: Run, damage: str) -> None:
    part = Path(shutil.copytree(ngram_run.path, tmp_path / "part"))
    if damage == "gone":
        shutil.rmtree(part)
    else:
        text = json.dumps({"status": "training", "fingerprint": {"model": {}}}) if damage == "unfinished" else "[]"
        (part / "run.json").write_text(text)
    tables = mixture_of(tmp_path, ngram_run, ngram_run)
    tables["model"]["second"] = str(part)
    with pytest.raises(UsageError, match=r"there is no finished run in .*part"):
        Engine().run(tables, output=tmp_path / "run")


def fitted(tokens: Any, vocab_size: int, *models: Any) -> Mixture:
    """The mixture of models that lie in no run directory, weighed by the last tenth of `tokens`."""
    mixture = Mixture(BuildContext(folder=Path()), tuple(Part(model, {}) for model in models))
    data = dataset(tokens, vocab_size)
    for _ in WeightTrainer().train(mixture, data, TrainingContext(seed=0, device="cpu")):
        pass
    return mixture


def test_a_part_that_is_never_better_gets_no_weight_at_all() -> None:
    tokens = np.arange(400) % 4
    good, none = count(tokens, 4, 3), NgramModel(3, 4)  # no counts: every token is as likely
    assert fitted(tokens, 4, good, none).weight == 1
    assert fitted(tokens, 4, none, good).weight == 0


@attrs.define
class Watched:
    """A model that notes how many probabilities it was asked for at once."""

    model: NgramModel
    vocab_size: int
    most: int = 0

    def decoder(self, batch_size: int) -> Any:
        decoder = self.model.decoder(batch_size)
        score = decoder.score

        def watched(tokens: Any) -> Any:
            self.most = max(self.most, tokens.size * self.vocab_size)
            return score(tokens)

        decoder.score = watched  # type: ignore[method-assign]
        return decoder


def test_weighing_takes_bounded_memory_whatever_the_vocabulary() -> None:
    size, tokens = 30_000, np.arange(4_000) % 7
    watched = Watched(count(tokens, size, 2), size)
    fitted(tokens, size, watched, watched)
    assert 1_000_000 < watched.most <= 1 << 22


def test_other_vocabularies_are_refused(tmp_path: Path, ngram_run: Run) -> None:
    other = tmp_path / "other.txt"
    other.write_text(TEXT.upper(), encoding="utf-8")
    tables = mixture_of(tmp_path, ngram_run, ngram_run, corpus={"type": "file", "path": str(other)})
    with pytest.raises(UsageError, match=r"vocabulary of .* is not this pipeline's"):
        Engine().run(tables, output=tmp_path / "run")


def test_a_weight_needs_held_out_text(tmp_path: Path, ngram_run: Run) -> None:
    tables = mixture_of(tmp_path, ngram_run, ngram_run, data={"validation_fraction": 0.0})
    with pytest.raises(CorpusError, match=r"raise data\.validation_fraction"):
        Engine().run(tables, output=tmp_path / "run")


def test_the_trainer_refuses_other_models(tmp_path: Path) -> None:
    tables = pipeline(tmp_path, {"type": "ngram"}, {"type": "mixture"})
    with pytest.raises(UsageError, match="'mixture' fits the model 'mixture', and the pipeline's is a NgramModel"):
        Engine().run(tables, output=tmp_path / "run")


def test_a_part_whose_plugin_is_missing_names_its_package(mixture_run: Run) -> None:
    without = PluginSet.discover(disable=["rnn"])
    with pytest.raises(PipelineError, match=r"the second model of the mixture \(it came with textgen-engine "):
        Engine(without).load(mixture_run.path)
