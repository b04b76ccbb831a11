"""Events of a run to records of an event file, with TensorBoard's own writer: no torch, no
TensorFlow.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import attrs
from tensorboard.compat.proto.event_pb2 import Event as Record
from tensorboard.compat.proto.event_pb2 import SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from textgen.events import Evaluation, Event, RunFinished, RunStarted, StepDone
from textgen_tensorboard import TensorBoardConfig


@attrs.define
class TensorBoard:
    """textgen.protocols.Observer that adds one event file to `directory` for each part of a run."""

    config: TensorBoardConfig
    directory: Path
    _writer: Any = None
    _evaluations: int = 0

    def observe(self, event: Event) -> None:
        """Write what the event says; what an earlier part wrote after the step that this one starts
        from is dropped.
        """
        if isinstance(event, RunStarted):
            self._evaluations = event.evaluations
            self._writer = EventFileWriter(str(self.directory))
            # Readers forget every record of this step and later ones: they are about to be made
            # again.
            self._add(event.step + 1, session_log=SessionLog(status=SessionLog.START))
            self._writer.flush()
        elif isinstance(event, StepDone):
            if event.step % self.config.every == 0 or event.step == event.steps:
                rate, norm = event.learning_rate, event.gradient_norm
                self._scalars(
                    event.step,
                    {"loss/training": event.loss, "learning_rate": rate, "gradient_norm": norm},
                )
        elif isinstance(event, Evaluation):
            self._evaluation(event)
        elif isinstance(event, RunFinished):
            self._writer.close()

    def _evaluation(self, event: Evaluation) -> None:
        names = ("perplexity", "bits_per_character", "characters_per_second")
        scalars = {
            "loss/validation": event.validation_loss,
            **{name: getattr(event, name) for name in names},
        }
        self._scalars(event.step, scalars)
        self._evaluations += 1
        if self.config.sample_every and self._evaluations % self.config.sample_every == 0:
            prompt = self.config.prompt
            text = prompt + event.sample(prompt, self.config.max_new_tokens)
            # The dashboard reads Markdown; four spaces show the text as it is.
            self._add(event.step, summary=text_pb("sample", "    " + text.replace("\n", "\n    ")))
        self._writer.flush()  # so that a dashboard that is open now shows it

    def _scalars(self, step: int, scalars: dict[str, float | None]) -> None:
        values = [
            Summary.Value(tag=tag, simple_value=v) for tag, v in scalars.items() if v is not None
        ]
        self._add(step, summary=Summary(value=values))

    def _add(self, step: int, **content: Any) -> None:
        self._writer.add_event(Record(step=step, wall_time=time.time(), **content))
