"""Makes a finished run the one that the package offers: ../textgen_english/run, and its loss in
../README.md.

    python export.py RUN WEIGHTS

WEIGHTS are the run's, or what settle.py made of them. They are written in half precision
(float16), and no path of this machine is kept. Signs that the books lack get the mean weights of
the others: what training made next to impossible, a few passes over a text would not teach.
"""

import math
import re
import sys
import tempfile
from pathlib import Path

import attrs
import numpy as np
from safetensors.numpy import load_file

import textgen
from textgen.protocols import Tensors, Tokenizer
from textgen.runs import save_run

PACKAGE = Path(__file__).parents[1]
START = "\n\nIt was so.\n\n"  # a paragraph: after less, texts begin with empty lines
SAMPLERS = {"type": "min-p", "p": 0.05}, {"type": "temperature", "temperature": 0.7}
# What training on a novel makes of contractions.
NEVER = "cann't", "willn't", "shalln't", "mean't", "'sn't", "'ren't", "'lln't"
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
    with textgen.load(sys.argv[1], tokenizer="bpe") as generator:
        text = Path(generator.tables["corpus"]["path"]).read_text(encoding="utf-8")
        tables = {kind: without_start(table) for kind, table in generator.tables.items()}
        tables["corpus"] = {**tables["corpus"], "path": "books.txt"}
        tables["trainer"] = {**tables["trainer"], "type": "adamw"}  # whose options pieces.py has
        plain = {"type": "bpe", "vocab_size": generator.tokenizer.vocab_size}
        tables |= {"tokenizer": plain, "sampler": list(SAMPLERS)}
        phrases = [each for plain in NEVER for each in (plain, plain.replace("'", "\u2019"))]
        strategy = {"type": "banned-phrases", "phrases": phrases}
        tables["generate"] = {**tables["generate"], "strategy": strategy}
        tensors = with_means(load_file(sys.argv[2]), lacking(generator.tokenizer, text))
        start = generator.tokenizer.encode(START).tolist()
        record = {**generator.record, "priming": start}
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
    held_out = text[round(len(text) * (1 - tables["data"]["validation"])) :]
    with tempfile.TemporaryDirectory(dir=PACKAGE) as folder:
        save_run(attrs.evolve(generator, record=record), f"{folder}/first")
        with textgen.load(f"{folder}/first") as made:
            score = made.score(held_out)
        record["best_loss"] = score.loss
        save_run(attrs.evolve(generator, record=record), f"{folder}/second")
        target.mkdir(exist_ok=True)
        for name in KEPT:
            (Path(folder) / "second" / name).replace(target / name)
    say(target, score)


def without_start(table: object) -> object:
    """A table without the run that it started from."""
    is_table = isinstance(table, dict)
    return {key: value for key, value in table.items() if key != "start"} if is_table else table


def say(target: Path, score: textgen.TextScore) -> None:
    """Write the loss of the run into the card, and print it with a text."""
    with textgen.load(target) as generator:
        text = generator.generate("The door", max_new_tokens=150, seed=1).text
    size = (target / "model.safetensors").stat().st_size
    card = PACKAGE / "README.md"
    loss = math.log(2) * score.bits_per_character
    said = f"{score.loss:.3f} nats a token, {loss:.3f} nats a character"
    before = card.read_text(encoding="utf-8")
    after = re.sub(r"\d\.\d{3} nats.*? nats a character", said, before, count=1)
    card.write_text(after, encoding="utf-8")
    print(f"{target}: {size / 1e6:.1f} MB, a loss of {said}\n\n{text}")


def lacking(tokenizer: Tokenizer, text: str) -> list[int]:
    """The tokens that are a printable character of ASCII or a tab, which the text lacks."""
    written = set(text)
    texts = [tokenizer.decode(np.array([each])) for each in range(tokenizer.vocab_size)]
    return [
        token
        for token, text in enumerate(texts)
        if text not in written
        and (text == "\t" or (len(text) == 1 and text.isascii() and text.isprintable()))
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
