"""Training speed and memory of adapters: textgen beside transformers' Trainer with peft.

Usage: python benchmarks/lora.py FOLDER_OR_GGUF [--steps 8] [--rounds 2]

Both adapt the same model with rank 16 to the story, in batches of 4 windows of 256 tokens, each in
a process of its own, in turns. Printed are tokens a second, by the clock and by the time of one
processor (the median step of each round, the first two left out), and the most memory that the
process had. On a busy machine, only the second is repeatable, with OMP_NUM_THREADS=1.
"""

import resource
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

from shared import parser

BATCH, LENGTH, SKIPPED = 4, 256, 2


def main():
    """Run each in turns."""
    options = parser(__doc__)
    options.add_argument("model", type=Path)
    options.add_argument("--steps", type=int, default=8)
    options.add_argument("--rounds", type=int, default=2)
    asked = options.parse_args()
    found = {with_trainer: [], with_textgen: []}
    for _ in range(asked.rounds):
        for way, rows in found.items():
            with ProcessPoolExecutor(1, get_context("spawn")) as apart:
                rows.append(apart.submit(measured, way, asked.model, asked.steps).result())
            print(
                "{}: {:.0f} tokens a second, {:.0f} by processor time, {:,.0f} MiB".format(
                    way.__name__, *rows[-1]
                ),
                flush=True,
            )
    for i, what in enumerate(("the clock", "processor time")):
        ratios = [b[i] / a[i] for a, b in zip(*found.values(), strict=True)]
        print(f"{min(ratios):.2f} to {max(ratios):.2f} times as fast by {what}")


def measured(way, model, steps):
    """Tokens a second, by the clock and by processor time, and MiB of memory of this process."""
    times = way(model, steps)
    used = [
        statistics.median(b - a for a, b in pairwise(clock[SKIPPED:]))
        for clock in zip(*times, strict=True)
    ]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return [*(BATCH * LENGTH / seconds for seconds in used), memory]


def with_textgen(model, steps):
    """When each step was done."""
    import textgen
    from textgen.events import StepDone

    times = []

    class Clock:
        def observe(self, event):
            if isinstance(event, StepDone):
                times.append((time.perf_counter(), time.process_time()))

    pipeline = {
        "corpus": {"type": "story"},
        "tokenizer": {"type": "huggingface-tokenizer", "path": str(model)},
        "data": {"window_length": LENGTH, "validation": 0},
        "model": {"type": "huggingface", "path": str(model), "lora": {"rank": 16}},
        "trainer": {
            "type": "adamw",
            "length": f"{steps} steps",
            "batch_size": BATCH,
            "learning_rate": 1e-3,
        },
        "observer": [],
        "generate": {"max_new_tokens": 0},
    }
    with tempfile.TemporaryDirectory() as folder:
        textgen.run(pipeline, output=Path(folder) / "run", observers=[Clock()])
    return times


def with_trainer(model, steps):
    """When each step was done."""
    import torch
    from peft import LoraConfig, get_peft_model
    from textgen_huggingface.pretrained import read_config, read_model
    from transformers import (
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    from textgen import BuildContext, Engine
    from textgen_builtins.corpora.plugin import STORY

    times = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_, **__):
            times.append((time.perf_counter(), time.process_time()))

    loaded = read_model(model, read_config(model), dtype=torch.bfloat16)
    config = LoraConfig(r=16, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    text = STORY.read_text(encoding="utf-8")
    table = {"type": "huggingface-tokenizer", "path": str(model)}
    tokenizer = Engine().build("tokenizer", table, BuildContext(folder=Path.cwd()))
    tokenizer.fit([])
    ids = tokenizer.encode(text).tolist()
    rows = [ids[i : i + LENGTH] for i in range(0, len(ids) - LENGTH, LENGTH)]
    with tempfile.TemporaryDirectory() as folder:
        options = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=BATCH,
            max_steps=steps,
            learning_rate=1e-3,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        Trainer(
            model=get_peft_model(loaded, config),
            args=options,
            train_dataset=[{"input_ids": row, "labels": row} for row in rows],
            callbacks=[Clock()],
        ).train()
    return times


if __name__ == "__main__":
    main()
