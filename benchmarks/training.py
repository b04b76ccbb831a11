"""The seed's recipe, trained by textgen and by a plain PyTorch loop, epoch by epoch in turn.

Usage: python benchmarks/training.py CORPUS [--epochs 20] [--loader memory] [--set trainer.compute=bfloat16]

CORPUS is The Time Machine. The loop is benchmarks/seed_loop.py, the recipe written down as plainly as it goes;
`memory`, which cuts its batches from tensors, is the faster of its loaders. Prints the loop's seconds over ours for an
epoch of 10,000 windows, without validation and with, as a ratio with its spread: above 1 we are the faster.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

import seed_loop
from pairs import show
from textgen import BuildContext, PluginSet
from textgen.events import Evaluated
from textgen.pipeline.document import read_document
from textgen.pipeline.options import DataOptions
from textgen.protocols import TrainingContext
from textgen.runs.splitting import split_tokens


def ours(corpus: Path, folder: Path, changes: Sequence[str] = ()) -> Iterator[tuple[float, float]]:
    """(seconds of an epoch's steps, seconds of its validation) for the pipeline docs/pipelines/seed.toml."""
    from textgen.pipeline.pipeline import make_pipeline

    document = read_document(
        Path(__file__).parents[1] / "docs/pipelines/seed.toml",
        ["trainer.length=1000 epochs", *changes],
    )
    pipeline = make_pipeline(document, PluginSet.discover())
    context = BuildContext(folder=folder, requested_device="cpu")
    tokenizer = pipeline.tokenizer.offer.component.build(pipeline.tokenizer.options, context)
    tokenizer.fit([corpus.read_text(encoding="utf-8")])
    tokens = tokenizer.encode(corpus.read_text(encoding="utf-8")).astype("uint8")
    assert isinstance(pipeline.data, DataOptions)
    data = split_tokens(tokens, pipeline.data, tokenizer)
    context = BuildContext(folder=folder, requested_device="cpu", tokenizer=tokenizer)
    model = pipeline.model.offer.component.build(pipeline.model.options, context)
    trainer = pipeline.trainer.offer.component.build(pipeline.trainer.options, context)
    start = stepped = time.perf_counter()
    for event in trainer.train(model, data, TrainingContext(seed=0, device="cpu")):
        if isinstance(event, Evaluated):
            now = time.perf_counter()
            yield stepped - start, now - stepped
            start = time.perf_counter()
        else:
            stepped = time.perf_counter()


def main() -> None:
    """Print the ratios."""
    import tempfile

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--loader", choices=("dataloader", "memory"), default="memory")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE for our pipeline")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        plain = seed_loop.epochs(arguments.corpus, arguments.loader)
        fast = ours(arguments.corpus, Path(folder), arguments.set)
        pairs = [(next(plain), next(fast)) for _ in range(arguments.epochs + 1)][
            1:
        ]  # the first warms up
        del fast
    for name, validated in (("without validation", 0), ("with validation", 1)):
        found = [(a[0] + validated * a[1]) / (b[0] + validated * b[1]) for a, b in pairs]
        show(
            f"the seed's recipe, an epoch {name}, {torch.get_num_threads()} threads",
            (min(found), statistics.median(found), max(found)),
            1,
        )


if __name__ == "__main__":
    main()
