"""How steps of training are computed: shared out among workers, in memory that is used again, with
torch's loss.
"""

import platform
import threading
import time

import pytest
import torch
from commands import run_python
from small_trainings import VOCAB_SIZE, pipeline, train

import textgen
from textgen import speed
from textgen.events import StepDone
from textgen.gradient import eager
from textgen.gradient.objectives import cross_entropy


@pytest.mark.slow
@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="another C library has other thresholds"
)
def test_a_step_uses_the_memory_that_the_last_one_freed(tmp_path):
    """Otherwise there is a page fault for each 4 kB of it.

    No setting of malloc, the process's, is changed for it.
    """
    (tmp_path / "steps.py").write_text("""
import itertools, resource, statistics, sys, textgen
faults, symbols = [], []
sys.addaudithook(lambda name, given: symbols.append(given[1]) if name == "ctypes.dlsym" else None)
def cancelled():
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
trainer = {"type": "sgd", "length": "20 steps", "batch_size": 1024, "evaluate_every": 100}
textgen.run({"threads": 2, "device": "cpu", "observer": [],
             "corpus": {"type": "story"}, "tokenizer": {"type": "char"},
             "trainer": trainer,
             "data": {"window_length": 32, "window_stride": 1, "windows": [4096, 0]},
             "model": {"type": "rnn", "hidden_size": 32}}, output=sys.argv[1], cancelled=cancelled)
assert "mallopt" not in symbols
of_steps = [after - before for before, after in itertools.pairwise(faults)]
print(statistics.median(of_steps[5:]))  # in one step or another the memory grows by a block
""")
    done = run_python("steps.py", "run", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) < 200


def test_steps_and_evaluations_are_made_in_the_workers_own_threads(monkeypatch):
    """Torch's pool of threads waits for the slowest, and must have no part in them; each worker
    keeps its thread.
    """
    computed, updating = set(), set()

    class Watched(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weights = torch.nn.Embedding(VOCAB_SIZE, VOCAB_SIZE)

        def forward(self, tokens, state=None):
            if self.training:
                assert torch.get_num_threads() == 1
                computed.add((len(tokens), threading.current_thread().name))
            return self.weights(tokens), ()

        def set_dropout_seed(self, seed):
            pass

    optimizer = eager(torch.optim.AdamW)
    step = optimizer.step
    monkeypatch.setattr(
        optimizer,
        "step",
        lambda *given: (updating.add(threading.current_thread().name), step(*given))[1],
    )
    before = torch.get_num_threads()
    train(Watched(), trainer={"type": "adamw", "length": "2 steps", "batch_size": 5}, threads=2)
    assert torch.get_num_threads() == before
    (updater,) = updating
    assert updater.startswith("textgen-worker")
    (other,) = {thread for _, thread in computed} - {updater}
    assert computed == {(3, updater), (2, other)}


@pytest.mark.parametrize("time_first", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_loss_and_its_gradient_are_torchs(dtype, time_first):
    drawn = torch.Generator().manual_seed(1)
    shape = (7, 3, 11) if time_first else (3, 7, 11)
    leaf = (3 * torch.randn(shape, generator=drawn)).to(dtype).requires_grad_()
    logits = leaf.transpose(0, 1) if time_first else leaf
    targets = torch.randint(11, logits.shape[:2], generator=drawn)
    loss = cross_entropy(logits, targets)
    expected = torch.nn.functional.cross_entropy(
        logits.transpose(1, 2).float(), targets, reduction="sum"
    )
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    (ours,), (theirs,) = (torch.autograd.grad(2 * value, leaf) for value in (loss, expected))
    assert ours.dtype == dtype
    torch.testing.assert_close(
        ours, theirs, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-7
    )


@pytest.mark.parametrize(("bfloat16", "faster"), [(0.4, "bfloat16"), (0.6, "float32")])
def test_auto_is_the_precision_in_which_the_device_multiplies_faster(bfloat16, faster, monkeypatch):
    def repeat(product, number, repeat):
        return [bfloat16 if product().dtype == torch.bfloat16 else 1.0]

    monkeypatch.setattr("timeit.repeat", repeat)
    assert speed.faster_precision("cpu") == faster


@pytest.mark.gpu
def test_a_step_on_cuda_does_not_wait_for_the_device(tmp_path):
    """Between evaluations nothing synchronises: torch raises where something does."""

    def observe(event):
        if isinstance(event, StepDone):
            torch.cuda.set_sync_debug_mode("error" if 3 < event.step < 20 else "default")

    try:
        tables = pipeline({"evaluate_every": 25, "length": "25 steps"}) | {"device": "cuda"}
        textgen.run(tables, output=tmp_path / "run", observers=[observe])
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_step_is_made_in_one_thread_where_others_wait_for_a_turn():
    """As threads do beside another program. The numbers are the same in any thread."""
    table, steps = torch.randn(VOCAB_SIZE, VOCAB_SIZE), {"type": "adamw", "length": "24 steps"}

    class Waiting(torch.nn.Module):
        def __init__(self, seconds):
            super().__init__()
            self.weights, self.seconds = torch.nn.Embedding.from_pretrained(table.clone()), seconds
            self.weights.weight.requires_grad_()

        def forward(self, tokens, state=None):
            name = threading.current_thread().name
            if self.training and name.startswith("textgen-worker"):
                made.append(name)
                time.sleep(self.seconds * name.startswith("textgen-worker-1"))
            return self.weights(tokens), ()

    losses, workers = [], []
    for seconds in (0.0, 0.02):
        made = []
        run = train(Waiting(seconds), trainer={**steps, "batch_size": 4}, threads=2)
        losses.append(run.best_loss)
        workers.append({*made[-20:]})
    assert losses[0] == losses[1]
    assert len(workers[1]) == 1
