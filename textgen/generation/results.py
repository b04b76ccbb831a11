"""What generation gives: a whole text, or the next piece of one of several."""

from __future__ import annotations

import attrs

from textgen.generation.decoding import FinishReason, TokenLogprobs
from textgen.generation.state import GenerationState


@attrs.frozen(kw_only=True)
class Generation:
    """A generated text. `str()` of it is prompt and continuation together.

    text           the continuation; with `echo`, the prompt before it. What ended it is not in it
    tokens         the generated ids
    finish_reason  "length", "stop", "time" or "cancelled"
    seed, index    with the same of these and the same prompt, the same text comes again
    logprobs       if asked for, one entry per token (with `echo`, per prompt token before them)
    state          if asked for, what `generate(state=...)` goes on from
    """

    prompt: str
    text: str
    tokens: tuple[int, ...]
    finish_reason: FinishReason
    seed: int
    index: int = 0
    echo: bool = False
    logprobs: tuple[TokenLogprobs, ...] | None = None
    state: GenerationState | None = attrs.field(default=None, repr=False, eq=False)

    def __str__(self) -> str:
        return self.text if self.echo else self.prompt + self.text


@attrs.frozen
class Piece:
    """Of several texts that are streamed at once: what came next of one of them.

    index          which one: the `index` with which `generate` gives the same text
    text           may be empty in the last piece, and only there
    finish_reason  None while more is to come
    """

    index: int
    text: str
    finish_reason: FinishReason | None = None
