"""Makes a finished run the one that the package offers: ../textgen_english/run, and its loss in
../README.md.

    python export.py RUN [BEFORE SHARE LOSS]

With BEFORE, a run that RUN started from, the weights are a mean, with this share of those that it
had: what a training on other books forgets. LOSS is that of the mean on the held-out text, in nats
a token.
The weights are written in half precision (float16), and no path of this machine is kept. Signs
that the books lack get the mean weights of the others: what training made next to impossible, a few
passes over a text would not teach.
"""

import json
import math
import re
import sys
import tempfile
from pathlib import Path

import attrs
import numpy as np

import textgen
from textgen.protocols import Ids, Tensors, Tokenizer
from textgen.runs import for_vocabulary, save_run

PACKAGE = Path(__file__).parents[1]
START = ".\n"  # which a third of the pieces of mix.py begin with
KEPT = ("run.json", "pipeline.toml", "tokenizer.json", "model.safetensors")


@attrs.frozen(eq=False)
class Weights:
    """A model as far as it is saved."""

    arrays: Tensors

    def tensors(self) -> Tensors:
        """See textgen.protocols.Model."""
        return self.arrays


def main() -> None:
    """Write the run, read it back, and print what its loss is."""
    path = Path(sys.argv[1])
    with textgen.load(path, tokenizer="bpe") as generator:
        tables = {kind: without_start(table) for kind, table in generator.tables.items()}
        tables["corpus"] = {**tables["corpus"], "path": "books.txt"}
        tables["trainer"] = {**tables["trainer"], "type": "adamw"}  # whose options pieces.py has
        plain = {"type": "bpe", "vocab_size": generator.tokenizer.vocab_size}
        tables["tokenizer"] = plain
        counts = np.bincount(generator.training_tokens(), minlength=plain["vocab_size"])
        tensors = generator.model.tensors()
        if len(sys.argv) > 3:
            tensors = blended(tensors, generator.tokenizer, Path(sys.argv[2]), float(sys.argv[3]))
        tensors = with_means(tensors, lacking(generator.tokenizer, counts))
        start = generator.tokenizer.encode(START).tolist()
        record = {**generator.record, "priming": start}
        if len(sys.argv) > 4:
            record["best_loss"] = float(sys.argv[4])
        halved = {name: array.astype(np.float16) for name, array in tensors.items()}
        generator = attrs.evolve(generator, model=Weights(halved), tables=tables)
    changed = {"tokenizer": plain, "trainer": tables["trainer"]}
    record["fingerprint"] = {**record["fingerprint"], **changed}
    (model,) = (each for each in record["components"] if each["kind"] == "model")
    plugins = {"tokenizer": ("bpe", "tokenizers"), "trainer": ("adamw", "adamw")}
    record["components"] = [
        {**model, "kind": kind, "name": plugins[kind][0], "plugin": plugins[kind][1]}
        if (kind := each["kind"]) in plugins
        else each
        for each in record["components"]
    ]
    target = PACKAGE / "textgen_english/run"
    with tempfile.TemporaryDirectory(dir=PACKAGE) as folder:
        save_run(attrs.evolve(generator, record=record), folder)
        target.mkdir(exist_ok=True)
        for name in KEPT:
            (Path(folder) / name).replace(target / name)
    say(path, target, record["best_loss"])


def without_start(table: object) -> object:
    """A table without the run that it started from."""
    is_table = isinstance(table, dict)
    return {key: value for key, value in table.items() if key != "start"} if is_table else table


def say(path: Path, target: Path, best: float) -> None:
    """Write the loss of a run into the card, and print it with a text."""
    evaluations = (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    loss = math.log(2) * min(json.loads(each)["bits_per_character"] for each in evaluations)
    with textgen.load(target) as generator:
        text = generator.generate("The door", max_new_tokens=150, seed=1).text
    size = (target / "model.safetensors").stat().st_size
    card = PACKAGE / "README.md"
    said = f"{best:.3f} nats a token, {loss:.3f} nats a character"
    before = card.read_text(encoding="utf-8")
    after = re.sub(r"\d\.\d{3} nats.*? nats a character", said, before, count=1)
    card.write_text(after, encoding="utf-8")
    print(f"{target}: {size / 1e6:.1f} MB, a loss of {said}\n\n{text}")


def blended(tensors: Tensors, tokenizer: Tokenizer, before: Path, share: float) -> Tensors:
    """The mean of weights and, with this share, of those of the run before, fitted to the
    tokenizer.
    """
    with textgen.load(before, tokenizer="bpe") as generator:
        old, vocabulary = generator.model.tensors(), generator.tokenizer

    def shapes_of(other: Tokenizer) -> dict[str, tuple[int, ...]]:
        size = other.vocab_size
        return {
            name: (size, *array.shape[1:])
            if array.shape[0] == tokenizer.vocab_size
            else array.shape
            for name, array in tensors.items()
        }

    fitted = for_vocabulary(old, vocabulary, tokenizer, tensors, shapes_of)
    return {name: (1 - share) * array + share * fitted[name] for name, array in tensors.items()}


def lacking(tokenizer: Tokenizer, counts: Ids) -> list[int]:
    """The tokens that are a printable character of ASCII or a tab, and never occurred."""
    texts = {int(each): tokenizer.decode(np.array([each])) for each in np.flatnonzero(counts == 0)}
    return [
        token
        for token, text in texts.items()
        if text == "\t" or (len(text) == 1 and text.isascii() and text.isprintable())
    ]


def with_means(tensors: Tensors, tokens: list[int]) -> Tensors:
    """The weights with the mean of the other tokens for these."""
    made = dict(tensors)
    for name in ("embedding.weight", "head.weight", "head.bias"):
        made[name] = tensors[name].copy()
        made[name][tokens] = np.delete(tensors[name], tokens, axis=0).mean(axis=0)
    return made


if __name__ == "__main__":
    main()
