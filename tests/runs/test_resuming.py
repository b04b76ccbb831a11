"""A run that was interrupted ends as if it never had been."""

import contextlib
import functools
import itertools
import types
from typing import Any

import attrs
import pytest
import torch
from components import Recorder, Utf8, engine_of
from small_run import TEXT, assert_same, prepare, record_of, tables, tree

import textgen
from textgen.errors import Difference
from textgen.events import Evaluation, StepDone, Stop


@pytest.mark.fault(5)
@pytest.mark.parametrize(
    ("trainer", "order", "cell"),
    [
        pytest.param("sgd", "shuffled", "rnn", marks=pytest.mark.slow),
        ("adamw", "streams", "lstm"),
    ],
)
def test_resumed_after_every_step_is_as_if_never_interrupted(folder, trainer, order, cell):
    heading = "=== step by step ===\n"
    (folder / "text.txt").write_text(TEXT + heading)
    pipeline = tables(folder, trainer, order, cell=cell, layers=2)
    pipeline["observer"][1]["prompt"] = heading  # which begins samples that look like headings
    whole = textgen.run(pipeline, output=folder / "whole")
    interruptions, resumed = 0, None
    while resumed is None:
        try:
            resumed = textgen.run(pipeline, output=folder / "parts", cancelled=lambda: True)
        except textgen.Interrupted:
            interruptions += 1
            assert record_of(folder / "parts")["status"] == "unfinished"
    assert interruptions == record_of(whole.path)["step"] >= 6
    assert (whole.outcome, resumed.outcome) == ("trained", "resumed")
    assert resumed.generations == whole.generations
    assert_same(resumed.path, whole.path)


class Stopping:
    """Ends a run at a step, in a way of its own."""

    def __init__(self, how, step, path):
        self.how, self.step, self.path, self.now = how, step, path, 0

    def cancelled(self):
        return self.now >= self.step and self.how in ("cancelled", "finish")

    def observe(self, event):
        if isinstance(event, Evaluation):
            self.model = event.model
        self.now = event.step
        if not isinstance(event, StepDone) or event.step != self.step:
            return None
        match self.how:
            case "stop":
                return Stop("enough")
            case "interrupt":
                raise KeyboardInterrupt
            case "failing":
                raise ZeroDivisionError
            case "finish":
                with pytest.raises(textgen.RunLockedError):
                    textgen.Engine().finish(self.path)
            case "diverged":
                with torch.no_grad():
                    next(iter(self.model.parameters())).fill_(torch.nan)
        return None


STOPS = ("stop", "cancelled", "interrupt", "failing", "finish", "diverged")
NEIGHBOURS = {*itertools.pairwise((*STOPS, STOPS[0]))}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run that ends in one way alone, or is as long as it can be."""
    folder = prepare(tmp_path_factory.mktemp("alone"))

    @functools.cache
    def run(how, step):
        path = folder / f"{how}{step}"
        way = Stopping(how, step, path)
        with contextlib.suppress(textgen.Interrupted):
            textgen.run(tables(folder), output=path, observers=[way], cancelled=way.cancelled)
        textgen.Engine().finish(path)
        return path

    return run


@pytest.mark.parametrize("steps", [(3, 3), (3, 5)])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(*pair, marks=() if pair in NEIGHBOURS else pytest.mark.slow)
        for pair in itertools.product(STOPS, STOPS)
    ],
)
def test_any_stop_with_any_other_loses_nothing(folder, alone, one, other, steps):
    path, pipeline, same = folder / "run", tables(folder), alone("", 0)
    ways = [Stopping(how, step, path) for how, step in zip((one, other), steps, strict=True)]
    for together in (ways,) if steps[0] == steps[1] else (ways[:1], ways[1:]):
        hows, before = {way.how for way in together}, tree(path)
        asked = [way.cancelled for way in together]
        ended = contextlib.suppress(textgen.TextgenError, KeyboardInterrupt, ZeroDivisionError)
        with ended if hows != {"stop"} else contextlib.nullcontext():
            textgen.run(
                pipeline,
                output=path,
                observers=together,
                cancelled=lambda asked=asked: any(ask() for ask in asked),
            )
        if same != alone("", 0):
            assert tree(path) == before
            break
        stops = "stop" in hows and not hows & {"interrupt", "failing", "diverged"}
        assert record_of(path)["status"] == ("finished" if stops else "unfinished")
        if stops:
            same = alone("stop", together[0].step)
        elif "finish" in hows:
            assert textgen.Engine().finish(path)
            same = alone("finish", record_of(path)["step"])
    resumed = textgen.run(pipeline, output=path)
    assert resumed.outcome == ("resumed" if same == alone("", 0) else "skipped")
    assert_same(path, same)


@pytest.mark.slow
def test_checkpoints_change_nothing_whenever_they_are_written(folder):
    """Between a step and its evaluation too, which fits the gate of a mixture anew."""
    pipeline = tables(folder, "adamw")
    for table in ("model", "trainer"):
        pipeline[table] = {"type": "mixture", "first": pipeline[table]}
    one, other = (
        textgen.run(pipeline, {"checkpoint.seconds": seconds}, output=folder / str(seconds))
        for seconds in (0, 1000)
    )
    assert one.generator.model_id == other.generator.model_id


def test_a_checkpoint_is_written_every_so_many_seconds_and_at_the_best_evaluation(
    folder, monkeypatch
):
    """By the clock of this test, a step takes a second.

    Older checkpoints are removed, but the best one.
    """
    now = [0.0]
    clock = types.SimpleNamespace(perf_counter=lambda: now[0])
    monkeypatch.setattr("textgen.runs.training.time", clock)
    kept = []

    def watch(event):
        if isinstance(event, StepDone):
            now[0] += 1
            found = sorted((folder / "run/checkpoints").iterdir())
            if (steps := [int(path.name[5:]) for path in found]) not in ([], *kept[-1:]):
                kept.append(steps)

    pipeline = tables(folder)
    pipeline["trainer"] |= {"length": "20 epochs", "evaluate_every": 30, "learning_rate": 1e-3}
    pipeline["checkpoint"] = {"seconds": 20}
    textgen.run(pipeline, output=folder / "run", observers=[watch])
    assert kept == [[20], [30], [30, 50], [60]]


def test_an_option_that_a_plugin_has_since_then_was_its_default(tiny_pipeline):
    @attrs.frozen
    class Before:
        """Bytes."""

    @attrs.frozen
    class After:
        """Bytes."""

        depth: int = textgen.option(1, help="a depth")
        part: Any = textgen.option(factory=lambda: {"type": "bpe"}, kind="tokenizer", help="a part")

    class Stopping:
        def fingerprint(self):
            return {"depth": self.depth} if hasattr(self, "depth") else {}

    def engine(config):
        stopping = type("Config", (Stopping, config), {"__doc__": "May stop."})
        return engine_of(
            tokenizer=[textgen.Component("odd", config, lambda *_: Utf8())],
            observer=[textgen.Component("odd", stopping, lambda *_: Recorder())],
        )

    tables = tiny_pipeline(tokenizer={"type": "odd"}, observer=[{"type": "odd"}])
    old, new = engine(Before), engine(After)
    with pytest.raises(textgen.Interrupted):
        old.run(tables, cancelled=lambda: True)
    with pytest.raises(textgen.RunMismatchError) as caught:
        new.run(tables, {"tokenizer.depth": 2})
    assert Difference("tokenizer.depth", 1, 2) in caught.value.differences
    assert new.run(tables).outcome == "resumed"
    assert new.run(tables, {"tokenizer.depth": 1}).outcome == "skipped"
