"""How low the loss of small models gets on two texts: the table of "What loss is good?" in docs/quickstart.md.

Usage: python benchmarks/losses.py [--quick] [--threads 1]

Trains each model on the first nine tenths of a text and prints a Markdown table of the loss of the last tenth, in nats
and in bits per character, and of the seconds of the whole run. The texts are the story that comes with textgen, as it
is, and The Time Machine in small letters and spaces; that one is left out where it is neither in the cache nor can be
downloaded. A few minutes on two cores; --quick trains the networks for two epochs only.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import textgen
from pairs import seconds
from textgen.data import Dataset
from textgen.events import Evaluation
from textgen.protocols import TrainingContext
from textgen_builtins.models.ngram.counting import CountTrainer
from textgen_builtins.models.ngram.model import NgramModel
from textgen_builtins.tokenizers.char import CharTokenizer
from textgen_builtins.tokenizers.config import CharConfig

TEXTS: Mapping[str, dict[str, Any]] = {
    "The story that comes with textgen": {
        "corpus": {"type": "story"},
        "tokenizer": {"type": "char"},
    },
    "The Time Machine, small letters and spaces": {
        "corpus": {"type": "time-machine"},
        "tokenizer": {"type": "char", "letters_only": True, "lower_case": True},
    },
}
COUNTED: Mapping[str, int] = {  # what predicts it, order
    "the frequency of each character": 1,
    "the frequency of each pair of characters": 2,
    "n-gram model of order 5": 5,
    "n-gram model of order 7": 7,
}
NETWORKS = ((128, 0.0, 15), (128, 0.2, 15), (256, 0.4, 20))  # units of an LSTM, dropout, epochs


class BestLoss:
    """An observer that keeps the lowest validation loss."""

    nats = math.inf
    bits = math.inf

    def observe(self, event: object) -> None:
        """See textgen.protocols.Observer."""
        if (
            isinstance(event, Evaluation)
            and event.validation_loss is not None
            and event.validation_loss < self.nats
        ):
            self.nats, self.bits = event.validation_loss, event.bits_per_character


def main() -> None:
    """Print a table for each text."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="train the networks for two epochs only"
    )
    parser.add_argument("--threads", type=int, default=1, help="of the CPU, for the networks")
    arguments = parser.parse_args()
    for title, text in TEXTS.items():
        print(f"\n{title}\n\n| what predicts it | loss, nats | bits per character | seconds |")
        print("| --- | --- | --- | --- |", flush=True)
        try:
            print_rows(text, quick=arguments.quick, threads=arguments.threads)
        except textgen.CorpusError as error:
            print(f"\nleft out: {error}")


def print_rows(text: Mapping[str, Any], *, quick: bool, threads: int) -> None:
    """A row for each model, from the first that knows nothing."""
    ngram = {"model": {"type": "ngram"}, "trainer": {"type": "count"}}
    vocabulary, *counted = train(text, ngram)
    show(
        f"nothing: all {vocabulary} characters equally likely",
        math.log(vocabulary),
        math.log2(vocabulary),
    )
    for name, order in COUNTED.items():
        show(name, *count(text, order))
    show("n-gram model with counts over words", *counted)
    for units, dropout, epochs in NETWORKS:
        epochs = 2 if quick else epochs
        network = {
            "threads": threads,
            "model": {"type": "rnn", "cell": "lstm", "hidden_size": units, "dropout": dropout},
            "trainer": {
                "type": "adamw",
                "length": f"{epochs} epochs",
                "batch_size": 32,
                "order": "streams",
                "learning_rate": 6e-3,
            },
        }
        show(
            f"LSTM of {units} units, dropout {dropout:g}, {epochs} epochs",
            *train(text, network)[1:],
        )


def count(text: Mapping[str, Any], order: int) -> tuple[float, float, float]:
    """(nats, bits per character, seconds) of n-grams alone."""
    tokenizer = CharTokenizer(
        CharConfig(**{k: v for k, v in text["tokenizer"].items() if k != "type"})
    )
    corpus = "".join(textgen.Engine().read_corpus(text["corpus"]))
    tokenizer.fit([corpus])
    ids = tokenizer.encode(corpus)
    cut = len(ids) - len(ids) // 10
    sizes = {"vocab_size": tokenizer.vocab_size, "window_length": 1, "window_stride": 1}
    data = Dataset(training=ids[:cut], validation=ids[cut:], **sizes)
    model = NgramModel(order, tokenizer.vocab_size)
    context = TrainingContext(seed=0, device="cpu")
    spent = seconds(lambda: list(CountTrainer().train(model, data, context)))
    nats = model.trie.loss(ids[cut:]) or 0.0
    return nats, nats / math.log(2), spent


def train(text: Mapping[str, Any], tables: Mapping[str, Any]) -> tuple[int, float, float, float]:
    """(size of the vocabulary without `<unk>`, nats, bits per character, seconds) of a run."""
    best = BestLoss()
    pipeline = {
        "device": "cpu",
        "observer": [],
        "data": {"window_length": 64, "validation": 0.1},
        "generate": {"max_new_tokens": 1},
        **text,
        **tables,
    }
    with tempfile.TemporaryDirectory() as folder:
        runs = []
        engine = textgen.Engine()
        spent = seconds(
            lambda: runs.append(engine.run(pipeline, output=Path(folder, "run"), observers=[best]))
        )
        return runs[0].generator.tokenizer.vocab_size - 1, best.nats, best.bits, spent


def show(name: str, nats: float, bits: float, spent: float | None = None) -> None:
    """Print a row."""
    print(
        f"| {name} | {nats:.2f} | {bits:.2f} | {'' if spent is None else f'{spent:.1f}'} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
