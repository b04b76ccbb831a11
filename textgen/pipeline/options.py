"""The engine's own tables of a pipeline, and the keys outside any table."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeAlias

import attrs
from attrs.validators import and_, deep_iterable, ge, le, lt, max_len, min_len, optional

from textgen import devices
from textgen.plugin.component import option
from textgen.protocols import Table

UnknownCharacters: TypeAlias = Literal["error", "skip", "unknown"]
"""What to do about a character that the vocabulary lacks."""
MAX_SEED = 2**64
is_seed = and_(ge(0), lt(MAX_SEED))
MAX_NEW_TOKENS = 10**9
MAX_N = 10**6
MAX_STOPS = 1000
MAX_STOP_LENGTH = 10_000


def _check_stop(_instance: Any, _attribute: Any, value: str | tuple[str, ...]) -> None:
    texts = (value,) if isinstance(value, str) else value
    if len(texts) > MAX_STOPS or not all(0 < len(text) <= MAX_STOP_LENGTH for text in texts):
        cause = f"must hold texts of 1 to {MAX_STOP_LENGTH:,} characters"
        raise ValueError(f"{cause}, at most {MAX_STOPS:,}")


def _check_held_out(_instance: Any, _attribute: Any, value: float) -> None:
    if not (0 <= value < 1 or (isinstance(value, int) and value > 0)):
        raise ValueError("must be a share below 1, or a whole number of tokens")


@attrs.frozen
class DataOptions:
    """The split of the tokens, and their windows."""

    window_length: int = option(
        64, help="number of tokens that a window feeds to the model", validator=ge(1)
    )
    window_stride: int | None = option(
        None,
        help="number of tokens from one window's start to the next; the window length if not set",
        validator=optional(ge(1)),
    )
    validation: int | float = option(
        0.1,
        help="text held out for validation: a share of the corpus, at its end; or a number of "
        "tokens, in 16 spans of its last tenth",
        validator=_check_held_out,
    )
    windows: tuple[int, ...] | None = option(
        None,
        help="numbers of windows to train on and to validate on, from the start of the corpus; in "
        "place of validation",
        validator=optional(and_(min_len(2), max_len(2), deep_iterable(ge(0)))),
    )


@attrs.frozen(kw_only=True)
class TextOptions:
    """Length, end and seed of a text: for `[generate]`, and for requests."""

    max_new_tokens: int | None = option(
        400,
        help="largest number of tokens to add",
        validator=optional(and_(ge(0), le(MAX_NEW_TOKENS))),
    )
    min_new_tokens: int = option(
        0,
        help="number of tokens to add before a stop counts",
        validator=and_(ge(0), le(MAX_NEW_TOKENS)),
    )
    stop: str | tuple[str, ...] = option(
        (), help="texts that end the continuation, and are not part of it", validator=_check_stop
    )
    stop_tokens: tuple[int, ...] = option(
        (),
        help="ids of tokens that end the continuation, and are part of it",
        validator=max_len(MAX_STOPS),
    )
    ignore_end: bool = option(
        False, help="continue where the model ends the text, after training on documents"
    )
    time_limit: float | None = option(
        None, help="seconds after which the text ends", validator=optional(ge(0))
    )
    seed: int | None = option(
        None,
        help="seed of the random draws; the run's seed if not set",
        validator=optional(is_seed),
    )
    unknown_characters: UnknownCharacters = option(
        "error",
        help="what to do about prompt characters outside the vocabulary: error, skip, or unknown, "
        "which feeds them as <unk>",
    )

    @property
    def stops(self) -> tuple[str, ...]:
        """`stop` as a tuple."""
        return (self.stop,) if isinstance(self.stop, str) else self.stop


@attrs.frozen(kw_only=True)
class RequestOptions(TextOptions):
    """The options of a request. `textgen generate --help` describes the others.

    Defaults come from the `[generate]` table of the run; `echo` is off by default. None means no
    limit or no stop text. `seed="random"` draws a seed, which the result has.

    index       number of the text: random draws depend on seed and index. By default 0, and with
                many prompts the position of the text
    logprobs    number of most likely tokens whose log-probabilities are returned, in addition to
                those of the text's tokens
    keep_state  include the state at the end in the result. An incomplete character at the end is
                left to the continuation, as are tokens that a strategy has not decided on yet
    cache_salt  a string: asynchronous requests with equal salt may share cached states of prompts
                with the same beginning. Give users different salts if they must not be able to
                infer each other's prompts from response times. Requests whose salts differ in the
                first line take turns when texts have to wait

    A request also takes:

    cancelled   a function. When it returns true, the text ends, and tokens of the prompt that are
                not scored yet get no log-probability
    state       a saved state, which the text continues; the prompt is appended to it. Seed and
                index are those of the state unless they are given; give the other options again
    strategy    the name of a strategy, or a table with its `type`

    and the options of samplers and strategies, including those of plugins. An option of a sampler
    changes the last sampler of the run's chain that has it, or adds that sampler in its usual
    order. An option of a strategy selects the strategy.
    """

    echo: bool = option(False, help="put the prompt before its continuation")
    index: int | None = attrs.field(default=None, validator=optional(is_seed))
    logprobs: int | None = attrs.field(default=None, validator=optional(ge(0)))
    keep_state: bool = False
    cache_salt: str = ""


@attrs.frozen(kw_only=True)
class GenerateOptions(TextOptions):
    """Texts that are generated after training."""

    strategy: str | Table | None = option(
        None,
        help="decoding strategy: a name, such as beam, or a table [generate.strategy] with its "
        "`type`; plain sampling if not set",
        kind="strategy",
    )
    prompt: str = option(
        "", help="the text to continue; after training on documents, the beginning of a document"
    )
    n: int = option(1, help="number of continuations", validator=and_(ge(1), le(MAX_N)))
    distinct: bool = option(
        False,
        help="replace texts that repeat an earlier one, or a document of the training corpus",
    )

    def of_request(self) -> dict[str, Any]:
        """Options of a request, unless they are None."""
        values = {field.name: getattr(self, field.name) for field in attrs.fields(TextOptions)}
        return {name: value for name, value in values.items() if value is not None}


@attrs.frozen
class CheckpointOptions:
    """Time between checkpoints."""

    seconds: float = option(
        30.0,
        help="seconds of work that a crash can lose at most, or twenty times the duration of "
        "writing a checkpoint if that is more; 0 writes one after every step",
        validator=ge(0),
    )


def _device(instance: Any, attribute: Any, value: str) -> None:
    if not devices.NAMES.fullmatch(value):
        raise ValueError('must be "auto", "cpu", "cuda", "cuda:N" or "mps"')


@attrs.frozen
class GeneralOptions:
    """The keys outside any table."""

    seed: int = option(0, help="seed of all randomness", validator=is_seed)
    device: str = option(
        "auto", help='where to compute: "auto", "cpu", "cuda", "cuda:N" or "mps"', validator=_device
    )
    threads: int | None = option(
        None,
        help="CPU threads for training; torch's own number if not set",
        validator=optional(ge(1)),
    )
    output: Path | None = option(
        None,
        help="the run directory; if not set, runs/NAME in the current folder, with the name of "
        "the pipeline file",
    )
