"""Writes what transformers needs to open a run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from textgen import BuildContext, Engine, UsageError
from textgen.events import Event, RunStarted
from textgen.protocols import Tokenizer
from textgen_huggingface.model_config import context_length, make_config
from textgen_huggingface.options import HuggingFaceConfig
from textgen_huggingface.quiet import quietly
from textgen_huggingface.tokenizers import as_library


@attrs.frozen
class RunFiles:
    """Makes the run directory a folder of transformers.

    The engine writes the best weights to model.safetensors under the names of transformers, and the
    tokenizer to tokenizer.json in its format, so only the two files that describe them are missing.
    """

    directory: Path
    make_config: Callable[[], Any]
    tokenizer: Tokenizer
    adapts: bool

    @classmethod
    def create(cls, context: BuildContext) -> RunFiles:
        """Files for the run of `context`, whose pipeline lies in its directory already."""
        if context.directory is None or context.tokenizer is None:
            raise ValueError("there is no run directory to write to")
        model = Engine(context.plugins).pipeline(context.directory / "pipeline.toml").model
        if not isinstance(model.options, HuggingFaceConfig):
            raise UsageError(
                f"the observer 'huggingface-files' needs the model 'huggingface', and this "
                f"is {model.name!r}"
            )
        # A finished run may have been made with another place of the folder.
        made = partial(make_config, model.options, context)
        return cls(context.directory, made, context.tokenizer, model.options.lora is not None)

    def observe(self, event: Event) -> None:
        """Write the files when training begins."""
        if isinstance(event, RunStarted):
            config = self.make_config()
            if not self.adapts:  # else the weights are not those of a whole model
                config.save_pretrained(self.directory)
            if (tokenizer := as_library(self.tokenizer)) is not None:
                write_tokenizer_config(self.directory, tokenizer, config)


def export(context: BuildContext, run: Path, folder: Path, *, adapter: bool = False) -> None:
    """Write the model of the finished run `run`, or only its adapter, to the new folder `folder`,
    whole or not at all.
    """
    from textgen_huggingface.model import HuggingFaceModel

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already; choose a new folder")
    generator = Engine(context.plugins).load(run, device="cpu")
    if not isinstance(generator.model, HuggingFaceModel):
        raise UsageError(
            f"{run} holds no model of type 'huggingface'; its weights are in "
            f"{run / 'model.safetensors'}"
        )
    if adapter and not hasattr(generator.model, "save_adapter"):
        raise UsageError(f"{run} has no adapter: its pipeline has no [model.lora]")
    partial = folder.absolute().with_name(f".{folder.absolute().name}.partial-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        with quietly():
            made: Any = generator.model
            made.save_adapter(partial) if adapter else made.model.save_pretrained(partial)
        if (tokenizer := as_library(generator.tokenizer)) is not None:
            tokenizer.save(str(partial / "tokenizer.json"))
            write_tokenizer_config(partial, tokenizer, generator.model.model.config)
        for weights in partial.glob("*.safetensors"):  # which are written for this user alone
            weights.chmod((partial / f"{'adapter_' * adapter}config.json").stat().st_mode)
        partial.replace(folder)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_tokenizer_config(folder: Path, tokenizer: Any, config: Any) -> None:
    """tokenizer_config.json, by which AutoTokenizer finds that tokenizer.json is all there is."""
    values: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
    }
    if (limit := context_length(config)) is not None:
        values["model_max_length"] = limit
    for name in ("bos_token", "eos_token", "pad_token"):
        index = getattr(config, f"{name}_id", None)
        if isinstance(index, int) and (token := tokenizer.id_to_token(index)) is not None:
            values[name] = token
    (folder / "tokenizer_config.json").write_text(
        json.dumps(values, indent=2) + "\n", encoding="utf-8"
    )
