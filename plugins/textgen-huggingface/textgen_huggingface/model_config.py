"""The pipeline's options as a config of transformers, with every fault named by its dotted path."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from textgen import BuildContext, Fault, PipelineError
from textgen_huggingface.hub import HubName
from textgen_huggingface.locations import located
from textgen_huggingface.model_folder import check_layers, count_tensors, is_gguf, weight_files
from textgen_huggingface.options import HuggingFaceConfig
from textgen_huggingface.pretrained import causal_models, read_config

_SPECIAL: Final = ("bos_token_id", "eos_token_id", "pad_token_id")


def make_config(options: HuggingFaceConfig, context: BuildContext) -> Any:
    """A transformers.PreTrainedConfig for the tokenizer of `context`. Raises PipelineError."""
    config = _new(options, context) if options.path is None else _loaded(options.path, context)
    for key, value in config.to_dict().items():
        if (
            "drop" in key
            and isinstance(value, float | int)
            and not isinstance(value, bool)
            and key not in options.config
        ):
            # Dropping whole layers is another thing than dropping units, and is left out.
            setattr(config, key, 0.0 if "layer" in key else options.dropout)
    config.architectures = [causal_models()[config.model_type]]
    config.dtype = "float32"
    return config


def draws_while_training(config: Any) -> bool:
    """Whether a model of this config draws random numbers in a training step."""
    return any(
        isinstance(value, float | int) and value > 0
        for key, value in config.to_dict().items()
        if "drop" in key or "jitter" in key or "noise" in key
    )


def context_length(config: Any) -> int | None:
    """The tokens that the model can attend to at once; None where there is no limit."""
    text = config.get_text_config(decoder=True)
    limits = [getattr(text, name, None) for name in ("max_position_embeddings", "max_seq_len")]
    return next((limit for limit in limits if isinstance(limit, int) and limit > 0), None)


def scales_with_length(config: Any) -> bool:
    """Whether the rotation of positions depends on the longest row of a batch, so that rows are not
    independent.
    """
    return any(
        f"'rope_type': '{kind}'" in str(config.to_dict()) for kind in ("dynamic", "longrope")
    )


def _new(options: HuggingFaceConfig, context: BuildContext) -> Any:
    from transformers import AutoConfig

    names = causal_models()
    if options.architecture not in names:
        raise _fault(
            "architecture", "no causal language model of transformers", options.architecture, names
        )
    if "vocab_size" in options.config:
        raise PipelineError(
            [Fault("model.config.vocab_size", "comes from the tokenizer, and cannot be set here")]
        )
    standard = AutoConfig.for_model(options.architecture)
    # transformers takes any keyword in silence, so that a misspelt one would train another model
    # than was meant.
    known = {*standard.to_dict(), *standard.attribute_map} - {
        "vocab_size",
        "transformers_version",
        "model_type",
    }
    if faults := [
        f
        for key in options.config
        if key not in known
        for f in _unknown(f"config.{key}", key, known)
    ]:
        raise PipelineError(faults)
    if not context.training and (context.folder / "run.json").is_file():  # maybe a stranger's
        count = count_tensors(weight_files(context.folder, "model.config"), "model.config")
        check_layers(options.config, count, "the pipeline", "model.config")
    # The ids of special tokens that a config comes with belong to another vocabulary.
    values = {**{key: None for key in _SPECIAL if hasattr(standard, key)}, **options.config}
    try:
        return AutoConfig.for_model(options.architecture, vocab_size=context.vocab_size, **values)
    except Exception as error:
        raise PipelineError([Fault("model.config", f"transformers refuses it: {error}")]) from error


def _loaded(path: HubName | Path, context: BuildContext) -> Any:
    own = [context.folder / name for name in ("run.json", "config.json")]
    if not context.training and all(file.is_file() for file in own):
        folder = context.folder  # the run directory has a copy, wherever the original is now
    else:
        folder = located(path, "model.path")
    if not folder.is_dir() and not is_gguf(folder):
        raise PipelineError(
            [
                Fault(
                    "model.path",
                    f"there is no folder or GGUF file {folder}",
                    "",
                    "nothing is fetched from a network",
                )
            ]
        )
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise PipelineError(
            [Fault("model.path", f"{folder} has no config.json, so it is no model of transformers")]
        )
    try:
        config = read_config(folder)
    except PipelineError:
        raise
    except Exception as error:
        raise PipelineError(
            [Fault("model.path", f"the config of {folder} cannot be used: {error}")]
        ) from error
    if config.model_type not in causal_models():
        raise PipelineError(
            [Fault("model.path", f"{config.model_type} in {folder} is no causal language model")]
        )
    known = config.get_text_config(decoder=True).vocab_size
    if known < context.vocab_size:
        raise PipelineError(
            [
                Fault(
                    "model.path",
                    f"the model knows {known:,} tokens, and the tokenizer has "
                    f"{context.vocab_size:,}",
                    "",
                    f'use the model\'s own: [tokenizer] type = "huggingface-tokenizer", '
                    f'path = "{path}"',
                )
            ]
        )
    return config


def _fault(key: str, expected: str, given: str | None, known: Iterable[str]) -> PipelineError:
    return PipelineError(_unknown(key, given or "", known, expected))


def _unknown(
    key: str, given: str, known: Iterable[str], expected: str = "unknown key"
) -> list[Fault]:
    near = difflib.get_close_matches(given, list(known), 1)
    hint = f"did you mean {near[0]!r}?" if near else ""
    return [Fault(f"model.{key}", expected, repr(given), hint)]
