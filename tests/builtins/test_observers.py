"""What the observers `progress`, `samples` and `loss-plot` write."""

import io
import math
import re
import types

import pytest
from components import context, make

import textgen
from textgen import Engine
from textgen.events import Evaluation, StepDone
from textgen_builtins.curves import Curve, draw
from textgen_builtins.observers import progress

COUNTS = {"model": {"type": "ngram", "order": 3}, "trainer": {"type": "count"}}


@pytest.mark.parametrize(("parts", "counted"), [({}, True), (COUNTS, False)])
def test_the_first_line_counts_parameters_where_there_are_any_and_the_same_when_resumed(
    parts, counted, tiny_pipeline
):
    tables, console = tiny_pipeline(observer=[{"type": "progress"}]) | parts, io.StringIO()
    with pytest.raises(textgen.Interrupted):
        Engine().run(tables, console=console, cancelled=lambda: True)
    for _ in range(2):
        Engine().run(tables, console=console)
    begun, resumed = re.findall("(?m)^training on.*", console.getvalue())
    assert begun == resumed
    assert (" parameters, " in begun) is counted
    assert begun.startswith("training on cpu: ")
    assert " tokens in the vocabulary, " in begun


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_losses_of_longer_tokens_are_told_by_the_character_too(kind, tiny_pipeline):
    tables, console = tiny_pipeline(observer=[{"type": "progress"}]), io.StringIO()
    run = Engine().run(tables | {"tokenizer": {"type": kind}}, console=console)
    told = re.findall(r"\(best .*\), ([\d.]+) a character,", console.getvalue())
    bits = run.history[-1]["bits_per_character"]
    assert run.history[-1]["gradient_norm"] > 0
    assert told == ([f"{bits * math.log(2):.3f}"] if kind == "bpe" else [])


def test_the_time_left_is_that_of_the_steps(monkeypatch):
    """A short run has evaluated once, for a second of its few, when it first says how long it
    takes.
    """
    now = 0.0
    monkeypatch.setattr(progress, "time", types.SimpleNamespace(monotonic=lambda: now))
    shown = progress.Progress(console := io.StringIO())
    for step in range(1, 12):
        shown.observe(StepDone(step=step, steps=100, epoch=1, loss=2.0, tokens=10))
        now += 0.1
    now += 5.0
    figures = ("step", "training_loss", "validation_loss", "perplexity", "bits_per_character")
    rest = {"epoch": 1, "characters_per_second": 1.0, "seconds": 6.0, "best": True, "sample": None}
    shown.observe(Evaluation(**dict.fromkeys(figures, 2.0), **rest))
    assert ", 100 tokens/s, 9 s left\n" in console.getvalue()
    now += 31.0
    shown.observe(StepDone(step=12, steps=100, epoch=1, loss=1.5, tokens=10))
    assert "step 12/100: loss 1.500, " in console.getvalue()


def test_an_observer_that_writes_files_asks_for_a_run_directory():
    with pytest.raises(ValueError, match="run directory"):
        make("observer", "metrics", context())


def test_a_run_has_some_ten_samples_at_equal_distances(tiny_pipeline):
    trainer = {"length": "60 steps", "evaluate_every": 1}
    samples = {"type": "samples", "characters": 5}
    run = textgen.run(tiny_pipeline(trainer=trainer, observer=[samples]))
    text = (run.path / "samples.txt").read_text(encoding="utf-8")
    assert [*map(int, re.findall(r"(?m)^=== step (\d+) ===$", text))] == [1, *range(6, 61, 6)]


@pytest.mark.parametrize("tokenizer", [{"type": "char"}, {"type": "bpe", "vocab_size": 300}])
def test_samples_are_as_long_whatever_a_token_is(tiny_pipeline, tokenizer):
    samples = {"type": "samples", "characters": 200}
    run = textgen.run(tiny_pipeline(observer=[samples], tokenizer=tokenizer) | COUNTS)
    _, text = (run.path / "samples.txt").read_text(encoding="utf-8").split(" ===\n")
    assert 150 < len(text) < 270


def test_the_plot_says_whose_the_training_loss_is_and_which_loss_was_the_best(tiny_pipeline):
    points = [(1, 2.0), (2, 1.5), (3, 1.75)]
    assert "1.750 validation, best 1.500</text>" in draw([Curve("validation", points)], "loss")
    tables = tiny_pipeline(observers=True)
    mixed = {name: {"type": "mixture", "first": tables[name]} for name in ("model", "trainer")}
    network, gradient, mixture = (
        (textgen.run(tables | parts, overwrite=True).path / file).read_text(encoding="utf-8")
        for parts, file in (({}, "loss.svg"), ({}, "gradient.svg"), (mixed, "loss.svg"))
    )
    norm = textgen.run(tables, overwrite=True).history[-1]["gradient_norm"]
    assert f">{norm:.3f} gradient" in gradient
    assert re.search(r">[\d.]+ training(, best [\d.]+)?</text>", network)
    assert "training of the first model alone" in mixture
    assert re.search(r">[\d.]+ validation", mixture)
