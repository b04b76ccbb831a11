"""A textgen observer that writes a TensorBoard event file.

TensorBoard is imported when a run begins, never by listing the plugins.
"""

from __future__ import annotations

from pathlib import Path

import attrs
from attrs.validators import ge

from textgen import BuildContext, Component, hookimpl, option
from textgen.protocols import Observer


@attrs.frozen
class TensorBoardConfig:
    """Writes losses, speed and sample texts to a TensorBoard event file.

    Scalars of steps: loss/training, learning_rate, gradient_norm. Scalars of evaluations:
    loss/validation, perplexity, bits_per_character, characters_per_second. Texts: sample.
    """

    directory: Path | None = option(
        None,
        help="where the event file goes; the folder tensorboard in the run directory if not set",
    )
    every: int = option(
        1, help="steps from one point of the step scalars to the next", validator=ge(1)
    )
    sample_every: int = option(
        10, help="evaluations from one sample text to the next; 0 writes none", validator=ge(0)
    )
    prompt: str = option("", help="what the sample texts continue")
    max_new_tokens: int = option(80, help="length of a sample text", validator=ge(1))


def build(config: TensorBoardConfig, context: BuildContext) -> Observer:
    """An observer that writes to the config's directory, or into the run directory."""
    from textgen_tensorboard.writer import TensorBoard

    directory = config.directory
    if directory is None:
        if context.directory is None:
            raise ValueError("there is no run directory to write to; set the option directory")
        directory = context.directory / "tensorboard"
    return TensorBoard(config, directory)


@hookimpl
def textgen_observers() -> list[Component]:
    """Offer `tensorboard`."""
    return [Component("tensorboard", TensorBoardConfig, build)]
