"""The options of the model and of the tokenizer.

Nothing here imports torch, transformers or tokenizers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import attrs
from attrs.validators import and_, ge, lt, optional

from textgen import Fault, PipelineError, option
from textgen_huggingface.checksums import checksum
from textgen_huggingface.hub import HubName
from textgen_huggingface.locations import located
from textgen_huggingface.model_folder import (
    ADAPTER_FILES,
    CONFIG,
    check_size,
    files_beside,
    find_file,
    is_gguf,
    weight_files,
)


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
        if path.is_dir():
            config = find_file(path, CONFIG, "model.path")
            files: list[Path | None] = [config, *weight_files(path, "model.path")]
        elif is_gguf(path):
            files = [path]
        else:
            raise PipelineError([_absent("model.path", f"folder or GGUF file {path}")])
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
        """The tokenizer.json or GGUF file. Raises PipelineError where there is none, and for JSON
        that is too large to read.
        """
        key = "tokenizer.path"
        path = located(self.path, key)
        if path.is_dir():
            path /= "tokenizer.json"
            find_file(path.parent, path.name, key)
        if not path.is_file():
            raise PipelineError([_absent(key, str(path))])
        if not is_gguf(path):
            check_size(path, key)
        return path

    def fingerprint(self) -> dict[str, Any]:
        """What shapes the tokenizer: the content of the files that are read.

        Raises PipelineError where there is none.
        """
        files = [self.file(), *files_beside(self.file(), "tokenizer.path").values()]
        return {"files": {file.name: checksum(file) for file in files}}


def _absent(key: str, what: str) -> Fault:
    return Fault(key, f"there is no {what}", "", "nothing is fetched from a network")
