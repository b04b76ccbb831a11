"""Observers that write files to the run directory.

A resumed run keeps what was written up to its checkpoint.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import attrs

from textgen.errors import RunError
from textgen.events import Evaluation, Event, RunStarted, StepDone
from textgen.files import append, read_bytes, write_atomic
from textgen.runs import read_metrics
from textgen_builtins.curves import Curve, draw
from textgen_builtins.observers.config import SamplesConfig

_SAMPLES = 10
_FIELDS = (
    "step",
    "epoch",
    "training_loss",
    "validation_loss",
    "perplexity",
    "bits_per_character",
    "characters_per_second",
    "seconds",
)


@attrs.define
class MetricsFile:
    """One JSON object per evaluation, on the disk before a checkpoint counts it."""

    path: Path
    _latest: StepDone | None = None

    def observe(self, event: Event) -> None:
        """Append an evaluation; remove those after the checkpoint that a run resumes from."""
        if isinstance(event, RunStarted):
            lines = read_bytes(self.path).splitlines() if self.path.exists() else []
            kept = b"".join(line + b"\n" for line in lines[: event.evaluations])
            with _needed(self.path):
                write_atomic(self.path, kept)
        elif isinstance(event, StepDone):
            self._latest = event
        elif isinstance(event, Evaluation):
            row = {**_row(event, self._latest), **event.figures}
            with _needed(self.path):
                append(self.path, (json.dumps(row) + "\n").encode())


def _row(event: Evaluation, latest: StepDone | None) -> dict[str, Any]:
    """An evaluation, with the norm of the gradient of its step if there was one."""
    row = {name: getattr(event, name) for name in _FIELDS}
    if latest is not None and latest.step == event.step:
        row["gradient_norm"] = latest.gradient_norm
    return row


@attrs.define
class LossPlot:
    """The curves of both losses, drawn at every evaluation, and beside them in `gradient.svg` the
    norm of the gradient, where there is one.

    Earlier parts come from metrics.jsonl.
    """

    path: Path
    _latest: StepDone | None = None
    _rows: list[dict[str, Any]] = attrs.field(factory=list)

    def observe(self, event: Event) -> None:
        """Draw an evaluation."""
        if isinstance(event, RunStarted):
            self._rows = read_metrics(self.path.parent)[: event.evaluations]
        elif isinstance(event, StepDone):
            self._latest = event
        elif isinstance(event, Evaluation):
            self._rows.append(_row(event, self._latest))
            trained = getattr(event.model, "trained_part", "")
            part = f"training of {trained} alone" if trained else "training"
            names = (part, "training_loss"), ("validation", "validation_loss")
            losses = [self._curve(*each) for each in names]
            norm = self._curve("gradient", "gradient_norm")
            with _needed(self.path):
                write_atomic(self.path, draw(losses, "loss (nats per token)").encode())
                if norm.points:
                    picture = draw([norm], "norm of the gradient before clipping")
                    write_atomic(self.path.with_name("gradient.svg"), picture.encode())

    def _curve(self, name: str, key: str) -> Curve:
        values = ((row["step"], row.get(key)) for row in self._rows)
        return Curve(name, [(step, value) for step, value in values if value is not None])


@attrs.define
class Samples:
    """Some ten samples of the model's text at equal distances, in a file and on the console."""

    config: SamplesConfig
    path: Path
    console: TextIO | None
    _steps: int = 1
    _latest: int = 0  # step of the last evaluation, or of the last sample of a resumed run

    def observe(self, event: Event) -> None:
        """Write a sample if one is due; the first is due at the first evaluation."""
        if isinstance(event, RunStarted):
            self._latest = self._keep_samples(lambda step: 0 < step <= event.step)
        elif isinstance(event, StepDone):
            self._steps = event.steps
        elif isinstance(event, Evaluation):
            before, now = (step * _SAMPLES // self._steps for step in (self._latest, event.step))
            if not self._latest or now > before:
                self._sample(event)
            self._latest = event.step

    def _sample(self, event: Evaluation) -> None:
        prompt = self.config.prompt
        of_token = math.log2(event.perplexity)
        share = event.bits_per_character / of_token if 0 < of_token < math.inf else 1.0
        text = prompt + event.sample(prompt, math.ceil(self.config.characters * share))
        made = f"=== step {event.step} ===\n{text}\n\n"
        self._keep_samples(
            lambda step: step < event.step, made
        )  # one of this step may be from before a crash
        if self.console is not None:
            from tqdm import tqdm

            shown = " ".join(text.split())
            tqdm.write(f"step {event.step} writes: {shown}", file=self.console)

    def _keep_samples(self, keep: Callable[[int], bool], more: str = "") -> int:
        """Cut the file at the first sample of a step that is not to be kept, and add to it; return
        the last step kept.

        It is replaced as a whole: of a part, nobody could say where the last sample ends.
        """
        kept, last = read_bytes(self.path) if self.path.exists() else b"", 0
        for heading in re.finditer(rb"^=== step (\d{1,20}) ===$", kept, re.MULTILINE):
            if not keep(int(heading[1])):
                kept = kept[: heading.start()]
                break
            last = int(heading[1])
        with _needed(self.path):
            write_atomic(self.path, kept + more.encode())
        return last


@contextlib.contextmanager
def _needed(path: Path) -> Iterator[None]:
    """End the run when a file of it cannot be written: it can be run again, and lacks nothing
    then.
    """
    try:
        yield
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror or error}", path) from error
