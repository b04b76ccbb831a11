"""How much a model learns from a prompt by another author: the table of "The text so far" in
docs/mixtures.md.

    python benchmarks/long_prompts.py RUN TEXT... [--places 12] [--characters 1000]

Prints for each text and length of a prompt the loss of `run`'s model on what follows, in nats per
character: the mean of so many places of the text, evenly spread. Characters that the model does not
know are left out.
"""

import statistics
from pathlib import Path

import textgen
from shared import parser

_LENGTHS = (0, 1_000, 10_000, 100_000)


def main():
    """Print a row for each text."""
    options = parser(__doc__)
    options.add_argument("run", type=Path)
    options.add_argument("texts", nargs="+", type=Path)
    options.add_argument("--places", type=int, default=12)
    options.add_argument("--characters", type=int, default=1000)
    given = options.parse_args()
    print("text | " + " | ".join(f"{length:,}" for length in _LENGTHS))
    print("--- |" + " --- |" * len(_LENGTHS))
    with textgen.load(given.run) as generator:
        for path in given.texts:
            text = known(generator, path.read_text(encoding="utf-8"))
            found = losses(generator, text, given.places, given.characters)
            print(path.stem, *(f"{loss:.3f}" for loss in found), sep=" | ", flush=True)


def known(generator, text):
    """A text without the characters that are not in the vocabulary."""
    pieces = generator.tokenizer.decode(generator.tokenizer.encode("".join(sorted(set(text)))))
    return "".join(character for character in text if character in pieces)


def losses(generator, text, places, size):
    """The mean loss of `size` characters after a prompt of each length."""
    first, last = max(_LENGTHS), len(text) - size
    starts = [first + (last - first) * place // max(1, places - 1) for place in range(places)]
    return [
        statistics.mean(
            generator.score(text[start : start + size], prompt=text[start - length : start]).loss
            for start in starts
        )
        for length in _LENGTHS
    ]


if __name__ == "__main__":
    main()
