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

if _TYPE_CHECKING:
    from textgen.arguments import GenerateArguments
    from textgen.async_stream import AsyncTextStream
    from textgen.component import BuildContext, Component, NoOptions, option
    from textgen.config import Pipeline
    from textgen.decoding import TokenLogprobs
    from textgen.engine import Engine, Run, load, run
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
    from textgen.generation import Generator
    from textgen.hookspecs import PLUGIN_API_VERSION, hookimpl
    from textgen.novelty import CopyIndex, CopyReport
    from textgen.plugins import PluginSet
    from textgen.scoring import TextScore, TokenScores
    from textgen.state import GenerationState
    from textgen.text_stream import TextStream
    from textgen.texts import Generation, Piece

__all__ = [
    "PLUGIN_API_VERSION",
    "AsyncTextStream",
    "BuildContext",
    "Component",
    "ContractError",
    "CopyIndex",
    "CopyReport",
    "CorpusError",
    "CorruptFileError",
    "DeviceError",
    "Engine",
    "Fault",
    "GenerateArguments",
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
    "TokenLogprobs",
    "TokenScores",
    "TrainingError",
    "UsageError",
    "hookimpl",
    "load",
    "option",
    "run",
]

# Each is imported when it is first asked for: a plugin's import and `textgen --help` wait for no NumPy, and a Ctrl-C
# in the first moments of the command finds something there to answer it.
_WHERE = {
    "arguments": ("GenerateArguments",),
    "async_stream": ("AsyncTextStream",),
    "component": ("BuildContext", "Component", "NoOptions", "option"),
    "config": ("Pipeline",),
    "decoding": ("TokenLogprobs",),
    "engine": ("Engine", "Run", "load", "run"),
    "errors": (
        *("ContractError", "CorpusError", "CorruptFileError", "DeviceError", "Fault", "Interrupted", "PipelineError"),
        *("PluginError", "PluginWarning", "PromptError", "RunError", "RunLockedError", "RunMismatchError"),
        *("TextgenError", "TrainingError", "UsageError"),
    ),
    "generation": ("Generator",),
    "hookspecs": ("PLUGIN_API_VERSION", "hookimpl"),
    "novelty": ("CopyIndex", "CopyReport"),
    "plugins": ("PluginSet",),
    "scoring": ("TextScore", "TokenScores"),
    "state": ("GenerationState",),
    "text_stream": ("TextStream",),
    "texts": ("Generation", "Piece"),
}


def __getattr__(name: str) -> _Any:
    for module, names in _WHERE.items():
        if name in names:
            value = globals()[name] = getattr(_importlib.import_module(f"textgen.{module}"), name)
            return value
    raise AttributeError(f"module 'textgen' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


_logging.getLogger("textgen").addHandler(_logging.NullHandler())
