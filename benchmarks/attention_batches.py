"""Tokens a second of an attention model: 32 prompts of different lengths in a batch, and one after the other.

Usage: python benchmarks/attention_batches.py [--repeats 5] [--device cpu|cuda] [--new-tokens 100]

Needs the package in plugins/textgen-huggingface. A GPT-2 of 2 layers, 64 wide, with random weights and a context of
512; greedy. Prompts have 1 to 94 tokens. Both ways run in turn, in the same process.
"""

from __future__ import annotations

import argparse
import tempfile
from importlib.util import find_spec
from pathlib import Path

import torch

import textgen
from pairs import ratios, seconds, show

ROWS, TARGET = 32, 5


def trained(folder: Path, device: str) -> textgen.Generator:
    """A run directory with such a model; how well it is trained does not matter here."""
    pipeline = {
        "seed": 0,
        "device": device,
        "corpus": {"type": "story"},
        "tokenizer": {"type": "char", "letters_only": True, "lower_case": True},
        "data": {"window_length": 32, "windows": [64, 0]},
        "model": {
            "type": "huggingface",
            "architecture": "gpt2",
            "config": {"n_positions": 512, "n_embd": 64, "n_layer": 2, "n_head": 2},
        },
        "trainer": {"type": "sgd", "length": "1 epoch"},
        "sampler": [{"type": "greedy"}],
        "observer": [],
        "generate": {"max_new_tokens": 1},
    }
    return textgen.run(pipeline, output=folder / "run").generator


def main() -> None:
    """Print both rates and their ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--new-tokens", type=int, default=100)
    arguments = parser.parse_args()
    if find_spec("textgen_huggingface") is None:
        print(
            "skipped: textgen-huggingface is not installed (pip install plugins/textgen-huggingface)"
        )
        return
    torch.set_num_threads(1)  # the model is too small to share out
    prompts = [("it has to be the time machine " * 4)[: 1 + 3 * i] for i in range(ROWS)]
    with tempfile.TemporaryDirectory() as name:
        generator = trained(Path(name), arguments.device)

        def one_by_one() -> None:
            for prompt in prompts:
                generator.generate(prompt, max_new_tokens=arguments.new_tokens)

        def together() -> None:
            list(
                generator.generate_many(
                    prompts, max_new_tokens=arguments.new_tokens, batch_size=ROWS
                )
            )

        found = ratios(one_by_one, together, arguments.repeats)
        for way in (one_by_one, together):
            print(
                f"{way.__name__:11} {ROWS * arguments.new_tokens / seconds(way):8.0f} tokens a second"
            )
        show(f"{ROWS} prompts in a batch, against one after the other", found, TARGET)


if __name__ == "__main__":
    main()
