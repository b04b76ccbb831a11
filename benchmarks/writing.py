"""Tokens per second of `smollm2`, one text and 16 together: `python benchmarks/writing.py`.

By the clock, and by the time of one processor: on a busy machine, only the second is repeatable,
with OMP_NUM_THREADS=1.
"""

import resource
import time

import torch

import textgen
from shared import parser


def main():
    """Print a line for each measurement."""
    parser(__doc__).parse_args()
    begun = time.process_time()
    generator = textgen.load("smollm2", device="cpu")
    print(f"loading: {time.process_time() - begun:.1f} s of processor time")
    for texts, tokens in ((1, 10), (1, 50), (16, 40)):  # the first call prepares the weights
        wall, processor = time.perf_counter(), time.process_time()
        prompts = ["The old man looked at the sea and"] * texts
        made = sum(len(t.tokens) for t in generator.generate_many(prompts, max_new_tokens=tokens))
        by_wall = made / (time.perf_counter() - wall)
        by_processor = made / (time.process_time() - processor)
        print(
            f"{texts} texts, {torch.get_num_threads()} threads: {by_wall:.0f} tokens a second, "
            f"{by_processor:.0f} per second of processor time"
        )
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"memory: {memory:.0f} MiB at most")


if __name__ == "__main__":
    main()
