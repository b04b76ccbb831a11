"""Checkpoints beside `torch.save` of the same state: seconds, bytes, memory, and their share of training.

Usage: python benchmarks/checkpoints.py [--parameters 300_000 100_000_000] [--times 3] [--folder .]

The state is that of a training with AdamW: weights, and two moments of each. `torch.save` writes it to a file and does
not wait for the disk; for comparison it is timed with an fsync too. The share is the time of a checkpoint against the
interval at which the training loop writes them, which is `checkpoint.seconds` or sixty times what they take. Memory
is the most that the process took above what it held before. Exits with 1 where a bar is missed: a share under 2%, and
at most two copies of the weights.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from textgen.pipeline.options import CheckpointOptions
from textgen.protocols import TrainerState
from textgen.runs.checkpoints import Checkpoint, Checkpoints, Progress
from textgen.runs.training import _WRITING

SHARE, COPIES = 0.02, 2.0


def made(parameters: int) -> dict[str, dict[str, torch.Tensor]]:
    """Weights in eight layers, and their moments."""
    rows = max(1, parameters // 8 // 512)
    draw = torch.Generator().manual_seed(1)
    return {
        kind: {f"layer{n}.{kind}": torch.rand((rows, 512), generator=draw) for n in range(8)}
        for kind in ("weight", "exp_avg", "exp_avg_sq")
    }


def ours(state: dict[str, dict[str, torch.Tensor]], folder: Path) -> Callable[[], int]:
    """Writes a checkpoint and gives its size."""
    checkpoints = Checkpoints(folder / "checkpoints")
    checkpoints.path.mkdir()

    def write() -> int:
        weights, *moments = (
            {name: t.numpy() for name, t in part.items()} for part in state.values()
        )
        trainer = TrainerState(
            {name: array for part in moments for name, array in part.items()}, {"step": 1}
        )
        path = checkpoints.write(
            Checkpoint(tensors=weights, trainer=trainer, progress=Progress(step=1))
        )
        return sum(file.stat().st_size for file in path.iterdir())

    return write


def theirs(
    state: dict[str, dict[str, torch.Tensor]], folder: Path, *, synced: bool
) -> Callable[[], int]:
    """`torch.save`."""
    path = folder / "state.pt"

    def write() -> int:
        with path.open("wb") as file:
            torch.save(state, file)
            if synced:
                file.flush()
                os.fsync(file.fileno())
        return path.stat().st_size

    return write


def measured(write: Callable[[], int], times: int) -> tuple[float, int, int]:
    """Median seconds, bytes written, and bytes of memory above those before."""
    seconds, size, before = [], 0, _resident()
    with _Peak() as peak:
        for _ in range(times):
            begun = time.perf_counter()
            size = write()
            seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds), size, max(0, peak.most - before)


def _resident() -> int:
    if os.path.exists("/proc/self/statm"):
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class _Peak:
    """The most memory that the process holds, looked at all the time."""

    most = 0

    def __enter__(self) -> _Peak:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._ended.wait(0.002):
            self.most = max(self.most, _resident())

    def __exit__(self, *_: Any) -> None:
        self._ended.set()
        self._thread.join()


def main() -> int:
    """Print a table; 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--parameters", type=int, nargs="+", default=[300_000, 100_000_000])
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path())
    options = parser.parse_args()
    missed = False
    print(
        f"{'parameters':>12} {'what':<22} {'seconds':>8} {'MB':>8} {'memory, in weights':>19} {'share':>8}"
    )
    for parameters in options.parameters:
        state = made(parameters)
        weights = sum(t.nbytes for t in state["weight"].values())
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            folder = Path(name)
            rows = {
                "checkpoint": ours(state, folder),
                "torch.save, synced": theirs(state, folder, synced=True),
                "torch.save": theirs(state, folder, synced=False),
            }
            for what, write in rows.items():
                seconds, size, memory = measured(write, options.times)
                copies, share = (
                    memory / weights,
                    seconds / max(CheckpointOptions().seconds, seconds / _WRITING),
                )
                shown = f"{share:8.2%}" if what == "checkpoint" else ""
                print(
                    f"{parameters:12,} {what:<22} {seconds:8.3f} {size / 1e6:8.1f} {copies:19.2f} {shown}"
                )
                large = (
                    weights > 1 << 26
                )  # of a small model, the interpreter's own memory is more than the weights
                missed |= what == "checkpoint" and (share > SHARE or (large and copies > COPIES))
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
