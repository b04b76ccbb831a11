"""Pretrained models on this machine: folders of safetensors, and GGUF files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

# Nothing is fetched, nothing is unpickled, and no code that comes with a model is run.
LOCAL: Final = {"local_files_only": True, "trust_remote_code": False}


def is_gguf(path: Path) -> bool:
    """Whether `path` is a GGUF file, by its first four bytes."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(4) == b"GGUF"


def read_config(path: Path) -> Any:
    """The config of the folder or GGUF file `path`. Raises what transformers raises."""
    from transformers import AutoConfig

    from textgen_huggingface.gguf_files import converted
    from textgen_huggingface.quiet import quietly

    if is_gguf(path):
        return AutoConfig.for_model(**converted(path).config)
    with quietly():
        return AutoConfig.from_pretrained(path, **LOCAL)


def read_model(path: Path, config: Any, **options: Any) -> Any:
    """The result of `from_pretrained` for a folder or GGUF file `path`, from safetensors or plain
    weights alone. Raises what transformers raises.
    """
    import transformers

    from textgen_huggingface.gguf_files import converted
    from textgen_huggingface.quiet import quietly

    given = {**options, "config": config, "use_safetensors": True}
    if is_gguf(path):
        own = getattr(transformers, causal_models()[config.model_type])
        tensors = converted(path).tensors()  # may be quiet itself, to make them
        with quietly():
            return own.from_pretrained(None, state_dict=tensors, local_files_only=True, **given)
    with quietly():
        return transformers.AutoModelForCausalLM.from_pretrained(path, **LOCAL, **given)


def causal_models() -> dict[str, str]:
    """The class of each architecture's causal language model."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return dict(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
