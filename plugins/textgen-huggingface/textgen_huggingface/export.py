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
from textgen.files import write_atomic
from textgen.protocols import Tokenizer
from textgen_huggingface.descriptions import CARD, MODELFILE, Base, model_card, modelfile
from textgen_huggingface.hub import HubName, check_name, push
from textgen_huggingface.locations import located
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


@attrs.frozen(kw_only=True)
class ExportOptions:
    """What `textgen huggingface-export` writes.

    adapter        only the adapter of a run with [model.lora]
    kind           of a GGUF file, "f16" or "q8_0": how weights that have changed are written
    chat_template  whether a GGUF file has the chat template of its base
    modelfile      whether a Modelfile for Ollama is written beside a GGUF file
    push           owner/name of the model on the Hugging Face Hub that the files are sent to
    """

    adapter: bool = False
    kind: str | None = None
    chat_template: bool = False
    modelfile: bool = False
    push: str | None = None


def export(
    context: BuildContext,
    run: Path,
    target: Path,
    options: ExportOptions,
    report: Callable[[str], None],
) -> None:
    """Write the model of the finished run `run` to the new folder or GGUF file `target`, whole or
    not at all, and send it to the Hugging Face Hub if that is asked for. `report` takes sentences
    about what is done.

    Raises UsageError.
    """
    _check(target, options)
    generator = _loaded(context, run, adapter=options.adapter)
    path = _base_path(generator)
    try:
        target.absolute().parent.mkdir(parents=True, exist_ok=True)
        if target.suffix == ".gguf":
            _write_gguf(generator, run, path, target, options)
            opens = "llama.cpp opens it" + (" with --lora" if options.adapter else "")
        else:
            _write_folder(generator, run, path, target, options)
            opens = "PeftModel" if options.adapter else "AutoModelForCausalLM"
            opens += ".from_pretrained opens it"
    except OSError as error:
        raise UsageError(f"{target} cannot be written: {error.strerror or error}") from error
    report(f"wrote {target}; {opens}")
    if options.push is not None:
        report(f"sending it to {HubName(options.push).address}")
        push(options.push, _files_to_push(generator, run, path, target, options))


def _files_to_push(
    generator: Generator,
    run: Path,
    path: HubName | Path | None,
    target: Path,
    options: ExportOptions,
) -> dict[str, Path | bytes]:
    """The files of a model of the Hub by their names there: those of a folder, or a GGUF file with
    what goes with it.
    """
    if target.is_dir():
        return {file.name: file for file in sorted(target.iterdir())}
    base = Base.of(path)
    card = model_card(generator, base, _name(generator, run), target.name, adapter=options.adapter)
    licences = base.licence_files if base is not None else ()
    return {target.name: target, CARD: card.encode(), **{file.name: file for file in licences}}


def _check(target: Path, options: ExportOptions) -> None:
    is_file = target.suffix == ".gguf"
    if not is_file and target.suffix.lower() in _OTHER_FILES:
        raise UsageError(f"{target} is neither a file .gguf nor a folder; name one of them")
    if not is_file and (options.kind is not None or options.chat_template or options.modelfile):
        raise UsageError(
            f"--type, --chat-template and --modelfile are of GGUF files; name {target}.gguf"
        )
    if options.adapter and (options.kind is not None or options.chat_template):
        raise UsageError("--type and --chat-template are not of adapters; leave them out")
    if options.push is not None:
        check_name(options.push)
    is_empty_folder = not is_file and target.is_dir() and not any(target.iterdir())
    taken = [target] if target.exists() and not is_empty_folder else []
    if options.modelfile and (beside := target.with_name(MODELFILE)).exists():
        taken.append(beside)
    if taken:
        raise UsageError(f"{taken[0]} is there already; choose a new name or folder")


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


def _base_path(generator: Generator) -> HubName | Path | None:
    """The option `path` of the run's model."""
    value = generator.tables["model"].get("path")
    folder = generator.path or Path.cwd()
    return HubName.of_option(value, folder) or folder / value if value else None


def _name(generator: Generator, run: Path) -> str:
    return (generator.path or run).resolve().name


def _write_folder(
    generator: Generator,
    run: Path,
    path: HubName | Path | None,
    folder: Path,
    options: ExportOptions,
) -> None:
    made: Any = generator.model
    base = Base.of(path)
    partial = folder.absolute().with_name(f".{folder.absolute().name}.partial-{os.getpid()}")
    try:
        partial.mkdir()
        with quietly():
            made.save_adapter(partial) if options.adapter else made.model.save_pretrained(partial)
        if (tokenizer := as_library(generator.tokenizer)) is not None:
            tokenizer.save(str(partial / "tokenizer.json"))
            write_tokenizer_config(partial, tokenizer, made.model.config)
        config = partial / f"{'adapter_' * options.adapter}config.json"
        if options.adapter and options.push is not None and base is not None:
            _name_base(config, base.hub or base.name)
        card = model_card(
            generator,
            base,
            _name(generator, run),
            adapter=options.adapter,
            source=options.push or "FOLDER",
        )
        (partial / CARD).write_text(card, encoding="utf-8")
        for file in base.licence_files if base is not None else ():
            shutil.copyfile(file, partial / file.name)
        for weights in partial.glob("*.safetensors"):  # which are written for this user alone
            weights.chmod(config.stat().st_mode)
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _name_base(config: Path, name: str) -> None:
    """Put a name in place of the base's path, which is of this machine."""
    facts = json.loads(config.read_text(encoding="utf-8"))
    facts["base_model_name_or_path"] = name
    config.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _write_gguf(
    generator: Generator,
    run: Path,
    path: HubName | Path | None,
    file: Path,
    options: ExportOptions,
) -> None:
    from textgen_huggingface.gguf_export import convert_command, write_adapter, write_model

    base = None if path is None else located(path, "model.path")
    if base is not None and not base.exists():
        raise UsageError(f"there is no {base}, which {run} was tuned from")
    if base is None or not is_gguf(base):
        raise UsageError(
            f"{run} was not tuned from a GGUF file; export a folder, and convert that: "
            f"{convert_command(adapter=options.adapter)}"
        )
    name, chat_template = _name(generator, run), options.chat_template
    if options.adapter:
        write_adapter(generator, name, base, file)
    else:
        kind = options.kind or "f16"
        write_model(generator, name, base, file, kind=kind, chat_template=chat_template)
    if options.modelfile:
        below = base if options.adapter else None
        text = modelfile(generator, file, below, chat_template=chat_template)
        write_atomic(file.with_name(MODELFILE), text.encode())


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
