"""What a mixture gains over its parts: the table of docs/mixtures.md.

Usage: python benchmarks/mixtures.py [--text FILE] [--seeds 3] [--epochs 12]
       python benchmarks/mixtures.py --speed [--text FILE] [--epochs 1] [--units 256]
       python benchmarks/mixtures.py --speed --run FOLDER

Trains an LSTM of 256 units and an n-gram model in a mixture on the first nine tenths of a text, once for each seed, and
prints the loss of the last tenth in nats per character: of each part alone, of their product at fixed weights, and of
the mixture. The text is The Time Machine in small letters and spaces, or the file with every character. The fixed
weights are the best ones for the very text that is reported, which favours them.

With --speed it generates in turn with the network alone and with the mixture, and prints how many times as many
characters a second of the processor's time the mixture makes: median, least and greatest of seven pairs. The mixture is
trained for it, or that of a run, such as one of `textgen init`'s pipeline.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import attrs
import numpy as np

import textgen
from textgen_builtins.models.gate import Gate
from textgen_builtins.models.loss import log_softmax
from textgen_builtins.models.mixture.model import Mixture, expert_logs

WEIGHTS = [round(0.1 * i, 1) for i in range(1, 11)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text", type=Path, help="a text file in place of The Time Machine")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--speed", action="store_true")
    parser.add_argument(
        "--units", type=int, default=256, help="of the network whose speed is measured"
    )
    parser.add_argument("--run", type=Path, help="a run whose mixture's speed is measured")
    arguments = parser.parse_args()
    if arguments.speed:
        with tempfile.TemporaryDirectory() as folder:
            given = arguments.text, arguments.epochs, 0, Path(folder), arguments.units
            speed(textgen.load(arguments.run) if arguments.run else trained(*given))
        return
    rows = [losses(arguments.text, arguments.epochs, seed) for seed in range(arguments.seeds)]
    print("| what predicts it | mean | lowest | highest |\n| --- | --- | --- | --- |")
    for name in rows[0]:
        values = [row[name] for row in rows]
        print(f"| {name} | {np.mean(values):.3f} | {min(values):.3f} | {max(values):.3f} |")


def speed(generator: textgen.Generator) -> None:
    """Print the mixture's speed as a share of its network's."""
    assert isinstance(generator.model, Mixture)
    alone = attrs.evolve(generator, model=generator.model.first)
    prompts = [prompt.lower() for prompt in ("The time ", "I saw ", "It was ", "And then ")]
    cases: tuple[tuple[str, int, dict[str, float]], ...] = (
        ("greedy, one text", 1, {"temperature": 0.0}),
        ("sampled at 0.8, one text", 1, {"temperature": 0.8}),
        ("sampled at 0.8, 256 texts", 64, {"temperature": 0.8}),
    )
    for name, number, options in cases:

        def seconds(of: textgen.Generator, number: int = number, options: Any = options) -> float:
            begun = time.process_time()
            if number == 1:
                for prompt in prompts:
                    of.generate(prompt, max_new_tokens=1000, **options)
            else:
                list(
                    of.generate_many(
                        prompts, n=number, batch_size=256, max_new_tokens=100, **options
                    )
                )
            return time.process_time() - begun

        seconds(generator), seconds(alone)
        ratios = [seconds(alone) / seconds(generator) for _ in range(7)]
        print(
            f"{name:26} {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
            flush=True,
        )


def trained(
    text: Path | None, epochs: int, seed: int, folder: Path, units: int = 256
) -> textgen.Generator:
    """A mixture."""
    letters = {"type": "char", "letters_only": True, "lower_case": True}
    tables: dict[str, Any] = {
        "seed": seed,
        "device": "cpu",
        "corpus": {"type": "file", "path": str(text.absolute())}
        if text
        else {"type": "time-machine"},
        "tokenizer": {"type": "char"} if text else letters,
        "data": {"validation": 0.1},
        "model": {
            "type": "mixture",
            "first": {
                "type": "rnn",
                "cell": "lstm",
                "hidden_size": units,
                "dropout": 0.0 if text else 0.4,
            },
        },
        "trainer": {
            "type": "mixture",
            "first": {"type": "adamw", "length": f"{epochs} epochs", "batch_size": 32},
        },
        "generate": {"max_new_tokens": 0},
        "observer": [],
    }
    return textgen.run(tables, output=folder / "run").generator


def losses(text: Path | None, epochs: int, seed: int) -> dict[str, float]:
    """The losses by what predicts."""
    with tempfile.TemporaryDirectory() as folder:
        generator = trained(text, epochs, seed, Path(folder))
        model, corpus = generator.model, generator.tables["corpus"]
        tokens = generator.tokenizer.encode("".join(textgen.Engine().read_corpus(corpus)))
    assert isinstance(model, Mixture)
    held_out = tokens[len(tokens) - int(len(tokens) * 0.1) :]
    logs = expert_logs(model, held_out[:-1], 64)[:, 0]
    first = expert_logs(model.first, held_out[:-1], 64)
    experts = expert_logs(model.second, held_out[:-1], 64)
    counted = log_softmax(Gate.fixed(model.second.expert_weights).mix(experts.copy()))
    both = np.stack([first[:, 0], counted], axis=1)
    fixed = [Gate.fixed([a, b]).mix(both.copy()) for a in WEIGHTS for b in WEIGHTS]

    def loss(logits: Any) -> float:
        return -float(
            log_softmax(logits)[np.arange(len(logits)), held_out[1:]].mean(dtype=np.float64)
        )

    return {
        "n-grams (Kneser-Ney)": loss(experts[:, 0]),
        "n-grams and words, at fixed weights": loss(counted),
        "LSTM of 256 units": loss(first[:, 0]),
        "both, at the best fixed weights": min(map(loss, fixed)),
        "both, with the gate": loss(logs),
    }


if __name__ == "__main__":
    main()
