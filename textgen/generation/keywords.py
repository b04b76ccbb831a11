"""The keywords of a request, for editors and type checkers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from textgen.generation.texts.results import GenerationState
    from textgen.pipeline.options import UnknownCharacters
    from textgen.protocols import Ids, Table


class RequestKeywords(TypedDict, total=False):
    """Types of RequestOptions, and of the options of built-in samplers and strategies.

    Pass options of other plugins as `**options`, with a `dict[str, Any]`.
    """

    max_new_tokens: int | None
    min_new_tokens: int | None
    stop: str | Sequence[str] | None
    stop_tokens: Sequence[int] | Ids | None
    ignore_end: bool | None
    time_limit: float | None
    seed: int | Literal["random"] | None
    echo: bool | None
    unknown_characters: UnknownCharacters | None
    index: int | None
    cancelled: Callable[[], bool] | None
    logprobs: int | None
    state: GenerationState | None
    keep_state: bool
    cache_salt: str
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    logit_bias: Mapping[Any, float] | None
    dry_multiplier: float | None
    dry_allowed_length: int | None
    regex: str | None
    json_schema: str | Table | None
    xtc_probability: float | None
    xtc_threshold: float | None
    strategy: str | Table | None
    beams: int | None
    beam_groups: int | None
    diversity_penalty: float | None
    best_of: int | None
    negative_prompt: str | None
    guidance_scale: float | None
    ban_phrase: Sequence[str] | None
    suffix: str | None
    candidates: int | None
