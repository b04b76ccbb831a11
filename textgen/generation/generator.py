"""Generator: a trained model, its tokenizer and a chain of samplers, made to be shared between threads."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self

import attrs
import numpy as np
import numpy.typing as npt

from textgen.contracts.checks import begin_decoding
from textgen.contracts.components import Components, blaming
from textgen.documents import CorpusPiece
from textgen.errors import UsageError
from textgen.generation.arguments import BATCH_SIZE, ManyRequest, Prompt, Request, takes
from textgen.generation.chain import Chain
from textgen.generation.continuation import Continuation
from textgen.generation.prompts import check_prompt, document_start, text_pieces
from textgen.generation.requests import Requests
from textgen.generation.results import Generation, Piece
from textgen.generation.rows import keeps_shape
from textgen.generation.sampling import to_numpy
from textgen.generation.scheduler import Scheduler
from textgen.generation.scoring import (
    TextScore,
    TokenScores,
    prompt_logprobs,
    score_pieces,
    score_tokens,
)
from textgen.generation.streams import TextStream, in_pieces
from textgen.gradient.model import GradientModel
from textgen.pipeline.options import UnknownCharacters
from textgen.protocols import Ids, Model, Tensors, Tokenizer

if TYPE_CHECKING:
    from textgen.generation.async_streams import AsyncPieces, AsyncTextStream, BackgroundLoop
    from textgen.generation.novelty import CopyFinder

_ALONE: Final = 16  # texts that share no batch and stream asynchronously side by side


@attrs.frozen(eq=False, kw_only=True)
class Generator:
    """Continues prompts. Immutable: any number of threads may use one at once. Made by textgen.load or Run.generator.

    Each text depends on its prompt, seed and index alone: not on the batch, the other texts, streaming or the thread.

    tables     the tables of its pipeline.toml
    record     its run.json: sizes of the split, where each component came from
    defaults   the run's `[generate]` table: what the options of a request are where they are not given
    path       the run directory it came from
    model_id   the checksum of its weights, which saved states name
    training_tokens   gives the tokens (N,) that the model was trained on, for the copy report
    make_module       builds the model as it is trained, with the run's weights, on a device
    """

    tokenizer: Tokenizer = attrs.field(repr=False)
    model: Model = attrs.field(repr=False)  # all weights are in it
    chain: Chain = attrs.field(repr=False)
    make_chain: Callable[[Mapping[str, Any]], Chain] = attrs.field(repr=False)
    seed: int = 0
    defaults: dict[str, Any] = attrs.field(factory=dict, repr=False)
    path: Path | None = None
    model_id: str = attrs.field(default="", repr=False)
    tables: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    record: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    training_tokens: Callable[[], Ids] | None = attrs.field(default=None, repr=False)
    make_module: Callable[[str], Any] | None = attrs.field(default=None, repr=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, repr=False, init=False)
    _background: list[BackgroundLoop] = attrs.field(
        factory=list, repr=False, init=False
    )  # one, once it is needed
    _requests: Requests = attrs.field(repr=False, init=False)

    @_requests.default
    def _make_requests(self) -> Requests:
        return Requests(
            self.tokenizer, self.model_id, self.seed, self.defaults, self.chain, self.make_chain
        )

    def __reduce__(self) -> NoReturn:
        """Not to be pickled: it holds memory maps, locks and functions."""
        raise TypeError(
            "a Generator is not pickled; give the other process its path, and let it call textgen.load"
        )

    def __copy__(self) -> Self:
        """Itself, since nothing changes it."""
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    @property
    def components(self) -> Components:
        """What it is built of."""
        return self.chain.components

    def close(self) -> None:
        """Close the components that have something to close; the built-in ones have not. At the end of a `with` block.

        It is not to be used afterwards.
        """
        self.components.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @takes(Request)
    @blaming
    def generate(self, request: Request) -> Generation:
        """Continue a prompt. The arguments are the fields of textgen.Request.

        Raises PromptError for characters outside the vocabulary, UsageError for arguments out of range, ContractError
        where a plugin is to blame.
        """
        text = self._requests.one(request, whole=True)
        text.row.begin()
        return next(self._each(iter([text]), 1))

    @takes(Request)
    @blaming
    def stream(self, request: Request) -> TextStream:
        """The text of `generate` in pieces as they come, never split inside a character or a stop text.

        The arguments are the fields of textgen.Request, and are checked at once. With max_new_tokens=None it goes on
        for ever, in constant memory as long as no sampler asks for the whole history; `cancel()` ends it.
        """
        return TextStream(self._scheduler(1), self._requests.one(request), self.model_id)

    @takes(Request)
    @blaming
    def astream(self, request: Request) -> AsyncTextStream:
        """`stream` for asyncio. All asynchronous streams of a generator share batches, in one background thread.

        The arguments are the fields of textgen.Request, and are checked at once.
        """
        from textgen.generation.async_streams import AsyncTextStream

        return AsyncTextStream(self._background_loop(), self._requests.one(request), self.model_id)

    @takes(ManyRequest)
    @blaming
    def generate_many(self, request: ManyRequest) -> list[Generation]:
        """`n` continuations of each prompt, up to `batch_size` at once, in the order of the prompts.

        Continuation j of prompt i is that of `generate` with `index + i * n + j`. A time limit holds for all of them
        together. The arguments are the fields of textgen.generation.arguments.ManyRequest.
        """
        return list(self._each(self._requests.many(request, whole=True), request.batch_size))

    @takes(ManyRequest)
    @blaming
    def generate_each(self, request: ManyRequest) -> Iterator[Generation]:
        """The texts of `generate_many` one by one, in order, as soon as they are done.

        Prompts in a list or a tuple are checked at once; others are read and checked as their turn comes.
        """
        return self._each(self._requests.many(request, whole=True), request.batch_size)

    @takes(ManyRequest)
    @blaming
    def stream_many(self, request: ManyRequest) -> Iterator[Piece]:
        """The texts of `generate_many` side by side, in pieces as they come.

        The pieces of one index, joined, are its text; the last of them has the finish reason.
        """
        return in_pieces(
            self._scheduler(request.batch_size), self._requests.many(request), request.batch_size
        )

    @takes(ManyRequest)
    @blaming
    def astream_many(self, request: ManyRequest) -> AsyncPieces:
        """`stream_many` for asyncio, sharing batches with all other asynchronous streams of the generator."""
        from textgen.generation.async_streams import AsyncPieces

        return AsyncPieces(
            self._background_loop(), self._requests.many(request), request.batch_size
        )

    @blaming
    def score(self, text: str | Iterable[CorpusPiece]) -> TextScore:
        """How well the model predicts a text, given whole or in pieces, as one stream and in bounded memory.

        After training on documents, these are scored from their start to their end: DOCUMENT_END among the pieces ends
        one, and the end of the text ends the last.
        """
        return score_pieces(self.model, self.tokenizer, self.chain.model, text_pieces(text))

    @blaming
    def score_tokens(self, text: str | Iterable[CorpusPiece]) -> Iterator[TokenScores]:
        """The log-probability of each token of a text, in blocks, as one stream and in bounded memory."""
        return score_tokens(self.model, self.tokenizer, self.chain.model, text_pieces(text))

    @blaming
    def logits(self, text: Prompt) -> npt.NDArray[np.floating[Any]]:
        """(T, V) logits after each of the T tokens of a text, given as text or ids: before any sampler, in nats.

        Raises UsageError for an empty text, PromptError for characters outside the vocabulary.
        """
        start, ids = self._nonempty(text)
        decoder = begin_decoding(self.model, 1, self.chain.model, scoring=True)
        decoder.extend(start[None])
        return np.array(to_numpy(decoder.score(ids[None]))[0])

    @blaming
    def hidden_states(self, text: Prompt) -> Tensors:
        """The model's carried state after each of the T tokens of a text, by name, each array with T as first axis.

        For the built-in recurrent networks "hidden" and, for LSTMs, "cell": (T, layers, hidden_size). Raises UsageError
        for a model whose state grows with the text.
        """
        start, ids = self._nonempty(text)
        if not keeps_shape(self.model, self.chain.model):
            raise UsageError(
                "the state of this model grows with the text, so there is none of one shape per token"
            )
        decoder, states = begin_decoding(self.model, 1, self.chain.model), []
        decoder.extend(start[None])
        for place in range(len(ids)):
            decoder.extend(ids[None, place : place + 1])
            states.append(decoder.read_state())
        return {name: np.stack([state[name][0] for state in states]) for name in states[0]}

    @blaming
    def module(self, device: str = "cpu") -> Any:
        """The run's model as a torch.nn.Module of its own on `device`, with its weights, in evaluation mode.

        Where a program gave a module to train, it is one of that class. Raises UsageError where the model is not such a
        module.
        """
        made: Any = self.model if self.make_module is None else self.make_module(device)
        if not callable(getattr(made, "eval", None)):
            raise UsageError("the model of this run is not a torch module")
        made.eval()
        return made.unwrapped() if isinstance(made, GradientModel) else made

    @blaming
    def copy_finder(self) -> CopyFinder:
        """Tells how much of a text is copied from the training corpus: `copy_finder().report(text)`.

        A report takes about a second for a corpus of 30 million characters. The corpus is encoded
        first if its tokens are not in the cache. Raises CorpusError when the corpus is no longer
        the one that the model was trained on.
        """
        from textgen.generation.novelty import CopyFinder

        if self.training_tokens is None:
            raise UsageError("only a generator of a run knows its training corpus")
        return CopyFinder(self.tokenizer, self.training_tokens())

    @blaming
    def encode_prompt(
        self, prompt: Prompt, unknown_characters: UnknownCharacters | None = None
    ) -> Ids:
        """(T,) ids of a prompt, with what the vocabulary lacks refused ("error"), dropped ("skip") or fed ("unknown").

        What is not given is as the run has it. Raises PromptError, naming the characters.
        """
        unknown = unknown_characters or self.defaults.get("unknown_characters", "error")
        return check_prompt(self.tokenizer, prompt, unknown)

    def _nonempty(self, text: Prompt) -> tuple[Ids, Ids]:
        """What is fed before a text (see document_start), and its ids."""
        ids = self.encode_prompt(text)
        if not len(ids):
            raise UsageError("the text is empty, and has no token to compute anything for")
        return document_start(self.tokenizer, text), ids

    def _scheduler(self, capacity: int, alone: int = 1) -> Scheduler:
        return Scheduler(self.model, self.chain.model, capacity, alone)

    def _background_loop(self) -> BackgroundLoop:
        from textgen.generation.async_streams import BackgroundLoop

        with self._lock:
            if not self._background:
                self._background.append(BackgroundLoop(self._scheduler(BATCH_SIZE, _ALONE)))
        return self._background[0]

    def _each(self, texts: Iterator[Continuation], batch_size: int) -> Iterator[Generation]:
        """Whole texts, in the order of their prompts."""
        scheduler = self._scheduler(batch_size)
        begun: deque[Continuation] = deque()
        while True:
            while scheduler.free > 0 and (text := next(texts, None)) is not None:
                begun.append(text)
                scheduler.submit(text.row)
            while begun and begun[0].row.ended:
                yield self._generation(begun.popleft())
            if begun:
                scheduler.run(math.inf)
            elif scheduler.free > 0:
                return

    def _generation(self, text: Continuation) -> Generation:
        """The result of a text that has ended. Raises what it ended by."""
        row, echo = text.row, text.row.decoding.echo
        if row.error is not None:
            raise row.error
        shown, ids = text.take()
        logprobs = row.logprobs
        if echo and row.settings.top is not None:
            logprobs = [*prompt_logprobs(self.model, self.chain.model, row), *logprobs]
        assert text.finish_reason is not None
        return Generation(
            prompt=row.asked.prompt,
            text=shown,
            tokens=tuple(ids.tolist()),
            finish_reason=text.finish_reason,
            seed=row.asked.seed,
            index=row.index,
            echo=echo,
            logprobs=tuple(logprobs),
            state=text.state(self.model_id),
        )
