"""What each part of the recipe of `textgen init` is worth: the network of its pipeline, trained
without the part.

    python benchmarks/recipe.py TEXT [--characters 1e6] [--seeds 3] [--letters] [--only NAME]

Prints a Markdown table: the best loss of the held-out tenth in nats per character, mean and spread
over the seeds, and the difference to the recipe. Every run reads the same number of characters, so
the table does not depend on how busy the machine is.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

import textgen
from quality import write_source
from shared import parser

RECIPE: dict[str, Any] = {
    "device": "cpu",
    "tokenizer": {"type": "char"},
    "data": {"window_length": 64},
    "model": {
        "type": "rnn",
        "cell": "lstm",
        "hidden_size": 256,
        "embedding_size": 128,
        "dropout": 0.25,
        "embedding_dropout": 0.1,
    },
    "trainer": {
        "type": "adamw",
        "order": "streams",
        "batch_size": 32,
        "learning_rate": 0.012,
        "warmup_steps": 50,
        "weight_decay": 0.05,
        "compute": "bfloat16",
    },
    "observer": [],
    "generate": {"max_new_tokens": 1},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "the recipe": {},
    "one-hot tokens, no embedding": {"model.embedding_size": 0},
    "no dropout": {"model.dropout": 0.0, "model.embedding_dropout": 0.0},
    "dropout of 0.1, none of the input": {"model.dropout": 0.1, "model.embedding_dropout": 0.0},
    "weight drop of 0.3 besides": {"model.weight_drop": 0.3},
    "weight decay 0": {"trainer.weight_decay": 0.0},
    "weight decay 0.5": {"trainer.weight_decay": 0.5},
    "learning rate 0.004": {"trainer.learning_rate": 0.004},
    "learning rate 0.008": {"trainer.learning_rate": 0.008},
    "learning rate 0.018": {"trainer.learning_rate": 0.018},
    "no warm-up": {"trainer.warmup_steps": 0},
    "16 streams": {"trainer.batch_size": 16},
    "64 streams": {"trainer.batch_size": 64},
    "a GRU": {"model.cell": "gru"},
}


def main() -> None:
    """Print the table."""
    options = parser(__doc__)
    options.add_argument("text", type=Path)
    options.add_argument("--characters", type=float, default=1e6)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--letters", action="store_true")
    options.add_argument("--only", action="append", default=[], help="variants beside the recipe")
    given = options.parse_args()
    chosen = ["the recipe", *given.only] if given.only else list(VARIANTS)
    print(f"{given.text.stem} | loss | difference\n--- | --- | ---")
    with tempfile.TemporaryDirectory() as folder:
        source = write_source(given.text, Path(folder), letters=given.letters)
        means: list[float] = []
        for name in chosen:
            found = [
                loss(source, VARIANTS[name], seed, given.characters) for seed in range(given.seeds)
            ]
            means.append(statistics.mean(found))
            spread = f"{means[-1]:.3f} ({min(found):.3f} to {max(found):.3f})"
            print(f"{name} | {spread} | {means[-1] - means[0]:+.3f}", flush=True)


def loss(source: Path, changes: dict[str, Any], seed: int, characters: float) -> float:
    """The best validation loss of a run."""
    batch = changes.get("trainer.batch_size", RECIPE["trainer"]["batch_size"])
    steps = int(characters / batch / RECIPE["data"]["window_length"])
    tables = {**RECIPE, "corpus": {"type": "file", "path": str(source)}, "seed": seed}
    with tempfile.TemporaryDirectory() as folder:
        given = {"trainer.length": f"{steps} steps", **changes}
        run = textgen.run(tables, given, output=Path(folder, "run"))
        return float(run.generator.record["best_loss"])


if __name__ == "__main__":
    main()
