"""One run in several processes: the same losses as in one, and an end for all when one of them is
lost.
"""

import json

import numpy as np
import pytest
import tomli_w
import torch
from components import engine_with
from safetensors.numpy import load_file
from several_processes import AT_PLACE, run_together
from small_trainings import pipeline

import textgen
from textgen import Engine, UsageError
from textgen.errors import DeviceError, ProcessesError
from textgen.processes import Processes

CLOSING = """
import os
import textgen
from textgen import Component, NoOptions, hookimpl

class Noting:
    def __init__(self, inner):
        self.inner = inner
        self.note("built")
    def __getattr__(self, name):
        return getattr(self.inner, name)
    def from_dict(self, state):
        return Noting(self.inner.from_dict(state))
    def close(self):
        self.note("closed")
    def note(self, what):
        with open(f"{what}-{os.environ.get('RANK', '')}.txt", "a") as file:
            print(id(self), file=file)

def build(config, context):
    return Noting(textgen.Engine(context.plugins).build("tokenizer", {"type": "char"}, context))

@hookimpl
def textgen_tokenizers():
    return [Component("noting", NoOptions, build)]
"""

UNUSED = """
import torch
from torch import nn
from textgen import Component, NoOptions, hookimpl
from textgen.gradient import GradientModel

class Network(nn.Module, GradientModel):
    def __init__(self, size):
        super().__init__()
        self.head = nn.Parameter(torch.zeros(size, size))
        self.rare, self.never = nn.Parameter(torch.ones(size)), nn.Parameter(torch.ones(size))
        self.large = nn.Parameter(torch.ones(1 << 20))
        # no small parameter has its type
        self.fine = nn.Parameter(torch.ones(1 << 20, dtype=torch.float64))
    def forward(self, tokens, state=None):
        logits = self.head[tokens] * self.large[:1] * self.fine[:1].float()
        has = (tokens == len(self.head) - 2).any(1)
        if has.any():  # in some steps, and then in some rows
            logits = logits + self.rare * has[:, None, None]
        return logits, (torch.zeros(len(tokens), 1),)

@hookimpl
def textgen_models():
    return [Component("unused", NoOptions, lambda config, context: Network(context.vocab_size))]
"""


TRAINER = {"batch_size": 5, "length": "24 steps", "evaluate_every": 8}


def write(folder, options=TRAINER, **tables):
    """Write a pipeline whose batches do not divide by two or three, and return it."""
    made = {
        **pipeline(options, cell="lstm", hidden_size=32, weight_drop=0.2, embedding_dropout=0.3),
        "checkpoint": {"seconds": 0},
        "observer": [{"type": "metrics"}],
        **tables,
    }
    (folder / "p.toml").write_text(tomli_w.dumps(made))
    return made


def losses(run):
    rows = textgen.summarize(run).metrics()
    return [row[key] for row in rows for key in ("training_loss", "validation_loss")]


def assert_alike(run, other):
    """Alike to what rounding may differ."""
    assert losses(run) == pytest.approx(losses(other), abs=1e-4)
    weights, others = (load_file(path / "model.safetensors") for path in (run, other))
    assert all(np.allclose(weights[name], others[name], atol=1e-3) for name in weights)


@pytest.mark.slow
def test_three_processes_train_what_one_does_and_two_go_on_when_one_is_killed(
    tmp_path, monkeypatch
):
    tables = write(tmp_path, tokenizer={"type": "noting"})
    monkeypatch.chdir(tmp_path)
    alone = engine_with(tmp_path / "noting.py", CLOSING).run(tables, output=tmp_path / "alone")
    at_step = (AT_PLACE, "1", "KILL", "textgen.gradient.optimization:Optimization.step", "15")
    run = ("--plugin", "noting.py", "run", "p.toml", "-o", "run")
    first, killed, third = run_together(3, *at_step, *run, "-q", folder=tmp_path)
    assert (first.returncode, killed.returncode, third.returncode) == (1, -9, 1)
    for each in (first, third):
        (line,) = each.stderr.splitlines()
        assert line.startswith("textgen: error: another process of the run has ended")
    assert first.stdout == ""
    assert json.loads((tmp_path / "run/run.json").read_text())["step"] == 15
    for notes in tmp_path.glob("*-*.txt"):
        notes.unlink()
    first, other = run_together(2, "-m", "textgen", *run, folder=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "resumed: " in first.stderr
    assert first.stdout == f"{alone.generations[0]}\n"
    assert (other.returncode, other.stdout, other.stderr) == (0, "", "")
    assert_alike(tmp_path / "run", alone.path)
    for rank in range(2):
        built, closed = (
            sorted((tmp_path / f"{what}-{rank}.txt").read_text().split())
            for what in ("built", "closed")
        )
        assert len(built) >= 2
        assert closed == built, "each process closes what it built, once"


@pytest.mark.slow
def test_a_parameter_without_a_gradient_is_as_in_one_process(tmp_path):
    """An optimizer leaves it alone; with a gradient of zero its weight would decay."""
    options = {**TRAINER, "length": "12 steps", "weight_decay": 0.5, "learning_rate": 0.01}
    tables = write(tmp_path, options, model={"type": "unused"})
    alone = engine_with(tmp_path / "unused.py", UNUSED).run(tables, output=tmp_path / "alone")
    command = ("-m", "textgen", "--plugin", "unused.py", "run", "p.toml", "-q", "-o", "run")
    done = run_together(2, *command, folder=tmp_path)
    assert [each.returncode for each in done] == [0, 0], done[0].stderr
    assert_alike(tmp_path / "run", alone.path)
    weights = load_file(alone.path / "model.safetensors")
    assert (weights["never"] == 1).all()
    assert not np.isclose(weights["rare"], 1).all()


@pytest.mark.slow
def test_processes_decide_alike_when_their_time_is_over(tmp_path):
    write(tmp_path, {**TRAINER, "length": "3s", "decay_share": 0.5})
    command = ("-m", "textgen", "run", "p.toml", "-q", "-o", "run")
    done = run_together(2, *command, folder=tmp_path)
    assert [each.returncode for each in done] == [0, 0], done[0].stderr


@pytest.mark.slow
def test_the_network_of_a_mixture_is_shared_out_and_each_process_says_what_it_failed_of(tmp_path):
    model = {
        "type": "mixture",
        "first": {"type": "rnn", "hidden_size": 8, "dropout": 0.2},
        "second": {"type": "ngram", "order": 3},
    }
    first = {"type": "adamw", **TRAINER, "length": "16 steps", "accumulate": 2}
    tables = write(tmp_path, model=model, trainer={"type": "mixture", "first": first})
    alone = textgen.run(tables, output=tmp_path / "alone")
    in_step = (AT_PLACE, "1", "MEMORY", "textgen.gradient.optimization:Optimization.step", "10")
    done = run_together(2, *in_step, "run", "p.toml", "-q", "-o", "run", folder=tmp_path)
    assert [each.returncode for each in done] == [1, 2]
    for each, cause in zip(
        done, ("another process of the run has ended", "out of memory"), strict=True
    ):
        (line,) = each.stderr.splitlines()
        assert line.startswith(f"textgen: error: {cause}")
    run = textgen.run(tables, output=tmp_path / "run")
    assert run.outcome == "resumed"
    assert_alike(run.path, alone.path)


@pytest.mark.slow
def test_processes_end_together_on_a_signal_to_one_and_on_an_observer_of_the_first(tmp_path):
    stopping = {"type": "early-stopping", "patience": 1}
    write(tmp_path, {**TRAINER, "learning_rate": 1e-30}, observer=[stopping])
    at_step = (AT_PLACE, "1", "TERM", "textgen.gradient.optimization:Optimization.step", "10")
    run = ("run", "p.toml", "-o", "run")
    first, other = run_together(2, *at_step, *run, "-q", folder=tmp_path)
    assert (first.returncode, other.returncode) == (130, 143)
    for each in (first, other):
        assert each.stderr.startswith("textgen: interrupted after step 10")
    first, other = run_together(2, "-m", "textgen", *run, folder=tmp_path)
    assert (first.returncode, other.returncode, other.stderr) == (0, 0, "")
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert (record["status"], record["step"], record["stopped"]["by"]) == (
        *("finished", 16),
        "early-stopping",
    )


@pytest.fixture
def single(monkeypatch):
    """A group of this process alone."""
    for name, value in {"ADDR": "127.0.0.1", "PORT": "0"}.items():
        monkeypatch.setenv(f"MASTER_{name}", value)
    processes = Processes(0, 1)
    with processes.joined():
        yield processes


def test_a_trainer_that_counts_is_refused_before_anything_is_written(single, tmp_path):
    tables = write(tmp_path, model={"type": "ngram", "order": 2}, trainer={"type": "count"})
    with pytest.raises(UsageError, match="'count'"):
        Engine().run(tables, output=tmp_path / "run", processes=single)
    assert not (tmp_path / "run").exists()


@pytest.mark.gpu
def test_processes_on_gpus_train_what_one_does(tmp_path):
    """As many as there are GPUs; with one, NCCL and all else but the sums are tried."""
    tables = write(tmp_path, device="cuda")
    alone = textgen.run(tables, output=tmp_path / "alone")
    size = min(torch.cuda.device_count(), 5)
    done = run_together(size, "-m", "textgen", "run", "p.toml", "-q", "-o", "run", folder=tmp_path)
    assert [each.returncode for each in done] == [0] * size, done
    assert_alike(tmp_path / "run", alone.path)


@pytest.mark.parametrize(("total", "size"), [(2, 3), (5, 2), (64, 7)])
def test_rows_are_shared_out_in_order_without_overlap(total, size):
    parts = [range(total)[Processes(rank, size).rows(total)] for rank in range(size)]
    assert [row for part in parts for row in part] == list(range(total))


def test_the_place_is_read_from_the_environment():
    assert Processes.of_environment({"RANK": "1"}) is None
    given = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    here = Processes.of_environment(given)
    assert (here.rank, here.size, here.leads) == (3, 4, False)
    assert (here.device("cuda"), here.device("cpu")) == ("cuda:1", "cpu")
    assert here.timeout == 120  # as docs/scaling.md says
    assert (here.threads(6), here.threads(None)) == (3, None)


@pytest.mark.parametrize(
    ("said", "kind", "told"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), DeviceError, "^out of memory"),
        (RuntimeError("Duplicate GPU detected"), ProcessesError, "process 0 "),
        (RuntimeError("[tcp/pair.cc:538] Connection closed by peer"), ProcessesError, "^another"),
        (RuntimeError("Timed out waiting 120000ms for recv"), ProcessesError, "^another"),
    ],
)
def test_only_a_process_that_is_lost_is_reported_as_lost(
    single, tmp_path, monkeypatch, said, kind, told
):
    def refuse(*given, **named):
        raise said

    monkeypatch.setattr(torch.distributed, "broadcast", refuse)
    with pytest.raises(kind, match=told):
        Engine().run(write(tmp_path), output=tmp_path / "run", processes=single)


def test_what_keeps_processes_from_meeting_is_said(monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(ProcessesError, match=r"process 1 .*MASTER_ADDR"), Processes(1, 2).joined():
        pass


def test_without_a_local_rank_processes_share_out_the_gpus_by_rank(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    ranks = [{"RANK": str(rank), "WORLD_SIZE": "4"} for rank in range(4)]
    devices = [Processes.of_environment(rank).device("cuda") for rank in ranks]
    assert devices == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
