"""ForwardDecoder and GradientModel: any module with `forward(tokens, state)` is a model."""

from __future__ import annotations

from pathlib import Path

import network_plugin
import numpy as np
import pytest
import torch
from networks import Attention, Recurrent
from torch import nn

import textgen
from textgen import Component, Engine, PluginSet
from textgen.gradient import ForwardDecoder, GradientModel
from textgen.testing import check_model


@pytest.mark.parametrize(
    "component", network_plugin.textgen_models(), ids=lambda component: component.name
)
def test_the_contract_is_kept(component: Component) -> None:
    outcomes = check_model(component)
    assert {outcome.status for outcome in outcomes} <= {"ok", "skipped"}


@pytest.fixture
def run(tmp_path: Path) -> textgen.Run:
    plugins = PluginSet.discover()
    plugins.register(network_plugin, "networks")
    tables = {
        "device": "cpu",
        "corpus": {"type": "story"},
        "tokenizer": {"type": "char"},
        "data": {"window_length": 16},
        "model": {"type": "attention"},
        "trainer": {"type": "adamw", "length": "40 steps", "batch_size": 8, "learning_rate": 0.01},
        "sampler": [{"type": "temperature", "temperature": 0.7}],
        "observer": [],
        "generate": {"max_new_tokens": 5},
    }
    return Engine(plugins).run(tables, output=tmp_path / "run")


def test_rows_of_different_lengths_generate_together(run: textgen.Run) -> None:
    prompts = ["The", "The ferry left", "", "On the", "T"]
    together = list(run.generator.generate_many(prompts, max_new_tokens=30))
    for index, text in enumerate(together):
        assert (
            text.text == run.generator.generate(prompts[index], max_new_tokens=30, index=index).text
        )


def test_a_saved_state_continues(run: textgen.Run, tmp_path: Path) -> None:
    whole = run.generator.generate("The", max_new_tokens=24)
    half = run.generator.generate("The", max_new_tokens=10, keep_state=True)
    assert half.state is not None
    rest = run.generator.generate(state=half.state, max_new_tokens=14)
    assert half.text + rest.text == whole.text


@pytest.mark.parametrize("module", [Attention(9), Recurrent(9)], ids=["attention", "recurrent"])
def test_taking_and_joining_rows_changes_no_row(module: nn.Module) -> None:
    tokens = np.random.default_rng(0).integers(9, size=(3, 6))
    alone = [ForwardDecoder(module, 1).score(tokens[i : i + 1, : 3 + i])[0, -1] for i in range(3)]
    decoder = ForwardDecoder(module, 1)
    decoder.extend(tokens[:1, :3])
    for row in (1, 2):
        other = ForwardDecoder(module, 1)
        other.extend(tokens[row : row + 1, : 3 + row])
        decoder.join(other)
    assert decoder.batch_size == 3
    np.testing.assert_allclose(decoder.extend(tokens[:, :0]), np.stack(alone), atol=1e-5)
    following = decoder.take([2, 0, 2]).extend(np.array([[1], [2], [1]]))
    expected = [
        np.append(tokens[2, :5], 1),
        np.append(tokens[0, :3], 2),
        np.append(tokens[2, :5], 1),
    ]
    for logits, row in zip(following, expected, strict=True):
        np.testing.assert_allclose(
            logits, ForwardDecoder(module, 1).extend(row[None])[0], atol=1e-5
        )


def test_wrapping_shares_the_parameters_and_refuses_other_weights() -> None:
    module = Recurrent(5)
    module.scale = nn.Parameter(torch.tensor(2.0))  # of no dimension
    model = GradientModel.of(module)
    assert GradientModel.of(model) is model
    tensors = {name: array + 1 for name, array in model.tensors().items()}
    model.load_tensors(tensors)
    assert np.array_equal(module.head.bias.detach().numpy(), tensors["head.bias"])
    assert module.scale.item() == 3.0
    with pytest.raises(ValueError, match=r"1 weights differ, such as head\.bias"):
        model.load_tensors({**tensors, "head.bias": np.zeros(4, np.float32)})


@pytest.mark.gpu
def test_a_module_on_a_gpu_generates(run: textgen.Run) -> None:
    model = Attention(9).to("cuda")
    assert model.decoder(2).extend(np.zeros((2, 3), np.int64)).device.type == "cuda"
