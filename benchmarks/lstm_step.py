"""A step of training an LSTM on a CPU, by textgen and by a plain loop of torch.

Usage: python benchmarks/lstm_step.py TEXT [--hidden 256] [--batch 64,16] [--precision bfloat16]
[--repeats 7]

The plain loop is tried with one thread of torch's and with one for each core, and ours, each in a
process of its own that lives through the whole measurement; they take turns, and the better plain
loop counts. Prints its seconds over ours, above 1 if ours is the faster, and the losses after the
same number of steps from the same weights.
"""

from __future__ import annotations

import os
import statistics
from pathlib import Path

import numpy as np

from shared import Group, Training, parser, show, turns


def compare(training: Training, name: str, steps: int, repeats: int) -> None:
    """Ours against the better plain loop."""
    cores = os.cpu_count() or 1
    groups = [Group(training, "ours", threads=cores), Group(training, "plain")]
    groups.append(Group(training, "plain", threads=cores))
    rows = turns(groups, steps, repeats)
    best = min((1, 2), key=lambda place: statistics.median(row[place][0] for row in rows))
    show(name, [row[best][0] / row[0][0] for row in rows])
    losses = rows[-1][0][1], rows[-1][best][1]
    print("  losses of the last turn: {:.4f}, and {:.4f} of the plain loop".format(*losses))


def main() -> None:
    """Print the ratios."""
    options = parser(__doc__)
    options.add_argument("text", type=Path)
    options.add_argument("--hidden", type=int, default=256)
    options.add_argument("--batch", default="64,16")
    options.add_argument("--precision", choices=("bfloat16", "float32"), default="bfloat16")
    options.add_argument("--characters", type=int, default=150_000, help="read in each turn")
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
        steps = max(1, given.characters // (batch * 64))
        compare(training, f"LSTM {given.hidden}, batch {batch}", steps, given.repeats)


if __name__ == "__main__":
    main()
