"""Compiled layers have the numbers of torch's, whatever the shape; runs are made with them."""

import json
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from textgen_fast import layer, program

import textgen
from textgen import BuildContext, Engine

VOCABULARY = 11
CORPUS = "the time traveller smiled, and the clock of the hall struck the hour.\n" * 12
can_halve = program.has_bfloat16()


def network(**options):
    """A model `rnn` as the engine builds it to train, with the layers of this package."""
    context = BuildContext(
        folder=Path(), requested_device="cpu", seed=3, tokenizer=SimpleNamespace(vocab_size=11)
    )
    made = Engine().build("model", {"type": "rnn", **options}, context)
    assert isinstance(made.compiled, layer.Layers)
    return made


def numbers(module, tokens, *, compiled, half):
    """Logits, states and gradients of two windows, the second of which goes on from the first."""
    module.compiled = layer.Layers() if compiled else None
    module.zero_grad()
    module.set_dropout_seed(5)
    module.train()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        first, state = module(tokens, None)
        second, state = module(tokens.flip(1), state)
    outputs = sum(logits.float().square().mean() for logits in (first, second))
    (outputs + sum(part.float().sum() for part in state)).backward()
    made = {"first": first, "second": second}
    made |= {f"state {i}": part for i, part in enumerate(state)}
    made |= {name: parameter.grad for name, parameter in module.named_parameters()}
    return {name: tensor.detach().float() for name, tensor in made.items()}


def difference(a, b):
    return float((a - b).norm() / (b.norm() + 1e-6))


@pytest.mark.slow
@given(
    shape=st.tuples(st.integers(1, 19), st.integers(1, 9)),
    options=st.fixed_dictionaries(
        {
            "cell": st.sampled_from(["rnn", "gru", "lstm"]),
            "hidden_size": st.sampled_from([32, 64, 96]),
            "layers": st.integers(1, 2),
            "embedding_size": st.sampled_from([0, 24]),
        }
    ),
    dropout=st.sampled_from(
        [{}, {"dropout": 0.3}, {"embedding_dropout": 0.3}, {"weight_drop": 0.3}]
    ),
)
@example(
    (8, 5),
    {"cell": "lstm", "hidden_size": 64, "layers": 2, "embedding_size": 24},
    {"embedding_dropout": 0.3, "weight_drop": 0.2},
)
@settings(max_examples=25, deadline=None, derandomize=True, database=None)
def test_logits_and_gradients_are_those_of_torch(shape, options, dropout):
    module = network(**options, **dropout)
    tokens = torch.from_numpy(np.random.default_rng(0).integers(VOCABULARY, size=shape))
    expected = numbers(module, tokens, compiled=False, half=False)
    found = numbers(module, tokens, compiled=True, half=False)
    for name, tensor in expected.items():
        assert difference(found[name], tensor) < 2e-5, name


@pytest.mark.skipif(not can_halve, reason="this processor has no products of bfloat16")
@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
@pytest.mark.parametrize("rows", [3, 19])
def test_in_bfloat16_they_are_no_further_from_float32_than_torchs_are(cell, rows, monkeypatch):
    monkeypatch.setattr(layer, "is_fast_in_bfloat16", lambda cell: True)  # with AMX, too
    module = network(cell=cell, hidden_size=96, embedding_size=24)
    tokens = torch.from_numpy(np.random.default_rng(rows).integers(VOCABULARY, size=(rows, 30)))
    expected = numbers(module, tokens, compiled=False, half=False)
    torchs = numbers(module, tokens, compiled=False, half=True)
    found = numbers(module, tokens, compiled=True, half=True)
    for name, tensor in expected.items():
        most = max(1.3 * difference(torchs[name], tensor), 0.004)
        assert difference(found[name], tensor) < most, name


@pytest.mark.parametrize(
    "half", [False, pytest.param(True, marks=pytest.mark.skipif(not can_halve, reason="bfloat16"))]
)
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_what_is_no_number_stays_none(cell, half):
    """A loss that is no number ends a run; it must not become one within a sigmoid."""
    module = network(cell=cell, hidden_size=32)
    with torch.no_grad():
        module.layers[0].weight_hh_l0[5] = float("nan")
    tokens = torch.zeros((2, 4), dtype=torch.int64)
    assert numbers(module, tokens, compiled=True, half=half)["first"].isnan().any()


def test_a_token_that_there_is_not_is_an_error_as_of_torch():
    module = network(cell="lstm", hidden_size=32)
    for compiled in (False, True):
        with pytest.raises(IndexError):
            numbers(module, torch.full((2, 8), VOCABULARY), compiled=compiled, half=False)


MODEL = {"cell": "lstm", "hidden_size": 32, "dropout": 0.2, "embedding_size": 16}


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_weights_that_are_replaced_are_compiled_with(cell):
    """As adapters, meta-learning and averages of weights replace them; and those of a wrong shape
    are refused before compiled code reads them.
    """
    model, tokens = network(cell=cell, hidden_size=32), torch.tensor([[1, 2, 0, 3]])
    doubled = network(cell=cell, hidden_size=32)
    doubled.load_tensors({name: 2 * array for name, array in model.tensors().items()})
    twice = {name: (2 * part).requires_grad_() for name, part in model.named_parameters()}
    torch.testing.assert_close(
        torch.func.functional_call(model, twice, (tokens,))[0], doubled(tokens)[0]
    )

    class Double(torch.nn.Module):
        def forward(self, weight):
            return 2 * weight

    for part in [*model.layers, model.head]:
        for name in [name for name, _ in part.named_parameters()]:
            torch.nn.utils.parametrize.register_parametrization(part, name, Double())
    logits = model(tokens)[0]
    torch.testing.assert_close(logits, doubled(tokens)[0])
    (logits**2).sum().backward()
    assert all(part.grad is not None for part in model.parameters())
    wrong = {name: part[:5] for name, part in twice.items() if "hh" in name}
    with pytest.raises((ValueError, RuntimeError)):
        torch.func.functional_call(network(cell=cell, hidden_size=32), wrong, (tokens,))


def trained(model=MODEL, **trainer):
    """A run in memory."""
    table = {"type": "sgd", "length": "2 epochs", "batch_size": 16, **trainer}
    return textgen.train(
        corpus=CORPUS,
        model={"type": "rnn", **model},
        trainer=table,
        data={"window_length": 16},
        device="cpu",
        threads=1,
    )


def test_where_llvm_cannot_be_loaded_torch_computes_and_it_is_said(tmp_path, monkeypatch):
    broken = tmp_path / "broken/llvmlite"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise OSError('its library is of another processor')")
    monkeypatch.syspath_prepend(str(broken.parent))
    for name in [*sys.modules]:
        if name.startswith(("llvmlite", "textgen_fast.")):
            monkeypatch.delitem(sys.modules, name)
    with pytest.warns(textgen.PluginWarning, match="its library is of another processor"):
        trained()


def test_steps_are_compiled_and_evaluations_are_not(monkeypatch):
    cells, run = [], layer.Layers.run

    def counted(self, cell, *arguments):
        cells.append(cell)
        return run(self, cell, *arguments)

    monkeypatch.setattr(layer.Layers, "run", counted)
    trained(length="40 steps", batch_size=8, evaluate_every=20)
    assert cells == ["lstm"] * 40


def test_the_version_is_recorded(tmp_path):
    run = trained()
    run.save(tmp_path / "run")
    environment = json.loads((tmp_path / "run/run.json").read_text())["environment"]
    assert environment["textgen-fast"] == metadata.version("textgen-fast")
