"""Validation losses with the objectives of docs/plugin-recipes.md, beside the plain one.

    python benchmarks/objectives.py [--seeds 3] [--passes 8]

A small network on the story that comes with textgen; its teacher is four times as wide. Prints the
lowest loss of the held-out tenth, in nats a character.
"""

import re
import tempfile
from pathlib import Path

from shared import parser
from textgen import Engine, PluginSet

_PAGE = Path(__file__).parents[1] / "docs/plugin-recipes.md"
_SMALL = {
    "device": "cpu",
    "threads": 1,
    "corpus": {"type": "story"},
    "tokenizer": {"type": "char"},
    "data": {"window_length": 64},
    "model": {"type": "rnn", "cell": "gru", "hidden_size": 64, "embedding_size": 32},
    "trainer": {"type": "adamw", "learning_rate": 0.005, "batch_size": 32, "order": "streams"},
    "observer": [],
}


def main():
    """Train with each objective, once for each seed."""
    options = parser(__doc__)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--passes", type=int, default=8)
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        engine = Engine(_plugins(folder))
        length = {"trainer.length": f"{asked.passes} epochs"}
        teacher = engine.run(
            _SMALL, {**length, "model.hidden_size": 256}, output=folder / "teacher"
        )
        print(f"the teacher's loss: {teacher.best_loss:.4f}")
        ways = {
            "plain": {},
            "4 batches of 8 a step": {"trainer.batch_size": 8, "trainer.accumulate": 4},
            "label smoothing of 0.1": {"trainer.objective": {"type": "smoothing"}},
            "half of the teacher": {
                "trainer.objective": {"type": "distilled", "teacher": str(teacher.path)}
            },
        }
        for way, changes in ways.items():
            losses = []
            for seed in range(asked.seeds):
                output = folder / f"{way} {seed}"
                run = engine.run(_SMALL, {**length, **changes, "seed": seed}, output=output)
                losses.append(run.best_loss)
            print(f"{way:24}", *(f"{loss:.4f}" for loss in losses), flush=True)


def _plugins(folder):
    """The installed ones, and the recipes."""
    plugins = PluginSet.discover()
    for name in ("smoothing.py", "distilled.py"):
        page, fence = _PAGE.read_text("utf-8"), "`" * 3
        (text,) = re.findall(rf"# file: {name}\n(.*?)^{fence}", page, re.DOTALL | re.MULTILINE)
        (folder / name).write_text(text)
        plugins.register_file(folder / name)
    return plugins


if __name__ == "__main__":
    main()
