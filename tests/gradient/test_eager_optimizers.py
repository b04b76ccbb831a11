"""Optimizers without torch's compiler: the same numbers, and no import that takes seconds."""

import pytest
import torch

from textgen.gradient import eager

RUN = """
import sys, textgen
pipeline = {
    "device": "cpu",
    "corpus": {"type": "story"},
    "tokenizer": {"type": "char"},
    "observer": [],
    "data": {"window_length": 8, "windows": [64, 8]},
    "model": {"type": "rnn", "hidden_size": 4},
    "trainer": {"type": sys.argv[1], "length": "4 steps", "batch_size": 16},
    "output": "run",
}
steps = iter(range(9))
try:
    textgen.run(pipeline, cancelled=lambda: next(steps) == 2)
except textgen.Interrupted:
    print(textgen.run(pipeline).outcome, "torch._dynamo" in sys.modules)
"""


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["sgd", "adamw"])
def test_a_run_does_not_import_torchs_compiler(python, trainer, tmp_path):
    done = python("-c", RUN, trainer, cwd=tmp_path)
    assert (done.code, done.stdout) == (0, "resumed False\n"), done.stderr


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
        (torch.optim.AdamW, {"lr": 0.1, "fused": True}),
        (torch.optim.Adagrad, {"lr": 0.1}),
        (torch.optim.Muon, {"lr": 0.1}),
    ],
)
def test_an_eager_optimizer_is_the_same_optimizer(kind, options):
    def trained(kind):
        weights = torch.arange(12.0).reshape(3, 4).requires_grad_()
        optimizer = kind([weights], **options)
        for step in range(6):
            optimizer.zero_grad()
            (weights.sin() * step).sum().backward()
            optimizer.step()
            if step == 3:
                state = optimizer.state_dict()
                optimizer = kind([weights], **options)
                optimizer.load_state_dict(state)
        return weights.detach()

    assert issubclass(eager(kind), kind)
    assert eager(kind) is eager(kind)
    assert torch.equal(trained(eager(kind)), trained(kind))
