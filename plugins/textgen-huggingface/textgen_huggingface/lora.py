"""Adapters of low rank on the frozen weights of a model (LoRA, Hu and others, 2021), by peft."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.lora import Linear
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from textgen import BuildContext, Fault, PipelineError, UsageError
from textgen.protocols import Tensors
from textgen_huggingface.cache import State, cache_parts, make_cache
from textgen_huggingface.lean import AddAdapter, HeadLosses, make_lean
from textgen_huggingface.model import HuggingFaceModel
from textgen_huggingface.model_folder import ADAPTER, ADAPTER_FILES, alone, find_file
from textgen_huggingface.options import HuggingFaceConfig
from textgen_huggingface.own_generator import OwnGenerator

BASE: Final = "base_sha256"
"""The name, among the weights of a run, of what identifies the model that they adapt."""
_PREFIX: Final = "base_model.model."  # as peft saves the weights of an adapter
_NAME: Final = "default"  # of the adapter, within peft


def training_dtype(device: str) -> torch.dtype:
    """The dtype of frozen weights: bfloat16 where the device computes with it, else float32."""
    if device.startswith("cuda"):
        is_built_in = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has = torch.cpu.get_capabilities() if device == "cpu" else {}
        is_built_in = bool(has.get("avx512_bf16") or has.get("amx_bf16") or has.get("bf16"))
    return torch.bfloat16 if is_built_in else torch.float32


def peft_config(options: HuggingFaceConfig) -> LoraConfig:
    """The adapters as peft describes them."""
    assert options.lora is not None
    return LoraConfig(
        r=options.lora.rank,
        lora_alpha=options.lora.alpha or options.lora.rank,
        lora_dropout=options.lora.dropout,
        target_modules=list(options.lora.targets) or "all-linear",
        task_type="CAUSAL_LM",
        base_model_name_or_path=str(options.path),
        inference_mode=True,
    )


def with_adapter(model: Any, folder: Path) -> Any:
    """The model with the adapter that peft has written to a folder added to its weights.

    Raises PipelineError, ValueError where that lacks weights in safetensors or fits another model,
    and what peft raises.
    """
    given, config = _read_adapter(folder)
    inject_adapter_in_model(config, model, _NAME)
    named = {name.removeprefix(_PREFIX): each for name, each in given.items()}
    loaded: Any = set_peft_model_state_dict(model, named, _NAME)  # torch leaves its fields untyped
    if loaded.unexpected_keys:
        raise ValueError(f"the model has no {loaded.unexpected_keys[0]}")
    for name, layer in [*model.named_modules()]:
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
            model.set_submodule(name, layer.get_base_layer())
    del model.peft_config  # it is as if there had never been one
    return model.requires_grad_(True)


def _read_adapter(folder: Path) -> tuple[dict[str, Tensor], LoraConfig]:
    """The weights and the config of an adapter in a folder.

    The layers that it adapts are those whose weights it has: in the config they may be a regular
    expression, and matching that could take for ever. Raises as `with_adapter` does.
    """
    files = [find_file(folder, name, "model.adapter") for name in ADAPTER_FILES]
    for name, file in zip(ADAPTER_FILES, files, strict=True):
        if file is None:
            raise ValueError(f"it has no {name}")
    with alone(filter(None, files)) as own:
        weights, config = load_file(own / ADAPTER), LoraConfig.from_pretrained(str(own))
    if config.modules_to_save or getattr(config, "trainable_token_indices", None):
        raise ValueError("it has whole layers or tokens beside adapters")
    if getattr(config, "layer_replication", None):
        raise ValueError("it repeats layers of the model")
    for pattern in {**config.rank_pattern, **config.alpha_pattern}:
        if not re.fullmatch(r"\^?[\w.]+", pattern):
            raise ValueError(f"{pattern!r} among its ranks or factors is not the name of a layer")
    layers = {name.removeprefix(_PREFIX).partition(".lora_")[0] for name in weights}
    config.target_modules, config.exclude_modules = layers, None
    config.layers_to_transform = config.layers_pattern = None
    return weights, config


class LoRAModel(HuggingFaceModel):
    """A model whose weights are frozen, and an adapter to each of its linear layers that trains.

    The weights of the run are the adapters', by the names that peft gives them, and what identifies
    the base. To generate, the adapters are added to the base's weights.
    """

    def __init__(
        self,
        model: Any,
        options: HuggingFaceConfig,
        context: BuildContext,
        start_tokens: tuple[int, ...],
    ) -> None:
        assert options.lora is not None
        model.requires_grad_(False)
        generator = torch.Generator().manual_seed(context.seed)  # peft draws on the CPU
        head = model.get_output_embeddings()
        if any(
            f".{name}".endswith(f".{target}")
            for name, each in model.named_modules()
            if each is head or isinstance(each, torch.nn.Embedding)
            for target in options.lora.targets
        ):
            fault = Fault("model.lora.targets", "neither the head nor embeddings can be adapted")
            raise PipelineError([fault])
        self._config = config = peft_config(options)
        config.fan_in_fan_out = any(isinstance(module, Conv1D) for module in model.modules())
        try:
            with OwnGenerator(generator):
                inject_adapter_in_model(config, model, _NAME)
        except ValueError as error:  # no module has such a name
            raise PipelineError([Fault("model.lora.targets", str(error))]) from error
        layers = {name: m for name, m in model.named_modules() if isinstance(m, Linear)}
        for layer in layers.values():
            layer.__class__ = _Layer
            layer.requires_grad_(False)
            layer.lora_A.float().requires_grad_(context.training)
            layer.lora_B.float().requires_grad_(context.training)
        if context.training:
            make_lean(model.eval())
        super().__init__(model, context.vocab_size, start_tokens)
        files = options.fingerprint()["files"]
        digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode())
        self._base, self._path = np.frombuffer(digest.digest(), np.uint8), options.path
        self._before, self._layers, self._merges = options.adapter, layers, not context.training
        self._draws = self._draws or options.lora.dropout > 0
        self._in_blocks = self._is_plain_head()

    def token_losses(
        self, tokens: Tensor, targets: Tensor, state: State | None = None
    ) -> tuple[Tensor, State]:
        """The cross-entropy (B, T) float32 of each target, and the state, without an array of all
        logits.
        """
        if not self._in_blocks:
            logits, after = self(tokens, state)
            return functional.cross_entropy(logits.mT, targets, reduction="none"), after
        tokens, state = self._with_room(tokens, state)
        cache = make_cache(state)
        arguments = {"input_ids": tokens, "use_cache": True, str(self._cache_argument): cache}
        with self._drawing(tokens):
            hidden = self.model.base_model(**arguments)[0][:, -targets.shape[1] :]
        weight = self.model.get_output_embeddings().weight[: self.vocab_size]
        losses: Tensor = HeadLosses.apply(  # type: ignore[no-untyped-call]
            hidden.flatten(0, 1), weight, targets.flatten(), self._silent
        )
        return losses.view(targets.shape), cache_parts(cache)

    def tensors(self) -> Tensors:
        """The adapters' weights, and the base's identity."""
        named = {name: each.detach().cpu().numpy() for name, each in self._named_tensors().items()}
        return {**named, BASE: self._base.copy()}

    def load_tensors(self, tensors: Tensors) -> None:
        """Copy adapters in, and add them to the base to generate.

        Raises ValueError where names, shapes or dtypes differ, or those of another base.
        """
        given, before = dict(tensors), f" with {self._before}" if self._before else ""
        if not np.array_equal(given.pop(BASE, self._base[:0]), self._base):
            raise ValueError(
                f"they adapt another model than is in {self._path}{before}: put the files of its "
                "base there, whose SHA-256 run.json has under fingerprint.model.files"
            )
        with self.threads():
            for layer in self._layers.values():
                layer.unmerge() if layer.merged else None
            self._copy_in(given)
            for name, layer in self._layers.items() if self._merges else ():
                layer.merge()
                self.model.set_submodule(name, layer.base_layer)

    def save_adapter(self, folder: Path) -> None:
        """Write what peft opens: adapter_model.safetensors and adapter_config.json. Raises as
        `combined_adapter` does.
        """
        weights, rank = self.combined_adapter()
        config = dataclasses.replace(self._config, r=rank, lora_alpha=rank)
        config.save_pretrained(str(folder))
        save_file(weights, folder / ADAPTER, {"format": "pt"})

    def combined_adapter(self) -> tuple[dict[str, Tensor], int]:
        """The adapter's matrices by the names that peft gives them, and their rank, which is also
        their alpha. The adapter that the base had before is part of it: the matrices of both stand
        side by side.

        Raises UsageError where that has other layers, or not one rank and factor for all.
        """
        parts = [(self._config, self._named_tensors())]
        if self._before is not None:
            named, own = _read_adapter(self._before)
            parts.append((own, named))
        if any(
            config.use_rslora
            or config.rank_pattern
            or config.alpha_pattern
            or named.keys() != parts[0][1].keys()
            for config, named in parts
        ):
            raise UsageError(
                f"{self._before} adapts other layers, or not all alike: export the model as a whole"
            )
        made = {}
        for name in parts[0][1]:
            is_a = ".lora_A." in name
            scaled = [
                named[name].detach() * (1.0 if is_a else config.lora_alpha / config.r)
                for config, named in parts
            ]
            made[name] = torch.cat(scaled, 0 if is_a else 1)
        return made, sum(config.r for config, _ in parts)

    def _named_tensors(self) -> dict[str, Tensor]:
        return {
            f"{_PREFIX}{name}.{part}.weight": getattr(layer, part)[_NAME].weight
            for name, layer in self._layers.items()
            for part in ("lora_A", "lora_B")
        }

    @torch.no_grad()
    def _is_plain_head(self) -> bool:
        """Whether logits are products of hidden states and the head's weight, and nothing else:
        tried.
        """
        head = self.model.get_output_embeddings()
        if not self.caches or head is None or getattr(head, "bias", None) is not None:
            return False
        tokens = torch.arange(2, device=self.device)[None] % self.vocab_size
        hidden = self.model.base_model(input_ids=tokens, use_cache=False)[0]
        made, own = functional.linear(hidden, head.weight), self.model(tokens).logits
        return made.shape == own.shape and torch.allclose(made, own, rtol=1e-2)


class _Layer(Linear):
    """peft's, in the dtype of the base, and with the adapter in one operation."""

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        """(..., K) to (..., N)."""
        result = self.base_layer(x)
        if self.merged:
            return result  # type: ignore[no-any-return]
        a, b = self.lora_A[_NAME].weight, self.lora_B[_NAME].weight
        dropped = self.lora_dropout[_NAME](x)
        made: Tensor = AddAdapter.apply(result, dropped, a, b, self.scaling[_NAME])  # type: ignore[no-untyped-call]
        return made
