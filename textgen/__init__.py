"""textgen: a plugin-based text generation framework.

run = textgen.run("pipeline.toml")
print(run.generations[0])
generator = textgen.load("runs/pipeline")
print(generator.generate("it has"))
"""

import importlib as _importlib
import logging as _logging
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from textgen.component import BuildContext, Component, NoOptions, option
from textgen.config import Pipeline
from textgen.errors import (
    ContractError,
    CorpusError,
    CorruptFileError,
    DeviceError,
    Fault,
    Interrupted,
    PipelineError,
    PluginError,
    PluginWarning,
    PromptError,
    RunError,
    RunLockedError,
    RunMismatchError,
    TextgenError,
    TrainingError,
    UsageError,
)
from textgen.hookspecs import PLUGIN_API_VERSION, hookimpl
from textgen.plugins import PluginSet

if _TYPE_CHECKING:
    from textgen.engine import Engine, Run, load, run
    from textgen.generation import Generator
    from textgen.scoring import TextScore
    from textgen.state import GenerationState
    from textgen.text_stream import TextStream
    from textgen.texts import Generation, Piece

__all__ = [
    "PLUGIN_API_VERSION",
    "BuildContext",
    "Component",
    "ContractError",
    "CorpusError",
    "CorruptFileError",
    "DeviceError",
    "Engine",
    "Fault",
    "Generation",
    "GenerationState",
    "Generator",
    "Interrupted",
    "NoOptions",
    "Piece",
    "Pipeline",
    "PipelineError",
    "PluginError",
    "PluginSet",
    "PluginWarning",
    "PromptError",
    "Run",
    "RunError",
    "RunLockedError",
    "RunMismatchError",
    "TextScore",
    "TextStream",
    "TextgenError",
    "TrainingError",
    "UsageError",
    "hookimpl",
    "load",
    "option",
    "run",
]

# These need NumPy, which a plugin's import and `textgen --help` should not have to wait for.
_LATER = {
    "textgen.engine": ("Engine", "Run", "load", "run"),
    "textgen.state": ("GenerationState",),
    "textgen.generation": ("Generator",),
    "textgen.texts": ("Generation", "Piece"),
    "textgen.scoring": ("TextScore",),
    "textgen.text_stream": ("TextStream",),
}


def __getattr__(name: str) -> _Any:
    for module, names in _LATER.items():
        if name in names:
            return getattr(_importlib.import_module(module), name)
    raise AttributeError(f"module 'textgen' has no attribute {name!r}")


_logging.getLogger("textgen").addHandler(_logging.NullHandler())
