"""The decoders of the recurrent network, beside what their contract asks of them: the same bits
however they are fed.
"""

from pathlib import Path
from types import SimpleNamespace

import attrs
import numpy as np
import pytest
import torch
from commands import run_python
from components import context, letters, make
from raising import raises

import textgen

CELLS = ["rnn", "gru", "lstm"]
INPUTS = [
    pytest.param({}, id="one-hot"),
    pytest.param({"embedding_size": 7}, id="embedding"),
    pytest.param({"embedding_size": 24, "tied_weights": True}, id="tied"),
]
VOCABULARY = letters(19)
SIZE = len(VOCABULARY) + 1  # and <unk>


def module(device="cpu", **options):
    """The model as it trains: a torch module with random weights."""
    training = context(vocabulary=VOCABULARY, training=True, seed=3, device=device)
    return make("model", "rnn", training, **options)


def model(trained, device="cpu", **options):
    """The model as it generates, with the module's weights."""
    made = make("model", "rnn", context(vocabulary=VOCABULARY, device=device), **options)
    made.load_tensors(trained.tensors())
    return made


def fast(**options):
    return model(module(**options), **options)


def ids(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, SIZE, shape)


def log_softmax(logits):
    rows = np.asarray(logits, np.float64)
    rows = rows - rows.max(axis=-1, keepdims=True)
    return rows - np.log(np.exp(rows).sum(axis=-1, keepdims=True))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("cell", CELLS)
def test_it_agrees_with_the_forward_pass(cell, inputs, layers, dtype):
    import torch

    options = {"cell": cell, **inputs, "layers": layers, "hidden_size": 24}
    trained = module(**options).to(getattr(torch, dtype)).eval()
    tokens = ids(1, 400)
    with torch.inference_mode():
        logits, state = trained(torch.from_numpy(tokens))
    decoder = model(trained, **options).decoder(1)
    ours = decoder.score(tokens)
    assert ours.dtype == dtype
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    assert log_softmax(ours) == pytest.approx(log_softmax(logits), rel=0, abs=tolerance)
    carried = decoder.read_state()
    for place, name in enumerate(carried):  # an LSTM has hidden and cell of each layer
        layers_of = np.stack(state[place :: len(carried)], axis=1)
        assert layers_of == pytest.approx(carried[name], abs=tolerance * 10)


@pytest.mark.parametrize("hidden_size", [1, 33, 400])
@pytest.mark.parametrize("cell", CELLS)
def test_a_row_is_the_same_however_it_is_fed_bit_for_bit(cell, hidden_size):
    made = fast(cell=cell, layers=2, hidden_size=hidden_size)
    tokens = ids(64, 6)
    alone = np.stack([made.decoder(1).score(tokens[row : row + 1])[0] for row in range(64)])
    for batch in (1, 2, 7, 64):
        assert np.array_equal(made.decoder(batch).score(tokens[:batch]), alone[:batch])
        assert np.array_equal(made.decoder(batch).extend(tokens[:batch]), alone[:batch, -1])
        stepped = made.decoder(batch)
        for t in range(6):
            assert np.array_equal(stepped.extend(tokens[:batch, t : t + 1]), alone[:batch, t])
    first, moved = made.decoder(3), made.decoder(1)
    first.extend(tokens[:3, :4])
    moved.write_state({name: array[::-1] for name, array in first.read_state().items()})
    assert np.array_equal(moved.score(tokens[2::-1, 4:]), alone[2::-1, 4:])


THREADS = "OPENBLAS_NUM_THREADS"
LARGE = """
import hashlib
import numpy as np
from test_rnn import fast, ids
made = fast(cell="lstm", hidden_size=512)
tokens = ids(2, 60)
alone = np.stack([made.decoder(1).score(tokens[row : row + 1])[0] for row in range(2)])
assert np.array_equal(made.decoder(2).score(tokens), alone)
print(hashlib.sha256(alone.tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_a_large_network_gives_the_same_however_many_threads_multiply():
    here = Path(__file__).parent
    first, second = (
        run_python("-c", LARGE, folder=here, site=[here, here.parent], extra={THREADS: number})
        for number in ("1", "3")
    )
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout


@pytest.mark.gpu
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_a_gpu_gives_the_same_text(cell, layers):
    options = {"cell": cell, "layers": layers, "hidden_size": 32}
    trained = module(**options)
    here, there = (model(trained, device, **options).decoder(2) for device in ("cpu", "cuda"))
    expected, logits = here.score(ids(2, 30)), there.score(ids(2, 30))
    assert log_softmax(logits.cpu()) == pytest.approx(log_softmax(expected), abs=1e-4)


def test_a_large_vocabulary_needs_an_embedding():
    """Its square would be 30 GB."""
    many = attrs.evolve(context(training=True), tokenizer=SimpleNamespace(vocab_size=87_700))
    with raises(textgen.UsageError, argument="model.embedding_size"):
        make("model", "rnn", many, hidden_size=2)
    assert make("model", "rnn", many, hidden_size=2, embedding_size=1).vocab_size == 87_700


def test_integers_of_any_size_are_tokens_and_no_other_numbers_are():
    model, tokens = module(cell="gru", hidden_size=32), torch.tensor([[1, 2, 0, 3]])
    expected = model(tokens)[0]
    for kind in (torch.int32, torch.uint8, torch.int16):
        assert torch.equal(model(tokens.to(kind))[0], expected)
    with pytest.raises(TypeError):
        model(tokens.float())


@pytest.mark.parametrize("cell", CELLS)
def test_weights_can_be_replaced(cell):
    """As adapters, meta-learning and averages of weights do."""
    model, tokens = module(cell=cell, hidden_size=32), torch.tensor([[1, 2, 0, 3]])
    doubled = module(cell=cell, hidden_size=32)
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
    expected = doubled.decoder(1).extend(tokens.numpy())
    np.testing.assert_allclose(model.decoder(1).extend(tokens.numpy()), expected, atol=1e-5)
    with pytest.raises(ValueError, match="computed"):
        model.load_tensors(doubled.tensors())
    assert all(part.grad is not None for part in model.parameters())
