"""Two processes of one thread against one process of two threads, ours and a plain loop of torch.

Usage: python benchmarks/processes.py [--hidden 256,512] [--steps 12] [--repeats 5]

Batches are 64 windows of 64 tokens, in bfloat16. The processes live through the whole measurement
and take turns. Prints the seconds of others over those of our two processes, above 1 if ours are
the faster. The others are a plain loop of torch in one process of two threads, and textgen in one
process of two threads, which shows what a second process is worth on this machine.
"""

from __future__ import annotations

import numpy as np

from shared import Group, Training, parser, show, turns

_VOCABULARY = 64


def compare(hidden: int, steps: int, repeats: int) -> None:
    """Print the ratios for one size."""
    tokens = np.random.default_rng(0).integers(_VOCABULARY, size=1_000_000).astype(np.uint8)
    training = Training(tokens=tokens, vocab_size=_VOCABULARY, hidden=hidden, embedding=64)
    others = {
        "a plain loop of two threads": Group(training, "plain", threads=2),
        "textgen with two threads": Group(training, "ours", threads=2),
    }
    rows = turns([Group(training, "ours", size=2), *others.values()], steps, repeats)
    for place, name in enumerate(others, 1):
        found = [row[place][0] / row[0][0] for row in rows]
        show(f"LSTM of {hidden}: two processes against {name}", found)


def main() -> None:
    """Print what is asked for."""
    options = parser(__doc__)
    options.add_argument("--hidden", default="256,512")
    options.add_argument("--steps", type=int, default=12)
    options.add_argument("--repeats", type=int, default=5)
    given = options.parse_args()
    for hidden in given.hidden.split(","):
        compare(int(hidden), given.steps, given.repeats)


if __name__ == "__main__":
    main()
