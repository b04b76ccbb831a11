"""Keys and values of attention, as tensors and as a cache of transformers."""

from __future__ import annotations

from functools import cache as cached
from typing import Any, Final, TypeAlias

from torch import Tensor

State: TypeAlias = tuple[Tensor, ...]
"""Per layer keys and values, each (B, heads, T, size of a head); or the tokens (B, T) of an
architecture without.
"""

_SPARE: Final = 64  # tokens, or an eighth more than there are: room in keys and values


def make_cache(state: State) -> Any:
    """A cache of transformers that holds the keys and values of `state`."""
    from transformers import DynamicCache

    return DynamicCache(list(zip(state[::2], state[1::2], strict=True)) or None)


def cache_parts(cache: Any) -> State:
    """The keys and values of each layer."""
    return tuple(part for layer in cache.layers for part in (layer.keys, layer.values))


def make_growing_cache(state: State) -> Any:
    """One for inference, that takes tokens in without a copy of those before them."""
    made = make_cache(())
    made.layer_class_to_replicate = _growing_layer()
    for layer in range(len(state) // 2):
        made.update(*state[2 * layer : 2 * layer + 2], layer)
    return made


@cached
def _growing_layer() -> Any:
    from transformers.cache_utils import DynamicLayer

    class GrowingLayer(DynamicLayer):
        """Keys and values at the beginning of tensors with room for more."""

        def update(
            self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
        ) -> tuple[Tensor, Tensor]:
            """Keys and values of all tokens, after new ones (B, heads, T, size of a head)."""
            if not self.is_initialized:
                self.lazy_initialization(key_states, value_states)  # type: ignore[no-untyped-call]
                self.room: list[Tensor] = []
            past = self.get_seq_length()
            length = past + key_states.shape[2]
            if not self.room or length > self.room[0].shape[2]:
                wide = length + max(_SPARE, length // 8)
                known, self.room = (self.keys, self.values), []
                for new, old in zip((key_states, value_states), known, strict=True):
                    self.room.append(new.new_empty(*new.shape[:2], wide, new.shape[3]))
                    if past and old is not None:
                        self.room[-1][:, :, :past] = old
            for new, room in zip((key_states, value_states), self.room, strict=True):
                room[:, :, past:length] = new
            self.keys, self.values = (room[:, :, :length] for room in self.room)
            return self.keys, self.values

    return GrowingLayer
