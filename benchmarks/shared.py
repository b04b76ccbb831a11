"""What the benchmarks share: arguments, times, and trainings of an LSTM in their processes."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import socket
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_context
from typing import Any, Final

import attrs
import numpy as np

from textgen import BuildContext, Engine
from textgen.data import Dataset, Windows
from textgen.events import StepDone
from textgen.gradient import GradientOptions
from textgen.gradient.batches import training_batches
from textgen.processes import Processes
from textgen.protocols import TrainingContext

_LENGTH: Final = 64  # characters of a window
_RATE: Final = 2e-3
_SPAWN: Final = get_context("spawn")


def parser(description: str | None) -> argparse.ArgumentParser:
    """For the options of a program that its docstring describes."""
    raw = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(description=description, formatter_class=raw)


def seconds(call: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def show(name: str, found: Sequence[float]) -> None:
    """Print the median of figures and their spread."""
    low, median, high = min(found), statistics.median(found), max(found)
    print(f"{name:70} {median:8.2f} ({low:.2f} to {high:.2f})", flush=True)


@attrs.frozen(kw_only=True)
class Training:
    """An LSTM that reads batches of windows in order, with AdamW and clipped gradients, on a CPU.

    Both ways begin with the same weights, read the same batches, and give the loss of each step.
    """

    tokens: Any
    vocab_size: int
    hidden: int
    batch: int = 64
    embedding: int = 128
    precision: str = "bfloat16"

    def _model(self, context: BuildContext) -> Any:
        table = {"type": "rnn", "cell": "lstm", "hidden_size": self.hidden}
        return Engine().build("model", {**table, "embedding_size": self.embedding}, context)

    @property
    def _context(self) -> BuildContext:
        tokenizer: Any = argparse.Namespace(vocab_size=self.vocab_size)
        return BuildContext(folder=None, requested_device="cpu", tokenizer=tokenizer)

    def ours(self, processes: Processes | None) -> Iterator[Any]:
        """By textgen."""
        table = {"order": "streams", "batch_size": self.batch, "compute": self.precision}
        table |= {"length": "1000000 steps", "evaluate_every": 10**6, "learning_rate": _RATE}
        context = self._context
        trainer = Engine().build("trainer", {"type": "adamw", "decay_share": 0.0, **table}, context)
        sizes = {"vocab_size": self.vocab_size, "window_length": _LENGTH, "window_stride": _LENGTH}
        data = Dataset(training=self.tokens, validation=self.tokens[:0], **sizes)
        told = TrainingContext(seed=0, device="cpu", processes=processes)
        for event in trainer.train(self._model(context), data, told):
            if isinstance(event, StepDone):
                yield event.loss

    def plain(self) -> Iterator[Any]:
        """By torch, as its tutorials write it."""
        import torch
        from torch import nn

        network = nn.ModuleDict(
            {
                "embedding": nn.Embedding(self.vocab_size, self.embedding),
                "rnn": nn.LSTM(self.embedding, self.hidden, batch_first=True),
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
        state: Any = None
        for step in itertools.count():
            epoch, number = divmod(step, batches.per_epoch)
            windows = torch.from_numpy(batches.batch(epoch, number))
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


class Group:
    """Processes that make the steps of one training together when they are asked to."""

    def __init__(self, training: Training, way: str, *, size: int = 1, threads: int = 1) -> None:
        self._pipes, port = [], _free_port()
        for rank in range(size):
            pipe, theirs = _SPAWN.Pipe()
            arguments = (training, way, rank, size, threads, port, theirs)
            _SPAWN.Process(target=_serve, args=arguments).start()
            self._pipes.append(pipe)

    def turn(self, steps: int) -> tuple[float, float]:
        """Seconds and mean loss of the next steps; without any, they end."""
        for pipe in self._pipes:
            pipe.send(steps)
        answers = [pipe.recv() for pipe in self._pipes]
        return max(spent for spent, _ in answers), answers[0][1]


def turns(groups: Sequence[Group], steps: int, repeats: int) -> list[list[tuple[float, float]]]:
    """What each group took, in turn, after a warm-up; then they end."""
    found = [[group.turn(steps) for group in groups] for _ in range(repeats + 1)]
    for group in groups:
        group.turn(0)
    return found[1:]


def _free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _serve(
    training: Training, way: str, rank: int, size: int, threads: int, port: int, pipe: Any
) -> None:
    import torch

    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(threads)
    with contextlib.ExitStack() as stack:
        processes = Processes(rank, size, rank, size) if size > 1 else None
        if processes is not None:
            stack.enter_context(processes.joined())
        losses = training.plain() if way == "plain" else training.ours(processes)
        while steps := pipe.recv():
            begun = time.perf_counter()
            total = float(sum(next(losses) for _ in range(steps)))
            pipe.send((time.perf_counter() - begun, total / steps))
        losses.close()  # type: ignore[attr-defined]
    pipe.send((0.0, float(np.nan)))
