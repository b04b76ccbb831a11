"""A run whose model has other weights than those that training goes on from."""

import numpy as np
import pytest
import torch
from networks import Recurrent
from safetensors.numpy import load_file
from small_trainings import TEXT, run_in_parts, train

import textgen
from textgen.events import Evaluation
from textgen.gradient import GradientModel


def run_averaged(**more):
    trainer = {"type": "adamw", "average_share": 0.25, "learning_rate": 0.05, "decay_share": 0}
    trainer |= {"length": "6 steps", "batch_size": 8, "evaluate_every": 1}
    return train({"type": "rnn", "cell": "gru", "hidden_size": 8}, trainer=trainer, **more)


def differ(first, second):
    return not all(np.allclose(first[name], second[name], atol=1e-6) for name in first)


def test_a_mean_is_published_and_the_weights_themselves_go_on(tmp_path):
    last, means = [], []

    def follow(event):
        if isinstance(event, Evaluation):
            last.append({name: array.copy() for name, array in event.model.tensors().items()})
            before = means[-1] if means else last[0]
            share = 1 / (1 + 0.25 * len(means))
            means.append({n: (1 - share) * before[n] + share * last[-1][n] for n in before})

    whole = run_averaged(output=tmp_path / "whole", observers=[follow])
    model = whole.generator.model.tensors()
    best = whole.generator.record["best_step"] - 1
    assert not differ(model, means[best])
    assert differ(model, last[best])
    parts = run_in_parts(run_averaged, tmp_path / "parts", [1, 2])
    assert parts.generator.model_id == whole.generator.model_id
    assert parts.history[-1]["validation_loss"] == whole.history[-1]["validation_loss"]
    options = {"type": "sgd", "learning_rate": 1e-9, "length": "1 steps"}
    on = train({"start": str(whole.path)}, tokenizer=None, trainer=options)
    assert on.best_loss == pytest.approx(whole.best_loss, abs=1e-5)

    unfinished = tmp_path / "unfinished"
    with pytest.raises(textgen.Interrupted):
        run_averaged(output=unfinished, cancelled=lambda: True)
    (checkpoint,) = unfinished.glob("checkpoints/*")
    assert not differ(load_file(checkpoint / "model.safetensors"), last[0])
    with pytest.warns(UserWarning):
        assert not differ(textgen.load(unfinished).model.tensors(), means[0])
    assert textgen.Engine().finish(unfinished)
    assert not differ(textgen.load(unfinished).model.tensors(), means[0])


class Adapter(torch.nn.Module, GradientModel):
    """Learns what to add to the logits of a model that stays as it is."""

    base = "ab" * 32

    def __init__(self, model):
        super().__init__()
        self.model = model.requires_grad_(False)
        self.added = torch.nn.Parameter(torch.zeros(model.head.out_features))

    def forward(self, tokens, state=None):
        logits, state = self.model(tokens, state)
        return logits + self.added, state

    def published(self):
        own = GradientModel.of(self.model).tensors()
        return {**own, "head.bias": own["head.bias"] + self.added.detach().numpy()}

    def load_tensors(self, tensors):
        if "added" not in tensors:
            own = self.tensors()
            added = tensors["head.bias"] - self.model.head.bias.numpy()
            tensors = {**own, "added": added}
        super().load_tensors(tensors)


def adapted(context):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        model = Recurrent(context.vocab_size)
    return Adapter(model) if context.training else GradientModel.of(model)


class Offering:
    @textgen.hookimpl
    def textgen_models(self):
        build = lambda config, context: adapted(context)  # noqa: E731
        return [textgen.Component("adapter", textgen.NoOptions, build)]


def test_an_adapter_is_merged_into_the_model_of_its_run_and_trained_on(tmp_path):
    plugins = textgen.PluginSet.discover()
    plugins.register(Offering(), "adapter", distribution="adapter", version="1")
    plain = {"corpus": TEXT, "tokenizer": "char", "data": {"window_length": 12}, "device": "cpu"}

    def run(length="8 steps", **more):
        trainer = {"type": "adamw", "length": length, "batch_size": 6, "learning_rate": 0.05}
        given = {"model": "adapter", "trainer": trainer, **plain, **more}
        return textgen.Engine(plugins).train(**given)

    parts = run_in_parts(run, tmp_path / "run", [2, 2])
    kept = load_file(next((parts.path / "checkpoints").glob("*/model.safetensors")))
    assert kept.keys() == {"base_sha256", "added"}
    model = parts.generator.model.tensors()
    assert {"embedding.weight", "head.bias"} < model.keys()
    assert parts.generator.model_id == run().generator.model_id
    started = run("1 step", model={"start": str(parts.path)}, tokenizer=None)
    longer = run("12 steps", output=parts.path)
    for on in (started, longer):
        assert on.best_loss < parts.best_loss
