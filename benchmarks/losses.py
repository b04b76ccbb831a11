"""How low the loss of small models gets on two texts: the table of "What loss is good?" in
docs/benchmarks.md.

Usage: python benchmarks/losses.py

Trains each model on the first nine tenths of a text and prints a Markdown table of the loss of the
last tenth, in nats and in bits per character. The texts are the story that comes with textgen, as
it is, and The Time Machine in small letters and spaces; that one is left out where it is neither in
the cache nor can be downloaded. A few minutes on two cores.
"""

import math

import textgen
from shared import parser
from textgen_builtins.models.ngram.counting import CountTrainer
from textgen_builtins.models.ngram.model import NgramModel

TEXTS = {
    "The story that comes with textgen": {
        "corpus": {"type": "story"},
        "tokenizer": {"type": "char"},
    },
    "The Time Machine, small letters and spaces": {
        "corpus": {"type": "time-machine"},
        "tokenizer": {"type": "char", "letters_only": True, "lower_case": True},
    },
}
COUNTED = {  # what predicts it, order
    "the frequency of each character": 1,
    "the frequency of each pair of characters": 2,
    "n-gram model of order 5": 5,
    "n-gram model of order 7": 7,
}
NETWORKS = ((128, 0.0, 15), (128, 0.2, 15), (256, 0.4, 20))  # units of an LSTM, dropout, epochs


def main():
    """Print a table for each text."""
    parser(__doc__).parse_args()
    for title, text in TEXTS.items():
        print(f"\n{title}\n\n| what predicts it | loss, nats | bits per character |")
        print("| --- | --- | --- |", flush=True)
        try:
            print_rows(text)
        except textgen.CorpusError as error:
            print(f"\nleft out: {error}")


def print_rows(text):
    """A row for each model, from the first that knows nothing."""
    size, counted = train(text, {"type": "ngram"}, {"type": "count"})
    show(f"nothing: all {size} characters equally likely", math.log(size))
    for name, order in COUNTED.items():
        _, nats = train(text, lambda c, n=order: NgramModel(n, c.vocab_size), CountTrainer())
        show(name, nats)
    show("n-gram model with counts over words", counted)
    for units, dropout, epochs in NETWORKS:
        length = f"{epochs} epochs"
        network = {"type": "rnn", "cell": "lstm", "hidden_size": units, "dropout": dropout}
        trainer = {"type": "adamw", "length": length, "batch_size": 32, "order": "streams"}
        _, nats = train(text, network, trainer | {"learning_rate": 6e-3})
        show(f"LSTM of {units} units, dropout {dropout:g}, {length}", nats)


def train(text, model, trainer):
    """(size of the vocabulary without `<unk>`, nats) of a run."""
    data = {"window_length": 64, "validation": 0.1}
    run = textgen.train(**text, model=model, trainer=trainer, data=data, device="cpu", threads=1)
    return run.generator.tokenizer.vocab_size - 1, run.best_loss


def show(name, nats):
    """Print a row."""
    print(f"| {name} | {nats:.2f} | {nats / math.log(2):.2f} |", flush=True)


if __name__ == "__main__":
    main()
