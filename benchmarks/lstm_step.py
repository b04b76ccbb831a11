"""A step of training an LSTM on a CPU, by the loop of textgen.gradient and by a plain loop of torch.

Usage: python benchmarks/lstm_step.py TEXT [--hidden 256] [--batch 64,16] [--precision bfloat16] [--repeats 7]
                                                 [--busy]

Both clip gradients, use fused AdamW and carry the state; windows are 64 characters. The plain loop is tried with one
thread of torch's and with one for each core, and ours, each in a process of
its own that lives through the whole measurement; they take turns, and the better plain loop counts. Prints characters
a second as a ratio with its spread, above 1 if ours is the faster, and the losses after the same number of steps from
the same weights. `--busy` measures ours alone, beside a busy loop for each core, against itself without.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pairs import show
from textgen import BuildContext, PluginSet
from textgen.data import Dataset, Windows
from textgen.events import StepDone
from textgen.gradient import GradientOptions
from textgen.gradient.batches import training_batches
from textgen.protocols import TrainingContext

_LENGTH = 64
_CHARACTERS = 150_000  # read in each turn
_RATE, _CLIP = 2e-3, 1.0


def model_of(hidden: int, vocab_size: int) -> Any:
    """The LSTM of both, with the same weights."""
    tokenizer: Any = type("Tokenizer", (), {"vocab_size": vocab_size})()
    component = PluginSet.discover().find("model", "rnn").component  # type: ignore[union-attr]
    config = component.config(cell="lstm", hidden_size=hidden, embedding_size=128)
    return component.build(
        config, BuildContext(folder=None, requested_device="cpu", tokenizer=tokenizer)
    )


def ours(
    tokens: npt.NDArray[np.uint8], vocab_size: int, given: argparse.Namespace, batch: int
) -> Iterator[Any]:
    """The loss of each step, not read yet."""
    component = PluginSet.discover().find("trainer", "adamw").component  # type: ignore[union-attr]
    options = {
        "order": "streams",
        "batch_size": batch,
        "compute": given.precision,
    }
    trainer = component.build(
        component.config(
            **options,
            length="1000000 steps",
            evaluate_every=10**6,
            learning_rate=_RATE,
            decay_share=0.0,
        ),
        BuildContext(folder=None, requested_device="cpu"),
    )
    sizes = {"vocab_size": vocab_size, "window_length": _LENGTH, "window_stride": _LENGTH}
    data = Dataset(training=tokens, validation=tokens[:0], **sizes)
    for event in trainer.train(
        model_of(given.hidden, vocab_size), data, TrainingContext(seed=0, device="cpu")
    ):
        if isinstance(event, StepDone):
            yield event.loss


def plain(
    tokens: npt.NDArray[np.uint8], vocab_size: int, given: argparse.Namespace, batch: int
) -> Iterator[Any]:
    """The same steps on the same text, as torch's tutorials write them."""
    import torch
    from torch import nn

    weights = {
        name: torch.from_numpy(array)
        for name, array in model_of(given.hidden, vocab_size).tensors().items()
    }
    embedding, head = nn.Embedding(vocab_size, 128), nn.Linear(given.hidden, vocab_size)
    lstm = nn.LSTM(128, given.hidden, batch_first=True)
    module = nn.ModuleDict({"embedding": embedding, "rnn": lstm, "head": head})
    module.load_state_dict(weights)
    vectors = [p for p in module.parameters() if p.ndim < 2]
    groups = [
        {"params": [p for p in module.parameters() if p.ndim > 1]},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        groups, lr=_RATE, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    given_batches = training_batches(
        GradientOptions(order="streams", batch_size=batch),
        Windows(tokens, _LENGTH, _LENGTH),
        seed=0,
    )
    loss_function = nn.CrossEntropyLoss()
    state: Any = None
    for step in itertools.count():
        epoch, number = divmod(step, given_batches.per_epoch)
        windows = torch.from_numpy(given_batches.batch(epoch, number))
        x, y = windows[:, :-1], windows[:, 1:]
        state = state if number else None
        with torch.autocast("cpu", torch.bfloat16, enabled=given.precision == "bfloat16"):
            hidden, state = lstm(embedding(x), state)
            logits = head(hidden)
        loss = loss_function(logits.float().reshape(-1, vocab_size), y.reshape(-1))
        state = tuple(part.detach() for part in state)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), _CLIP)
        optimizer.step()
        yield loss.detach()


def work(connection: Connection, name: str, given: argparse.Namespace, batch: int) -> None:
    """In a process: for each message make the steps of a turn, and send their seconds and their mean loss."""
    import torch

    content = np.frombuffer(given.text.read_bytes(), np.uint8)
    found, tokens = np.unique(content, return_inverse=True)
    torch.set_num_threads(1 if name == "one thread" else os.cpu_count() or 1)
    losses = (ours if name == "ours" else plain)(tokens.astype(np.uint8), len(found), given, batch)
    steps = _CHARACTERS // (batch * _LENGTH)
    while connection.recv():
        begun = time.perf_counter()
        total = float(sum(next(losses) for _ in range(steps)))
        connection.send((time.perf_counter() - begun, total / steps))


class Worker:
    """One of the processes."""

    def __init__(self, name: str, given: argparse.Namespace, batch: int) -> None:
        self.name = name
        self._connection, other = get_context("spawn").Pipe()
        self._process = get_context("spawn").Process(target=work, args=(other, name, given, batch))
        self._process.start()

    def turn(self) -> tuple[float, float]:
        """Seconds and mean loss of its next steps."""
        self._connection.send(True)
        seconds, loss = self._connection.recv()
        return float(seconds), float(loss)

    def close(self) -> None:
        """End the process."""
        self._connection.send(False)
        self._process.join()


def compare(given: argparse.Namespace, batch: int) -> None:
    """Ours against the better plain loop."""
    workers = [Worker(name, given, batch) for name in ("ours", "one thread", "all threads")]
    turns = [[worker.turn() for worker in workers] for _ in range(given.repeats + 1)][1:]
    for worker in workers:
        worker.close()
    medians = [statistics.median(turn[place][0] for turn in turns) for place in range(len(workers))]
    for worker, median in zip(workers, medians, strict=True):
        print(f"  {worker.name}: {_CHARACTERS / median:,.0f} characters a second")
    best = min((1, 2), key=medians.__getitem__)
    found = sorted(t[best][0] / t[0][0] for t in turns)
    target = 1.4 if given.precision == "bfloat16" else 1.2
    show(
        f"LSTM {given.hidden}, batch {batch}",
        (found[0], statistics.median(found), found[-1]),
        target,
    )
    print(
        f"  losses of the last turn: {turns[-1][0][1]:.4f}, and {turns[-1][best][1]:.4f} of the plain loop"
    )


def beside_busy_loops(given: argparse.Namespace, batch: int) -> None:
    """Ours beside one busy loop for each core."""
    worker, found = Worker("ours", given, batch), []
    worker.turn()
    for _ in range(given.repeats):
        idle = worker.turn()[0]
        loops = [
            subprocess.Popen([sys.executable, "-c", "while True: pass"])
            for _ in range(os.cpu_count() or 1)
        ]
        try:
            found.append(idle / worker.turn()[0])
        finally:
            for loop in loops:
                loop.kill()
                loop.wait()
    worker.close()
    found.sort()
    show(
        f"LSTM {given.hidden}, batch {batch}, beside busy loops",
        (found[0], statistics.median(found), found[-1]),
        0.4,
    )


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", type=Path)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--batch", default="64,16")
    parser.add_argument("--precision", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--busy", action="store_true")
    given = parser.parse_args()
    for batch in map(int, given.batch.split(",")):
        (beside_busy_loops if given.busy else compare)(given, batch)


if __name__ == "__main__":
    main()
