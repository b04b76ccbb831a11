"""Two processes of one thread against one process of two threads, ours and plain loops of torch.

Usage: python benchmarks/processes.py [--hidden 256,512] [--steps 12] [--repeats 5]

Batches are 64 windows of 64 tokens, in bfloat16. The processes live through the whole measurement and take turns, A B
C D A ..., so that what else the machine does hits all. Prints the seconds of others over those of our two processes,
as ratios with their spread: above 1 ours are the faster. The others are a plain loop of torch in one process of two
threads; the plain loop under DistributedDataParallel in two processes; and the loop of
textgen.gradient in one process of two threads, which shows what a second process is worth on this machine. Without
llvmlite every one of the four computes its steps by torch's own LSTM.
Instead, `--gloo 2` measures sums over gloo between two processes of this machine, and `--bytes` the memory of trainers
by parameter; both print the tables of docs/scaling.md.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import itertools
import os
import socket
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pairs import show
from textgen import BuildContext, PluginSet
from textgen.data import Dataset
from textgen.events import StepDone
from textgen.processes import Processes
from textgen.protocols import TrainingContext

_LOOP = {"order": "streams", "compute": "bfloat16"}
TARGETS = {256: 1.3, 512: 0.9}
VOCABULARY = 64
MEGABYTES = (1, 4, 64)
TRAINERS = {
    "`sgd`": ("sgd", {}),
    "`sgd` with momentum": ("sgd", {"momentum": 0.9}),
    "`adamw`": ("adamw", {}),
}


class Tokens:
    """A tokenizer of which a model reads only the size."""

    vocab_size = VOCABULARY


def steps(
    hidden: int, processes: Processes | None, trainer: str = "adamw", options: Any = _LOOP
) -> Any:
    """The events of a training that never ends, after its losses are read."""
    plugins, context = (
        PluginSet.discover(),
        BuildContext(folder=None, requested_device="cpu", tokenizer=Tokens()),
    )  # type: ignore[arg-type]
    tokens = np.random.default_rng(0).integers(VOCABULARY, size=1_000_000).astype(np.uint8)
    data = Dataset(
        training=tokens,
        validation=tokens[:0],
        vocab_size=VOCABULARY,
        window_length=64,
        window_stride=64,
    )
    made = []
    for kind, name, table in (
        ("model", "rnn", {"cell": "lstm", "hidden_size": hidden, "embedding_size": 64}),
        ("trainer", trainer, {**options, "length": "1000000 steps", "evaluate_every": 10**6}),
    ):
        component = plugins.find(kind, name).component  # type: ignore[union-attr]
        made.append(component.build(component.config(**table), context))
    model, loop = made
    for event in loop.train(
        model, data, TrainingContext(seed=0, device="cpu", processes=processes)
    ):
        if isinstance(event, StepDone):
            float(event.loss)
            yield event


def plain_steps(hidden: int, rank: int, size: int) -> Iterator[float]:
    """The losses of the same steps by torch's own means, several processes under DistributedDataParallel."""
    embedding, head = nn.Embedding(VOCABULARY, 64), nn.Linear(hidden, VOCABULARY)
    lstm = nn.LSTM(64, hidden, batch_first=True)

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.lstm, self.head = embedding, lstm, head

        def forward(self, x: torch.Tensor, state: Any) -> Any:
            with torch.autocast("cpu", torch.bfloat16):
                hidden, state = self.lstm(self.embedding(x), state)
                return self.head(hidden), state

    network: Any = (
        DistributedDataParallel(Network(), gradient_as_bucket_view=True) if size > 1 else Network()
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)
    tokens = torch.from_numpy(np.random.default_rng(0).integers(VOCABULARY, size=(64, 15_000)))
    rows, state = tokens[rank * 64 // size : (rank + 1) * 64 // size], None
    while True:
        for start in range(0, rows.shape[1] - 64, 64):
            logits, state = network(rows[:, start : start + 64], state)
            state = tuple(part.detach() for part in state)
            targets = rows[:, start + 1 : start + 65]
            loss = nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            yield float(loss.detach())


def serve(rank: int, size: int, hidden: int, port: int, pipe: Any, plain: bool) -> None:
    """Make steps as the pipe asks, and answer with their seconds; the followers follow."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1 if size > 1 else 2)
    if plain:
        if size > 1:
            dist.init_process_group("gloo", rank=rank, world_size=size)
        _answer(plain_steps(hidden, rank, size), pipe)
        return
    processes = Processes(rank, size, rank, size) if size > 1 else None
    if processes is None:
        _answer(steps(hidden, None, options=_LOOP), pipe)
        return
    with processes.joined():
        if rank:
            for _ in steps(hidden, processes, options=_LOOP):
                pass
        else:
            _answer(steps(hidden, processes, options=_LOOP), pipe)


def _answer(events: Any, pipe: Any) -> None:
    while count := pipe.recv():
        begun = time.perf_counter()
        for _ in range(count):
            next(events)
        pipe.send(time.perf_counter() - begun)
    events.close()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def compare(hidden: int, count: int, repeats: int) -> None:
    """Print the ratio for one size."""
    context = mp.get_context("spawn")
    pipes, running = [], []
    for size, plain in ((2, False), (1, True), (2, True), (1, False)):
        port = free_port()
        pairs = [context.Pipe() for _ in range(size)]
        pipes.append([ours for ours, _ in pairs][: size if plain else 1])
        for rank, (_, theirs) in enumerate(pairs):
            process = context.Process(target=serve, args=(rank, size, hidden, port, theirs, plain))
            process.start()
            running.append(process)

    def seconds(steps: int) -> list[float]:
        """Of each, in turn."""
        made = []
        for group in pipes:
            for pipe in group:
                pipe.send(steps)
            made.append(max(pipe.recv() for pipe in group))
        return made

    seconds(3)
    turns = [seconds(count) for _ in range(repeats)]
    for pipe in itertools.chain(*pipes):
        pipe.send(0)
    for process in running:
        process.join()
    bar = TARGETS.get(hidden, 1.0)
    others = (
        ("a plain loop of two threads", bar),
        ("a plain loop in two", 1.0),
        ("two threads", bar),
    )
    for place, (name, target) in enumerate(others, start=1):
        found = [turn[place] / turn[0] for turn in turns]
        spread = (min(found), statistics.median(found), max(found))
        show(f"LSTM of {hidden}: two processes against {name}", spread, target)


def measure_gloo(rank: int, size: int, port: int) -> None:
    """Print seconds and bandwidth of sums."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=size)
    if rank == 0:
        print("| gradients | time of a sum | each way |\n| --- | --- | --- |", flush=True)
    for megabytes in MEGABYTES:
        numbers = torch.ones(megabytes * 250_000)
        times = []
        for _ in range(8):
            dist.barrier()
            begun = time.perf_counter()
            dist.all_reduce(numbers)
            times.append(time.perf_counter() - begun)
        middle = statistics.median(times[1:])
        if rank == 0:
            moved = 2 * (size - 1) / size * megabytes / middle
            print(f"| {megabytes} MB | {1000 * middle:.1f} ms | {moved:,.0f} MB/s |", flush=True)
    dist.destroy_process_group()


def measure_bytes(trainer: str, options: dict[str, Any], port: int, pipe: Any) -> None:
    """Send the bytes by parameter that a training needs, beyond those of a small model."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    for hidden in (16, 1600):
        before, processes = _resident(), Processes(0, 1) if port else None
        with contextlib.nullcontext() if processes is None else processes.joined():
            events = steps(
                hidden, processes, trainer, {"batch_size": 1, "order": "streams", **options}
            )
            next(events), next(events)
            used = _resident() - before
            events.close()
        del events
    pipe.send(used / (4 * 1600 * (64 + 1600 + 2)))


def _bytes(trainer: str, options: dict[str, Any], port: int) -> str:
    context = mp.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=measure_bytes, args=(trainer, options, port, theirs))
    process.start()
    process.join()
    return f"{ours.recv():.1f}"


def _resident() -> int:
    gc.collect()
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Print what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hidden", default="256,512")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--bytes", action="store_true")
    parser.add_argument("--gloo", type=int, metavar="PROCESSES")
    given = parser.parse_args()
    if given.bytes:
        print("| trainer | in one process | shared out |\n| --- | --- | --- |", flush=True)
        for name, (trainer, options) in TRAINERS.items():
            print(
                f"| {name} | {' | '.join(_bytes(trainer, options, port) for port in (0, free_port()))} |",
                flush=True,
            )
        sys.exit()
    if given.gloo:
        mp.spawn(measure_gloo, (given.gloo, free_port()), given.gloo)
        sys.exit()
    for hidden in given.hidden.split(","):
        compare(int(hidden), given.steps, given.repeats)


if __name__ == "__main__":
    main()
