"""A run through the engine, read back with TensorBoard's own readers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_accumulator import (
    EventAccumulator as DashboardAccumulator,
)

import textgen

STEPS = 16


@pytest.fixture
def pipeline(tmp_path):
    (tmp_path / "text.txt").write_text(
        "the cat sat on the mat and ate the rat. " * 20, encoding="utf-8"
    )

    def make(**observer):
        return {
            "corpus": {"type": "file", "path": str(tmp_path / "text.txt")},
            "tokenizer": {"type": "char"},
            "data": {"window_length": 8},
            "model": {"type": "rnn", "hidden_size": 4},
            "trainer": {"type": "sgd", "length": "2 epochs", "batch_size": 12, "evaluate_every": 4},
            "observer": [{"type": "metrics"}, {"type": "tensorboard", **observer}],
            "checkpoint": {"seconds": 0},
            "generate": {"max_new_tokens": 0},
        }

    return make


def read(folder):
    accumulator = EventAccumulator(str(folder)).Reload()
    return {
        tag: [(s.step, s.value) for s in accumulator.Scalars(tag)]
        for tag in accumulator.Tags()["scalars"]
    }


def samples(folder):
    """Steps and texts, as the text dashboard gets them."""
    events = DashboardAccumulator(str(folder)).Reload().Tensors("sample")
    return [(event.step, event.tensor_proto.string_val[0].decode()) for event in events]


def metrics(run):
    return [
        json.loads(line)
        for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def test_scalars_and_samples_come_back(pipeline, tmp_path):
    run = textgen.run(
        pipeline(every=3, sample_every=2, prompt="the ", max_new_tokens=5), output=tmp_path / "run"
    ).path
    scalars = read(run / "tensorboard")
    assert [step for step, _ in scalars["loss/training"]] == [3, 6, 9, 12, 15, 16]
    assert [step for step, _ in scalars["learning_rate"]] == [3, 6, 9, 12, 15, 16]
    assert all(norm > 0 for _, norm in scalars["gradient_norm"])
    rows = metrics(run)
    assert len(rows) == 4
    for tag, key in {
        "loss/validation": "validation_loss",
        **{name: name for name in ("perplexity", "bits_per_character", "characters_per_second")},
    }.items():
        assert scalars[tag] == [(row["step"], pytest.approx(row[key])) for row in rows]
    assert [step for step, _ in samples(run / "tensorboard")] == [8, 16]
    assert all(
        text.startswith("    the ") and len(text) == 13 for _, text in samples(run / "tensorboard")
    )


def test_a_value_that_is_not_there_has_no_tag(pipeline, tmp_path):
    source = pipeline(sample_every=0)
    source["data"]["validation"] = 0
    source["trainer"]["max_grad_norm"] = 0
    run = textgen.run(source, output=tmp_path / "run").path
    scalars = read(run / "tensorboard")
    assert "loss/validation" not in scalars
    assert "gradient_norm" not in scalars
    assert [step for step, _ in scalars["perplexity"]][-1] == scalars["loss/training"][-1][0]
    assert "sample" not in DashboardAccumulator(str(run / "tensorboard")).Reload().Tags()["tensors"]


class PullThePlug:
    """Ends the run without a checkpoint, at a step that the observers before this one have seen."""

    def __init__(self, step):
        self.step = step

    def observe(self, event):
        if getattr(event, "step", None) == self.step and type(event).__name__ == "StepDone":
            raise RuntimeError("power cut")


def test_a_resumed_run_shows_one_unbroken_curve(pipeline, tmp_path):
    source = pipeline(sample_every=1, max_new_tokens=4)
    whole = textgen.run(source, output=tmp_path / "whole").path
    source["checkpoint"]["seconds"] = 3600  # so that the power cut loses what came after the stop
    broken = tmp_path / "broken"
    stop = iter([False] * 6)
    with pytest.raises(textgen.Interrupted):  # stops after step 6, with a checkpoint
        textgen.run(source, output=broken, cancelled=lambda: next(stop, True))
    with pytest.raises(RuntimeError):  # and loses what it does in steps 7 to 13
        textgen.run(source, output=broken, observers=[PullThePlug(13)])
    assert read(broken / "tensorboard")["loss/training"][-1][0] == 13
    assert textgen.run(source, output=broken).outcome == "resumed"
    expected, scalars = read(whole / "tensorboard"), read(broken / "tensorboard")
    for tag in expected.keys() - {"characters_per_second"}:
        assert scalars[tag] == expected[tag]
    assert samples(broken / "tensorboard") == samples(whole / "tensorboard")


def test_a_run_that_replaces_another_starts_an_empty_curve(pipeline, tmp_path):
    source = pipeline()
    textgen.run(source, output=tmp_path / "run")
    source["trainer"]["length"] = "1 epoch"
    textgen.run(source, output=tmp_path / "run", overwrite=True)
    scalars = read(tmp_path / "run" / "tensorboard")
    assert [step for step, _ in scalars["loss/training"]] == list(range(1, STEPS // 2 + 1))


def test_directory_option_takes_the_event_file_elsewhere(pipeline, tmp_path):
    run = textgen.run(
        pipeline(directory=str(tmp_path / "board" / "one")), output=tmp_path / "run"
    ).path
    assert len(read(tmp_path / "board" / "one")["loss/training"]) == STEPS
    assert not (run / "tensorboard").exists()


def test_listing_plugins_loads_neither_tensorboard_nor_torch():
    code = (
        "import sys, textgen; names = [o.name for o in "
        "textgen.PluginSet.discover().offers('observer')]; "
        "assert 'tensorboard' in names, names; "
        "assert not {'tensorboard', 'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_pipeline_of_this_package_is_valid():
    chosen = textgen.Engine().pipeline(Path(__file__).parents[1] / "pipeline.toml")
    assert [choice.offer.name for choice in chosen.observer][-1] == "tensorboard"
