"""A step of training an LSTM on a CPU, by textgen and by a plain loop of torch.

Usage: python benchmarks/lstm_step.py TEXT [--hidden 256] [--batch 64,16] [--precision bfloat16]
[--repeats 7]

The plain loop is tried with one thread of torch's and with one for each core, and ours, each in a
process of its own that lives through the whole measurement; they take turns, and the better plain
loop counts. Prints its seconds over ours, above 1 if ours is the faster, and the losses after the
same number of steps from the same weights.
"""

import argparse
import itertools
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import nn

from shared import parser, show
from textgen import BuildContext, Engine
from textgen.data import Dataset, Windows
from textgen.events import StepDone
from textgen.gradient import GradientOptions, training_batches
from textgen.protocols import TrainingContext

_LENGTH = 64  # characters of a window
_EMBEDDING = 128
_RATE = 2e-3
_CHARACTERS = 150_000  # read in each turn
_SPAWN = get_context("spawn")
_begun = []


@attrs.frozen(kw_only=True)
class Training:
    """An LSTM that reads batches of windows in order, with AdamW and clipped gradients, on a CPU.

    Both ways begin with the same weights, read the same batches, and give the loss of each step.
    """

    tokens: Any
    vocab_size: int
    hidden: int
    batch: int
    precision: str

    def _model(self, context):
        table = {"type": "rnn", "cell": "lstm", "hidden_size": self.hidden}
        return Engine().build("model", {**table, "embedding_size": _EMBEDDING}, context)

    @property
    def _context(self):
        tokenizer = argparse.Namespace(vocab_size=self.vocab_size)
        return BuildContext(folder=None, requested_device="cpu", tokenizer=tokenizer)

    def ours(self):
        """By textgen."""
        table = {"order": "streams", "batch_size": self.batch, "precision": self.precision}
        table |= {"length": "1000000 steps", "evaluate_every": 10**6, "learning_rate": _RATE}
        context = self._context
        trainer = Engine().build("trainer", {"type": "adamw", "decay_share": 0.0, **table}, context)
        sizes = {"vocab_size": self.vocab_size, "window_length": _LENGTH, "window_stride": _LENGTH}
        data = Dataset(training=self.tokens, validation=self.tokens[:0], **sizes)
        told = TrainingContext(seed=0, device="cpu")
        for event in trainer.train(self._model(context), data, told):
            if isinstance(event, StepDone):
                yield event.loss

    def plain(self):
        """By torch, as its tutorials write it."""
        network = nn.ModuleDict(
            {
                "embedding": nn.Embedding(self.vocab_size, _EMBEDDING),
                "rnn": nn.LSTM(_EMBEDDING, self.hidden, batch_first=True),
                "head": nn.Linear(self.hidden, self.vocab_size),
            }
        )
        weights = self._model(self._context).tensors()
        network.load_state_dict({name: torch.from_numpy(each) for name, each in weights.items()})
        groups = [
            {"params": [p for p in network.parameters() if p.ndim > 1]},
            {"params": [p for p in network.parameters() if p.ndim < 2], "weight_decay": 0.0},
        ]
        adam = {"lr": _RATE, "betas": (0.9, 0.99), "weight_decay": 0.01}
        optimizer = torch.optim.AdamW(groups, **adam, fused=True)
        options = GradientOptions(order="streams", batch_size=self.batch)
        batches = training_batches(options, Windows(self.tokens, _LENGTH, _LENGTH), seed=0)
        state = None
        for step in itertools.count():
            epoch, number = divmod(step, batches.per_epoch)
            windows = torch.from_numpy(batches.batch(epoch, number)[0])
            with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bfloat16"):
                read = network["embedding"](windows[:, :-1])
                read, state = network["rnn"](read, state if number else None)
                logits = network["head"](read)
            state = tuple(part.detach() for part in state)
            targets = windows[:, 1:].reshape(-1)
            loss = nn.functional.cross_entropy(logits.float().flatten(0, 1), targets)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            yield loss.detach()


def begin(training, way, threads):
    """Begin a training in this process."""
    torch.set_num_threads(threads)
    _begun.append(getattr(training, way)())


def turn(steps):
    """Seconds and mean loss of the next steps of the training of this process."""
    begun = time.perf_counter()
    total = float(sum(next(_begun[0]) for _ in range(steps)))
    return time.perf_counter() - begun, total / steps


def compare(training, name, steps, repeats):
    """Ours against the better plain loop, in turn after a warm-up."""
    cores = os.cpu_count() or 1
    with ExitStack() as stack:
        ways = [
            stack.enter_context(ProcessPoolExecutor(1, _SPAWN, begin, (training, *way)))
            for way in (("ours", cores), ("plain", 1), ("plain", cores))
        ]
        _, *rows = [[w.submit(turn, steps).result() for w in ways] for _ in range(repeats + 1)]
    best = min((1, 2), key=lambda way: statistics.median(row[way][0] for row in rows))
    show(name, [row[best][0] / row[0][0] for row in rows])
    losses = rows[-1][0][1], rows[-1][best][1]
    print("  losses of the last turn: {:.4f}, and {:.4f} of the plain loop".format(*losses))


def main():
    """Print the ratios."""
    options = parser(__doc__)
    options.add_argument("text", type=Path)
    options.add_argument("--hidden", type=int, default=256)
    options.add_argument("--batch", default="64,16")
    options.add_argument("--precision", choices=("bfloat16", "float32"), default="bfloat16")
    options.add_argument("--repeats", type=int, default=7)
    given = options.parse_args()
    found, tokens = np.unique(np.frombuffer(given.text.read_bytes(), np.uint8), return_inverse=True)
    for batch in map(int, given.batch.split(",")):
        training = Training(
            tokens=tokens.astype(np.uint8),
            vocab_size=len(found),
            hidden=given.hidden,
            batch=batch,
            precision=given.precision,
        )
        steps = max(1, _CHARACTERS // (batch * _LENGTH))
        compare(training, f"LSTM {given.hidden}, batch {batch}", steps, given.repeats)


if __name__ == "__main__":
    main()
