"""Draws the pictures of the docs, docs/pictures/*.svg, from the figures beside them.

python docs/pictures.py                          draw them again
python docs/pictures.py --seed METRICS.jsonl     put the losses of a run of pipelines/seed.toml into
                                                 seed-loss.csv first
python docs/pictures.py --scores RUN TEXT        put the beginning of a text, as a run scores it,
                                                 into coloured.json first

Each serves pages of light and of dark background.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent / "pictures"
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[1] / "plugins")]

import numpy as np

import textgen
from textgen import display
from textgen_builtins.curves import Curve, draw

LOSSES, SCORES = HERE / "seed-loss.csv", HERE / "coloured.json"
CHARACTERS = 600
STEPS = 10  # of an epoch
NAMES = {"book": "the book's code", "textgen": "textgen"}


def main() -> None:
    """Take new figures where they are given, and draw."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--seed", type=Path, metavar="METRICS")
    options.add_argument("--scores", nargs=2, metavar=("RUN", "TEXT"))
    given = options.parse_args()
    if given.seed:
        take_losses(given.seed)
    if given.scores:
        take_scores(*given.scores)
    for name, picture in pictures().items():
        (HERE / name).write_text(picture, encoding="utf-8", newline="\n")


def pictures() -> dict[str, str]:
    """Each picture under the name of its file."""
    return {"seed-curve.svg": seed_curve(), "coloured.svg": coloured()}


def take_losses(metrics: Path) -> None:
    """Put the losses of a run beside the book's."""
    rows = losses()
    evaluations = map(json.loads, metrics.read_text(encoding="utf-8").splitlines())
    for row, evaluation in zip(rows, evaluations, strict=True):
        for kind in ("training", "validation"):
            row[f"textgen_{kind}"] = f"{evaluation[f'{kind}_loss']:.4f}"
    with LOSSES.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def losses() -> list[dict[str, Any]]:
    """A row for each epoch."""
    return list(csv.DictReader(LOSSES.read_text(encoding="utf-8").splitlines()))


def seed_curve() -> str:
    """The losses of the book's code and of seed.toml, by step."""
    curves = [
        Curve(
            f"{NAMES[whose]}, {kind}",
            [(STEPS * int(row["epoch"]), float(row[f"{whose}_{kind}"])) for row in losses()],
        )
        for kind in ("validation", "training")
        for whose in NAMES
    ]
    return draw(curves, "loss (nats per character)")


def take_scores(run: str, path: str) -> None:
    """Score the beginning of a text with a run."""
    text = Path(path).read_text(encoding="utf-8")[:CHARACTERS]
    with textgen.load(run) as generator:
        (block,) = generator.score_tokens(text)
        bits = -block.logprobs / math.log(2)
    values = {"text": text, "bits": [0.0, *(round(float(each), 2) for each in bits[1:])]}
    SCORES.write_text(json.dumps(values, ensure_ascii=False) + "\n", encoding="utf-8")


def coloured() -> str:
    """The text, each character coloured by its surprise, as `textgen evaluate --html` shows it."""
    scores = json.loads(SCORES.read_text(encoding="utf-8"))
    context = textgen.BuildContext(folder=HERE)
    tokenizer = textgen.Engine().build("tokenizer", {"type": "char"}, context)
    tokenizer.fit([scores["text"]])
    logprobs = -np.array(scores["bits"]) * math.log(2)
    logprobs[0] = np.nan
    shown = display.styled(display.coloured(tokenizer.encode(scores["text"]), logprobs, tokenizer))
    height = 120 + 27 * scores["text"].count("\n")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="760" height="{height}" viewBox="0 '
        f'0 760 {height}">'
        '<foreignObject width="100%" height="100%"><div xmlns="http://www.w3.org/1999/xhtml">\n'
        f"{shown}\n</div></foreignObject></svg>\n"
    )


if __name__ == "__main__":
    main()
