"""The part of a run in several processes that all but the first have: they train, and write nothing."""

from __future__ import annotations

from typing import Any

import attrs

from textgen import devices
from textgen.contracts.components import Components
from textgen.errors import UsageError
from textgen.pipeline.pipeline import Pipeline
from textgen.plugin.component import BuildContext
from textgen.processes import Processes
from textgen.protocols import TrainingContext
from textgen.runs import record as run_record
from textgen.runs.directory import RunDirectory
from textgen.runs.encoded_text import EncodedText
from textgen.runs.progress import ReadingProgress
from textgen.runs.starting import start_tokenizer


def check_trainer(trainer: Any, name: str) -> None:
    """Raise UsageError for one that trains in one process only."""
    if not getattr(trainer, "distributed", False):
        raise UsageError(
            f"the trainer {name!r} does not train in several processes; run it without torchrun",
            argument="trainer",
        )


def follow(processes: Processes, pipeline: Pipeline, directory: RunDirectory, start: Any) -> None:
    """Train as the first process does, whose run directory this one can read.

    start  what that process told: the kind of `device`, and the `step` of the checkpoint to continue from, or 0

    Raises RunMismatchError where the pipeline or the text is another than that of the first, and what components raise.
    """
    threads = processes.threads(pipeline.threads)
    with devices.threads(threads), Components() as components:
        context = BuildContext(
            folder=pipeline.folder,
            requested_device=processes.device(start["device"]),
            seed=pipeline.seed,
            plugins=pipeline.plugins,
        )
        place = directory.latest()
        record = place.read_run()
        tokenizer = components.build(pipeline.tokenizer, context)
        if pipeline.start is not None:
            tokenizer = start_tokenizer(tokenizer, pipeline.start, record, place.path)
        vocabulary = None if pipeline.start is None else tokenizer.to_dict()
        corpus = components.build(pipeline.corpus, context)
        choices = pipeline.corpus, pipeline.tokenizer
        progress = ReadingProgress(None, processes.is_stopping)
        text = EncodedText(corpus, tokenizer, *choices, vocabulary, progress)
        text.prepare(pipeline, components, None)
        run_record.compare(directory, record, pipeline, text.digest)
        context = attrs.evolve(context, tokenizer=text.tokenizer)
        trainer = components.build(pipeline.trainer, context)
        model = components.build(pipeline.model, context)
        if start["step"]:
            trainer.load_state(place.checkpoints.read(start["step"]).trainer)
        told = TrainingContext(
            seed=pipeline.seed, device=context.device, threads=threads, processes=processes
        )
        for _ in trainer.train(model, text.dataset(pipeline.data), told):
            pass
