"""Generators, modules and objects that are trained on, resumed and saved."""

import numpy as np
import pytest
import torch
from components import Utf8
from raising import raises
from test_objects import Net, _own_temporary_folder, spelling, train  # noqa: F401 - used by every test

import textgen
from textgen.gradient import GradientModel


def test_a_run_is_saved_on_request_and_takes_its_objects_again(tmp_path):
    run = train(model=Net(), tokenizer=Utf8(), sampler=[spelling("e")])
    run.save(tmp_path / "saved")
    with raises(textgen.RunError, path=tmp_path / "saved"):
        run.save(tmp_path / "saved")
    for given, missing in (
        ({}, ["tokenizer.type", "model.type", "sampler.0.type"]),
        ({"tokenizer": Utf8(), "sampler": spelling("e")}, ["model.type"]),
        ({"model": Net(), "tokenizer": Utf8()}, ["sampler.0.type"]),
    ):
        with pytest.raises(textgen.UsageError) as caught:
            textgen.load(tmp_path / "saved", **given)
        assert [fault.path for fault in caught.value.faults] == missing
        assert "it was an object" in str(caught.value)
    objects = {"tokenizer": Utf8(), "model": Net()}
    loaded = textgen.load(tmp_path / "saved", **objects, sampler=[])
    assert np.array_equal(loaded.logits("Once"), run.generator.logits("Once"))
    only = textgen.load(tmp_path / "saved", **objects, sampler=spelling("e"))
    assert only.generate("Once", max_new_tokens=4).text == "eeee"

    class OwnLoading(GradientModel, Net):
        def load_tensors(self, tensors):
            self.load_state_dict({name: torch.from_numpy(array) for name, array in tensors.items()})

    for kind in (Net, OwnLoading):  # with an error of GradientModel, and one of torch
        with raises(textgen.ContractError, component=kind.__name__.lower()) as caught:
            textgen.load(
                tmp_path / "saved", **objects | {"model": kind(vocab_size=255)}, sampler=[]
            )
        assert "embedding.weight" in caught.value.cause


def test_a_trained_model_is_trained_on_another_text(tmp_path):
    first = train().generator
    before = first.generate("Once", max_new_tokens=20).text
    train().save(tmp_path / "first")
    other = {"corpus": "no hills\n" * 60}
    ways = (
        {"model": first.module(), "tokenizer": first.tokenizer},
        {"model": {"start": str(tmp_path / "first")}},
    )
    made = [train(**{**other, **way}).generator for way in ways]
    assert {generator.model_id for generator in made} == {made[0].model_id}
    assert made[0].model_id != first.model_id
    assert all(each.tokenizer.to_dict() == first.tokenizer.to_dict() for each in made)
    assert first.generate("Once", max_new_tokens=20).text == before


def test_an_object_is_resumed_and_skipped_in_a_run_directory(tmp_path):
    def module():
        torch.manual_seed(0)
        return Net()

    steps = iter(range(100))
    options = {"trainer": {"type": "adamw", "length": "2 epochs"}, "tokenizer": Utf8()}
    whole = train(model=module(), **options)
    options["output"] = tmp_path / "run"
    with pytest.raises(textgen.Interrupted):
        train(model=module(), cancelled=lambda: next(steps) == 4, **options)
    resumed = train(model=Net(), **options)  # its weights come from the checkpoint
    assert resumed.outcome == "resumed"
    assert resumed.generator.model_id == whole.generator.model_id
    assert train(model=Net(), **options).outcome == "skipped"
