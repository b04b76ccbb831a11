"""What this package offers.

Nothing here imports torch, transformers or tokenizers before something is built.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from attrs.validators import and_, ge, lt

from textgen import BuildContext, Component, Fault, PipelineError, hookimpl, option
from textgen.protocols import Observer, Tokenizer

if TYPE_CHECKING:
    import click


@attrs.frozen(kw_only=True)
class HuggingFaceConfig:
    """Any causal language model of transformers, made from a config or loaded from a folder or a
    GGUF file.

    Give `architecture` and `config`, or `path`. The vocabulary's size comes from the tokenizer.
    Nothing is ever fetched from a network, only safetensors and GGUF are read, and no code of a
    folder is run. Weights are float32.
    """

    architecture: str | None = option(
        None, help='the model type as transformers names it, such as "gpt2" or "llama"'
    )
    config: dict[str, Any] = option(
        attrs.Factory(dict),
        help="values of the architecture's config, such as n_layer; its own defaults for the rest",
    )
    path: Path | None = option(
        None,
        help="a folder with config.json and model.safetensors, or a GGUF file, in place of "
        "architecture",
    )
    dropout: float = option(
        0.0,
        help="every dropout of the architecture, unless config sets it apart",
        validator=and_(ge(0), lt(1)),
    )
    start_text: str = option(
        "\n",
        help="what an empty prompt stands for, in models that were not loaded with a "
        "beginning-of-text token",
    )

    def __attrs_post_init__(self) -> None:
        if (self.architecture is None) == (self.path is None):
            raise ValueError("give either architecture (to make a new model) or path (to load one)")
        if self.path is not None and self.config:
            raise ValueError("config goes with architecture; a folder brings its own config.json")

    def fingerprint(self) -> dict[str, Any]:
        """What shapes the model: the options, with what is in the folder in place of where it lies.

        Raises PipelineError where there is no folder.
        """
        options = {
            key: value
            for key, value in attrs.asdict(self).items()
            if value is not None and key != "path"
        }
        if self.path is None:
            return options
        if self.path.is_file():
            return {**options, "files": {self.path.name: _checksum(self.path)}}
        if not self.path.is_dir():
            raise PipelineError([_absent("model.path", f"folder {self.path}")])
        files = [self.path / "config.json", *sorted(self.path.glob("model*.safetensors*"))]
        return {
            **options,
            "files": {file.name: _checksum(file) for file in files if file.is_file()},
        }


@attrs.frozen
class FolderTokenizerConfig:
    """A byte-level tokenizer loaded from a folder or a GGUF file, such as that of GPT-2 or Llama 3.

    No special token is added to a text; those that stand in it are encoded as such. If a corpus has
    documents, they end with the tokenizer's own token for that, such as `<|endoftext|>`, and the
    text holds none.
    """

    path: Path = option(help="a folder with a tokenizer.json, the file itself, or a GGUF file")

    @property
    def file(self) -> Path:
        """The tokenizer.json or GGUF file."""
        return self.path / "tokenizer.json" if self.path.is_dir() else self.path

    def fingerprint(self) -> dict[str, Any]:
        """What shapes the tokenizer: the content of its file.

        Raises PipelineError where there is none.
        """
        if not self.file.is_file():
            raise PipelineError([_absent("tokenizer.path", str(self.file))])
        return {"file": _checksum(self.file)}


@attrs.frozen
class FilesConfig:
    """Writes config.json and tokenizer_config.json, with which transformers opens the run directory
    itself.
    """


@attrs.frozen
class ExportConfig:
    """Writes a finished run of the model `huggingface` as a folder of transformers."""


def build_model(config: HuggingFaceConfig, context: BuildContext) -> Any:
    """A torch.nn.Module that trains and decodes."""
    from textgen_huggingface.model import build

    return build(config, context)


def build_folder_tokenizer(config: FolderTokenizerConfig, context: BuildContext) -> Tokenizer:
    """A tokenizer that reads its file when it is fitted.

    Raises PipelineError when there is none.
    """
    from textgen_huggingface.tokenizers import FolderTokenizer

    # A run directory holds its tokenizer, so the file is only needed to train.
    if context.training and not config.file.is_file():
        raise PipelineError([_absent("tokenizer.path", str(config.file))])
    return FolderTokenizer(config.file)


def build_files(config: FilesConfig, context: BuildContext) -> Observer:
    """Writes into the run directory when training begins.

    Raises UsageError for another model than `huggingface`.
    """
    from textgen_huggingface.export import RunFiles

    return RunFiles.create(context)


def build_export(config: ExportConfig, context: BuildContext) -> click.Command:
    """`textgen huggingface-export RUN FOLDER`."""
    from textgen_huggingface.command import make_command

    return make_command(context)


def _absent(key: str, what: str) -> Fault:
    return Fault(key, f"there is no {what}", "", "nothing is fetched from a network")


def _checksum(file: Path) -> str:
    """SHA-256.

    Weights can be gigabytes, so a file that is unchanged by its size and time is read once.
    """
    status = file.stat()
    return _checksum_of(file, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _checksum_of(file: Path, size: int, time: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@hookimpl
def textgen_models() -> list[Component]:
    """Offer `huggingface`."""
    return [Component("huggingface", HuggingFaceConfig, build_model)]


@hookimpl
def textgen_tokenizers() -> list[Component]:
    """Offer `huggingface-tokenizer`."""
    return [Component("huggingface-tokenizer", FolderTokenizerConfig, build_folder_tokenizer)]


@hookimpl
def textgen_observers() -> list[Component]:
    """Offer `huggingface-files`."""
    return [Component("huggingface-files", FilesConfig, build_files)]


@hookimpl
def textgen_commands() -> list[Component]:
    """Offer `huggingface-export`."""
    return [Component("huggingface-export", ExportConfig, build_export)]
