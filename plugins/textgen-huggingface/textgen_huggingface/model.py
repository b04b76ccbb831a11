"""A causal language model of transformers as a model of textgen."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from textgen import UsageError
from textgen.protocols import Decoder, Tensors
from textgen.threads import free_threads
from textgen_huggingface.cache import State, cache_parts, make_cache
from textgen_huggingface.decoder import HuggingFaceDecoder, HuggingFaceRowDecoder, can_pad
from textgen_huggingface.eight_bits import write_in_eight_bits, write_plainly
from textgen_huggingface.model_config import (
    context_length,
    draws_while_training,
    scales_with_length,
)
from textgen_huggingface.own_generator import OwnGenerator


class HuggingFaceModel(nn.Module):
    """textgen.protocols.Model around a model of transformers.

    model           the model, as transformers made it
    vocab_size      V of the tokenizer; logits of what the model knows beyond (padding of its
                    vocabulary) are cut off
    start_tokens    what is fed in place of nothing, for the logits of a first token; none gives
                    equal logits
    context_length  the tokens it can attend to at once, None without a limit
    caches          whether it fills a plain cache of keys and values
    pads            whether rows of different lengths can share a batch
    begin           the token that stood before every text when a model that was loaded was made,
                    and so is the first of every context; None if none did
    """

    begin: int | None = None

    def __init__(self, model: Any, vocab_size: int, start_tokens: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.model, self.vocab_size, self.start_tokens = model, vocab_size, start_tokens
        self.context_length = context_length(model.config)
        accepted = inspect.signature(model.forward).parameters
        self._cache_argument = next(
            (name for name in ("cache", "past_key_values") if name in accepted), None
        )
        self._keeps_last, self._takes_positions = (
            "logits_to_keep" in accepted,
            "position_ids" in accepted,
        )
        self._draws = draws_while_training(model.config)
        self._generator = torch.Generator(self.device).manual_seed(0)
        self._rows: tuple[int, int] | None = None
        self._writes = False  # whether the layers are those to write with
        self._weights = sum(each.numel() for each in model.parameters())
        self.silence(())
        self.caches = self._cache_argument is not None and not getattr(model, "_is_stateful", False)
        self._examine()
        self.pads = (
            self.caches
            and "attention_mask" in accepted
            and not scales_with_length(model.config)
            and can_pad(self)
        )

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.model.parameters()).device  # type: ignore[no-any-return]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return next(self.model.parameters()).dtype  # type: ignore[no-any-return]

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """tokens (B, T) int64 to logits (B, T, V) float32 and the state after them.

        A state that would not leave room for the tokens in the context is let go: they are read
        from the start. Raises UsageError when the tokens alone are more than the context holds.
        """
        length = tokens.shape[1]
        tokens, state = self._with_room(tokens, state)
        if not self.caches:
            tokens = torch.cat([*state, tokens], dim=1)
            return self.run(tokens)[:, -length:], (tokens,)
        cache = make_cache(state)
        logits = self.run(tokens, cache)
        return logits[:, -length:], cache_parts(cache)

    def _with_room(self, tokens: Tensor, state: State | None) -> tuple[Tensor, State]:
        """The tokens and the state; or if the context has no room for the tokens after it, or there
        is none, an empty one, and the tokens after that which begins every context.
        """
        begins = int(self.begin is not None)
        if self.context_length is not None and begins + tokens.shape[1] > self.context_length:
            raise UsageError(
                f"{tokens.shape[1]} tokens at once are more than the model's context of "
                f"{self.context_length} holds; "
                "lower data.window_length, or raise the positions in [model.config] (n_positions, "
                "max_position_embeddings)"
            )
        past = state[0].shape[2 if self.caches else 1] if state else 0
        fits = self.context_length is None or past + tokens.shape[1] <= self.context_length
        if state and fits:
            return tokens, state
        if self.begin is not None:
            tokens = functional.pad(tokens, (1, 0), value=self.begin)
        return tokens, ()

    def run(
        self,
        tokens: Tensor,
        cache: Any = None,
        *,
        padding: Tensor | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """Logits (B, T, V), or (B, 1, V) of the last token alone; `cache` takes in the keys and
        values.

        padding  (B,) int64: how many of the first columns of the cache are no tokens of the row
        """
        arguments: dict[str, Any] = {"use_cache": cache is not None}
        if cache is not None:
            arguments[str(self._cache_argument)] = cache
        if padding is not None:
            past = cache.get_seq_length()
            columns = torch.arange(past + tokens.shape[1], device=self.device)
            arguments["attention_mask"] = (columns >= padding[:, None]).long()
            if self._takes_positions:
                arguments["position_ids"] = columns[past:] - padding[:, None]
        if last_only and self._keeps_last:
            arguments["logits_to_keep"] = 1
        with self._drawing(tokens):
            logits = self.model(input_ids=tokens, **arguments).logits
        chosen: Tensor = (
            logits[:, -1:, : self.vocab_size] if last_only else logits[..., : self.vocab_size]
        )
        return (
            chosen.float().index_fill(-1, self._silent, -torch.inf)
            if self._silent.numel()
            else chosen.float()
        )

    def silence(self, ids: Sequence[int]) -> None:
        """Give the tokens `ids`, which stand for no text, the logit -inf from now on."""
        self._silent = torch.tensor(ids, dtype=torch.int64, device=self.device)

    def _drawing(self, tokens: Tensor) -> AbstractContextManager[object]:
        """In the block, random numbers for tokens (B, T) come from the model's own generator."""
        if not (self._draws and self.training):
            return nullcontext()
        rows = self._rows and (self._rows[0], len(tokens), self._rows[1])
        return OwnGenerator(self._generator, rows)

    def set_dropout_seed(self, seed: int) -> None:
        """Make the dropout of the next step depend on `seed` alone."""
        if self._draws:
            self._generator.manual_seed(seed)

    def set_rows(self, first: int, total: int) -> None:
        """Make the dropout of the next step that of these rows of a batch of `total`, whoever
        computes the others.
        """
        self._rows = (first, total)

    def threads(self) -> AbstractContextManager[None]:
        """In the block, the threads that compute the model on a CPU: as many as are free, or one
        for a small model.
        """
        return free_threads(self._weights) if self.device.type == "cpu" else nullcontext()

    def decoder(self, batch_size: int) -> Decoder:
        """A decoder that keeps keys and values; of a large model on a CPU that nothing trains, one
        that computes with weights of 8 bits.
        """
        if not self._writes and not any(each.requires_grad for each in self.parameters()):
            with self.threads():
                write_in_eight_bits(self.model)
            self._writes = True
        return (HuggingFaceRowDecoder if self.pads else HuggingFaceDecoder)(self, batch_size)

    def tensors(self) -> Tensors:
        """The weights by the names of transformers, tied ones once; on a CPU they share memory with
        the module.
        """
        return {
            name: tensor.detach().cpu().numpy() for name, tensor in self._named_tensors().items()
        }

    def load_tensors(self, tensors: Tensors) -> None:
        """Copy weights in. Raises ValueError where names, shapes or dtypes differ."""
        self._copy_in(tensors)

    def _copy_in(self, tensors: Tensors) -> None:
        write_plainly(self.model)
        self._writes = False
        own = self._named_tensors()
        differences = [f"{name} is missing" for name in own if name not in tensors]
        differences += [f"{name} is not known" for name in tensors if name not in own]
        for name in own.keys() & tensors.keys():
            expected, given = own[name].detach().cpu().numpy(), tensors[name]
            if expected.shape != given.shape or expected.dtype != given.dtype:
                differences.append(
                    f"{name} is {given.dtype} {given.shape}, and should be "
                    f"{expected.dtype} {expected.shape}"
                )
        if differences:
            shown = "; ".join(differences[:5])
            raise ValueError(
                shown + (f"; and {len(differences) - 5} more" if len(differences) > 5 else "")
            )
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(torch.from_numpy(np.asarray(tensors[name], order="C")))

    def _named_tensors(self) -> dict[str, Tensor]:
        """Tensors that transformers would save: of weights that are the same, the first name."""
        named: dict[str, Tensor] = {}
        seen: set[int] = set()
        for name, tensor in self.model.state_dict(keep_vars=True).items():
            if id(tensor) not in seen:
                seen.add(id(tensor))
                named[name] = tensor
        return named

    @torch.inference_mode()
    def _examine(self) -> None:
        """Find out whether the model fills a plain cache, and refuse one that looks at later
        tokens.
        """
        self.eval()
        length = min(2, self.context_length or 2)
        tokens = torch.zeros((2, length), dtype=torch.int64, device=self.device)
        tokens[1, -1] = self.vocab_size - 1
        cache = make_cache(()) if self.caches else None
        logits = self.run(tokens, cache)
        rounding = 1e-4 if self.dtype == torch.float32 else 1e-2
        if length == 2 and not torch.allclose(
            logits[0, 0], logits[1, 0], rtol=rounding, atol=rounding / 10, equal_nan=True
        ):
            raise ValueError("its logits depend on later tokens, so it is no causal language model")
        layers = getattr(cache, "layers", ())
        self.caches = bool(layers) and all(
            type(layer).__name__ == "DynamicLayer" and layer.get_seq_length() == length
            for layer in layers
        )
