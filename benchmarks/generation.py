"""Tokens a second against the seed's way: an nn.RNN step per character in a Python loop under torch.inference_mode.

Usage: python benchmarks/generation.py [--repeats 7] [--device cpu|cuda]

Both generate from the same weights in the same process, in turn. Prints ratios of time per token with their spread.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

import textgen
from pairs import ratios, show

CASES = (  # cell, units, tokens, target greedy, target sampled
    ("rnn", 32, 2000, 12, 4),
    ("rnn", 256, 2000, 7, 3.5),
    ("lstm", 512, 300, 8, 6),
)


def trained(folder: Path, cell: str, units: int, device: str = "cpu") -> textgen.Generator:
    """A run directory with a model of that size; how well it is trained does not matter here."""
    pipeline = {
        "seed": 0,
        "device": device,
        "corpus": {"type": "story"},
        "tokenizer": {"type": "char", "letters_only": True, "lower_case": True},
        "data": {"window_length": 32, "windows": [64, 0]},
        "model": {"type": "rnn", "cell": cell, "hidden_size": units},
        "trainer": {"type": "sgd", "length": "1 epoch"},
        "sampler": [{"type": "greedy"}],
        "observer": [],
        "generate": {"max_new_tokens": 1},
    }
    return textgen.run(pipeline, output=folder / f"{cell}-{units}").generator


class SeedsWay:
    """The seed's loop: one-hot input, the framework's layer called once a character."""

    def __init__(self, generator: textgen.Generator, cell: str, units: int, device: str) -> None:
        self.device = device
        self.vocab_size = generator.tokenizer.vocab_size
        self.generator = generator
        self.rnn = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[cell](self.vocab_size, units).to(
            device
        )
        self.head = nn.Linear(units, self.vocab_size).to(device)
        tensors = {
            name: torch.from_numpy(array.copy())
            for name, array in generator.model.tensors().items()
        }
        with torch.no_grad():
            for name, parameter in self.rnn.named_parameters():
                parameter.copy_(tensors[f"rnn.{name}"])
            self.head.weight.copy_(tensors["head.weight"])
            self.head.bias.copy_(tensors["head.bias"])

    @torch.inference_mode()
    def generate(
        self, prompt: str, count: int, temperature: float = 0.0, top_k: int = 0
    ) -> list[int]:
        """Warm up on the prompt, then `count` tokens."""
        state: Any = None
        ids = self.generator.tokenizer.encode(prompt).tolist()
        for token in ids:
            logits, state = self.step(token, state)
        made = []
        for _ in range(count):
            if temperature:
                values, indices = torch.topk(logits / temperature, top_k)
                token = int(indices[0, torch.multinomial(torch.softmax(values, -1), 1)[0, 0]])
            else:
                token = int(logits.argmax())
            made.append(token)
            logits, state = self.step(token, state)
        return made

    def step(self, token: int, state: Any) -> tuple[torch.Tensor, Any]:
        """One character: (1, V) logits and the state."""
        x = nn.functional.one_hot(
            torch.tensor([[token]], device=self.device), self.vocab_size
        ).float()
        y, state = self.rnn(x, state)
        return self.head(y[0]), state


def compare_one(
    folder: Path, case: tuple[str, int, int, float, float], repeats: int, device: str
) -> None:
    """One sequence, greedy and sampled."""
    cell, units, count, greedy_target, sampled_target = case
    generator = trained(folder, cell, units, device)
    seed = SeedsWay(generator, cell, units, device)
    same = list(generator.generate("it has", max_new_tokens=50).tokens) == seed.generate(
        "it has", 50
    )
    print(f"{cell} {units}: the first 50 greedy tokens are {'the same' if same else 'DIFFERENT'}")
    greedy = ratios(
        lambda: seed.generate("it has", count),
        lambda: generator.generate("it has", max_new_tokens=count),
        repeats,
    )
    show(f"{cell} {units}, greedy, one sequence", greedy, greedy_target)
    sampled = ratios(
        lambda: seed.generate("it has", count, 0.8, 10),
        lambda: generator.generate("it has", max_new_tokens=count, temperature=0.8, top_k=10),
        repeats,
    )
    show(f"{cell} {units}, temperature 0.8 and top-k 10, one sequence", sampled, sampled_target)


def compare_batch(folder: Path, repeats: int, device: str) -> None:
    """1,024 sequences at once, per token, against the baseline's one."""
    generator = trained(folder, "rnn", 32, device)
    seed = SeedsWay(generator, "rnn", 32, device)
    found = ratios(
        lambda: seed.generate("it has", 2000),
        lambda: list(
            generator.generate_many(["it has"], n=1024, batch_size=1024, max_new_tokens=2000)
        ),
        repeats,
    )
    low, median, high = (ratio * 1024 for ratio in found)
    show("rnn 32, greedy, 1,024 sequences, per token against one", (low, median, high), 250)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    repeats, device = arguments.repeats, arguments.device
    torch.set_num_threads(
        1
    )  # a step is far too small to share out; more threads only slow the baseline
    with tempfile.TemporaryDirectory() as name:
        for case in CASES:
            compare_one(Path(name), case, repeats, device)
        compare_batch(Path(name), repeats, device)


if __name__ == "__main__":
    main()
