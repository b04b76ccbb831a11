"""Writing with weights of 8 bits."""

import itertools

import numpy as np
import pytest
import torch
from conftest import PATIENCE

import textgen
from textgen import threads
from textgen.testing import check
from textgen_huggingface import eight_bits, plugin


@pytest.fixture(autouse=True)
def _small_models_too(monkeypatch):
    monkeypatch.setattr(eight_bits, "_MIN_WEIGHTS", 0)


def test_a_loaded_run_writes_in_eight_bits_and_keeps_its_weights(run):
    loaded, again = (textgen.load(run.path, device="cpu") for _ in range(2))
    ids = np.random.default_rng(0).integers(0, 256, (1, 70))
    ours = loaded.model.decoder(1)
    # Few tokens at once and many are multiplied in two ways.
    given = np.concatenate([ours.score(ids[:, :10]), ours.score(ids[:, 10:])], axis=1)[:, :20]
    plain = run.generator.model.decoder(1).score(ids)[:, :20]
    apart = np.abs(given - plain).max() / np.abs(plain).max()
    assert 1e-5 < apart < 0.05
    for name, array in run.generator.model.tensors().items():
        np.testing.assert_array_equal(loaded.model.tensors()[name], array)
    texts = [g.generate("The time", max_new_tokens=12, seed=1) for g in (loaded, again)]
    assert texts[0].text == texts[1].text
    first = loaded.generate("The time", max_new_tokens=5, seed=1, keep_state=True)
    rest = loaded.generate(max_new_tokens=7, state=first.state)
    assert first.text + rest.text == texts[0].text


def test_a_model_in_training_computes_as_before(run):
    module = textgen.load(run.path, device="cpu").module()
    ids = torch.arange(12)[None]
    given = module.decoder(1).score(ids.numpy())
    with torch.no_grad():
        np.testing.assert_allclose(given, module(ids)[0].numpy(), atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_writes_with_the_weights_as_they_are(run):
    ids = np.arange(12)[None]
    plain = run.generator.model.decoder(1).score(ids)
    there = textgen.load(run.path, device="cuda").model.decoder(1).score(ids)
    np.testing.assert_allclose(torch.as_tensor(there).cpu().numpy(), plain, atol=1e-3)


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_the_contract_is_kept(make_pipeline, architecture):
    (component,) = plugin.textgen_models()
    table = make_pipeline(architecture)["model"]
    options = {key: value for key, value in table.items() if key != "type"}
    check("model", component, options=options, tolerance=0.05, time_limit=PATIENCE)


@pytest.mark.parametrize("rows", [1, 16, 48, 200])
def test_a_layer_gives_the_same_however_many_threads_compute_it(rows):
    layer = eight_bits.EightBits.of(torch.nn.Linear(576, 1536))
    x = torch.randn(rows, 576)
    pools = threads.worker_threads(1, each=1) + threads.worker_threads(1, each=3)
    one, three = (pool.submit(lambda: layer(x)).result() for pool in pools)
    assert torch.equal(one, three)
    for pool in pools:
        pool.shutdown()


def test_a_text_is_the_same_beside_other_programs(run, monkeypatch):
    monkeypatch.setattr(threads, "_FEW_WEIGHTS", 0)
    monkeypatch.setattr(threads, "_MEASURED_AGAIN", 0.0)
    (pool,) = threads.worker_threads(1, each=3)
    texts, seen = set(), set()
    for busy in ([3.0], [0.5], [3.0, 0.5]):
        got = itertools.cycle(busy)
        monkeypatch.setattr(threads, "_processors_got", lambda threads, got=got: next(got))
        generator = textgen.load(run.path, device="cpu")
        network = generator.model.model
        network.register_forward_hook(lambda *_: seen.add(torch.get_num_threads()))
        made = pool.submit(generator.generate, "The time", max_new_tokens=30, seed=1).result()
        texts.add(made.text)
    pool.shutdown()
    assert (len(texts), seen) == (1, {1, 3})
