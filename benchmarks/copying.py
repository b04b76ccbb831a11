"""How much a mixture copies from its text, beside its parts, and what makes it copy less: a table
of docs/log.md.

Usage: python benchmarks/copying.py [TEXT] [--minutes 1]

Trains the pipeline of `textgen init TEXT --minutes M` (The Time Machine, all characters, if no TEXT
is given), and the same with other n-grams. Prints for each way to generate what share of the runs
of 16 and 32 characters stands in the training text as well, the longest such run, what share of the
runs of 16 stands earlier in the same text, and where the model is another the loss of the last
tenth, in nats per character. The held-out text is in the table as a text that nobody copied.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import attrs
import numpy as np

import textgen
from shared import parser

_OTHERS = {
    "mixture, `model.second.cache_tokens = 0`": ("model.second.cache_tokens=0", (0.8, 0.5)),
    "mixture, `model.second.order = 5`": ("model.second.order=5", (0.8,)),
}
_TEXTS, _SIZE = 12, 500  # of so many characters
_HEADER = (
    "| what writes | temperature | 16 characters | 32 characters | longest | of itself | loss |"
)


def main():
    """Print the table."""
    options = parser(__doc__)
    options.add_argument("text", nargs="?", type=Path)
    options.add_argument("--minutes", type=float, default=1.0)
    given = options.parse_args()
    print(f"{_HEADER}\n| --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        source, pipeline = Path(folder, "text.txt"), Path(folder, "pipeline.toml")
        book = {"type": "file", "path": str(given.text)} if given.text else {"type": "time-machine"}
        source.write_text("".join(textgen.Engine().read_corpus(book)), encoding="utf-8")
        options = ("--minutes", str(given.minutes), "--start", "none", "--pipeline", pipeline)
        call("init", source, *options)
        for name, (change, temperatures) in {"": ("seed=0", ()), **_OTHERS}.items():
            run = Path(folder, change)
            call("run", pipeline, "--output", run, f"--set={change}")
            with textgen.load(run) as generator:
                for row in rows(generator, source, name, temperatures):
                    print("| " + " | ".join(row) + " |", flush=True)


def rows(generator, source, name, temperatures):
    """Those of the mixture at temperatures; without a name, those of the author, of the parts and
    of the mixture.
    """
    held_out, finder = last_tenth(generator, source), generator.copy_finder()

    def row(name, texts, temperature="", lost=""):
        reports = [finder.report(each) for each in texts if each]
        shares = [np.mean([report.ngram_shares[n] or 0.0 for report in reports]) for n in (16, 32)]
        again = np.mean([repeated(text) for text in texts])
        longest = max(report.longest for report in reports)
        copied = [f"{share:.1%}" for share in shares]
        return [name, temperature, *copied, str(longest), f"{again:.1%}", lost]

    def of(model, name, temperatures):
        writer = attrs.evolve(generator, model=model)
        lost = f"{loss(generator, model, held_out):.3f}"
        for temperature in temperatures:
            options = {"n": _TEXTS, "max_new_tokens": _SIZE, "temperature": temperature}
            options |= {"dry_multiplier": 0.0, "min_p": 0.0}  # what the model does by itself
            made = writer.generate_many(["\n"], unknown_characters="skip", **options)
            texts = [each.text for each in made]
            yield row(name, texts, str(temperature), lost)

    mixture = generator.model
    if name:
        yield from of(mixture, name, temperatures)
        return
    parts = [held_out[i * _SIZE : (i + 1) * _SIZE] for i in range(_TEXTS)]
    yield row("the author, held out", parts)
    yield from of(mixture.first, "the network alone", (0.8,))
    yield from of(mixture.second, "the n-grams and words alone", (0.8,))
    yield from of(mixture, "the mixture", (0.8, 0.5, 1.0))


def repeated(text, size=16):
    """The share of the runs of so many characters that stand earlier in the text."""
    runs = [text[start : start + size] for start in range(len(text) - size + 1)]
    return 1 - len(set(runs)) / max(1, len(runs))


def last_tenth(generator, source):
    """The text that `init` holds out."""
    tokens = generator.tokenizer.encode(source.read_text(encoding="utf-8"))
    return generator.tokenizer.decode(tokens[int(len(tokens) * 0.9) :])


def loss(generator, model, text):
    """Mean cross-entropy of a text by a model, from the second token on."""
    return attrs.evolve(generator, model=model).score(iter([text])).loss


def call(*arguments):
    """A command of textgen."""
    command = [sys.executable, "-m", "textgen", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
