"""How good a model the pipeline of `textgen init` makes of a text in a given time, by the clock, as a table.

    python benchmarks/quality.py TEXT... [--minutes 1] [--seeds 3] [--letters] [--speed N] [--set KEY=VALUE]

For every text and seed two whole processes run: `textgen init TEXT --minutes M` and `textgen run` on what it wrote. The
loss is that of the last tenth of the text, which `init` holds out, in nats per character; of the mixture, and of each
of its parts alone. --speed N and --set "trainer.first.length=N steps" give the same models however busy the machine is.
With --letters a text is first reduced to the letters a to z and the space, as the book does it.
"""

from __future__ import annotations

import argparse
import math
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import textgen


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("texts", nargs="+", type=Path)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--letters", action="store_true")
    parser.add_argument(
        "--speed", help="of the machine, for textgen init, which measures it if it is not given"
    )
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE for textgen run")
    given = parser.parse_args()
    print(
        "text | characters | seconds | mixture | network alone | counts alone | bits per character"
    )
    print("--- | --- | --- | --- | --- | --- | ---")
    for text in given.texts:
        with tempfile.TemporaryDirectory() as folder:
            print(" | ".join(measure(text, Path(folder), given)), flush=True)


def measure(text: Path, folder: Path, given: argparse.Namespace) -> list[str]:
    """A row of the table."""
    source = folder / "text.txt"
    content = text.read_text(encoding="utf-8-sig")
    source.write_text(
        re.sub("[^a-z]+", " ", content.lower()) if given.letters else content, encoding="utf-8"
    )
    rows = [one_run(source, folder, seed, given) for seed in range(given.seeds)]
    seconds, mixture, network, counts = zip(*rows, strict=True)
    bits = [loss / math.log(2) for loss in mixture]
    spread = [
        f"{statistics.mean(v):.3f} ({min(v):.3f}-{max(v):.3f})"
        for v in (mixture, network, counts, bits)
    ]
    return [
        text.stem,
        f"{len(content):,}",
        f"{statistics.mean(seconds):.0f} ({max(seconds):.0f})",
        *spread,
    ]


def one_run(
    source: Path, folder: Path, seed: int, given: argparse.Namespace
) -> tuple[float, float, float, float]:
    """Seconds by the clock for both commands, and the losses of the mixture, the network and the counts."""
    pipeline, output = folder / f"{seed}.toml", folder / f"run-{seed}"
    begun = time.perf_counter()
    speed = () if given.speed is None else ("--speed", given.speed)
    call("init", str(source), "--minutes", str(given.minutes), "--pipeline", str(pipeline), *speed)
    call(
        "run",
        str(pipeline),
        "--output",
        str(output),
        *(f"--set={each}" for each in (f"seed={seed}", *given.set)),
    )
    seconds = time.perf_counter() - begun
    counts = folder / f"counts-{seed}"
    alone = ("model.type=ngram", "trainer.type=count")
    call("run", str(pipeline), "--output", str(counts), *(f"--set={each}" for each in alone))
    with textgen.load(output) as generator, textgen.load(counts) as counted:
        tokens = np.asarray(generator.tokenizer.encode(source.read_text(encoding="utf-8")))
        held_out = tokens[int(len(tokens) * 0.9) :]
        models = generator.model, generator.model.first, counted.model
        mixture, network, alone_loss = (loss(each, held_out) for each in models)
    return seconds, mixture, network, alone_loss


def loss(model: textgen.protocols.Model, tokens: np.ndarray) -> float:
    """Mean cross-entropy of a text read as one stream, from the second token on."""
    decoder, total = model.decoder(1), 0.0
    for start in range(0, len(tokens) - 1, 4096):
        block = tokens[start : start + 4097].astype(np.int64)
        logits = np.asarray(decoder.score(block[None, :-1])[0], np.float64)
        peak = logits.max(axis=1)
        logs = (
            logits[np.arange(len(logits)), block[1:]]
            - peak
            - np.log(np.exp(logits - peak[:, None]).sum(axis=1))
        )
        total -= float(logs.sum())
    return total / (len(tokens) - 1)


def call(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "textgen", *arguments], check=True, stdout=subprocess.DEVNULL
    )


if __name__ == "__main__":
    main()
