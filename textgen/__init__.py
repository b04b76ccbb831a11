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
    from textgen.documents import DOCUMENT_END
    from textgen.engine import Engine, Run, load, run, train
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
    from textgen.generation.async_streams import AsyncTextStream
    from textgen.generation.generator import Generator
    from textgen.generation.novelty import CopyFinder, CopyReport
    from textgen.generation.prompts import EncodedPrompt
    from textgen.generation.request import RequestOptions
    from textgen.generation.results import Generation, Generations, GenerationState, TokenLogprobs
    from textgen.generation.scoring import TextScore, TokenScores
    from textgen.generation.streams import TextStream
    from textgen.pipeline.pipeline import Pipeline
    from textgen.plugin.component import BuildContext, Component, NoOptions, option
    from textgen.plugin.hookspecs import PLUGIN_API_VERSION, hookimpl
    from textgen.plugin.registry import PluginSet
    from textgen.plugin.structure import Choice
    from textgen.runs.directory import prune
    from textgen.runs.stored import CheckedFile, RunReport, verify
    from textgen.runs.summary import RunSummary, summarize

__all__ = [
    "DOCUMENT_END",
    "PLUGIN_API_VERSION",
    "AsyncTextStream",
    "BuildContext",
    "CheckedFile",
    "Choice",
    "Component",
    "ContractError",
    "CopyFinder",
    "CopyReport",
    "CorpusError",
    "CorruptFileError",
    "DeviceError",
    "EncodedPrompt",
    "Engine",
    "Fault",
    "Generation",
    "GenerationState",
    "Generations",
    "Generator",
    "Interrupted",
    "NoOptions",
    "Pipeline",
    "PipelineError",
    "PluginError",
    "PluginSet",
    "PluginWarning",
    "PromptError",
    "RequestOptions",
    "Run",
    "RunError",
    "RunLockedError",
    "RunMismatchError",
    "RunReport",
    "RunSummary",
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
    "prune",
    "run",
    "summarize",
    "train",
    "verify",
]

# Each is imported when it is first asked for: a plugin's import and `textgen --help` wait for no
# NumPy, and a Ctrl-C in the first moments of the command finds something there to answer it.
_WHERE = {
    "documents": ("DOCUMENT_END",),
    "engine": ("Engine", "Run", "load", "run", "train"),
    "errors": (
        "ContractError",
        "CorpusError",
        "CorruptFileError",
        "DeviceError",
        "Fault",
        "Interrupted",
        "PipelineError",
        "PluginError",
        "PluginWarning",
        "PromptError",
        "RunError",
        "RunLockedError",
        "RunMismatchError",
        "TextgenError",
        "TrainingError",
        "UsageError",
    ),
    "generation.async_streams": ("AsyncTextStream",),
    "generation.generator": ("Generator",),
    "generation.novelty": ("CopyFinder", "CopyReport"),
    "generation.prompts": ("EncodedPrompt",),
    "generation.request": ("RequestOptions",),
    "generation.results": ("Generation", "Generations", "GenerationState", "TokenLogprobs"),
    "generation.scoring": ("TextScore", "TokenScores"),
    "generation.streams": ("TextStream",),
    "pipeline.pipeline": ("Pipeline",),
    "plugin.structure": ("Choice",),
    "plugin.component": ("BuildContext", "Component", "NoOptions", "option"),
    "plugin.hookspecs": ("PLUGIN_API_VERSION", "hookimpl"),
    "plugin.registry": ("PluginSet",),
    "runs.directory": ("prune",),
    "runs.summary": ("RunSummary", "summarize"),
    "runs.stored": ("CheckedFile", "RunReport", "verify"),
}


def __getattr__(name: str) -> _Any:
    if name == "__version__":
        return _importlib.import_module("importlib.metadata").version("textgen-engine")
    for module, names in _WHERE.items():
        if name in names:
            value = globals()[name] = getattr(_importlib.import_module(f"textgen.{module}"), name)
            return value
    raise AttributeError(f"module 'textgen' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


_logging.getLogger("textgen").addHandler(_logging.NullHandler())
