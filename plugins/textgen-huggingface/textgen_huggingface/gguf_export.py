"""Writes a tuned run as a GGUF file, for llama.cpp and programs that are made of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType as Encoding
from gguf.gguf_writer import WriterState
from gguf.quants import dequantize, quant_shape_to_byte_shape, quantize

from textgen import UsageError
from textgen.files import new_file
from textgen_huggingface.descriptions import sampling
from textgen_huggingface.gguf_files import converted
from textgen_huggingface.tokenizers import as_library

if TYPE_CHECKING:
    from textgen import Generator
    from textgen_huggingface.lora import LoRAModel

Array = npt.NDArray[Any]

FILE_TYPES: Final = {
    "f16": (Encoding.F16, gguf.LlamaFileType.MOSTLY_F16),
    "q8_0": (Encoding.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}
# What describes the base and not what was made of it, and so becomes general.base_model.0.*.
_ABOUT_BASE: Final = (
    *("name", "author", "version", "organization", "description"),
    *("url", "doi", "uuid", "repo_url"),
)
_NOT_COPIED: Final = (
    "GGUF.",
    *(f"general.{name}" for name in _ABOUT_BASE),
    *("general.architecture", "general.file_type", "general.quantization_version"),
    *("general.alignment", "general.finetune", "general.quantized_by"),
    *("general.source.", "general.base_model.", "general.sampling.", "quantize."),
)
_TEMPLATES: Final = "tokenizer.chat_template"  # of chats, and of kinds of chats


@attrs.frozen
class _Tensor:
    """A tensor to write.

    shape  of the values, in the order of NumPy
    make   gives the encoded values when they are written, so that one is in memory at a time
    """

    name: str
    shape: tuple[int, ...]
    encoding: Encoding
    make: Callable[[], Array]

    @property
    def size(self) -> int:
        """Bytes."""
        itemsize = {Encoding.F16: 2, Encoding.F32: 4}.get(self.encoding)
        if itemsize is not None:
            return itemsize * int(np.prod(self.shape))
        return int(np.prod(quant_shape_to_byte_shape(self.shape, self.encoding)))


@attrs.frozen
class _Layout:
    """How GGUF orders a weight that transformers has as `weight`.

    is_transposed  whether transformers has (inputs, outputs)
    heads          number of heads whose rows are in the order of llama.cpp's rotary embedding; 0 if
                   rows are in the order of transformers
    """

    is_transposed: bool = False
    heads: int = 0

    def apply(self, weight: Array) -> Array:
        """The weight, (outputs, inputs) or (outputs,), in the order of GGUF."""
        return self.order_rows(weight.T if self.is_transposed else weight)

    def order_rows(self, rows: Array) -> Array:
        """Rows (outputs, ...) in the order of GGUF."""
        if not self.heads:
            return rows
        halves = rows.reshape(self.heads, 2, len(rows) // self.heads // 2, *rows.shape[1:])
        return halves.swapaxes(1, 2).reshape(rows.shape)


@attrs.frozen
class _BaseFile:
    """The GGUF file that a run was tuned from.

    weights  the tensors that textgen reads from it, by the names of transformers
    names    the names of transformers, by those of GGUF
    """

    path: Path
    reader: gguf.GGUFReader
    weights: Mapping[str, Any]
    names: Mapping[str, str]

    @classmethod
    def open(cls, path: Path) -> _BaseFile:
        """Raises UsageError if `gguf` does not know the architecture."""
        reader = gguf.GGUFReader(path)
        architecture = reader.fields["general.architecture"].contents()
        number = {name: key for key, name in gguf.MODEL_ARCH_NAMES.items()}.get(architecture)
        if number is None:
            raise UsageError(
                f"the package gguf does not know the architecture {architecture!r} of {path}; "
                "a newer release may"
            )
        blocks = reader.fields[f"{architecture}.block_count"].contents()
        known = gguf.get_tensor_name_map(number, blocks)
        weights = converted(path).tensors()
        named = {known.get_name(name, (".weight", ".bias")): name for name in weights}
        return cls(path, reader, weights, {ours: name for ours, name in named.items() if ours})

    @property
    def architecture(self) -> str:
        """The name of the architecture, as llama.cpp has it."""
        return str(self.value("general.architecture"))

    def value(self, key: str) -> Any:
        """A value of the metadata; None if there is none."""
        field = self.reader.fields.get(key)
        return None if field is None else field.contents()

    def layout(self, name: str, values: Array) -> _Layout:
        """The order of the tensor `name`, with dequantised `values`, found by comparing them with
        what textgen has read. Raises UsageError if it has another one than those that are known.
        """
        weight = _numpy(self.weights[self.names[name]])
        fitting = [
            layout
            for layout in self._layouts(name)
            if weight.ndim == 2 or not layout.is_transposed
            if (ordered := layout.apply(weight)).shape == values.shape
            and np.allclose(ordered, values, rtol=2**-7, atol=1e-12)  # read as bfloat16
        ]
        if not fitting:
            raise UsageError(
                f"{self.path} has {name} in an order that textgen cannot write; export a folder, "
                f"and convert that: {convert_command(adapter=False)}"
            )
        return fitting[0]

    def _layouts(self, name: str) -> Iterator[_Layout]:
        yield _Layout()
        yield _Layout(is_transposed=True)
        key = {"attn_q": "head_count", "attn_k": "head_count_kv"}.get(name.split(".")[-2])
        heads = self.value(f"{self.architecture}.attention.{key}") if key else None
        if isinstance(heads, int):
            yield _Layout(heads=heads)


def convert_command(*, adapter: bool) -> str:
    """The commands of llama.cpp that convert an exported folder."""
    if adapter:
        return "python convert_lora_to_gguf.py FOLDER --base BASE --outfile NAME.gguf"
    return "python convert_hf_to_gguf.py FOLDER --outfile NAME.gguf"


def write_model(
    generator: Generator, name: str, base: Path, path: Path, *, kind: str, chat_template: bool
) -> None:
    """Write the model of a run that was tuned from the GGUF file `base` to the new file `path`, as
    the model `name`.

    Tensors that have not changed are those of the base, byte for byte, in any encoding. Those that
    have are encoded as `kind`, a key of FILE_TYPES.

    Raises UsageError for a model that cannot be written, and OSError.
    """
    opened = _BaseFile.open(base)
    _check_tokenizer(generator, base)
    encoding, file_type = FILE_TYPES[kind]
    metadata = _metadata(opened, generator, name, chat_template=chat_template)
    metadata["general.file_type"] = (int(file_type), gguf.GGUFValueType.UINT32)
    version = (gguf.GGML_QUANT_VERSION, gguf.GGUFValueType.UINT32)
    metadata["general.quantization_version"] = version
    _write(path, opened.architecture, metadata, _merged(opened, generator, encoding))


def write_adapter(generator: Generator, name: str, base: Path, path: Path) -> None:
    """Write the adapter of a run with [model.lora], whose base is the GGUF file `base`, to the new
    file `path`, as llama.cpp's `--lora` reads it. Raises as `write_model` does.
    """
    opened = _BaseFile.open(base)
    _check_tokenizer(generator, base)
    model: LoRAModel = generator.model  # type: ignore[assignment]
    weights, rank = model.combined_adapter()
    about = {
        key: value
        for key, value in _metadata(opened, generator, name, chat_template=False).items()
        if key.startswith("general.")
    }
    metadata = {
        **about,
        "general.type": ("adapter", gguf.GGUFValueType.STRING),
        "adapter.type": ("lora", gguf.GGUFValueType.STRING),
        "adapter.lora.alpha": (float(rank), gguf.GGUFValueType.FLOAT32),  # a factor of 1
    }
    _write(path, opened.architecture, metadata, _adapter_tensors(opened, weights))


def _merged(base: _BaseFile, generator: Generator, encoding: Encoding) -> list[_Tensor]:
    """The tensors of the base with what training has added."""
    model: Any = generator.model
    after = dict(model.model.state_dict())
    changed = {
        name for name, weight in base.weights.items() if not weight.float().equal(after[name])
    }
    written = {name for ours in base.reader.tensors if (name := base.names.get(ours.name))}
    stored = {after[name].data_ptr() for name in written}
    if lacking := [name for name in changed if after[name].data_ptr() not in stored]:
        raise UsageError(
            f"{base.path} has no tensor for {min(lacking)}; export a folder, and convert that: "
            f"{convert_command(adapter=False)}"
        )
    tensors = []
    for ours in base.reader.tensors:
        shape = tuple(int(size) for size in ours.shape[::-1])
        name = base.names.get(ours.name)
        if name not in changed:
            tensors.append(_Tensor(ours.name, shape, ours.tensor_type, partial(_bytes, ours)))
            continue
        chosen = _encoding(shape, encoding)
        make = partial(_sum, base, ours, after[name], chosen)
        tensors.append(_Tensor(ours.name, shape, chosen, make))
    return tensors


def _bytes(tensor: gguf.ReaderTensor) -> Array:
    return tensor.data


def _sum(base: _BaseFile, tensor: gguf.ReaderTensor, after: Any, encoding: Encoding) -> Array:
    """The tensor of the base with the change of a weight."""
    values = dequantize(tensor.data, tensor.tensor_type)
    layout = base.layout(tensor.name, values)
    change = _numpy(after) - _numpy(base.weights[base.names[tensor.name]])
    return quantize(values + np.ascontiguousarray(layout.apply(change)), encoding)


def _encoding(shape: tuple[int, ...], encoding: Encoding) -> Encoding:
    """The encoding of a changed tensor, as llama.cpp's converter chooses it."""
    if len(shape) == 1:
        return Encoding.F32
    block, _ = gguf.GGML_QUANT_SIZES[encoding]
    return encoding if shape[-1] % block == 0 else Encoding.F16


def _adapter_tensors(base: _BaseFile, weights: Mapping[str, Any]) -> list[_Tensor]:
    """The matrices A (rank, inputs) and B (outputs, rank) of each layer, under GGUF's names."""
    names = {name: ours for ours, name in base.names.items()}
    stored = {tensor.name: tensor for tensor in base.reader.tensors}
    tensors = []
    for key in sorted(name for name in weights if ".lora_A." in name):
        layer = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        ours = names.get(f"{layer}.weight", "")
        if ours not in stored:
            raise UsageError(
                f"{base.path} has no tensor for {layer}; export a folder, and convert that: "
                f"{convert_command(adapter=True)}"
            )
        tensor = stored[ours]
        layout = base.layout(ours, dequantize(tensor.data, tensor.tensor_type))
        a = _numpy(weights[key])
        b = layout.order_rows(_numpy(weights[key.replace(".lora_A.", ".lora_B.")]))
        for suffix, matrix in (("lora_a", a), ("lora_b", np.ascontiguousarray(b))):
            make = partial(np.asarray, matrix)
            tensors.append(_Tensor(f"{ours}.{suffix}", matrix.shape, Encoding.F32, make))
    return tensors


def _metadata(
    base: _BaseFile, generator: Generator, name: str, *, chat_template: bool
) -> dict[str, tuple[Any, ...]]:
    """The metadata of the base, as of a model that was made of it: values with their types."""
    skipped = _NOT_COPIED if chat_template else (*_NOT_COPIED, _TEMPLATES)
    made: dict[str, tuple[Any, ...]] = {}
    text = gguf.GGUFValueType.STRING
    made["general.name"] = (name, text)
    made["general.base_model.count"] = (1, gguf.GGUFValueType.UINT32)
    made["general.base_model.0.name"] = (base.path.stem, text)
    for about in _ABOUT_BASE:
        if (value := base.value(f"general.{about}")) is not None:
            made[f"general.base_model.0.{about}"] = (value, text)
    made |= _sampling(generator)
    for key, field in base.reader.fields.items():
        value = field.contents()
        if not key.startswith(skipped) and value != []:  # which the package gguf cannot write
            made[key] = (value, *dict.fromkeys(field.types))
    end: int | None = getattr(generator.tokenizer, "end_id", None)
    if end is not None:  # the run has learned where texts end
        made["tokenizer.ggml.eos_token_id"] = (end, gguf.GGUFValueType.UINT32)
    return made


def _sampling(generator: Generator) -> dict[str, tuple[Any, ...]]:
    """The run's sampling settings, which llama.cpp takes where its user gives none."""
    settings = sampling(generator)
    names = {
        "temp": "temperature",
        "top_p": "top_p",
        "min_p": "min_p",
        "penalty_repeat": "repeat_penalty",
    }
    kinds = gguf.GGUFValueType
    whole = {"top_k": settings["top_k"], "penalty_last_n": -1}  # of the whole context
    return {
        f"general.sampling.{ours}": (float(settings[theirs]), kinds.FLOAT32)
        for ours, theirs in names.items()
    } | {f"general.sampling.{name}": (int(value), kinds.INT32) for name, value in whole.items()}


def _check_tokenizer(generator: Generator, base: Path) -> None:
    import tokenizers

    own = as_library(generator.tokenizer)
    given = tokenizers.Tokenizer.from_str(converted(base).tokenizer)
    if own is None or own.get_vocab() != given.get_vocab():
        raise UsageError(
            f"the run has another tokenizer than {base}, whose tokenizer the file would have; "
            f"export a folder, and convert that: {convert_command(adapter=False)}"
        )


def _write(
    path: Path, architecture: str, metadata: Mapping[str, tuple[Any, ...]], tensors: list[_Tensor]
) -> None:
    """Write a GGUF file, whole or not at all."""
    writer = gguf.GGUFWriter(None, architecture)
    for key, (value, kind, *inner) in metadata.items():
        writer.add_key_value(key, value, kind, sub_type=inner[0] if inner else None)
    for tensor in tensors:
        dtype = np.dtype(np.float32)  # the encoding says more
        size = tensor.size
        writer.add_tensor_info(tensor.name, tensor.shape, dtype, size, raw_dtype=tensor.encoding)
    with new_file(path) as file:
        writer.fout, writer.state = [file], WriterState.EMPTY  # type: ignore[list-item]
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor in tensors:
            writer.write_padding(file, file.tell())
            file.write(np.ascontiguousarray(tensor.make()).data)  # tofile hides why it fails
        writer.write_padding(file, file.tell())


def _numpy(tensor: Any) -> Array:
    """A tensor of torch as float32."""
    array: Array = tensor.detach().cpu().float().numpy()
    return array
