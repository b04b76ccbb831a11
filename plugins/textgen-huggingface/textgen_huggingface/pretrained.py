"""Pretrained models on this machine: folders of safetensors, and GGUF files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from textgen_huggingface.gguf_files import converted
from textgen_huggingface.model_folder import (
    CONFIG,
    LOCAL,
    alone,
    check_layers,
    count_tensors,
    find_file,
    is_gguf,
    read_table,
    weight_files,
)
from textgen_huggingface.quiet import quietly

_KEY: Final = "model.path"


def read_config(path: Path) -> Any:
    """The config of the folder or GGUF file `path`.

    Raises PipelineError for files of the folder that are refused, and what transformers raises.
    """
    from transformers import AutoConfig

    if is_gguf(path):
        return AutoConfig.for_model(**converted(path).config)
    file = find_file(path, CONFIG, _KEY)
    if file is None:
        raise FileNotFoundError(f"there is no {path / CONFIG}")
    table = read_table(file, _KEY)
    if weights := weight_files(path, _KEY):
        check_layers(table, count_tensors(weights, _KEY), str(file), _KEY)
    with quietly(), alone([file]) as folder:
        return AutoConfig.from_pretrained(folder, **LOCAL)


def read_model(path: Path, config: Any, **options: Any) -> Any:
    """The result of `from_pretrained` for a folder or GGUF file `path`, from safetensors or plain
    weights alone; other files in the folder, such as those of adapters, are left out.

    Raises PipelineError for files that are refused, and what transformers raises.
    """
    import transformers

    given = {**options, "config": config, "use_safetensors": True}
    if is_gguf(path):
        own = getattr(transformers, causal_models()[config.model_type])
        tensors = converted(path).tensors()  # may be quiet itself, to make them
        with quietly():
            return own.from_pretrained(None, state_dict=tensors, local_files_only=True, **given)
    files = [path / CONFIG, *weight_files(path, _KEY)]
    with quietly(), alone(files) as folder:
        return transformers.AutoModelForCausalLM.from_pretrained(folder, **LOCAL, **given)


def causal_models() -> dict[str, str]:
    """The class of each architecture's causal language model."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return dict(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
