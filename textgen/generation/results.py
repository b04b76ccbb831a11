"""Results of generation: texts, and the states from which they continue."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeAlias

import attrs
import numpy as np
import numpy.typing as npt
from attrs.validators import and_, ge, lt, max_len, min_len

from textgen.errors import CorruptFileError, RunError
from textgen.files.durable import write_atomic
from textgen.files.opening import contents_of
from textgen.files.reading import dump_tensors, load_tensors, parse_json, path_of, read_tensor_bytes
from textgen.generation.sampling import log_softmax
from textgen.pipeline.options import MAX_SEED
from textgen.pipeline.records import COUNT, each, is_line, structured
from textgen.protocols import Tensors

FinishReason: TypeAlias = Literal["end", "length", "stop", "time", "cancelled"]
"""Why a text ended: the model or a sampler ended it, `max_new_tokens`, a stop text or token,
`time_limit`, or `cancelled`."""


_ID: Final = and_(ge(0), lt(2**31))


@attrs.frozen
class TokenLogprobs:
    """Log-probabilities at one token, by the model before any sampler: its own, and those of the likeliest tokens.

    token    the id
    logprob  in nats; None for the first token of an echoed prompt, which nothing predicts
    top      (id, log-probability) of the likeliest tokens, in descending order
    """

    token: int
    logprob: float | None
    top: tuple[tuple[int, float], ...]

    @classmethod
    def of(cls, logits: npt.NDArray[Any], token: int, top: int) -> Self:
        """From logits (V,); of equal log-probabilities the lower id comes first."""
        row = log_softmax(logits)
        best = np.argsort(-row, kind="stable")[:top]
        return cls(token, float(row[token]), tuple((int(i), float(row[i])) for i in best))


@attrs.frozen(eq=False)
class GenerationState:
    """Where a text stands: all that continues it exactly, on any machine that has the run.

    arrays  the decoder's state, the history and the states of samplers, each for one sequence
    values  JSON: seed and index of the random numbers, sampling options, ids that are not fed yet, the
            lengths of prompt and text, the last ids, the end of the text that a stop text may begin with, and the
            checksum of the weights
    """

    arrays: Tensors = attrs.field(repr=False)
    values: dict[str, Any]

    def save(self, path: str | Path) -> None:
        """Write it to a file atomically: safetensors, with `values` as JSON bytes. Raises RunError."""
        file = path_of(path, "path", "expected the path of a file")
        encoded = np.frombuffer(json.dumps(self.values).encode(), np.uint8)
        kept = {**self.arrays, "values": encoded}
        data = dump_tensors({**kept, "checksum": _checksum(kept)})
        try:
            write_atomic(file, data)
        except OSError as error:
            raise RunError(f"{path} cannot be written: {error.strerror or error}", file) from error

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote. Raises RunError; CorruptFileError for a file that is damaged or something else."""
        path = path_of(path, "path", "expected the path of a file")
        if not os.path.lexists(path):
            raise RunError(f"{path} cannot be read: there is no such file", path)
        data = read_tensor_bytes(path)
        with contents_of(path, "it is not a saved state of a generation"):
            arrays = load_tensors(path, data)
            checksum = arrays.pop("checksum")
            if not np.array_equal(checksum, _checksum(arrays)):
                raise CorruptFileError(path, "it is not as it was saved: its checksum differs")
            values = parse_json(arrays.pop("values").tobytes())
            structured(_Values, values, path)
            return cls(arrays, values)


@attrs.frozen
class _Values:
    """The `values` of a saved state; see GenerationState. The keys of `sampling` are options of samplers."""

    seed: int = attrs.field(validator=and_(ge(0), lt(MAX_SEED)))
    index: int = attrs.field(validator=and_(ge(0), lt(MAX_SEED)))
    pending: tuple[int, ...] = attrs.field(validator=each(_ID))
    lengths: tuple[int, ...] = attrs.field(validator=[max_len(2), min_len(2), each(COUNT)])
    tail: tuple[int, ...] = attrs.field(validator=each(_ID))
    model: str = attrs.field(validator=is_line)
    sampling: Mapping[str, Any]
    open_end: str


def _checksum(arrays: Tensors) -> npt.NDArray[np.uint8]:
    """The SHA-256 of arrays, their names and dtypes: safetensors itself accepts a flipped byte."""
    return np.frombuffer(hashlib.sha256(dump_tensors(arrays)).digest(), np.uint8)


@attrs.frozen(kw_only=True)
class Generation:
    """A generated text. `str()` of it is prompt and continuation together.

    prompt         the prompt's text
    text           the continuation; with `echo`, the prompt before it. A stop text is not part of it
    tokens         the generated ids, the one that ended the text included
    finish_reason  "end" (the model or a sampler ended it), "length", "stop", "time" or "cancelled"
    seed, index    with the same of these and the same prompt, the same text comes again
    logprobs       one entry per token if `logprobs` was given (with `echo`, per prompt token before them), else empty
    state          what `generate(state=...)` continues from, if `keep_state` was given
    """

    prompt: str
    text: str
    tokens: tuple[int, ...] = attrs.field(repr=lambda ids: f"<{len(ids)} ids>")
    finish_reason: FinishReason
    seed: int
    index: int = 0
    echo: bool = False
    logprobs: tuple[TokenLogprobs, ...] = attrs.field(default=(), repr=False)
    state: GenerationState | None = attrs.field(default=None, repr=False, eq=False)

    def __str__(self) -> str:
        return self.text if self.echo else self.prompt + self.text

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Notebooks show the text."""
        printer.text(str(self))
