"""How low the loss of small models gets on two texts: the table of "What loss is good?" in
docs/benchmarks.md.

Usage: python benchmarks/losses.py [--quick]

Trains each model on the first nine tenths of a text and prints a Markdown table of the loss of the
last tenth, in nats and in bits per character, and of the seconds of the whole run. The texts are
the story that comes with textgen, as it is, and The Time Machine in small letters and spaces; that
one is left out where it is neither in the cache nor can be downloaded. A few minutes on two cores;
--quick trains the networks for two epochs only.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import textgen
from shared import parser, seconds
from textgen import BuildContext
from textgen.data import Dataset
from textgen.protocols import TrainingContext
from textgen_builtins.models.ngram.counting import CountTrainer
from textgen_builtins.models.ngram.model import NgramModel

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


def main() -> None:
    """Print a table for each text."""
    options = parser(__doc__)
    options.add_argument("--quick", action="store_true", help="two epochs for each network")
    given = options.parse_args()
    for title, text in TEXTS.items():
        print(f"\n{title}\n\n| what predicts it | loss, nats | bits per character | seconds |")
        print("| --- | --- | --- | --- |", flush=True)
        try:
            print_rows(text, quick=given.quick)
        except textgen.CorpusError as error:
            print(f"\nleft out: {error}")


def print_rows(text: Mapping[str, Any], *, quick: bool) -> None:
    """A row for each model, from the first that knows nothing."""
    size, *counted = train(text, {"model": {"type": "ngram"}, "trainer": {"type": "count"}})
    show(f"nothing: all {size} characters equally likely", math.log(size), 0.0)
    for name, order in COUNTED.items():
        show(name, *count(text, order))
    show("n-gram model with counts over words", *counted)
    for units, dropout, epochs in NETWORKS:
        length = f"{2 if quick else epochs} epochs"
        options = {"batch_size": 32, "order": "streams", "learning_rate": 6e-3}
        network = {
            "threads": 1,
            "model": {"type": "rnn", "cell": "lstm", "hidden_size": units, "dropout": dropout},
            "trainer": {"type": "adamw", "length": length, **options},
        }
        name = f"LSTM of {units} units, dropout {dropout:g}, {length}"
        show(name, *train(text, network)[1:])


def count(text: Mapping[str, Any], order: int) -> tuple[float, float]:
    """(nats, seconds) of n-grams alone."""
    engine, context = textgen.Engine(), BuildContext(folder=None)
    tokenizer = engine.build("tokenizer", text["tokenizer"], context)
    corpus = "".join(engine.read_corpus(text["corpus"]))
    tokenizer.fit([corpus])
    ids = tokenizer.encode(corpus)
    cut = len(ids) - len(ids) // 10
    sizes = {"vocab_size": tokenizer.vocab_size, "window_length": 1, "window_stride": 1}
    data = Dataset(training=ids[:cut], validation=ids[cut:], **sizes)
    model, told = NgramModel(order, tokenizer.vocab_size), TrainingContext(seed=0, device="cpu")
    spent = seconds(lambda: list(CountTrainer().train(model, data, told)))
    return model.trie.loss(ids[cut:]) or 0.0, spent


def train(text: Mapping[str, Any], tables: Mapping[str, Any]) -> tuple[int, float, float]:
    """(size of the vocabulary without `<unk>`, nats, seconds) of a run."""
    common = {
        "device": "cpu",
        "observer": [],
        "data": {"window_length": 64, "validation": 0.1},
        "generate": {"max_new_tokens": 1},
    }
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        pipeline, output = {**common, **text, **tables}, Path(folder, "run")
        spent = seconds(lambda: runs.append(textgen.run(pipeline, output=output)))
    generator = runs[0].generator
    return generator.tokenizer.vocab_size - 1, generator.record["best_loss"], spent


def show(name: str, nats: float, spent: float) -> None:
    """Print a row."""
    print(f"| {name} | {nats:.2f} | {nats / math.log(2):.2f} | {spent:.1f} |", flush=True)


if __name__ == "__main__":
    main()
