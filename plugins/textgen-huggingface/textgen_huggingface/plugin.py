"""The components and commands of this package.

Nothing here imports torch, transformers or tokenizers before something is built.
"""

from __future__ import annotations

import functools
import hashlib
import re
from importlib.util import find_spec
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any, Final, Self

import attrs
from attrs.validators import and_, ge, lt, optional

from textgen import (
    Address,
    BuildContext,
    Component,
    Fault,
    PipelineError,
    UsageError,
    hookimpl,
    option,
)
from textgen.protocols import Observer, Tokenizer
from textgen_huggingface.model_folder import (
    CONFIG,
    files_beside,
    find_file,
    is_gguf,
    weight_files,
)

if TYPE_CHECKING:
    import click

ADAPTER: Final = "adapter_model.safetensors"
ADAPTER_FILES: Final = ("adapter_config.json", ADAPTER)
_HUB_NAME: Final = r"\w[\w.-]*/\w[\w.-]*(@[\w./-]+)?"


class HubName(str):
    """The type of an option that names a model of the Hugging Face Hub, as `owner/name` or
    `owner/name@revision`; a relative path of two parts that does not exist is such a name.
    """

    __slots__ = ()

    @classmethod
    def of_option(cls, value: Any, folder: Path) -> Self | None:
        """A value of a table in `folder`; None for one that is a path."""
        is_name = isinstance(value, str) and re.fullmatch(_HUB_NAME, value)
        return cls(value) if is_name and not (folder / value).exists() else None

    @property
    def address(self) -> Address:
        """Its page, which is named before anything is fetched."""
        from textgen_huggingface.hub import address

        return address(self)

    def fetched(self, before: object) -> HubName:
        """The name with its commit, whose files are in the cache then.

        before  the option in the run that is there already: a name without a revision keeps the
                commit of that

        Raises PipelineError, without a key.
        """
        from textgen_huggingface.hub import fetch

        name = str(self)
        if isinstance(before, str) and re.fullmatch(re.escape(name) + "@[0-9a-f]{40}", before):
            name = before
        return HubName(f"{name.partition('@')[0]}@{fetch(name).name}")


@attrs.frozen(kw_only=True)
class LoRAConfig:
    """Trains adapters of low rank in place of a model's weights (LoRA), by peft."""

    rank: int = option(16, help="rank of the adapters' matrices", validator=ge(1))
    alpha: int | None = option(
        None,
        help="alpha / rank is the factor of what the adapters add; the rank if not set",
        validator=optional(ge(1)),
    )
    dropout: float = option(
        0.0, help="dropout of what the adapters read", validator=and_(ge(0), lt(1))
    )
    targets: tuple[str, ...] = option(
        (), help='names of the layers to adapt, such as "q_proj"; all but the head if empty'
    )


@attrs.frozen(kw_only=True)
class HuggingFaceConfig:
    """Any causal language model of transformers, made from a config or loaded from a folder or a
    GGUF file, or fetched from the Hugging Face Hub by its name.

    Give `architecture` and `config`, or `path`. The vocabulary's size comes from the tokenizer.
    `textgen run` and `textgen init` alone fetch, only safetensors and GGUF are read, and no code of
    a folder is run. Weights are float32.
    """

    architecture: str | None = option(
        None, help='the model type as transformers names it, such as "gpt2" or "llama"'
    )
    config: dict[str, Any] = option(
        attrs.Factory(dict),
        help="values of the architecture's config, such as n_layer; its own defaults for the rest",
    )
    path: HubName | Path | None = option(
        None,
        help="a folder with config.json and model.safetensors, a GGUF file, or owner/name of the "
        "Hugging Face Hub, in place of architecture",
    )
    adapter: Path | None = option(
        None,
        help="a folder with an adapter of PEFT, adapter_config.json and "
        "adapter_model.safetensors, that is added to the weights of path",
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

    lora: LoRAConfig | None = option(
        None,
        help="a table [model.lora]: trains adapters alone, of `rank`, `alpha`, `dropout` and "
        "`targets`; the model of `path` is frozen, and the run needs it",
    )

    def __attrs_post_init__(self) -> None:
        if (self.architecture is None) == (self.path is None):
            raise ValueError("give either architecture (to make a new model) or path (to load one)")
        if self.path is not None and self.config:
            raise ValueError("config goes with architecture; a folder brings its own config.json")
        if self.path is None and (self.lora or self.adapter) is not None:
            raise ValueError("lora and adapter go with path: a new model has nothing to adapt")

    def on_disk(self) -> Self:
        """These options with places on this machine, as `located` gives them."""
        if self.path is None:
            return self
        adapter = self.adapter and located(self.adapter, "model.adapter")
        path = located(self.path, "model.path")
        return attrs.evolve(self, path=path, adapter=adapter)

    def fingerprint(self) -> dict[str, Any]:
        """Facts that shape the model: the options, with the content of all files that are read in
        place of paths.

        Raises PipelineError where there is no folder, or its files cannot be read.
        """
        options = {
            key: value
            for key, value in attrs.asdict(self).items()
            if value is not None and key not in ("path", "adapter")
        }
        if self.path is None:
            return options
        path = located(self.path, "model.path")
        if path.is_file():
            files: list[Path | None] = [path]
        elif path.is_dir():
            config = find_file(path, CONFIG, "model.path")
            files = [config, *weight_files(path, "model.path")]
        else:
            raise PipelineError([_absent("model.path", f"folder {path}")])
        if self.adapter is not None:
            adapter = located(self.adapter, "model.adapter")
            files += [find_file(adapter, name, "model.adapter") for name in ADAPTER_FILES]
        return {**options, "files": {file.name: checksum(file) for file in files if file}}


@attrs.frozen
class FolderTokenizerConfig:
    """A byte-level tokenizer loaded from a folder or a GGUF file, such as that of GPT-2 or Llama 3.

    No special token is added to a text, and the name of one that stands in a text is text. If a
    corpus has documents, they end with the tokenizer's own token for that, such as
    `<|endoftext|>`.
    """

    path: HubName | Path = option(
        help="a folder with a tokenizer.json, the file itself, a GGUF file, or owner/name of the "
        "Hugging Face Hub"
    )

    def file(self) -> Path:
        """The tokenizer.json or GGUF file. Raises PipelineError where there is none."""
        key = "tokenizer.path"
        path = located(self.path, key)
        if path.is_dir():
            path /= "tokenizer.json"
            find_file(path.parent, path.name, key)
        if not path.is_file():
            raise PipelineError([_absent(key, str(path))])
        return path

    def fingerprint(self) -> dict[str, Any]:
        """What shapes the tokenizer: the content of the files that are read.

        Raises PipelineError where there is none.
        """
        files = [self.file(), *files_beside(self.file(), "tokenizer.path").values()]
        return {"files": {file.name: checksum(file) for file in files}}


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
    return FolderTokenizer(config.file() if context.training else Path(config.path))


def build_offered(config: OfferedConfig, context: BuildContext) -> dict[str, Any]:
    """The tables of a pipeline with the model. Raises UsageError for what is none."""
    path = config.path
    if path is None:
        raise UsageError("huggingface-model is named by a path, or as owner/name of the Hub")
    if isinstance(path, Path) and not (is_gguf(path) or (path / "config.json").is_file()):
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
    """`textgen huggingface-export RUN FOLDER`."""
    from textgen_huggingface.command import make_command

    return make_command(context)


def located(path: HubName | Path, key: str) -> Path:
    """The folder or file of an option; of a name of the Hub, the folder in its cache. What was in a
    package is there wherever that is installed now.

    Raises PipelineError for a name of the Hub that was not fetched.
    """
    if isinstance(path, Path):
        spec = find_spec(name) if not path.exists() and (name := package_of(path)) else None
        places = [
            Path(each, PureWindowsPath(path).name)
            for each in (spec and spec.submodule_search_locations) or ()
        ]
        return next((each for each in places if each.exists()), path)
    from textgen_huggingface.hub import cached

    return cached(path, key)


def package_of(path: Path) -> str:
    """The Python package whose file or folder `path` is or was; "" if it is none's."""
    folder = PureWindowsPath(path).parent  # which knows both separators
    is_installed = folder.parent.name in ("site-packages", "dist-packages")
    return folder.name if is_installed and folder.name.isidentifier() else ""


def _absent(key: str, what: str) -> Fault:
    return Fault(key, f"there is no {what}", "", "nothing is fetched from a network")


def checksum(file: Path) -> str:
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
