"""ForwardDecoder and GradientModel: any module with `forward(tokens, state)` is a model."""

import network_plugin
import numpy as np
import pytest
import torch
from networks import Attention, Recurrent
from torch import nn

from textgen.gradient import ForwardDecoder, GradientModel
from textgen.testing import check


@pytest.mark.parametrize(
    "component",
    [
        pytest.param(
            component,
            id=component.name,
            marks=pytest.mark.slow if component.name == "dropping" else (),
        )
        for component in network_plugin.textgen_models()
    ],
)
def test_the_contract_is_kept(component):
    check("model", component)


def test_rows_of_different_lengths_keep_their_last_logits():
    module = Attention(9)
    decoder, other = (ForwardDecoder(module, 1) for _ in range(2))
    last = [*decoder.extend(np.array([[1, 2]])), *other.extend(np.array([[3]]))]
    decoder.join(other)
    np.testing.assert_array_equal(decoder.extend(np.zeros((2, 0), np.int64)), last)


def test_wrapping_shares_the_parameters_and_refuses_other_weights():
    module = Recurrent(5)
    module.scale = nn.Parameter(torch.tensor(2.0))  # of no dimension
    module.again = module.head  # tied
    model = GradientModel.of(module)
    assert GradientModel.of(model) is model
    tensors = {name: array + 1 for name, array in model.tensors().items()}
    assert len(tensors) == len([*module.parameters()])
    model.load_tensors(tensors)
    assert np.array_equal(module.head.bias.detach().numpy(), tensors["head.bias"])
    assert module.scale.item() == 3.0
    with pytest.raises(ValueError, match=r"head\.bias"):
        model.load_tensors({**tensors, "head.bias": np.zeros(4, np.float32)})


def test_frozen_weights_are_not_saved_where_a_model_names_its_base():
    module = Recurrent(5)
    module.head.requires_grad_(False)
    model = GradientModel.of(module)
    assert "head.bias" in model.tensors()
    module.base = "ab" * 32
    tensors = model.tensors()
    assert not [name for name in tensors if name.startswith("head.")]
    model.load_tensors(tensors)
    module.base = "cd" * 32
    with pytest.raises(ValueError, match="another base"):
        model.load_tensors(tensors)


@pytest.mark.gpu
def test_a_module_on_a_gpu_generates():
    model = Attention(9).to("cuda")
    assert model.decoder(2).extend(np.zeros((2, 3), np.int64)).device.type == "cuda"
