"""How good a model the pipeline of `textgen init` makes of a text in a given time, by the clock, as
a table.

    python benchmarks/quality.py TEXT... [--minutes 1] [--seeds 3] [--letters] [--speed N] [--set
    KEY=VALUE]

For every text and seed two whole processes run: `textgen init TEXT --minutes M` and `textgen run`
on what it wrote. The loss is that of the last tenth of the text, which `init` holds out, in nats
per character; of the mixture, and of each of its parts alone. --speed N and --set
"trainer.first.length=N steps" give the same models however busy the machine is. With --letters a
text is first reduced to the letters a to z and the space, as the book does it.
"""

import math
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import attrs

import textgen
from shared import parser, seconds
from textgen_builtins.corpora.wrapped_lines import joined, width_of


def main():
    """Print a row for each text."""
    options = parser(__doc__)
    options.add_argument("texts", nargs="+", type=Path)
    options.add_argument("--minutes", type=float, default=1.0)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--letters", action="store_true")
    options.add_argument("--speed", help="of the machine, which textgen init else measures")
    options.add_argument("--set", action="append", default=[], help="KEY=VALUE for textgen run")
    given = options.parse_args()
    print("text | seconds | mixture | network alone | counts alone | bits per character")
    print("--- | --- | --- | --- | --- | ---")
    for text in given.texts:
        with tempfile.TemporaryDirectory() as folder:
            source = write_source(text, Path(folder), letters=given.letters)
            rows = [one_run(source, seed, given) for seed in range(given.seeds)]
        columns = [*zip(*rows, strict=True)]
        columns.append(tuple(loss / math.log(2) for loss in columns[1]))
        cells = [f"{statistics.mean(v):.3f} ({min(v):.3f}-{max(v):.3f})" for v in columns]
        print(" | ".join([text.stem, *cells]), flush=True)


def write_source(text, folder, *, letters):
    """The text as it is trained on: with joined lines, as `textgen init` has it."""
    content, source = text.read_text(encoding="utf-8-sig"), folder / "text.txt"
    if letters:
        content = re.sub("[^a-z]+", " ", content.lower())
    elif width := width_of(content):
        content = "".join(joined(iter(content.split("\n")), width))
    source.write_text(content, encoding="utf-8")
    return source


def one_run(source, seed, given):
    """Seconds by the clock for both commands, and the losses of the mixture, the network and the
    counts.
    """
    pipeline, output = source.with_name(f"{seed}.toml"), source.with_name(f"run-{seed}")
    changes = [f"--set={each}" for each in (f"seed={seed}", *given.set)]

    def commands():
        init(source, pipeline, given.minutes, *([f"--speed={given.speed}"] if given.speed else []))
        call("run", pipeline, "--output", output, *changes)

    spent, counts = seconds(commands), source.with_name(f"counts-{seed}")
    call("run", pipeline, "--output", counts, "--set=model.type=ngram", "--set=trainer.type=count")
    with textgen.load(output) as generator, textgen.load(counts) as counted:
        held_out = last_tenth(generator, source)
        mixture = generator.model
        found = [loss(generator, model, held_out) for model in (mixture, mixture.first)]
        return spent, *found, loss(counted, counted.model, held_out)


def last_tenth(generator, source):
    """The text that `init` holds out."""
    tokens = generator.tokenizer.encode(source.read_text(encoding="utf-8"))
    return generator.tokenizer.decode(tokens[int(len(tokens) * 0.9) :])


def loss(generator, model, text):
    """Mean cross-entropy of a text by a model, from the second token on."""
    return attrs.evolve(generator, model=model).score(iter([text])).loss


def init(source, pipeline, minutes, *options):
    """`textgen init`, which starts from no model."""
    call(*without(), "init", source, "--minutes", str(minutes), "--pipeline", pipeline, *options)


def without():
    """Options that leave out the packages with a model to start from."""
    offers = textgen.PluginSet.discover().offers("run")
    return [f"--no-plugin={name}" for name in sorted({offer.distribution for offer in offers})]


def call(*arguments):
    """A command of textgen."""
    command = [sys.executable, "-m", "textgen", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
