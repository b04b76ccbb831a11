"""GGUF files as transformers reads them: once, and then from the user's cache.

What transformers makes of a file takes it many seconds of every process. The cache has it as one
file of safetensors with the weights in bfloat16, and the config and the tokenizer in its header.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import attrs
import numpy as np

from textgen import Fault, PipelineError
from textgen.files import converted_models
from textgen.protocols import Table
from textgen_huggingface.checksums import checksum
from textgen_huggingface.model_folder import LOCAL, alone
from textgen_huggingface.quiet import quietly

_MAKERS: Final = ("textgen-huggingface", "transformers", "gguf")  # their versions shape the result


@attrs.frozen
class ConvertedModel:
    """The model of a GGUF file.

    config     of transformers, as a table with its model_type
    tokenizer  the tokenizer.json
    named      tokens by their names in transformers, such as eos_token
    weights    the safetensors file, in bfloat16
    """

    config: Table
    tokenizer: str
    named: Table
    weights: Path

    def tensors(self) -> dict[str, Any]:
        """The weights by the names of transformers, mapped from the file."""
        from safetensors.torch import load_file

        return load_file(self.weights)


def converted(path: Path) -> ConvertedModel:
    """The model of the GGUF file `path`. Raises OSError where the cache cannot be written, and what
    transformers raises.
    """
    from safetensors import safe_open

    cache, digest = converted_models(), checksum(path)
    parts = [digest, *map(version, _MAKERS)]
    key = hashlib.sha256(" ".join(parts).encode()).hexdigest()
    entry = cache.find(key)
    if entry is None:
        weights, facts = _read(path)
        try:
            pieces = _safetensors(weights, facts)
            entry = cache.add(key, "model.safetensors", pieces, {"file": str(path)})
        except OSError as error:
            cause = f"its weights cannot be written to {cache.folder}: {error.strerror or error}"
            raise OSError(f"{cause}; set TEXTGEN_CACHE_DIR to a folder that can") from error
    with safe_open(entry.path, "np") as file:
        made = file.metadata()
    return ConvertedModel(
        json.loads(made["config"]), made["tokenizer"], json.loads(made["named"]), entry.path
    )


def _read(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The weights that the file has, and the texts of the header. Raises what transformers
    raises.
    """
    import torch
    import transformers

    plain: dict[str, Any] = {"dtype": torch.bfloat16}
    library: Any = transformers
    if hasattr(library, "GgufConfig"):  # else weights are always made plain
        plain["quantization_config"] = library.GgufConfig(dequantize=True)
    with alone([path]) as folder, _reading():
        given = LOCAL | {"pretrained_model_name_or_path": str(folder), "gguf_file": path.name}
        _check_blocks(folder / path.name)
        tokenizer = library.AutoTokenizer.from_pretrained(**given)
        config = library.AutoConfig.from_pretrained(**given)
        model, report = library.AutoModelForCausalLM.from_pretrained(
            **given, **plain, output_loading_info=True
        )
    named = {name: getattr(tokenizer, name) for name in ("eos_token", "unk_token")}
    weights = {n: w for n, w in model.state_dict().items() if n not in report["missing_keys"]}
    return weights, {
        "config": config.to_json_string(use_diff=False),
        "tokenizer": tokenizer.backend_tokenizer.to_str(),
        "named": json.dumps(named),
    }


def _check_blocks(path: Path) -> None:
    """Raise PipelineError for more layers than there are weights, which would take hours."""
    import gguf

    reader = gguf.GGUFReader(str(path))
    for name, field in reader.fields.items():
        if name.endswith(".block_count") and (blocks := field.contents()) > len(reader.tensors):
            cause = f"the file has {blocks:,} layers, and {len(reader.tensors):,} weights"
            raise PipelineError([Fault("model.path", cause)])


def _safetensors(tensors: Mapping[str, Any], facts: Table) -> Iterator[bytes]:
    """A file of safetensors in pieces, so that the weights are not in memory twice; tied ones are
    written once.
    """
    import torch

    header: dict[str, Any] = {"__metadata__": facts}
    written: dict[int, Any] = {}
    place = 0
    for name, tensor in tensors.items():
        if tensor.data_ptr() not in written:
            written[tensor.data_ptr()] = tensor
            end = place + tensor.numel() * 2
            header[name] = {"dtype": "BF16", "shape": [*tensor.shape], "data_offsets": [place, end]}
            place = end
    data = json.dumps(header).encode()
    data += b" " * (-len(data) % 8)
    yield len(data).to_bytes(8, "little") + data
    for tensor in written.values():
        yield tensor.bfloat16().contiguous().view(torch.uint8).numpy().data


@contextmanager
def _reading() -> Iterator[None]:
    """A block in which transformers is quiet and reads a GGUF file's header once, not each time
    that it asks for config, tokenizer or a weight: of SmolLM2, 6 seconds in place of 17.
    """
    import gguf
    from gguf.gguf_reader import GGUFReader
    from transformers import modeling_gguf_pytorch_utils as loader

    class BoundedReader(GGUFReader):
        """Raises ValueError where a count or length leads past the end of the file, from where the
        library would go on reading nothing, as often as the count says.
        """

        def _get(self, offset: int, dtype: Any, count: int = 1, *more: Any, **options: Any) -> Any:
            end = int(offset) + np.dtype(dtype).itemsize * int(count)
            if end > len(self.data):
                raise ValueError(f"it ends after {len(self.data):,} bytes, in a part to {end:,}")
            return super()._get(offset, dtype, count, *more, **options)

    with (
        quietly(),
        patch.object(loader, "tqdm", lambda items, **_: items),  # no setting disables its bar
        patch.object(gguf, "get_tensor_name_map", functools.cache(gguf.get_tensor_name_map)),
        patch.object(gguf, "GGUFReader", functools.cache(BoundedReader)),
    ):
        yield
