"""The components and commands of this package.

Nothing here imports torch, transformers or tokenizers before something is built.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from textgen import BuildContext, Component, UsageError, hookimpl, option
from textgen.protocols import Observer, Tokenizer
from textgen_huggingface.hub import HubName
from textgen_huggingface.model_folder import CONFIG, is_gguf
from textgen_huggingface.options import FolderTokenizerConfig, HuggingFaceConfig

if TYPE_CHECKING:
    import click


@attrs.frozen
class OfferedConfig:
    """The model of a GGUF file, a folder or the Hugging Face Hub, with adapters to tune it to a
    text, as `textgen init TEXT --start PATH` does.
    """

    path: HubName | Path | None = option(
        None, help="a GGUF file, a folder with config.json, or owner/name of the Hugging Face Hub"
    )


@attrs.frozen
class FilesConfig:
    """Writes config.json and tokenizer_config.json, with which transformers opens the run directory
    itself.
    """


@attrs.frozen
class ExportConfig:
    """Writes a finished run of the model `huggingface` as a GGUF file or a model folder."""


def build_model(config: HuggingFaceConfig, context: BuildContext) -> Any:
    """A torch.nn.Module that trains and decodes."""
    from textgen_huggingface.building import build

    return build(config, context)


def build_folder_tokenizer(config: FolderTokenizerConfig, context: BuildContext) -> Tokenizer:
    """A tokenizer that reads its file when it is fitted.

    Raises PipelineError when there is none.
    """
    from textgen_huggingface.tokenizers import FolderTokenizer

    # A run directory holds its tokenizer, so the file is only needed to train.
    return FolderTokenizer(config.file() if context.training else Path(config.path))


def build_offered(config: OfferedConfig, context: BuildContext) -> dict[str, Any]:
    """The tables of a pipeline with the model. Raises UsageError for what is none."""
    path = config.path
    if path is None:
        raise UsageError("huggingface-model is named by a path, or as owner/name of the Hub")
    if isinstance(path, Path) and not (is_gguf(path) or (path / CONFIG).is_file()):
        raise UsageError(f"{path} is neither a GGUF file nor a folder with config.json")
    return offered(path)


def offered(path: HubName | Path) -> dict[str, Any]:
    """The tables of a pipeline with a model, what tunes it to a text in minutes, and samplers."""
    return {
        "tokenizer": {"type": "huggingface-tokenizer", "path": str(path)},
        "model": {"type": "huggingface", "path": str(path)},
        "start": {
            "data": {"window_length": 256},
            "model": {"lora": {"rank": 2, "alpha": 32}},  # all weights would take gigabytes
            "trainer": {
                "type": "adamw",
                "length": "3 epochs",
                "batch_size": 4,
                "learning_rate": 0.0015,
                "warmup_steps": 10,
                "decay_share": 0.9,
                "average_share": 0.5,
            },
        },
        "sampler": [
            {"type": "penalties", "repetition": 1.1},
            {"type": "min-p", "p": 0.1},
            {"type": "temperature", "temperature": 0.5},
        ],
        "generate": {"max_new_tokens": 200},
    }


def build_files(config: FilesConfig, context: BuildContext) -> Observer:
    """Writes into the run directory when training begins.

    Raises UsageError for another model than `huggingface`.
    """
    from textgen_huggingface.export import RunFiles

    return RunFiles.create(context)


def build_export(config: ExportConfig, context: BuildContext) -> click.Command:
    """`textgen huggingface-export RUN TARGET`."""
    from textgen_huggingface.command import make_command

    return make_command(context)


@hookimpl
def textgen_models() -> list[Component]:
    """Offer `huggingface`."""
    return [Component("huggingface", HuggingFaceConfig, build_model)]


@hookimpl
def textgen_tokenizers() -> list[Component]:
    """Offer `huggingface-tokenizer`."""
    return [Component("huggingface-tokenizer", FolderTokenizerConfig, build_folder_tokenizer)]


@hookimpl
def textgen_runs() -> list[Component]:
    """Offer `huggingface-model`."""
    return [Component("huggingface-model", OfferedConfig, build_offered)]


@hookimpl
def textgen_observers() -> list[Component]:
    """Offer `huggingface-files`."""
    return [Component("huggingface-files", FilesConfig, build_files)]


@hookimpl
def textgen_commands() -> list[Component]:
    """Offer `huggingface-export`."""
    return [Component("huggingface-export", ExportConfig, build_export)]
