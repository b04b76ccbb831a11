"""Writes what transformers needs to open a run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs

from textgen import BuildContext, Engine, UsageError
from textgen.events import Event, RunStarted
from textgen.protocols import Tokenizer
from textgen_huggingface.model_config import context_length, make_config
from textgen_huggingface.model_folder import is_gguf
from textgen_huggingface.options import HuggingFaceConfig
from textgen_huggingface.quiet import quietly
from textgen_huggingface.tokenizers import as_library

if TYPE_CHECKING:
    from textgen import Generator

_OTHER_FILES: Final = {".bin", ".ggml", ".onnx", ".pt", ".pth", ".safetensors"}


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


def export(
    context: BuildContext,
    run: Path,
    target: Path,
    *,
    adapter: bool = False,
    kind: str | None = None,
    chat_template: bool = False,
) -> None:
    """Write the model of the finished run `run`, or only its adapter, to the new folder or GGUF
    file `target`, whole or not at all.

    kind           of a GGUF file, "f16" or "q8_0": how weights that have changed are written
    chat_template  whether a GGUF file has the chat template of its base

    Raises UsageError.
    """
    is_file = target.suffix == ".gguf"
    _check_target(target)
    if not is_file and (kind is not None or chat_template):
        raise UsageError(f"--type and --chat-template are of GGUF files; name {target}.gguf")
    if adapter and (kind is not None or chat_template):
        raise UsageError("--type and --chat-template are not of adapters; leave them out")
    generator = _loaded(context, run, adapter=adapter)
    try:
        target.absolute().parent.mkdir(parents=True, exist_ok=True)
        if not is_file:
            _write_folder(generator, target, adapter=adapter)
            return
        from textgen_huggingface.gguf_export import write_adapter, write_model

        base = _gguf_base(context, generator, run, adapter=adapter)
        if adapter:
            write_adapter(generator, base, target)
        else:
            write_model(generator, base, target, kind=kind or "f16", chat_template=chat_template)
    except OSError as error:
        raise UsageError(f"{target} cannot be written: {error.strerror or error}") from error


def _check_target(target: Path) -> None:
    is_file = target.suffix == ".gguf"
    if not is_file and target.suffix.lower() in _OTHER_FILES:
        raise UsageError(f"{target} is neither a file .gguf nor a folder; name one of them")
    is_empty_folder = not is_file and target.is_dir() and not any(target.iterdir())
    if target.exists() and not is_empty_folder:
        raise UsageError(f"{target} is there already; choose a new name")


def _loaded(context: BuildContext, run: Path, *, adapter: bool) -> Generator:
    """The generator of a run with a model of this package. Raises UsageError for another."""
    from textgen_huggingface.model import HuggingFaceModel

    generator = Engine(context.plugins).load(run, device="cpu")
    if not isinstance(generator.model, HuggingFaceModel):
        raise UsageError(
            f"{run} holds no model of type 'huggingface'; its weights are in "
            f"{run / 'model.safetensors'}"
        )
    if adapter and not hasattr(generator.model, "save_adapter"):
        raise UsageError(f"{run} has no adapter: its pipeline has no [model.lora]")
    return generator


def _write_folder(generator: Generator, folder: Path, *, adapter: bool) -> None:
    made: Any = generator.model
    partial = folder.absolute().with_name(f".{folder.absolute().name}.partial-{os.getpid()}")
    try:
        partial.mkdir()
        with quietly():
            made.save_adapter(partial) if adapter else made.model.save_pretrained(partial)
        if (tokenizer := as_library(generator.tokenizer)) is not None:
            tokenizer.save(str(partial / "tokenizer.json"))
            write_tokenizer_config(partial, tokenizer, made.model.config)
        for weights in partial.glob("*.safetensors"):  # which are written for this user alone
            weights.chmod((partial / f"{'adapter_' * adapter}config.json").stat().st_mode)
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _gguf_base(context: BuildContext, generator: Generator, run: Path, *, adapter: bool) -> Path:
    """The GGUF file that a run was tuned from. Raises UsageError where there is none."""
    from textgen_huggingface.gguf_export import convert_command

    by_hand = f"export a folder, and convert that: {convert_command(adapter=adapter)}"
    if generator.path is None:
        raise UsageError(f"{run} is not a run directory; {by_hand}")
    options: Any = Engine(context.plugins).pipeline(generator.path / "pipeline.toml").model.options
    if options.path is None:
        raise UsageError(f"{run} was not tuned from a GGUF file; {by_hand}")
    base: Path = options.on_disk().path
    if not base.exists():
        raise UsageError(f"there is no {base}, which {run} was tuned from")
    if not is_gguf(base):
        raise UsageError(f"{run} was tuned from {base}, and not from a GGUF file; {by_hand}")
    return base


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
