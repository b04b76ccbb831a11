"""Generator: a trained model with its tokenizer and sampler chain, shared by any threads."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final, Self, Unpack

import attrs
import numpy as np
import numpy.typing as npt

from textgen.contracts.checks import encode_documents
from textgen.contracts.components import Components, blaming
from textgen.contracts.decoders import DecoderFactory
from textgen.documents import CorpusPiece, end_id
from textgen.errors import UsageError
from textgen.generation.keywords import RequestKeywords
from textgen.generation.peeking import Peek
from textgen.generation.sampling.draw import to_numpy
from textgen.generation.scheduling.async_streams import (
    AsyncTextStream,
    BackgroundLoop,
    in_thread,
    until_ended,
)
from textgen.generation.scheduling.prompt_cache import PromptCache
from textgen.generation.scheduling.scheduler import Scheduler
from textgen.generation.scheduling.streams import TextStream
from textgen.generation.scoring import TextScore, TokenScores, predictions, prompt_logprobs
from textgen.generation.texts.prompts import EncodedPrompt, check_prompt, text_pieces
from textgen.generation.texts.request import (
    Prompt,
    Request,
    RequestChecker,
    check_number,
    sampling_options,
)
from textgen.generation.texts.results import Generation, TokenLogprobs
from textgen.generation.texts.row import Row
from textgen.gradient.model import GradientModel
from textgen.novelty import TRIES, CopyFinder, DistinctTexts
from textgen.protocols import Floats, Ids, Model, Table

BATCH_SIZE: Final = 256
_STRIDE: Final = 2**32  # from the index of a text to that of one that replaces it
_FEW: Final = 16  # texts with more than this part of the lanes run beside the others
_QUICK_TOKENS: Final = 1024  # whose text is made in the event loop
_CACHED: Final = 1 << 26  # bytes of states inside prompts, of asynchronous requests


@attrs.frozen(eq=False, kw_only=True, repr=False)
class Generator(RequestChecker):
    """Continues prompts. Made by `textgen.load`, or by a Run.

    A generator is immutable and can be used by any number of threads at once. A text depends only
    on its prompt, seed, index and options, not on other texts, batches, streaming or the thread.

    tables     the tables of pipeline.toml
    record     run.json: sizes of the split, the package of each component, and more
    defaults   the run's `[generate]` table: the default options of a request
    path       the run directory; None for a run in memory
    model_id   the checksum of the weights, which saved states have
    training_tokens   returns the token ids (N,) of the training corpus, for copy reports
    make_module       builds the model for training on a device, with the weights of the run
    """

    model: Model  # all weights are in it
    path: Path | None = None
    tables: Table = attrs.field(factory=dict)
    training_tokens: Callable[[], Ids] | None = None
    make_module: Callable[[str], Any] | None = None
    _background: BackgroundLoop = attrs.field(init=False)

    @cached_property
    def _decoders(self) -> DecoderFactory:
        return DecoderFactory(self.model, self.chain.model, self.chain.vocab_size)

    @_background.default
    def _make_background(self) -> BackgroundLoop:
        cache = PromptCache(_CACHED)
        small, large = (Scheduler(self._decoders, BATCH_SIZE, cache) for _ in range(2))
        return BackgroundLoop(small, large, max(1, BATCH_SIZE // _FEW))

    def __repr__(self) -> str:
        return f"<Generator of {self.path or 'a run in memory'}>"

    @property
    def components(self) -> Components:
        """The components of the generator."""
        return self.chain.components

    def close(self) -> None:
        """Close the generator, and its components that have a method `close`.

        No built-in component has one. Texts in progress end at their next step with a UsageError,
        which later calls raise too. The end of a `with` block closes the generator.
        """
        self.components.end()
        self._background.join()
        self.components.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @blaming
    def generate(self, prompt: Prompt = "", **options: Unpack[RequestKeywords]) -> Generation:
        """Continue a prompt.

        prompt   a string, token ids (T,), or a prompt from `prepare`
        options  those of `RequestOptions`, of samplers and of strategies

        Raises PromptError for characters outside the vocabulary, UsageError for options out of
        range, ContractError for a fault of a plugin.
        """
        row = self._row(prompt, options)
        row.request.check_end()
        return next(self._each(iter([row]), 1))

    @blaming
    def generate_many(
        self,
        prompts: Iterable[Prompt | Table],
        *,
        n: int = 1,
        batch_size: int = BATCH_SIZE,
        distinct: bool = False,
        **options: Unpack[RequestKeywords],
    ) -> Iterator[Generation]:
        """Continue many prompts in batches, and yield the texts in order.

        prompts     each as in `generate`, or a mapping of a prompt and its options, such as
                    `{"prompt": "The door", "max_new_tokens": 5}`
        n           number of continuations of each prompt. Continuation j of prompt i is the text
                    of `generate` with `index + i * n + j`
        batch_size  number of texts that are generated at once. A text counts once per lane of its
                    strategy; one with more lanes than `batch_size` is generated alone
        distinct    generate another text, with `index + 2**32` and so on, in place of one that
                    equals an earlier one or is a whole document of the training corpus, which is
                    read as by `copy_finder`. After 100 failures in a row there is a warning, and
                    fewer texts are yielded
        options     as in `generate`; a time limit applies to all texts together

        A list or tuple of prompts is checked at once, with the errors of `generate`; any other
        iterable is read and checked one by one.
        """
        check_number("n", n)
        check_number("batch_size", batch_size)
        requests, first = self._check_many(prompts, options)
        texts = None
        if distinct:  # only documents are compared with the corpus
            has_documents = end_id(self.tokenizer) is not None and self.training_tokens is not None
            texts = DistinctTexts(self.copy_finder() if has_documents else None)
        return self._each(self._rows(requests, first, n), batch_size, texts)

    @blaming
    def stream(self, prompt: Prompt = "", **options: Unpack[RequestKeywords]) -> TextStream:
        """Continue a prompt and return the text in pieces, as it is generated.

        No piece ends inside a character or a stop text. Options are checked at once, with the
        errors of `generate`. With max_new_tokens=None the stream continues until it is cancelled,
        in constant memory unless a sampler reads the whole history.
        """
        row = self._row(prompt, options)
        return TextStream(Scheduler(self._decoders, 1), row, self.model_id)

    async def agenerate(
        self, prompt: Prompt = "", **options: Unpack[RequestKeywords]
    ) -> Generation:
        """`generate` for asyncio. Cancelling the task ends the text.

        A task that is cancelled while its prompt is encoded ends after that; while its prompt is
        scored, after at most 1,024 tokens.
        """
        row = await self._prepared(prompt, options)
        row.request.check_end()
        with self.components.blaming():
            await until_ended(self._background, row)
            if row.length <= _QUICK_TOKENS and not row.scores_prompt:
                return self._generation(row)
            return await in_thread(partial(self._generation, row))

    async def astream(
        self, prompt: Prompt = "", **options: Unpack[RequestKeywords]
    ) -> AsyncTextStream:
        """`stream` for asyncio: `stream = await generator.astream(…)`, then
        `async for piece in stream`.

        All asynchronous requests share batches in one background thread of the generator. Long
        preparations, such as encoding a long prompt, run in a thread too.
        """
        row = await self._prepared(prompt, options)
        return AsyncTextStream(self._background, row, self.model_id)

    @blaming
    def score(self, text: str | Iterable[CorpusPiece], *, prompt: str = "") -> TextScore:
        """Measure how well the model predicts a text after a prompt.

        Takes the arguments of `score_tokens`, raises its errors, and needs bounded memory.
        """
        given = self.prepare(prompt, unknown_characters="error")
        blocks = self.score_tokens(text, prompt=given)
        return TextScore.from_tokens(blocks, self.tokenizer, given.held)

    @blaming
    def score_tokens(
        self, text: str | Iterable[CorpusPiece], *, prompt: Prompt = ""
    ) -> Iterator[TokenScores]:
        """Yield the log-probabilities of the tokens of a text after a prompt, in blocks.

        text    a string, whose characters have to be in the vocabulary, or pieces as a corpus has
                them, whose unknown characters are counted. After training on documents, the text
                is scored as documents with their ends: DOCUMENT_END ends one, and the end of the
                text ends the last
        prompt  as in `generate`, and fed to the model in the same way

        Needs bounded memory. Raises PromptError for characters outside the vocabulary.
        """
        if isinstance(text, str):
            check_prompt(self.tokenizer, text, "error", "text")
        given = self.prepare(prompt, unknown_characters="error")
        before = np.concatenate([given.before, given.ids])
        pieces = text_pieces(text)
        if given.held:
            pieces = itertools.chain([" "], pieces)
        documents = encode_documents(self.tokenizer, pieces)
        if end_id(self.tokenizer) is not None:  # `before` has the one that comes first
            documents = itertools.chain([next(documents)[1:]], documents)
        blocks = predictions(self._decoders, self._decoders(), before, documents, given)
        return (TokenScores(ids, logprobs[np.arange(len(ids)), ids]) for ids, logprobs in blocks)

    @blaming
    def logits(self, text: Prompt) -> npt.NDArray[np.floating[Any]]:
        """The logits (T, V) after each token of a text, in nats, before any sampler.

        text  a string or token ids (T,)

        Raises UsageError for an empty text, PromptError for characters outside the vocabulary.
        """
        prompt = self.prepare(text)
        if not len(prompt.ids):
            raise UsageError("the text is empty, and has no token to compute anything for")
        decoder = self._decoders()
        decoder.extend(prompt.before[None])
        return np.array(to_numpy(decoder.score(prompt.ids[None]))[0])

    @blaming
    def next_logprobs(
        self, prompt: Prompt = "", **options: Unpack[RequestKeywords]
    ) -> tuple[Floats, Floats]:
        """Log-probabilities (V,) of the next token in nats, before and after the samplers.

        The next token is the first one that `generate` adds. Tokens that the samplers exclude have
        -inf; all of them do if a sampler ends the text there.

        Raises the errors of `generate`, and UsageError if the time limit or `cancelled` comes
        first.
        """
        peek = Peek(self._row(prompt, options))
        next(self._each(iter([peek.row]), 1))
        return peek.found()

    async def anext_logprobs(
        self, prompt: Prompt = "", **options: Unpack[RequestKeywords]
    ) -> tuple[Floats, Floats]:
        """`next_logprobs` for asyncio. Cancelling the task ends the work."""
        peek = Peek(await self._prepared(prompt, options))
        with self.components.blaming():
            await until_ended(self._background, peek.row)
            return peek.found()

    @blaming
    def module(self, device: str = "cpu") -> Any:
        """A new torch.nn.Module on `device` with the weights of the run, in evaluation mode.

        If the run trained a module of a program, the result is of that class. Raises UsageError if
        the model is not a module.
        """
        made: Any = self.model if self.make_module is None else self.make_module(device)
        if not callable(getattr(made, "eval", None)):
            raise UsageError("the model of this run is not a torch module")
        made.eval()
        return made.unwrapped() if isinstance(made, GradientModel) else made

    @blaming
    def copy_finder(self) -> CopyFinder:
        """A finder of passages that a text copies from the training corpus.

        `copy_finder().report(text)` takes about a second for a corpus of 30 million characters. The
        corpus is encoded first if its tokens are not in the cache.

        Raises CorpusError if the corpus has changed since training, UsageError if the generator is
        not that of a run.
        """
        if self.training_tokens is None:
            raise UsageError("only a generator of a run knows its training corpus")
        return CopyFinder(self.tokenizer, self.training_tokens())

    @blaming
    def prepare(self, prompt: Prompt, **options: Unpack[RequestKeywords]) -> EncodedPrompt:
        """Encode a prompt once, for many requests with the same options.

        Its `ids` lack a space at the end of the prompt if that is left to the first generated
        token. Characters outside the vocabulary raise PromptError, unless `unknown_characters` is
        "skip", which drops them, or "unknown", which encodes them as the unknown token.

        Raises the errors of `generate`.
        """
        return self._check(prompt, options).prompt

    async def aprepare(self, prompt: Prompt, **options: Unpack[RequestKeywords]) -> EncodedPrompt:
        """`prepare` for asyncio."""
        return (await self._prepared(prompt, options)).request.prompt

    @blaming
    def lanes(self, **options: Unpack[RequestKeywords]) -> int:
        """The largest number of decoder rows that a text with these options needs.

        It is 1 unless a strategy asks for more. Raises UsageError for options out of range.
        """
        sampling = sampling_options(options)
        return (self._chain(sampling) if sampling else self.chain).lanes

    def _row(self, prompt: Prompt, options: Table) -> Row:
        request = self._check(prompt, options)
        return Row.begin(self.tokenizer, request, request.index or 0)

    async def _prepared(self, prompt: Prompt, options: Table) -> Row:
        """A row.

        A long prompt or a new form takes longer than an event loop should wait: they go to a
        thread.
        """
        with self.components.blaming():
            if self._is_quick(prompt, options):
                return self._row(prompt, options)
            return await in_thread(lambda _: self._row(prompt, options))

    def _rows(self, requests: Iterable[Request], first: int, n: int) -> Iterator[Row]:
        """The rows of requests, `n` each, whose time runs from the first on."""
        began = time.monotonic()
        for position, request in enumerate(requests):
            index = request.index
            begin = first + position * n if index is None else index
            for own in range(begin, begin + n):
                row = Row.begin(self.tokenizer, request, own)
                row.start_clock(began)
                yield row

    def _each(
        self, rows: Iterator[Row], batch_size: int, distinct: DistinctTexts | None = None
    ) -> Iterator[Generation]:
        """Whole texts, in the order of their prompts."""
        scheduler = Scheduler(self._decoders, batch_size)
        begun: deque[Row] = deque()
        following: Row | None = None  # read, and not begun for want of room
        error: Exception | None = None
        while True:
            while error is None and scheduler.free_lanes > 0:
                try:
                    following = following or next(rows, None)
                except Exception as fault:  # what was read before comes first
                    error = fault
                if following is None or not scheduler.has_room(following):
                    break
                begun.append(following)
                scheduler.submit(following)
                following = None
            if not begun and error is not None:
                raise error
            if not begun:
                return
            scheduler.run()
            while begun and begun[0].ended:
                row = begun.popleft()
                generation = self._generation(row)
                # Another one would be ended by time or by the caller too.
                is_cut = generation.finish_reason in ("time", "cancelled")
                if distinct is None or is_cut or distinct.is_new(str(generation)):
                    yield generation
                elif distinct.failed < TRIES:
                    other = Row.begin(self.tokenizer, row.request, row.index + _STRIDE)
                    other.deadline = row.deadline
                    begun.appendleft(other)
                    scheduler.submit(other)

    def _generation(self, row: Row, is_gone: Callable[[], bool] = lambda: False) -> Generation:
        """The result of a row that has ended. Raises its error.

        is_gone  whether nobody waits for it any more
        """
        if row.error is not None:
            raise row.error
        request = row.request
        text, ids = row.take()
        logprobs, reason = row.logprobs, row.finish_reason
        assert reason is not None
        if row.scores_prompt:
            asked = request.cancelled or (lambda: False)
            begun = Row.begin(self.tokenizer, request, row.index)
            scores = prompt_logprobs(self._decoders, begun, lambda: is_gone() or asked())
            rest = request.prompt.ids[len(scores) :].tolist()
            if rest:
                reason = "cancelled"
            unknown = [TokenLogprobs(token, None, ()) for token in rest]
            logprobs = [*scores, *unknown, *logprobs]
        return Generation(
            prompt=request.prompt.text,
            prompt_ids=request.prompt.ids,
            text=text,
            tokens=tuple(ids.tolist()),
            finish_reason=reason,
            seed=request.seed,
            index=row.index,
            echo=request.echo,
            logprobs=tuple(logprobs),
            state=row.state(self.model_id),
            ranked=tuple(row.ranked),
        )
