"""Keys and values of attention, as tensors and as a cache of transformers."""

from __future__ import annotations

from typing import Any, TypeAlias

from torch import Tensor

State: TypeAlias = tuple[Tensor, ...]
"""Per layer keys and values, each (B, heads, T, size of a head); or the tokens (B, T) of an
architecture without.
"""


def make_cache(state: State) -> Any:
    """A cache of transformers that holds the keys and values of `state`."""
    from transformers import DynamicCache

    return DynamicCache(list(zip(state[::2], state[1::2], strict=True)) or None)


def cache_parts(cache: Any) -> State:
    """The keys and values of each layer."""
    return tuple(part for layer in cache.layers for part in (layer.keys, layer.values))
