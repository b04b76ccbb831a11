"""Seconds of a checkpoint, beside `torch.save` of the same state.

Usage: python benchmarks/checkpoints.py [--parameters 300_000 100_000_000] [--times 3] [--folder .]

The state is that of a training with AdamW: weights, and two moments of each. `torch.save` writes it
to a file and does not wait for the disk.
"""

import statistics
import tempfile
from pathlib import Path

import torch

from shared import parser, seconds
from textgen.protocols import TrainerState
from textgen.runs.checkpoints import Checkpoint, Checkpoints
from textgen.runs.formats import Progress


def ways(parameters, folder):
    """What writes a state of so many parameters, in eight layers."""
    rows, draw = max(1, parameters // 8 // 512), torch.Generator().manual_seed(1)
    weights, *moments = (
        {f"{kind}.{n}": torch.rand((rows, 512), generator=draw) for n in range(8)}
        for kind in ("weight", "exp_avg", "exp_avg_sq")
    )
    arrays = [{name: each.numpy() for name, each in part.items()} for part in (weights, *moments)]
    trainer = TrainerState({**arrays[1], **arrays[2]}, {"step": 1})
    checkpoints = Checkpoints(folder / "checkpoints")
    checkpoints.path.mkdir()
    made = Checkpoint(tensors=arrays[0], trainer=trainer, progress=Progress(step=1))
    return {
        "checkpoint": lambda: checkpoints.write(made),
        "torch.save": lambda: torch.save((weights, moments), folder / "state.pt"),
    }


def main():
    """Print a table of medians."""
    options = parser(__doc__)
    options.add_argument("--parameters", type=int, nargs="+", default=[300_000, 100_000_000])
    options.add_argument("--times", type=int, default=3)
    options.add_argument("--folder", type=Path, default=Path())
    given = options.parse_args()
    for parameters in given.parameters:
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            for what, write in ways(parameters, Path(folder)).items():
                took = statistics.median(seconds(write) for _ in range(given.times))
                print(f"{parameters:12,} {what:20} {took:8.3f} s", flush=True)


if __name__ == "__main__":
    main()
