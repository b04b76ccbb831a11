"""The contracts between the engine and its components. Structural: nothing has to be subclassed.

Shapes: B sequences of a batch, T positions in time, V tokens of the vocabulary. Token ids are integers from 0 to
V - 1. Logits are float32 or float64 and may hold -inf ("never"), but no NaN. An *array* is a NumPy array, or a torch
tensor where the model is on a GPU; both follow the array API standard.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias, runtime_checkable

import attrs

from textgen.events import Event, TrainingEvent

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from textgen.data import Dataset


Ids: TypeAlias = "npt.NDArray[np.integer[Any]]"
"""Token ids."""
Tensors: TypeAlias = "dict[str, npt.NDArray[Any]]"
"""Arrays by name."""
Array: TypeAlias = Any
"""An array of the array API standard: NumPy on a CPU, torch on a GPU."""


@runtime_checkable
class Corpus(Protocol):
    """A source of text."""

    def read(self) -> Iterator[str]:
        """Yield the text in pieces (of about a megabyte, say), so that a corpus may be larger than memory.

        Called more than once; must give the same text each time. Raises CorpusError.
        """
        ...


class IncrementalDecoder(Protocol):
    """Turns ids into text as they come, for streams. Holds back what a later id may still change.

    Before a continuation the engine feeds it the end of the prompt, and leaves that text out: what tokens stand for
    may depend on those before them, as where words have spaces between them.
    """

    def decode(self, ids: Ids, final: bool = False) -> str:
        """The text that `ids` (T,) complete. `final` gives out whatever is held back."""
        ...


@runtime_checkable
class Tokenizer(Protocol):
    """Text to token ids and back. `decode(encode(text))` is the text, up to the tokenizer's own normalisation."""

    @property
    def vocab_size(self) -> int:
        """V. Raises ValueError before `fit`."""
        ...

    @property
    def unknown_id(self) -> int | None:
        """The id that stands for what the vocabulary lacks; None when every text can be encoded."""
        ...

    def fit(self, pieces: Iterable[str]) -> None:
        """Learn the vocabulary from a corpus. Deterministic; reads `pieces` once, in bounded memory."""
        ...

    def encode(self, text: str) -> Ids:
        """(T,) ids of `text`. What the vocabulary lacks becomes `unknown_id`."""
        ...

    def encode_pieces(self, pieces: Iterable[str]) -> Iterator[Ids]:
        """Encode a corpus piece by piece: together what `encode` gives for the joined text, in bounded memory."""
        ...

    def decode(self, ids: Ids) -> str:
        """The text of `ids` (T,)."""
        ...

    def incremental_decoder(self) -> IncrementalDecoder:
        """A decoder for one stream. The pieces it gives, joined, are what `decode` gives."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """All that `from_dict` needs, as JSON values."""
        ...

    def from_dict(self, state: Mapping[str, Any]) -> Self:
        """A fitted tokenizer with the configuration of this one and the vocabulary in `state`."""
        ...


class Decoder(Protocol):
    """Incremental inference for a batch of B sequences, each with its own carried state.

    What a row gives depends on its own tokens alone. Not shared between threads.
    """

    @property
    def batch_size(self) -> int:
        """B."""
        ...

    def extend(self, tokens: Ids) -> Array:
        """Feed `tokens` (B, T) and return the logits (B, V) of the token that follows.

        T may be 0: the logits of what follows the tokens fed so far, which at the start is the first token. The
        caller may write into the array until the next call, which may use it again.
        """
        ...

    def score(self, tokens: Ids) -> Array:
        """Feed `tokens` (B, T), T > 0, and return the logits (B, T, V) after each of them."""
        ...

    def read_state(self) -> Tensors:
        """A copy of the carried state by name, each array with the batch as its first axis."""
        ...

    def write_state(self, state: Tensors) -> None:
        """Replace the carried state. Its first axis sets the batch size, so picking rows forks or drops sequences.

        Where arrays keep their shape from step to step, rows of different decoders of the model can be put together,
        and the engine generates in batches; where they grow, only if the decoder is a RowDecoder.
        """
        ...


class GreedyDecoder(Decoder, Protocol):
    """A decoder that can go on greedily by itself: without the engine's work between its steps, several times as fast.

    Offering the method is a choice. The engine uses it where nothing but the likeliest token is asked for.
    """

    def continue_greedily(self, tokens: Ids, steps: int, forbidden: Sequence[int]) -> Ids:
        """Feed `tokens` (B,), then `steps` times over the likeliest token to follow, and return these, (B, steps).

        The likeliest is the first among equals and none of `forbidden`. The last one returned is not fed any more, so
        that steps of `extend` give the same tokens and leave the same state. May return fewer, (B, 0) too, where a
        logit may be NaN or infinite; the engine then takes the next step itself, and says whose fault it is.
        """
        ...


class RowDecoder(Decoder, Protocol):
    """A decoder whose rows come and go while it runs, without a way through `read_state` and `write_state`.

    Offering the methods is a choice. Only with them do models whose state grows (attention caches) generate in batches:
    the rows of such a decoder have lengths of their own. Others gain speed where reading a state is slow, as on a GPU.
    `read_state` and `write_state` need to serve rows of one length only.

    exact_rows  False where a row may differ in the last bit from the same row alone. Requests with `exact` then run
                alone. True if not set
    """

    def take(self, rows: Sequence[int]) -> Self:
        """Another decoder with these rows, in this order; a row may be taken twice. This one stays as it is."""
        ...

    def join(self, other: Self) -> None:
        """Append the rows of another decoder of the model, which is not used any more."""
        ...


@runtime_checkable
class Model(Protocol):
    """A language model: how likely each token is to come next.

    One that trains by gradient is also a `torch.nn.Module` with `forward(tokens, state=None) -> (logits, state)`:
    tokens (B, T) int64, logits (B, T, V), state a flat tuple of tensors with the batch as first axis, None at the
    start; and `set_dropout_seed(seed)`, called before each training step, if it draws random numbers.
    """

    def decoder(self, batch_size: int) -> Decoder:
        """The fastest decoder for this device, at the start state. Called from any thread."""
        ...

    def tensors(self) -> Tensors:
        """Every weight by its stable name, as NumPy arrays."""
        ...

    def load_tensors(self, tensors: Tensors) -> None:
        """Take over weights of the same names, shapes and dtypes. Raises ValueError saying which differ."""
        ...


@attrs.frozen
class TrainerState:
    """Where training stands: arrays by name (optimizer moments, carried state), and JSON values (the position)."""

    arrays: Tensors = attrs.field(factory=dict)
    values: dict[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class TrainingContext:
    """What a trainer may know: the seed that all its random choices derive from, and the device as torch names it."""

    seed: int
    device: str


class Trainer(Protocol):
    """Fits a model to data. Knows nothing of files, progress bars or signals: it yields, the engine does the rest."""

    def train(self, model: Any, data: Dataset, context: TrainingContext) -> Iterator[TrainingEvent]:
        """Train, yielding a StepDone after each update and an Evaluated after each evaluation.

        Wherever it has yielded, `state()` and the model's tensors are a consistent place to resume from. Goes on
        from the loaded state, if there is one.
        """
        ...

    def state(self) -> TrainerState:
        """Where training stands."""
        ...

    def load_state(self, state: TrainerState) -> None:
        """Make the next `train` go on from `state`, exactly."""
        ...


class History(Protocol):
    """The tokens of each of the B sequences so far, as samplers see them. Kept only as far as the samplers ask."""

    @property
    def counts(self) -> npt.NDArray[np.int32]:
        """(B, V) how often each token was generated. For samplers with `history` "counts" or "tokens"."""
        ...

    @property
    def prompt_counts(self) -> npt.NDArray[np.int32]:
        """(B, V) how often each token occurs in the prompt. For samplers with `history` "counts" or "tokens"."""
        ...

    def tokens(self, row: int) -> Ids:
        """(N,) the ids of one sequence, prompt and generated. For samplers with `history` "tokens"."""
        ...


class Sampler(Protocol):
    """A link of the sampler chain. Two optional attributes spare work:

    history         "none", "counts" or "tokens": what it reads of the History; "tokens" if not set
    deterministic   True promises that only the most likely token of what comes in survives
    """

    def __call__(self, logits: Array, history: History) -> Array:
        """Changed logits (B, V), of the same dtype; -inf forbids a token. Must not write into `logits`.

        Rows are independent: what a row gives does not depend on the others.
        """
        ...


class Observer(Protocol):
    """Sees the events of a run, in order, on the thread that trains."""

    def observe(self, event: Event) -> None:
        """Called with RunStarted first and RunFinished last; event classes it does not know are to be ignored."""
        ...
