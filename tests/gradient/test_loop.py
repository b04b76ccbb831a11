"""The training loop of textgen.gradient: what it resumes, decides, shares out and measures."""

from __future__ import annotations

import io
import itertools
import json
import platform
import threading
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from commands import run_with_torch

import textgen
from textgen import BuildContext, Component, Engine, PipelineError, PluginSet, TrainingError, hookimpl, option
from textgen.events import Evaluation, Event, Settled, StepDone
from textgen.gradient import GradientOptions, GradientTrainer, Parameters, constant, cosine, eager, warmup_stable_decay
from textgen.gradient.computing import choose_precision, choose_workers, cross_entropy
from textgen.protocols import TrainerState, TrainingContext


def pipeline(trainer: dict[str, Any], **model: Any) -> dict[str, Any]:
    """A run of a few seconds at most."""
    return {
        "device": "cpu",
        "corpus": {"type": "story"},
        "tokenizer": {"type": "char"},
        "data": {"window_length": 16},
        "model": {"type": "rnn", "cell": "gru", "hidden_size": 12, "dropout": 0.2, **model},
        "trainer": {"type": "adamw", "steps": 30, "batch_size": 8, "order": "streams", **trainer},
        "observer": [],
        "generate": {"max_new_tokens": 5},
    }


@attrs.define
class Recorder:
    """Keeps the events of a run."""

    events: list[Event] = attrs.field(factory=list)

    def observe(self, event: Event) -> None:
        self.events.append(event)

    def of(self, cls: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, cls)]


def weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


def run_in_parts(engine: Engine, tables: dict[str, Any], output: Path, stops: Sequence[int]) -> textgen.Run:
    """Interrupt after each of so many steps, then finish."""
    for stop in stops:
        count = itertools.count(1)
        with pytest.raises(textgen.Interrupted):
            engine.run(tables, output=output, cancelled=lambda count=count, stop=stop: next(count) > stop)
    return engine.run(tables, output=output)


@pytest.mark.parametrize(
    "trainer",
    [
        {},
        {"precision": "bfloat16"},
        {"workers": 2},
        {"workers": 3, "batch_size": 7, "gradient_clipping": "off"},
        {"order": "shuffled", "schedule": "decay", "warmup_steps": 4},
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


@pytest.mark.parametrize("locked", [True, False])
def test_workers_compute_the_gradient_of_the_whole_batch(locked: bool, tmp_path: Path) -> None:
    """Rows shared out unevenly still count alike, and have their rows of the batch's dropout; only rounding differs."""
    losses = {}
    for workers in (1, 3):
        recorder = Recorder()
        tables = pipeline({"workers": workers, "batch_size": 7, "steps": 12}, input_dropout=0.3, locked_dropout=locked)
        textgen.run(tables, output=tmp_path / str(workers), observers=[recorder])
        losses[workers] = [event.loss for event in recorder.of(StepDone)]
    assert losses[3] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has other thresholds")
@pytest.mark.parametrize(
    ("batch", "model"),
    [
        (1024, {"hidden_size": 32}),  # many blocks, none large
        (128, {"hidden_size": 256, "cell": "lstm"}),  # blocks of more than 32 MB
    ],
)
def test_a_step_uses_the_memory_that_the_last_one_freed(batch: int, model: dict[str, Any], tmp_path: Path) -> None:
    """Otherwise a page fault for each 4 kB of it takes a third of the time of a step. At the end it is given back."""
    code = """
import itertools, json, resource, statistics, sys, textgen
from pathlib import Path
batch, model = int(sys.argv[2]), json.loads(sys.argv[3])
faults, resident = [], []
def cancelled():
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
    resident.append(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 20)
    return False
trainer = {"type": "sgd", "steps": 20, "batch_size": batch, "evaluate_every": 100, "workers": 1}
textgen.run({"device": "cpu", "corpus": {"type": "story"}, "tokenizer": {"type": "char"}, "observer": [],
             "trainer": trainer,
             "data": {"window_length": 32, "window_stride": 1, "training_windows": 4096, "validation_windows": 0},
             "model": {"type": "rnn", **model}}, output=sys.argv[1], cancelled=cancelled)
most = max(resident)
cancelled()
of_steps = [after - before for before, after in itertools.pairwise(faults)]
print(statistics.median(of_steps[5:]), most - resident[-1])  # in one step or another the memory grows by a block
"""
    for folder in ("first", "second"):  # the second finds the text encoded, and frees no large block on its way
        done = run_with_torch("-c", code, str(tmp_path / folder), str(batch), json.dumps(model), folder=tmp_path)
        assert done.returncode == 0, done.stderr
    faults, given_back = map(float, done.stdout.split()[-2:])
    assert faults < 500
    assert given_back > 10


def test_steps_and_evaluations_are_made_in_the_workers_own_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's pool of threads waits for the slowest, and must have no part in them; each worker keeps its thread."""
    computed: dict[str, set[str]] = {"forward": set(), "update": set()}

    class Watched(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = torch.nn.Embedding(10, 10)

        def forward(self, tokens: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
            if self.training:
                assert torch.get_num_threads() == 1
                computed["forward"].add(f"{tokens.shape[0]} rows in {threading.current_thread().name}")
            return self.weights(tokens), ()

        def set_dropout_seed(self, seed: int) -> None:
            pass

    optimizer = eager(torch.optim.AdamW)
    step = optimizer.step
    monkeypatch.setattr(
        optimizer,
        "step",
        lambda *given: (computed["update"].add(threading.current_thread().name), step(*given))[1],
    )
    before = torch.get_num_threads()
    trainer = {"type": "adamw", "steps": 3, "batch_size": 5, "workers": 2, "precision": "float32"}
    corpus = "some letters, " * 400
    textgen.train(corpus=corpus, tokenizer="char", model=Watched(), trainer=trainer, device="cpu", threads=3)
    assert torch.get_num_threads() == before
    (updater,) = computed["update"]
    assert updater.startswith("textgen-worker")
    by_worker = {rows.partition(" in ")[::2] for rows in computed["forward"]}
    assert {thread for rows, thread in by_worker if rows == "3 rows"} == {updater}
    assert len({thread for _, thread in by_worker}) == 2
    assert len({thread for rows, thread in by_worker if rows == "2 rows"}) == 1


@pytest.mark.parametrize("time_first", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_loss_and_its_gradient_are_torchs(dtype: torch.dtype, time_first: bool) -> None:
    drawn = torch.Generator().manual_seed(1)
    shape = (7, 3, 11) if time_first else (3, 7, 11)
    leaf = (3 * torch.randn(shape, generator=drawn)).to(dtype).requires_grad_()
    logits = leaf.transpose(0, 1) if time_first else leaf
    targets = torch.randint(11, logits.shape[:2], generator=drawn)
    loss = cross_entropy(logits, targets)
    expected = torch.nn.functional.cross_entropy(logits.transpose(1, 2).float(), targets)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    (ours,), (theirs,) = (torch.autograd.grad(2 * value, leaf) for value in (loss, expected))
    assert ours.dtype == dtype
    torch.testing.assert_close(ours, theirs, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-7)


def test_what_is_slow_is_tried_no_longer_than_two_steps() -> None:
    """As on a machine whose cores other programs use."""

    class Slow(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights, self.calls = torch.nn.Embedding(3, 3), 0

        def forward(self, tokens: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
            self.calls += 1
            time.sleep(0.26)
            return self.weights(tokens), ()

    model = Slow()
    assert choose_precision(model, np.zeros((1, 3), np.int64), TrainingContext(seed=0, device="cpu"), 1)
    assert model.calls == 4


def test_torchs_own_threads_are_given_up_after_one_step_that_takes_far_longer() -> None:
    """As on a machine whose cores other programs use; workers compute in threads of their own."""
    calls: list[torch.Tensor] = []

    class Waiting(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = torch.nn.Embedding(3, 3)

        def forward(self, tokens: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
            if threading.current_thread() is threading.main_thread():
                time.sleep(1)
                calls.append(tokens)
            return self.weights(tokens), ()

    windows, context = np.zeros((2, 3), np.int64), TrainingContext(seed=0, device="cpu")
    assert choose_workers(Waiting(), windows, context, "float32", 2) == 2
    assert len(calls) == 1


@pytest.mark.parametrize(("options", "helps"), [({"threads": 2}, True), ({"threads": 1}, False), ({}, False)])
def test_a_run_on_a_busy_machine_says_what_helps(
    options: dict[str, int], helps: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("textgen_builtins.observers.progress._FIRST_LINE", 0.0)
    monkeypatch.setattr("textgen_builtins.observers.cpu_watch.CpuWatch.cores_of_others", lambda _: 999.0)
    tables = pipeline({"steps": 3, "workers": 1 if options else 2})
    console = io.StringIO()
    Engine().run({**tables, **options, "observer": [{"type": "progress"}]}, output=tmp_path / "run", console=console)
    line = next(line for line in console.getvalue().splitlines() if line.startswith("other programs use 999.0 of"))
    assert ("; threads = 1 in the pipeline, or OMP_NUM_THREADS=1, " in line) is helps


def test_another_number_of_workers_may_resume(tmp_path: Path) -> None:
    """The carried state is one for all workers in a checkpoint."""
    trainer = GradientTrainer(GradientOptions(), lambda p: torch.optim.SGD(p, lr=0.1))
    trainer._carried = [(torch.arange(6.0).reshape(3, 2),), (torch.arange(4.0).reshape(2, 2),)]
    assert trainer.state().arrays["carried.0"].shape == (5, 2)


def test_auto_and_budget_are_decided_once_and_recorded(tmp_path: Path) -> None:
    tables = pipeline({"steps": None, "budget": "3s", "precision": "auto", "workers": "auto"})
    del tables["trainer"]["steps"]
    recorder = Recorder()
    first = textgen.run(tables, output=tmp_path / "first", observers=[recorder])
    decided = json.loads((first.path / "run.json").read_text())["settled"]["settled"]
    assert decided.keys() == {"steps", "measured", "evaluations", "budget", "precision", "workers"}
    assert recorder.of(Settled)[-1].options == {"settled": decided}
    assert recorder.of(StepDone)[-1].step == decided["steps"]
    saved = tomllib.loads((first.path / "pipeline.toml").read_text())
    assert saved["trainer"]["settled"] == decided
    assert saved["trainer"]["budget"] == "3s"
    again = textgen.run(first.path / "pipeline.toml", output=tmp_path / "again")
    assert weights(again.path) == weights(first.path)
    for same in (tables, saved):
        assert textgen.run(same, output=first.path).outcome == "skipped"
    assert tomllib.loads((first.path / "pipeline.toml").read_text()) == saved


def test_a_budget_in_parts_is_the_same_run(tmp_path: Path) -> None:
    tables = pipeline({"budget": "4s"})
    del tables["trainer"]["steps"]
    whole = run_in_parts(Engine(), tables, tmp_path / "parts", [3, 12])
    saved = tomllib.loads((whole.path / "pipeline.toml").read_text())
    assert json.loads((whole.path / "run.json").read_text())["settled"]["settled"] == saved["trainer"]["settled"]
    again = textgen.run(whole.path / "pipeline.toml", output=tmp_path / "again")
    assert weights(again.path) == weights(whole.path)


@pytest.mark.parametrize("wrong", ["60", "0s", "ten minutes", "5 days"])
def test_a_budget_that_is_no_time_is_refused(wrong: str) -> None:
    with pytest.raises(PipelineError, match="a time such as"):
        Engine().pipeline(pipeline({"budget": wrong}))


def test_the_validation_loss_is_what_evaluate_gives(tmp_path: Path) -> None:
    """The held-out text is read as one stream, though in parts side by side."""
    tables = pipeline({"steps": 60})
    tables["data"]["validation_fraction"] = 0.4
    recorder = Recorder()
    run = textgen.run(tables, output=tmp_path / "run", observers=[recorder])
    text = "".join(Engine().read_corpus({"type": "story"}))
    tokens = run.generator.tokenizer.encode(text)
    held_out = run.generator.tokenizer.decode(tokens[-len(tokens) * 4 // 10 :])
    best = min(event.validation_loss for event in recorder.of(Evaluation))
    assert best == pytest.approx(run.generator.score(held_out).loss, abs=2e-3)


def test_streams_begin_elsewhere_in_every_epoch(tmp_path: Path) -> None:
    from textgen.data import Windows
    from textgen.gradient.batches import training_batches

    tokens = np.arange(1000)
    batches = training_batches(GradientOptions(order="streams", batch_size=4), Windows(tokens, 10, 10), seed=3)
    starts = {int(batches.batch(epoch, 0)[0, 0]) for epoch in range(6)}
    assert len(starts) == 6
    for epoch in range(2):
        seen = np.concatenate([batches.batch(epoch, n)[:, :-1].ravel() for n in range(batches.per_epoch)])
        assert len(set(seen.tolist())) == len(seen) >= 950


# Optimizers and models of plugins.


@attrs.frozen(kw_only=True)
class OddConfig(GradientOptions):
    """Two optimizers, one of which counts in Python."""

    learning_rate: float = option(0.01, help="learning rate")


class Counting(torch.optim.Optimizer):
    """Plain descent whose rate falls with a count of its own, kept as an int and in its group."""

    def __init__(self, parameters: list[torch.Tensor], lr: float) -> None:
        super().__init__(parameters, {"lr": lr, "calls": 0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            group["calls"] += 1
            for parameter in group["params"]:
                state = self.state[parameter]
                state["count"] = state.get("count", 0) + 1
                state["marks"] = [state["count"], group["calls"]]
                parameter.sub_(parameter.grad, alpha=group["lr"] / sum(state["marks"]))


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
            counting = [Counting(matrices, 0.1)] if matrices else []
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

            def training_loss(self, tokens: torch.Tensor, targets: torch.Tensor, state: Any = None) -> Any:
                outer.seen.append("own loss")
                logits, state = self(tokens, state)
                return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()) + 100.0, state

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
    tables = pipeline({"type": "odd", "order": "shuffled"}, embedding_size=6)
    whole = engine.run(tables, output=tmp_path / "whole")
    parts = run_in_parts(engine, tables, tmp_path / "parts", [5, 9])
    assert weights(parts.path) == weights(whole.path)
    assert {"embedding", "matrix", "vector"} <= set(odd.seen[0])


def test_a_model_may_have_a_loss_and_roles_of_its_own(engine: Engine, odd: Odd, tmp_path: Path) -> None:
    recorder = Recorder()
    tables = pipeline({"order": "shuffled", "type": "odd"}) | {"model": {"type": "own-loss"}}
    engine.run(tables, output=tmp_path / "run", observers=[recorder])
    assert ("head", "vector") in odd.seen
    assert "own loss" in odd.seen
    assert all(event.loss > 100 for event in recorder.of(StepDone))
    assert all(event.validation_loss < 10 for event in recorder.of(Evaluation))


def test_what_cannot_be_saved_is_named() -> None:
    class Strange(Counting):
        @torch.no_grad()
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            self.state[self.param_groups[0]["params"][0]]["thing"] = object()

    from textgen.gradient.optimization import Optimization

    module = torch.nn.Linear(2, 2)
    module(torch.ones(1, 2)).sum().backward()
    made = Optimization.of(module, GradientOptions(), lambda p: Strange(p, 0.1), constant)
    made.step(1, 2)
    with pytest.raises(TypeError, match="Strange keeps 'thing', a object"):
        made.state()


# Losses that stay on the device.


@attrs.define
class LateTrainer:
    """Gives losses as tensors, the 20th of which is NaN."""

    given: int = 0

    def train(self, model: Any, data: Any, context: Any) -> Any:
        for step in range(1, 200):
            self.given = step
            loss = torch.tensor(float("nan") if step >= 20 else 2.0)
            yield StepDone(step=step, steps=200, epoch=1, loss=loss, tokens=8, gradient_norm=torch.tensor(1.0))

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


def test_a_step_reads_its_loss_when_it_is_asked() -> None:
    event = StepDone(step=1, steps=2, epoch=1, loss=torch.tensor(1.5), tokens=1, gradient_norm=torch.tensor(2.0))
    assert (event.loss, event.gradient_norm) == (1.5, 2.0)
    assert not event.is_read
    assert StepDone(step=1, steps=2, epoch=1, loss=1.5, tokens=1).is_read


@pytest.mark.gpu
def test_a_step_on_cuda_does_not_wait_for_the_device(tmp_path: Path) -> None:
    """Between evaluations nothing synchronises: torch raises where something does."""

    class Strict:
        def observe(self, event: Event) -> None:
            if isinstance(event, StepDone):
                torch.cuda.set_sync_debug_mode("error" if 3 < event.step < 20 else "default")

    try:
        tables = pipeline({"evaluate_every": 25, "steps": 25}) | {"device": "cuda"}
        textgen.run(tables, output=tmp_path / "run", observers=[Strict()])
    finally:
        torch.cuda.set_sync_debug_mode("default")


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


FORKED = """
import os, sys, textgen, torch

torch.set_num_threads(2)

def train(**options):
    parts = {"tokenizer": "char", "model": {"type": "rnn"}, "trainer": {"type": "sgd", "steps": 1, "batch_size": 2}}
    textgen.train(corpus="the clock struck nine. " * 40, device="cpu", data={"window_length": 16}, **parts, **options)

train()
for options in ({}, {"threads": 1}):
    child = os.fork()
    if not child:
        try:
            train(**options)
        except textgen.UsageError as error:
            print(error.argument, error, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


def test_training_in_a_fork_of_a_process_that_has_trained_is_an_error_and_no_hang(tmp_path: Path) -> None:
    (tmp_path / "forks.py").write_text(FORKED)
    done = run_with_torch("forks.py", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    assert line.startswith("threads threads: this process was forked from one that has trained")
    assert "spawn" in line
