"""The training loop of textgen.gradient: what it resumes, decides and measures."""

from __future__ import annotations

import itertools
import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from components import Recorder
from small_trainings import pipeline, weights

import textgen
from textgen import (
    BuildContext,
    Component,
    Engine,
    PluginSet,
    TrainingError,
    hookimpl,
    option,
)
from textgen.events import Decided, Evaluation, StepDone
from textgen.gradient import (
    GradientOptions,
    GradientTrainer,
    Parameters,
    constant,
    cosine,
    warmup_stable_decay,
)
from textgen.protocols import TrainerState


def run_in_parts(
    engine: Engine, tables: dict[str, Any], output: Path, stops: Sequence[int]
) -> textgen.Run:
    """Interrupt after each of so many steps, then finish."""
    for stop in stops:
        count = itertools.count(1)
        with pytest.raises(textgen.Interrupted):
            engine.run(
                tables, output=output, cancelled=lambda count=count, stop=stop: next(count) > stop
            )
    return engine.run(tables, output=output)


@pytest.mark.slow
@pytest.mark.parametrize(
    "trainer",
    [
        {},
        {"compute": "bfloat16"},
        {"order": "shuffled", "warmup_steps": 4},
        {"type": "sgd", "momentum": 0.9},
    ],
    ids=str,
)
def test_a_run_in_parts_is_the_run_in_one(trainer: dict[str, Any], tmp_path: Path) -> None:
    tables = pipeline(trainer)
    whole = Engine().run(tables, output=tmp_path / "whole")
    parts = run_in_parts(Engine(), tables, tmp_path / "parts", [4, 11])
    assert parts.outcome == "resumed"
    assert weights(parts.path) == weights(whole.path)


def test_what_is_decided_is_recorded_and_kept_when_a_run_resumes(tmp_path: Path) -> None:
    tables = pipeline({"length": "1s", "compute": "auto"})
    recorder = Recorder()

    def has_decided() -> bool:
        return any("steps" in event.values for event in recorder.of(Decided))

    with pytest.raises(textgen.Interrupted):
        textgen.run(tables, output=tmp_path / "run", observers=[recorder], cancelled=has_decided)
    decided = json.loads((tmp_path / "run/run.json").read_text())["decided"]
    assert decided.keys() == {"precision", "steps"}
    again = Recorder()
    run = textgen.run(tables, output=tmp_path / "run", observers=[again])
    assert not again.of(Decided)
    record = json.loads((run.path / "run.json").read_text())
    assert record["decided"] == decided
    assert record["step"] == decided["steps"] >= record["stable_steps"] > 0
    saved = tomllib.loads((run.path / "pipeline.toml").read_text())
    assert (saved["trainer"]["length"], saved["trainer"]["compute"]) == ("1s", "auto")
    for same in (tables, saved):
        assert textgen.run(same, output=run.path).outcome == "skipped"


def test_the_validation_loss_is_what_evaluate_gives(tmp_path: Path) -> None:
    """The held-out text is read as one stream, though in parts side by side."""
    tables = pipeline({"length": "20 steps", "evaluate_every": 20})
    tables["data"]["validation"] = 0.1
    recorder = Recorder()
    run = textgen.run(tables, output=tmp_path / "run", observers=[recorder])
    text = "".join(Engine().read_corpus({"type": "story"}))
    tokens = run.generator.tokenizer.encode(text)
    held_out = run.generator.tokenizer.decode(tokens[-len(tokens) // 10 :])
    best = min(event.validation_loss for event in recorder.of(Evaluation))
    assert best == pytest.approx(run.generator.score(held_out).loss, abs=2e-3)


def test_streams_begin_elsewhere_in_every_epoch(tmp_path: Path) -> None:
    from textgen.data import Windows
    from textgen.gradient.batches import training_batches

    windows = Windows(np.arange(1000), 10, 10)
    batches = training_batches(GradientOptions(order="streams", batch_size=4), windows, seed=3)
    starts = {int(batches.batch(epoch, 0)[0, 0]) for epoch in range(6)}
    assert len(starts) == 6


# Optimizers and models of plugins.


@attrs.frozen(kw_only=True)
class OddConfig(GradientOptions):
    """Two optimizers, one of which counts in Python."""

    learning_rate: float = option(0.01, help="learning rate")


class Counting(torch.optim.Optimizer):
    """Plain descent whose rate falls with a count of its own, kept as an int and in its group."""

    def __init__(self, parameters: list[torch.Tensor]) -> None:
        super().__init__(parameters, {"lr": 0.1, "calls": 0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            group["calls"] += 1
            for parameter in group["params"]:
                marks = self.state[parameter].setdefault("marks", [0])
                marks[0] += 1
                parameter.sub_(parameter.grad, alpha=group["lr"] / (marks[0] + group["calls"]))


class Odd:
    """A plugin with a trainer, and a model with a loss and roles of its own."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    @hookimpl
    def textgen_trainers(self) -> list[Component]:
        return [Component("odd", OddConfig, self.build_trainer)]

    @hookimpl
    def textgen_models(self) -> list[Component]:
        return [Component("own-loss", textgen.NoOptions, self.build_model)]

    def build_trainer(self, config: OddConfig, context: BuildContext) -> GradientTrainer:
        def optimizers(parameters: Parameters) -> list[torch.optim.Optimizer]:
            self.seen.append(parameters.roles)
            rest = parameters.of_role("embedding", "vector", "head")
            matrices = parameters.of_role("matrix")
            counting = [Counting(matrices)] if matrices else []
            return [*counting, torch.optim.Adam(rest, lr=config.learning_rate)]

        return GradientTrainer(config, optimizers)

    def build_model(self, config: Any, context: BuildContext) -> Any:
        from textgen.gradient import GradientModel

        outer = self

        class Network(torch.nn.Module, GradientModel):
            def __init__(self) -> None:
                super().__init__()
                self.table = torch.nn.Parameter(torch.zeros(context.vocab_size, context.vocab_size))
                self.gain = torch.nn.Parameter(torch.ones(1))

            def forward(self, tokens: torch.Tensor, state: Any = None) -> Any:
                return self.table[tokens] * self.gain, ()

            def parameter_roles(self) -> dict[str, str]:
                return {"table": "head"}

            def training_loss(
                self, tokens: torch.Tensor, targets: torch.Tensor, state: Any = None
            ) -> Any:
                outer.seen.append("own loss")
                logits, state = self(tokens, state)
                return torch.nn.functional.cross_entropy(
                    logits.flatten(0, 1), targets.flatten()
                ) + 100.0, state

        return Network()


@pytest.fixture
def odd() -> Odd:
    return Odd()


@pytest.fixture
def engine(odd: Odd) -> Engine:
    plugins = PluginSet.discover()
    plugins.register(odd, "odd")
    return Engine(plugins)


def test_what_optimizers_keep_is_resumed(engine: Engine, odd: Odd, tmp_path: Path) -> None:
    tables = pipeline({"type": "odd", "order": "shuffled", "length": "12 steps"}, embedding_size=6)
    whole = engine.run(tables, output=tmp_path / "whole")
    parts = run_in_parts(engine, tables, tmp_path / "parts", [3, 5])
    assert weights(parts.path) == weights(whole.path)
    assert {"embedding", "matrix", "vector"} <= set(odd.seen[0])


def test_a_model_may_have_a_loss_and_roles_of_its_own(
    engine: Engine, odd: Odd, tmp_path: Path
) -> None:
    recorder = Recorder()
    tables = pipeline({"order": "shuffled", "type": "odd"}) | {"model": {"type": "own-loss"}}
    engine.run(tables, output=tmp_path / "run", observers=[recorder])
    assert ("head", "vector") in odd.seen
    assert "own loss" in odd.seen
    assert all(event.loss > 100 for event in recorder.of(StepDone))
    assert all(event.validation_loss < 10 for event in recorder.of(Evaluation))


# Losses that stay on the device.


@attrs.define
class LateTrainer:
    """Gives losses as tensors, the 20th of which is NaN."""

    given: int = 0

    def train(self, model: Any, data: Any, context: Any) -> Any:
        for step in range(1, 200):
            self.given = step
            loss = torch.tensor(float("nan") if step >= 20 else 2.0)
            yield StepDone(
                step=step, steps=200, epoch=1, loss=loss, tokens=8, gradient_norm=torch.tensor(1.0)
            )

    def state(self) -> TrainerState:
        return TrainerState()

    def load_state(self, state: TrainerState) -> None: ...


def test_a_nan_that_stays_on_the_device_stops_the_run_a_few_steps_later(tmp_path: Path) -> None:
    trainer = LateTrainer()

    class Late:
        @hookimpl
        def textgen_trainers(self) -> list[Component]:
            return [Component("late", textgen.NoOptions, lambda config, context: trainer)]

    plugins = PluginSet.discover()
    plugins.register(Late(), "late")
    with pytest.raises(TrainingError, match="the loss is nan at step 20"):
        Engine(plugins).run(pipeline({}) | {"trainer": {"type": "late"}}, output=tmp_path / "run")
    assert 20 <= trainer.given <= 30


# Schedules.


def test_schedules() -> None:
    assert constant(5, 10) == 1
    rising = cosine(warmup=4, final=0.1)
    assert [rising(step, 100) for step in (1, 4)] == [0.25, 1.0]
    assert rising(100, 100) == pytest.approx(0.1)
    stable = warmup_stable_decay(warmup=10, decay=0.5, final=0.0)
    assert [stable(step, 100) for step in (5, 10, 51)] == [0.5, 1.0, 1.0]
    assert stable(100, 100) == pytest.approx(0.02)
    assert stable(40, 100) == stable(40, 10_000)


class Spoilt(torch.nn.Module):
    """A model that is no number from the beginning."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(torch.full((size, size), torch.nan))

    def forward(self, tokens: Any, state: Any = None) -> Any:
        return self.table[tokens], ()


def test_a_loss_that_is_no_number_before_the_first_update_is_the_models_fault() -> None:
    text = "the clock struck nine. " * 60
    with pytest.raises(
        TrainingError,
        match="the loss is nan at step 1, before the first update, so the model is at",
    ):
        textgen.train(corpus=text, model=Spoilt(len(set(text)) + 1), trainer="adamw")
