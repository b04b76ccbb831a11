"""The options of the built-in observers."""

from __future__ import annotations

from typing import Any

import attrs
from attrs.validators import ge

from textgen import option


@attrs.frozen
class ProgressConfig:
    """A progress bar with losses, speed and remaining time; plain lines if there is no terminal."""


@attrs.frozen
class MetricsConfig:
    """Writes metrics.jsonl: one JSON object per evaluation."""


@attrs.frozen
class LossPlotConfig:
    """Draws losses by step as loss.svg, and the norm of the gradient as gradient.svg."""


@attrs.frozen
class EarlyStoppingConfig:
    """Ends a run when the loss of the held-out text no longer falls; the weights with the lowest
    loss are kept.
    """

    patience: int = option(
        5, help="number of evaluations without a lower loss that end it", validator=ge(1)
    )

    def fingerprint(self) -> dict[str, Any]:
        """The patience, which shapes the model."""
        return attrs.asdict(self)


@attrs.frozen
class SamplesConfig:
    """Writes some ten short samples of the model's text to samples.txt, and shows them."""

    prompt: str = option("", help="prompt of the samples")
    characters: int = option(80, help="length of a sample, about", validator=ge(1))
