"""The contracts between the engine and its components. Structural: nothing has to be subclassed.

Shapes: B sequences of a batch, T positions, V tokens of the vocabulary. Token ids are integers from
0 to V - 1. Logits are float32 or float64, and may be -inf ("never") but not NaN. An *array* is a
NumPy array, or a torch tensor if the model is on a GPU; both follow the array API standard.

A component may have a method `close()`. It is called once, without arguments: after the training
that the component was built for, even if that failed, or when its generator is closed. An exception
in it becomes a warning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias, runtime_checkable

import attrs

from textgen.documents import CorpusPiece
from textgen.events import Event, Stop, TrainingEvent
from textgen.processes import Processes

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from textgen.data import Dataset


Ids: TypeAlias = "npt.NDArray[np.integer[Any]]"
"""Token ids."""
Floats: TypeAlias = "npt.NDArray[np.float64]"
"""Numbers in float64."""
Tensors: TypeAlias = "dict[str, npt.NDArray[Any]]"
"""Arrays by name."""
Table: TypeAlias = Mapping[str, Any]
"""Values by name: a TOML table, a JSON object."""
Array: TypeAlias = Any
"""An array of the array API standard: NumPy on a CPU, torch on a GPU."""


class Corpus(Protocol):
    """A source of text."""

    def read(self) -> Iterator[CorpusPiece]:
        """Yield the text in pieces, of a megabyte for example.

        A corpus of documents yields DOCUMENT_END after each document; after the last one it may be
        omitted. Documents without text are ignored. `read` is called several times, and must yield
        the same text each time. Raises CorpusError.
        """


class CorpusOfFiles(Corpus, Protocol):
    """A corpus that is read from files, whose tokens are cached. The method is optional.

    A run with the same component, version, options and files takes the tokens from the user's
    cache. A file counts as the same while its path, size, times and inode are.
    """

    def sources(self) -> Iterable[Path]:
        """The files that `read` reads. Only they and the options determine the text.

        Called at the beginning of each run, so it should not read the files. Raises CorpusError.
        """


class IncrementalDecoder(Protocol):
    """Turns ids into text as they are generated. Text that a later id may change is held back.

    Before a continuation, the engine feeds the end of the prompt and discards its text, because the
    text of a token may depend on earlier tokens, such as a space between words.
    """

    def decode(self, ids: Ids, final: bool = False) -> str:
        """Return the text that `ids` (T,) complete; with `final`, also all text held back."""


class Tokenizer(Protocol):
    """Turns text into token ids and back.

    `decode(encode(text))` is the text, up to the tokenizer's normalisation. A tokenizer may also
    have any members of StreamingTokenizer; functions of textgen.tokenizers replace missing ones.
    """

    @property
    def vocab_size(self) -> int:
        """Number of tokens, V. Raises ValueError before `fit`."""

    def fit(self, pieces: Iterable[str]) -> None:
        """Learn the vocabulary deterministically, in one pass over `pieces` and bounded memory."""

    def encode(self, text: str) -> Ids:
        """Return the ids (T,) of `text`. Text outside the vocabulary becomes `unknown_id`."""

    def decode(self, ids: Ids) -> str:
        """Return the text of `ids` (T,)."""

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` needs, as JSON values."""

    def from_dict(self, state: Table) -> Self:
        """Return a fitted tokenizer with the options of this one and the vocabulary of `state`.

        Raises ValueError if the state is not one of such a tokenizer.
        """


class StreamingTokenizer(Tokenizer, Protocol):
    """Optional members of a tokenizer."""

    @property
    def unknown_id(self) -> int | None:
        """The id for text outside the vocabulary; None, or missing, if all text can be encoded."""

    def encode_pieces(self, pieces: Iterable[str]) -> Iterator[Ids]:
        """Encode a corpus in bounded memory. The ids together are those of the joined text.

        Without this method, `encode` is called for each of `textgen.documents.segments`.
        """

    def incremental_decoder(self) -> IncrementalDecoder:
        """Return a decoder for one stream, whose pieces joined are the text of `decode`.

        Without this method, each token is decoded with the 16 tokens before it, and U+FFFD at the
        end of a text is held back.
        """


class DocumentTokenizer(Tokenizer, Protocol):
    """A tokenizer with an id for the end of a document, which corpora that mark documents need.

    The engine puts this id after each document of a corpus and before the first one. Generation
    starts from it and stops at it. It decodes to "", and `encode` never returns it.
    """

    @property
    def end_id(self) -> int | None:
        """The id, which `vocab_size` includes; None if there is none, or not before `fit`."""

    def fit(self, pieces: Iterable[CorpusPiece]) -> None:
        """Learn the vocabulary from pieces with DOCUMENT_END; without any, `end_id` may stay None.

        textgen.documents.split_documents splits the pieces into documents.
        """

    def extend(self, pieces: Iterable[CorpusPiece]) -> None:
        """Add to a fitted vocabulary what it lacks for a corpus, such as the id for documents.

        Optional. It lets a run on documents keep the vocabulary of a run on one text.
        """


class Decoder(Protocol):
    """Incremental inference for a batch of B sequences with carried states.

    The logits of a row depend only on the tokens of that row. A decoder is used by one thread at a
    time.
    """

    @property
    def batch_size(self) -> int:
        """Number of sequences, B."""

    def extend(self, tokens: Ids) -> Array:
        """Feed `tokens` (B, T) and return the logits (B, V) of the token that follows.

        If T is 0, they are those after the tokens fed so far, or those of the first token. The
        caller may write into the array; the next call may reuse it.
        """

    def score(self, tokens: Ids) -> Array:
        """Feed `tokens` (B, T), T > 0, and return the logits (B, T, V) after each of them."""

    def read_state(self) -> Tensors:
        """Return a copy of the carried state: arrays by name with the batch as first axis."""

    def write_state(self, state: Tensors) -> None:
        """Replace the carried state.

        Its first axis sets the batch size, so selecting rows forks or drops sequences. If the
        arrays keep their shapes, the engine joins rows of different decoders and generates in
        batches. If they grow with the text, it does so only with a RowDecoder.
        """


class RowDecoder(Decoder, Protocol):
    """A decoder whose rows can be taken and joined directly. Both methods are optional.

    Models whose state grows, such as attention caches, need them to generate in batches: the rows
    may differ in length, which `read_state` and `write_state` need not support. For other models
    they save time if reading a state is slow, as on a GPU.

    exact_rows  False if a row in a batch may differ in the last bit from the same row alone, which
                checks then allow; True by default
    """

    def take(self, rows: Sequence[int]) -> Self:
        """Return a new decoder with these rows in this order; a row may occur several times."""

    def join(self, other: Self) -> None:
        """Append the rows of another decoder of the same model, which is not used afterwards."""


class Model(Protocol):
    """A language model: how likely each token is to come next.

    One that trains by gradient is also a `torch.nn.Module` with `forward(tokens, state=None) ->
    (logits, state)`: tokens (B, T) int64, logits (B, T, V), state a flat tuple of tensors with the
    batch as first axis, None at the start; and, if it draws random numbers,
    `set_dropout_seed(seed)`, called before each training step. It may have
    `token_losses(tokens, targets, state=None) -> (losses, state)`, all (B, T), in nats, to which
    auxiliary terms may be added while it trains. And it may name the roles of its parameters,
    `parameter_roles() -> dict`, see textgen.gradient.Parameters.

    `set_rows(first, total)` says before each step which rows of how many the next are, where
    several processes or workers share out a batch, so that a model that draws random numbers for
    rows draws them for the whole batch, and takes its own. With `distributed = False` a model
    cannot be shared out, as when its loss looks at all rows at once.
    """

    def decoder(self, batch_size: int) -> Decoder:
        """Return a decoder in the initial state, the fastest for the device. Thread-safe."""

    def tensors(self) -> Tensors:
        """Return all weights as NumPy arrays by stable names."""

    def load_tensors(self, tensors: Tensors) -> None:
        """Load weights of the same names, shapes and dtypes.

        Raises ValueError, which names the weights that differ.
        """


@attrs.frozen
class TrainerState:
    """The state of training: arrays by name (optimizer moments, carried state), and JSON values."""

    arrays: Tensors = attrs.field(factory=dict)
    values: dict[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class TrainingContext:
    """What a trainer may use.

    seed       seed of all random choices
    device     the device, as torch names it
    elapsed    seconds that the run took before: imports, corpus, tokenizer, interrupted training
    threads    number of CPU threads, if the pipeline sets it
    processes  the processes that train together; only for a trainer with `distributed`
    """

    seed: int
    device: str
    elapsed: float = 0.0
    threads: int | None = None
    processes: Processes | None = None


class Trainer(Protocol):
    """Fits a model to data and yields events. The engine handles files, progress and signals.

    With `distributed = True` it can train in several processes, which `context.processes`
    describes: each runs the same program with the same pipeline and text, and yields events of the
    same steps. The losses, the state and the weights of the first count. After an event the engine
    may close `train`, in all of them.

    `published() -> Tensors` is optional: the weights of the run's model, on which its losses are
    measured, where training goes on from others; {} where it does not. Called after `state`.
    """

    def train(self, model: Any, data: Dataset, context: TrainingContext) -> Iterator[TrainingEvent]:
        """Train, yielding a StepDone after each update and an Evaluated after each evaluation.

        After each yield, `state()` and the model's tensors are a consistent state to resume from.
        Training continues from the loaded state, if there is one.
        """

    def state(self) -> TrainerState:
        """The state of training."""

    def load_state(self, state: TrainerState) -> None:
        """Make the next `train` continue exactly from `state`.

        Raises ValueError for a state of another trainer.
        """


class Objective(Protocol):
    """The sum that a step of a trainer by gradient lowers. textgen.gradient.NextToken has the
    methods, for others to change.

    A batch is a tuple of NumPy arrays with its rows as first axis, of which the first has token ids
    (B, T + 1). Its rows are shared out among threads, processes and small batches, and the engine
    divides their sums by the count of all.

    `validation(data, options)` is optional: an iterable of batches of held-out data, such as a
    generator. The mean over them is a figure `objective` of evaluations, and chooses the best
    weights in place of the validation loss.
    """

    def batches(self, data: Dataset, options: Any, seed: int) -> Any:
        """textgen.gradient.Batches for the trainer's GradientOptions, of `options.rows` rows.

        A batch follows from these, its epoch and its number alone, so that a run resumes exactly.
        """

    def count(self, batch: tuple[npt.NDArray[Any], ...]) -> int:
        """The divisor of the sum over these rows: the number of targets, or of pairs."""

    def loss(self, model: Any, batch: tuple[Any, ...], state: Any) -> tuple[Any, Any]:
        """The sum over the rows of a batch, a tensor without axes, and the state after them.

        The model is a torch module, the arrays are tensors on its device, and the state is a flat
        tuple of tensors with the rows as first axis, () or None where there is none. It comes as
        None, but for windows along streams, which continue from what was returned for those before.
        """


class History(Protocol):
    """The tokens of the B sequences so far, as far as the samplers of the chain announce their use.

    The arrays are NumPy arrays, also if logits are on a GPU, and must not be written to.
    """

    @property
    def prompt_lengths(self) -> npt.NDArray[np.int64]:
        """(B,) number of tokens of the prompt."""

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(B,) number of generated tokens, which is the step."""

    @property
    def counts(self) -> npt.NDArray[np.int32]:
        """(B, V) number of times each token was generated. For `history` "counts" or "tokens"."""

    @property
    def prompt_counts(self) -> npt.NDArray[np.int32]:
        """(B, V) counts of each token in the prompt. For `history` "counts" or "tokens"."""

    def tokens(self, row: int) -> Ids:
        """(N,) ids of a sequence, prompt and generated. For `history` "tokens"."""

    @property
    def state(self) -> Tensors:
        """The state of a StatefulSampler: arrays by name with the batch as first axis."""

    def random(self, count: int = 1) -> Floats:
        """(B, count) random numbers from [0, 1), for samplers with `random`.

        A second call gives the same ones.

        They depend only on the request's seed and index, the step, and the sampler's place in the
        chain.
        """


class Sampler(Protocol):
    """A sampler of the chain. The attributes are optional:

    history         "none", "counts" or "tokens": what it reads of the History in addition to
                    lengths; "tokens" by default
    random          True if it reads `history.random`
    ends            True if it may exclude all tokens of a row, which ends the text with the finish
                    reason "end". For other samplers this is an error
    deterministic   True if only the most likely token of the input ever remains, which saves work
    """

    def __call__(self, logits: Array, history: History) -> Array:
        """Return changed logits (B, V) of the same dtype; -inf excludes a token.

        `logits` must not be written to. The result depends only on the arguments, and each row only
        on its own row of them.
        """


class StatefulSampler(Sampler, Protocol):
    """A sampler with a state for each row. Both methods are needed.

    The engine keeps the states, not the sampler. A state is made when its row begins, stays with
    the row in all batches, and is saved and resumed with the text. The sampler reads the states in
    `history.state`.
    """

    def start(self, prompt: Ids) -> Tensors:
        """Return the state of a row after `prompt` (T,): arrays by name.

        Shapes and dtypes are the same for all rows. A text that continues from a saved state has
        the saved state of the sampler, or starts here if the sampler was not in the chain.
        """

    def accept(self, tokens: Ids, logits: Array, history: History) -> Tensors:
        """Return the states after `tokens` (B,) were drawn, with the batch as first axis.

        `logits` (B, V) are those that this sampler returned in this step, and `history` is that of
        the step.
        """


NEW_LANE = -1
"""In `Moves.lanes`: a lane that begins anew, with nothing but what comes before a prompt."""


@attrs.frozen
class Moves:
    """The moves of a strategy in a step.

    lanes   the lane that each next lane continues, by its place: twice forks it, never drops it.
            NEW_LANE begins one without the prompt, NEW_LANE - 1 one of the first model in the
            strategy's `models`, and so on
    tokens  the ids that each next lane is fed, in order; none lets it wait. -1, as Lanes.draw gives
            it, ends its text
    state   the strategy's arrays for the next lanes, with these as first axis
    final   how many tokens of the first lane are sure to be in the text: a stream shows them, and
            a text whose time is over ends with them. None: no token is sure before the end, and
            such a text ends with all tokens of the first lane
    """

    lanes: Sequence[int]
    tokens: Sequence[Sequence[int] | Ids]
    state: Tensors = attrs.field(factory=dict)
    final: int | None = None


@attrs.frozen
class Ranking:
    """The end of a text: lanes by their places, the best one, whose tokens are the text, first; and
    the score of each, if they have scores.
    """

    lanes: Sequence[int]
    scores: Sequence[float] = ()


class Lanes(Protocol):
    """The L lanes of a text: rows of the model's decoder, each a way in which the text continues.

    It begins with one. Stops, limits, and the options of the request hold for each of them. Stops
    and limits count all that it was fed: in a lane that began anew, its own prompt too, which
    samplers do not see. A lane that has ended has logits and log-probabilities as before, and may
    be forked and fed.
    """

    logits: npt.NDArray[Any]
    """(L, V) of the next token by the model, before the samplers; -inf for a forbidden one."""

    def __len__(self) -> int: ...

    @property
    def prompt(self) -> Ids:
        """(N,) ids of the prompt."""

    @property
    def tokens(self) -> Sequence[Ids]:
        """(N,) ids that each lane was fed after the prompt."""

    @property
    def ended(self) -> npt.NDArray[np.bool_]:
        """(L,) which lanes hold a text that is complete. They usually wait."""

    @property
    def state(self) -> Tensors:
        """The strategy's arrays, with the lanes as first axis."""

    def logprobs(self) -> Floats:
        """(L, V) log-probabilities of the next token by the model; -inf for a forbidden one."""

    def sampled(self) -> Floats:
        """(L, V) log-probabilities of the next token after the sampler chain."""

    def draw(self, logits: npt.NDArray[Any] | None = None) -> Ids:
        """(L,) a token for each lane, drawn as sampling draws it; -1 where a sampler ends the text.

        Logits (L, V) replace those of the model. The draws follow from the request's seed and
        index, the lane's place and its number of tokens, without those that it began anew with,
        however often it is called; those of the first lane are those of sampling.
        """

    def random(self, count: int = 1) -> Floats:
        """(L, count) random numbers from [0, 1), which follow from the same as those of `draw`."""

    def fed(self, lane: int) -> Floats:
        """(T, V) log-probabilities by the model after each token that a lane was fed last."""

    def verify(self, lane: int) -> Ids:
        """(N,) the tokens that sampling draws after a lane, as long as the first lane was fed the
        same from there on, and the one that it draws then; -1 where a sampler ends the text.

        So drafts give the text of sampling: after `Moves([0, 0], [draft, []])`, of which lane 0 was
        fed the draft in one step and lane 1 waits, `verify(1)` is what comes in its place.
        """


class Strategy(Protocol):
    """Decides how a text is made of steps. The lanes of all texts are fed in one batch.

    lanes   the most lanes of a text, which count as so many texts where there is a limit
    models  optional: models of other runs with the same vocabulary, of which it may have lanes

    A text that is to be saved and is cut off by its time or its caller has the tokens that are
    final. Its state has the lanes and the strategy's arrays: each lane is then fed at once what it
    was fed after the final tokens, which `Lanes.tokens` lacks. After a ranking, or with a prompt
    added, a text goes on as one that begins.

    `start()` is optional: the arrays of the first lane by name, without an axis for lanes. With
    `draws_only = True` a strategy promises to do no more than sampling does: to feed its one lane
    the token that is drawn. The engine then does it, faster.
    """

    @property
    def lanes(self) -> int:
        """The most lanes of a text."""

    def step(self, lanes: Lanes) -> Moves | Ranking:
        """The next moves; or, once the text is made, the ranking of the lanes.

        It follows from `lanes` alone: what is to be remembered is in `Moves.state`. Without a
        ranking, the text ends where a final token ends it.
        """


class Metric(Protocol):
    """Measures a text for `textgen evaluate`. Plugins offer metrics with `textgen_kinds`."""

    def add(self, scores: Any) -> None:
        """Add a block of the text, a `textgen.TokenScores`."""

    def value(self) -> float:
        """Return the value after the last block."""


class Observer(Protocol):
    """Receives the events of a run, in order, in the thread that trains."""

    def observe(self, event: Event) -> Stop | None:
        """Receive an event; RunStarted comes first and RunFinished last.

        Event classes that are not known must be ignored. Returns None, or `textgen.events.Stop` to
        stop the run early, as finished.
        """


@runtime_checkable
class StatefulObserver(Observer, Protocol):
    """An observer whose state is saved in checkpoints. Both methods are needed."""

    def state(self) -> Any:
        """Return the state that a resumed run needs, as JSON values."""

    def load_state(self, state: Any) -> None:
        """Restore what `state` returned. Called before the first event of a resumed run."""
