"""Recurrent layers in machine code of our own: the numbers of torch's, whatever the shape, and runs
made with them.
"""

import sys
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import textgen
from textgen_builtins.models.rnn import torch_model
from textgen_builtins.models.rnn.config import RNNConfig
from textgen_builtins.models.rnn.kernels import program
from textgen_builtins.models.rnn.torch_model import TorchRNN

VOCABULARY = 11
can_halve = program.has_bfloat16()


def network(**options):
    return TorchRNN.create(RNNConfig(**options), VOCABULARY, seed=3, device="cpu")


def numbers(module, kernel, tokens, *, half):
    """Logits, states and gradients of two windows, the second of which goes on from the first."""
    module.use_kernels = kernel == "llvm"
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
@settings(max_examples=25)
def test_logits_and_gradients_are_those_of_torch(shape, options, dropout):
    module = network(**options, **dropout)
    tokens = torch.from_numpy(np.random.default_rng(0).integers(VOCABULARY, size=shape))
    expected = numbers(module, "torch", tokens, half=False)
    found = numbers(module, "llvm", tokens, half=False)
    for name, tensor in expected.items():
        assert difference(found[name], tensor) < 2e-5, name


@pytest.mark.skipif(not can_halve, reason="this processor has no products of bfloat16")
@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
@pytest.mark.parametrize("rows", [3, 19])
def test_in_bfloat16_they_are_no_further_from_float32_than_torchs_are(cell, rows, monkeypatch):
    monkeypatch.setattr(program, "is_fast_in_bfloat16", lambda cell: True)  # with AMX, too
    module = network(cell=cell, hidden_size=96, embedding_size=24)
    tokens = torch.from_numpy(np.random.default_rng(rows).integers(VOCABULARY, size=(rows, 30)))
    expected = numbers(module, "torch", tokens, half=False)
    torchs = numbers(module, "torch", tokens, half=True)
    found = numbers(module, "llvm", tokens, half=True)
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
    assert numbers(module, "llvm", tokens, half=half)["first"].isnan().any()


def test_a_token_that_there_is_not_is_an_error_as_of_torch():
    module = network(cell="lstm", hidden_size=32)
    for kernel in ("torch", "llvm"):
        with pytest.raises(IndexError):
            numbers(module, kernel, torch.full((2, 8), VOCABULARY), half=False)


MODEL = {"cell": "lstm", "hidden_size": 32, "dropout": 0.2, "embedding_size": 16}


def test_integers_of_any_size_are_tokens_and_no_other_numbers_are():
    model, tokens = network(cell="gru", hidden_size=32), torch.tensor([[1, 2, 0, 3]])
    expected = model(tokens)[0]
    for kind in (torch.int32, torch.uint8, torch.int16):
        assert torch.equal(model(tokens.to(kind))[0], expected)
    with pytest.raises(TypeError, match="tokens must be integers, and are"):
        model(tokens.float())


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("use_kernels", [True, False])
def test_weights_can_be_replaced(cell, use_kernels):
    """As adapters, meta-learning and averages of weights do."""
    model, tokens = network(cell=cell, hidden_size=32), torch.tensor([[1, 2, 0, 3]])
    model.use_kernels = use_kernels
    doubled = network(cell=cell, hidden_size=32)
    doubled.load_tensors({name: 2 * array for name, array in model.tensors().items()})
    twice = {name: (2 * part).requires_grad_() for name, part in model.named_parameters()}
    torch.testing.assert_close(
        torch.func.functional_call(model, twice, (tokens,))[0], doubled(tokens)[0]
    )

    class Double(torch.nn.Module):
        def forward(self, weight):
            return 2 * weight

    for layer in [*model.layers, model.head]:
        for name in [name for name, _ in layer.named_parameters()]:
            torch.nn.utils.parametrize.register_parametrization(layer, name, Double())
    logits = model(tokens)[0]
    torch.testing.assert_close(logits, doubled(tokens)[0])
    (logits**2).sum().backward()
    expected = doubled.decoder(1).extend(tokens.numpy())
    np.testing.assert_allclose(model.decoder(1).extend(tokens.numpy()), expected, atol=1e-5)
    with pytest.raises(ValueError, match="is computed from others"):
        model.load_tensors(doubled.tensors())
    assert all(part.grad is not None for part in model.parameters())
    wrong = {name: part[:5] for name, part in twice.items() if "hh" in name}
    with pytest.raises((ValueError, RuntimeError)):
        torch.func.functional_call(network(cell=cell, hidden_size=32), wrong, (tokens,))


@pytest.fixture
def found_anew():
    """Whether there is a llvmlite that works is asked once in a process."""
    torch_model._kernels.cache_clear()
    yield
    torch_model._kernels.cache_clear()


@pytest.mark.usefixtures("found_anew")
def test_where_llvmlite_cannot_be_loaded_torch_computes_and_it_is_said(
    tmp_path, monkeypatch, tiny_pipeline
):
    broken = tmp_path / "broken/llvmlite"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise OSError('its library is of another processor')")
    monkeypatch.syspath_prepend(str(broken.parent))
    for name in [*sys.modules]:
        if name.startswith(("llvmlite", "textgen_builtins.models.rnn.kernels")):
            monkeypatch.delitem(sys.modules, name)
    said = "llvmlite cannot be used here, and torch computes in its place: its library is of"
    with pytest.warns(UserWarning, match=said):
        textgen.run(tiny_pipeline(model=MODEL))


def test_steps_are_computed_in_machine_code_and_evaluations_are_not(monkeypatch, tiny_pipeline):
    from textgen_builtins.models.rnn.kernels import layer

    counted = mock.Mock(wraps=layer.run_layer)
    monkeypatch.setattr(layer, "run_layer", counted)
    trainer = {"length": "40 steps", "batch_size": 8, "evaluate_every": 20}
    textgen.run(tiny_pipeline(model=MODEL, trainer=trainer, threads=1))
    assert [call.args[0] for call in counted.mock_calls] == ["lstm"] * 40
