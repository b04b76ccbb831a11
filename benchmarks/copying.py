"""How much a mixture copies from its text, beside its parts, and what makes it copy less: a table of docs/mixtures.md.

Usage: python benchmarks/copying.py [TEXT] [--minutes 1] [--run FOLDER] [--texts 12] [--characters 500]

Trains the pipeline of `textgen init TEXT --minutes M` (The Time Machine, all characters, if no TEXT is given), or takes
a run of it. Prints for each way to generate what share of the runs of 16 and 32 characters stands in the training text
as well, the longest such run, what share of the runs of 16 stands earlier in the same text, and where the model is
another the loss of the last tenth, in nats per character. The held-out text is in the table as a text that nobody
copied. A mixture with other n-grams has the same network; these are counted anew, and the gate is fitted anew.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np

import textgen
from quality import call, loss
from textgen.data import Dataset
from textgen.protocols import TrainingContext
from textgen_builtins.models.gate import fit, gate_size
from textgen_builtins.models.mixture.model import Mixture, expert_logs
from textgen_builtins.models.ngram.counting import CountTrainer
from textgen_builtins.models.ngram.model import NgramModel

_LEAD = 512  # as in the trainer of mixtures
_OTHERS: dict[str, dict[str, Any]] = {
    "mixture, `model.second.recent = 0`": {"recent": 0},
    "mixture, `model.second.order = 5`": {"order": 5},
    "mixture, `model.second.order = 4`": {"order": 4},
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", nargs="?", type=Path)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument(
        "--run", type=Path, help="a run of a mixture on TEXT, in place of training one"
    )
    parser.add_argument("--texts", type=int, default=12)
    parser.add_argument("--characters", type=int, default=500)
    given = parser.parse_args()
    print(
        "| what writes | temperature | 16 characters | 32 characters | longest | of itself | loss |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        source, run = Path(folder, "text.txt"), given.run or Path(folder, "run")
        text = given.text.read_text(encoding="utf-8-sig") if given.text else "".join(
            textgen.Engine().read_corpus({"type": "time-machine"})
        )  # fmt: skip
        source.write_text(text, encoding="utf-8")
        if given.run is None:
            pipeline = Path(folder, "pipeline.toml")
            call("init", str(source), "--minutes", str(given.minutes), "--pipeline", str(pipeline))
            call("run", str(pipeline), "--output", str(run))
        with textgen.load(run) as generator:
            for row in rows(generator, text, given):
                print("| " + " | ".join(row) + " |", flush=True)


def rows(generator: textgen.Generator, text: str, given: argparse.Namespace) -> Iterator[list[str]]:
    """The table's."""
    mixture, tokens = generator.model, np.asarray(generator.tokenizer.encode(text)).astype(np.int64)
    assert isinstance(mixture, Mixture)
    cut = len(tokens) - int(len(tokens) * 0.1)
    held_out, finder = tokens[cut:], generator.copy_finder()

    def row(name: str, temperature: str, texts: list[str], of: Any = None) -> list[str]:
        reports = [finder.report(each) for each in texts]
        shares = [np.mean([report.ngram_shares[n] or 0.0 for report in reports]) for n in (16, 32)]
        longest = max(report.longest for report in reports)
        lost = f"{loss(of, held_out):.3f}" if of is not None else ""
        again = np.mean([repeated(text) for text in texts])
        return [
            name,
            temperature,
            *(f"{share:.1%}" for share in shares),
            str(longest),
            f"{again:.1%}",
            lost,
        ]

    def written(model: Any, temperature: float = 0.8) -> list[str]:
        made = list(
            attrs.evolve(generator, model=model).generate_many(
                ["\n"], n=given.texts, max_new_tokens=given.characters, temperature=temperature
            )
        )
        return [each.text for each in made]

    size = given.characters
    real = [
        generator.tokenizer.decode(held_out[i * size : (i + 1) * size]) for i in range(given.texts)
    ]
    yield row("the author, held out", "", [each for each in real if each])
    yield row("the network alone", "0.8", written(mixture.first), mixture.first)
    yield row("the n-grams and words alone", "0.8", written(mixture.second), mixture.second)
    yield row("the mixture", "0.8", written(mixture), mixture)
    for temperature in (0.5, 1.0):
        yield row("the mixture", str(temperature), written(mixture, temperature))
    for name, options in _OTHERS.items():
        other = with_other_counts(mixture, tokens[:cut], **options)
        yield row(name, "0.8", written(other), other)
        if "recent" in options:
            yield row(name, "0.5", written(other, 0.5))


def repeated(text: str, size: int = 16) -> float:
    """The share of the runs of so many characters that stand earlier in the text."""
    runs = [text[start : start + size] for start in range(len(text) - size + 1)]
    return 1 - len(set(runs)) / max(1, len(runs))


def with_other_counts(
    mixture: Mixture,
    training: Any,
    order: int | None = None,
    recent: int = 2000,
) -> Mixture:
    """The network of a mixture with n-grams counted in another way, as its trainer would have made it."""
    size = gate_size(len(training), len(mixture.prior), mixture.vocab_size)
    assert isinstance(mixture.second, NgramModel)
    for_gate, second = (
        counted(
            tokens,
            NgramModel(order, mixture.vocab_size, mixture.second.reader, recent),
        )
        for tokens in (training[:-size], training)
    )
    made = Mixture(mixture.first, second, mixture.make_second, mixture.vocab_size)
    read = training[-size - _LEAD : -1]
    logs = np.concatenate(
        [expert_logs(model, read, 64)[-size:] for model in (mixture.first, for_gate)], axis=1
    )
    made.gate = fit(logs, training[-size:], made.prior)
    return made


def counted(tokens: Any, model: NgramModel) -> NgramModel:
    """A model, fitted to `tokens`."""
    sizes = {"vocab_size": model.trie.vocab_size, "window_length": 1, "window_stride": 1}
    data = Dataset(training=tokens, validation=tokens[:0], **sizes)
    for _ in CountTrainer().train(model, data, TrainingContext(seed=0, device="cpu")):
        pass
    return model


if __name__ == "__main__":
    main()
