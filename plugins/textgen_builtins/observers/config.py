"""The options of the built-in observers."""

from __future__ import annotations

import attrs
from attrs.validators import ge

from textgen import option


@attrs.frozen
class ProgressConfig:
    """A progress bar with losses, rate and time left; plain lines where there is no terminal."""


@attrs.frozen
class MetricsConfig:
    """Writes metrics.jsonl: one JSON object per evaluation."""


@attrs.frozen
class LossPlotConfig:
    """Draws loss.svg: training and validation loss by step."""


@attrs.frozen
class SamplesConfig:
    """Writes a short sample of the model's text to samples.txt now and then, and shows it."""

    every: int = option(10, help="evaluations from one sample to the next", validator=ge(1))
    prompt: str = option("", help="what the samples continue")
    max_new_tokens: int = option(80, help="length of a sample", validator=ge(1))
