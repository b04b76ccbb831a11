"""Results of generation: texts, and the states from which they continue."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeAlias

import attrs
import numpy as np
import numpy.typing as npt
from attrs.validators import and_, deep_iterable, ge, lt

from textgen import display
from textgen.errors import CorruptFileError, RunError, TextgenError, UsageError
from textgen.files.durable import write_atomic
from textgen.files.opening import MALFORMED_DATA, translating_corruption
from textgen.files.paths import path_of
from textgen.files.reading import parse_json, read_bytes
from textgen.files.tensors import dump_tensors, load_tensors
from textgen.pipeline.options import is_seed
from textgen.plugin.strict_json import checked_json
from textgen.protocols import Floats, Ids, Tensors

FinishReason: TypeAlias = Literal["end", "length", "stop", "time", "cancelled"]
"""Why a text ended: by the model or a sampler, `max_new_tokens`, a stop text or token,
`time_limit`, or `cancelled`."""


_ID: Final = and_(ge(0), lt(2**31))
_ARRAYS: Final = ("decoder", "history", "memory")


@attrs.frozen
class TokenLogprobs:
    """Log-probabilities of a token and of the most likely ones, before any sampler.

    token    the id
    logprob  in nats; None for the first token of an echoed prompt, which has none
    top      (id, log-probability) of the most likely tokens, in descending order
    rank     the token's rank among all tokens, from 1; None if `logprob` is None
    """

    token: int
    logprob: float | None
    top: tuple[tuple[int, float], ...]
    rank: int | None = None

    @classmethod
    def of(cls, row: Floats, token: int, top: int) -> Self:
        """Make one of the log-probabilities (V,) of all tokens.

        The lower id of two equal ones comes first.
        """
        best = np.argsort(-row, kind="stable")[:top] if top else ()
        rank = 1 + np.count_nonzero(row > row[token]) + np.count_nonzero(row[:token] == row[token])
        likeliest = tuple((int(i), float(row[i])) for i in best)
        return cls(token, float(row[token]), likeliest, int(rank))


@attrs.frozen(eq=False, kw_only=True)
class GenerationState:
    """The state of a text, from which it can be continued on any machine that has the run.

    decoder      state of the decoder: arrays by name, for one sequence
    history      lengths, token counts and sampler states: arrays by name, for one sequence
    pending      ids that have not been fed to the decoder
    seed, index  those of the random numbers
    model        checksum of the weights
    tail         the last ids of the text
    open_end     the end of the text, if it may begin a stop text
    made         number of tokens generated since the last prompt
    held         whether a space at the end of the prompt is left to the first token
    priming      ids that are fed before the text of a lane without the prompt
    strategy     name of the strategy, if its lanes can be continued
    lanes        for each lane, what it continues, as in Moves.lanes, where 0 is the text; then the
                 ids fed since, and -1 if it has ended
    memory       state of the strategy: arrays by name
    """

    decoder: dict[str, Any] = attrs.field(repr=False)
    history: dict[str, Any] = attrs.field(repr=False)
    pending: tuple[int, ...] = attrs.field(validator=deep_iterable(_ID))
    seed: int = attrs.field(default=0, validator=is_seed)
    index: int = attrs.field(default=0, validator=is_seed)
    model: str = ""
    tail: tuple[int, ...] = attrs.field(default=(), validator=deep_iterable(_ID))
    open_end: str = ""
    made: int = attrs.field(default=0, validator=ge(0))
    held: bool = False
    priming: tuple[int, ...] = attrs.field(default=(), validator=deep_iterable(_ID))
    strategy: str = ""
    lanes: tuple[tuple[int, ...], ...] = ()
    memory: dict[str, Any] = attrs.field(factory=dict, repr=False)

    def save(self, path: str | Path) -> None:
        """Write the state to a safetensors file, atomically. Raises RunError if it fails."""
        file = path_of(path, "path")
        values = attrs.asdict(self, filter=lambda field, _: field.name not in _ARRAYS)
        kept = {"values": np.frombuffer(json.dumps(values).encode(), np.uint8)}
        for kind in _ARRAYS:
            kept |= {f"{kind}.{name}": array for name, array in getattr(self, kind).items()}
        data = dump_tensors({**kept, "checksum": _checksum(kept)})
        try:
            write_atomic(file, data)
        except OSError as error:
            raise RunError(f"{path} cannot be written: {error.strerror or error}", file) from error

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file written by `save`. Raises CorruptFileError if it is missing or damaged."""
        path = path_of(path, "path")
        data = read_bytes(path, tensors=True)
        with translating_corruption(path, "it is not a saved state of a generation"):
            arrays = load_tensors(path, data)
            if not np.array_equal(arrays.pop("checksum"), _checksum(arrays)):
                raise CorruptFileError(path, "it is not as it was saved: its checksum differs")
            values = parse_json(arrays.pop("values").tobytes())
            state = checked_json(cls, {**values, **{kind: {} for kind in _ARRAYS}}, path)
            for name, array in arrays.items():
                kind, _, name = name.partition(".")
                getattr(state, kind)[name] = array
            return state


@contextlib.contextmanager
def reading_state() -> Iterator[None]:
    """Turn any fault of a saved state, which a stranger may have written, into a UsageError."""
    try:
        yield
    except TextgenError:
        raise
    except MALFORMED_DATA as error:
        cause = "the saved state does not fit the model and the samplers of this run"
        raise UsageError(f"{cause}: {error}", argument="state") from error


def _checksum(arrays: Tensors) -> npt.NDArray[np.uint8]:
    """The SHA-256 of arrays, their names and dtypes: safetensors itself accepts a flipped byte."""
    return np.frombuffer(hashlib.sha256(dump_tensors(arrays)).digest(), np.uint8)


@attrs.frozen
class RankedText:
    """A candidate of a strategy, with its score. Higher is better."""

    text: str
    tokens: tuple[int, ...] = attrs.field(repr=False)
    score: float


@attrs.frozen(kw_only=True)
class Generation:
    """A generated text. `str()` gives prompt and continuation.

    prompt         the prompt as a string
    prompt_ids     the ids (T,) of the prompt; followed by `tokens`, they decode to prompt and text
    text           the continuation without a stop text; with `echo`, prompt and continuation
    tokens         the generated ids, including the one that ended the text
    finish_reason  "end" (by the model or a sampler), "length", "stop", "time" or "cancelled"
    seed, index    reproduce the text, with the same prompt and options
    logprobs       one entry per generated token if `logprobs` was given, and with `echo` per prompt
                   token; otherwise empty
    state          the state for `generate(state=...)`, if `keep_state` was given
    ranked         the candidates of a strategy, best first; empty for a sampled text
    """

    prompt: str
    text: str
    tokens: tuple[int, ...] = attrs.field(repr=False)
    finish_reason: FinishReason
    seed: int
    index: int = 0
    echo: bool = False
    logprobs: tuple[TokenLogprobs, ...] = attrs.field(default=(), repr=False)
    state: GenerationState | None = attrs.field(default=None, repr=False, eq=False)
    prompt_ids: Ids = attrs.field(default=np.empty(0, np.int64), repr=False, eq=False)
    ranked: tuple[RankedText, ...] = attrs.field(default=(), repr=False)

    def __str__(self) -> str:
        return self.text if self.echo else self.prompt + self.text

    def _repr_html_(self) -> str:
        """The text and why it ended, for notebooks."""
        return display.styled(self._html())

    def _html(self) -> str:
        note = (
            f"{self.finish_reason}, {len(self.tokens)} tokens, seed {self.seed}, index {self.index}"
        )
        return display.written("" if self.echo else self.prompt, self.text, note)


class Generations(tuple[Generation, ...]):
    """Generated texts, which notebooks display as a table.

    `Generations(generator.generate_many(...))` makes one, and `Run.generations` is one.
    """

    __slots__ = ()

    def _repr_html_(self) -> str:
        return display.styled(display.numbered(made._html() for made in self))
