"""Generator: a trained model, its tokenizer and a sampler chain, made to be shared between threads."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict, Unpack

import attrs
import numpy as np

from textgen.config import MAX_N, MAX_SEED, DecodingOptions
from textgen.decoding import (
    BatchDecoding,
    FinishReason,
    Limits,
    Request,
    SequenceDecoding,
    TokenLogprobs,
    can_batch,
)
from textgen.errors import Fault, PromptError, UsageError
from textgen.protocols import Ids, Model, Tokenizer
from textgen.sampling import Chain
from textgen.scoring import TextScore, TokenScores, score_pieces, score_tokens
from textgen.state import GenerationState
from textgen.stopping import StopText
from textgen.structure import structure_table

if TYPE_CHECKING:
    from textgen.novelty import CopyIndex

_BATCH: Final = 256


class GenerateArguments(TypedDict, total=False):
    """Keyword arguments of Generator.generate and its kin.

    The first group is that of the `[generate]` table (textgen.config.DecodingOptions); `cancelled` is a function, or
    an event such as threading.Event, that another thread may use to end the text. The second group goes to the
    standard sampler, which then stands in place of the run's own chain.
    """

    max_new_tokens: int | None
    min_new_tokens: int
    stop: str | Iterable[str]
    stop_tokens: Iterable[int]
    time_limit: float | None
    seed: int | None
    echo: bool
    unknown_characters: Literal["error", "skip", "unknown"]
    cancelled: Any

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    typical_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    no_repeat_ngram: int
    logit_bias: Mapping[str, float]


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
class _Settings:
    """Checked arguments of one call."""

    options: DecodingOptions
    chain: Chain
    seed: int
    cancelled: Callable[[], bool] | None

    def limits(self) -> Limits:
        """Limits whose clock starts now."""
        options = self.options
        return Limits(
            max_new_tokens=options.max_new_tokens,
            min_new_tokens=options.min_new_tokens,
            stop_tokens=options.stop_tokens,
            deadline=None if options.time_limit is None else time.monotonic() + options.time_limit,
            cancelled=self.cancelled,
        )


@attrs.frozen(eq=False, kw_only=True)
class Generator:
    """Continues prompts. Immutable: any number of threads may use one at once. Made by textgen.load or Run.generator.

    Each text depends on its prompt, seed and index alone: not on the batch, the other texts, streaming or the thread.

    tables     the tables of its pipeline.toml
    record     its run.json: sizes of the split, where each component came from
    path       the run directory it came from
    model_id   the checksum of its weights, which saved states name
    training_tokens   writes the training tokens to a file and maps them; for the copying report
    """

    tokenizer: Tokenizer
    model: Model
    chain: Chain = attrs.field(repr=False)
    make_chain: Callable[[Mapping[str, Any]], Chain] = attrs.field(repr=False)
    seed: int = 0
    path: Path | None = None
    model_id: str = attrs.field(default="", repr=False)
    tables: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    record: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    training_tokens: Callable[[Path], Ids] | None = attrs.field(default=None, repr=False)

    def generate(
        self,
        prompt: str = "",
        *,
        index: int = 0,
        logprobs: int | None = None,
        state: GenerationState | None = None,
        keep_state: bool = False,
        **arguments: Unpack[GenerateArguments],
    ) -> Generation:
        """Continue `prompt`.

        index       tells the texts of one seed apart
        logprobs    also give the log-probability of each token, and of so many likeliest ones
        state       go on from a kept state, as if it had never stopped; `prompt` is then added to what was there
        keep_state  keep the state at the end in the result
        arguments   see GenerateArguments

        Raises PromptError for characters outside the vocabulary, UsageError for arguments out of range, ContractError
        where a plugin is to blame.
        """
        settings = self._settings(arguments)
        if logprobs is not None:
            _check_whole("logprobs", logprobs, 0, self.tokenizer.vocab_size)
        decoding = self._begin(prompt, settings, index, state)
        if settings.options.max_new_tokens is None and not self._can_end(settings):
            raise UsageError("max_new_tokens=None never ends; use stream, or give stop, time_limit or cancelled")
        ids: list[int] = []
        watcher = self._watcher(settings)
        pieces: list[str] = []
        reason: FinishReason | None = None
        for token in decoding.tokens(settings.limits(), logprobs):
            ids.append(token)
            if watcher is not None:
                pieces.append(watcher.feed(token))
                if watcher.stopped:
                    reason = "stop"
                    break
        text = self.tokenizer.decode(np.array(ids, np.int64)) if watcher is None else "".join([*pieces, watcher.rest()])
        scored = tuple(decoding.logprobs) if logprobs is not None else None
        if scored is not None and settings.options.echo and logprobs is not None:
            scored = (*self._prompt_logprobs(prompt, settings, logprobs), *scored)
        return Generation(
            prompt=prompt,
            text=prompt + text if settings.options.echo else text,
            tokens=tuple(ids),
            finish_reason=reason or decoding.reason,
            seed=settings.seed,
            index=index,
            echo=settings.options.echo,
            logprobs=scored,
            state=decoding.state(self.model_id) if keep_state else None,
        )

    def stream(
        self,
        prompt: str = "",
        *,
        index: int = 0,
        state: GenerationState | None = None,
        **arguments: Unpack[GenerateArguments],
    ) -> Iterator[str]:
        """The text of `generate` in pieces as they come, never split inside a character or a stop text.

        Arguments are checked at once. With max_new_tokens=None it goes on for ever, in constant memory as long as no
        sampler asks for the whole history. A stream that is left does no more work.
        """
        settings = self._settings(arguments)
        decoding = self._begin(prompt, settings, index, state)
        pieces = self._pieces(decoding, settings)
        return itertools.chain([prompt], pieces) if settings.options.echo and prompt else pieces

    async def astream(
        self, prompt: str = "", *, index: int = 0, **arguments: Unpack[GenerateArguments]
    ) -> AsyncIterator[str]:
        """`stream` for asyncio: pieces are made in a worker thread, and the event loop stays free."""
        pieces = self.stream(prompt, index=index, **arguments)
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            yield piece

    def generate_many(
        self,
        prompts: Iterable[str],
        *,
        n: int = 1,
        batch_size: int = _BATCH,
        **arguments: Unpack[GenerateArguments],
    ) -> Iterator[Generation]:
        """`n` continuations of each prompt, up to `batch_size` at once, in the order of the prompts.

        The text of continuation j of prompt i is that of `generate(prompt, index=i * n + j)`. A time limit holds for
        all of them together. Prompts are read and checked as their turn comes.
        """
        settings = self._settings(arguments)
        _check_whole("n", n, 1, MAX_N)
        _check_whole("batch_size", batch_size, 1, MAX_N)
        if settings.options.max_new_tokens is None and not self._can_end(settings):
            raise UsageError("max_new_tokens=None never ends; give a number, stop, time_limit or cancelled")
        return self._many(prompts, n, batch_size, settings)

    def score(self, text: str | Iterable[str]) -> TextScore:
        """How well the model predicts a text, given whole or in pieces, as one stream and in bounded memory."""
        return score_pieces(self.model, self.tokenizer, self.chain.model, [text] if isinstance(text, str) else text)

    def score_tokens(self, text: str | Iterable[str]) -> Iterator[TokenScores]:
        """The log-probability of each token of a text, in blocks, as one stream and in bounded memory."""
        pieces = [text] if isinstance(text, str) else text
        return score_tokens(self.model, self.tokenizer, self.chain.model, pieces)

    def copy_index(self) -> CopyIndex:
        """What tells how much of a text is copied from the training corpus: `copy_index().report(text)`.

        Made once per run directory, which takes a second per million characters and the corpus, and kept there.
        Raises CorpusError when the corpus is no longer what the model was trained on.
        """
        from textgen.novelty import CopyIndex

        if self.path is None or self.training_tokens is None:
            raise UsageError("only a generator of a run directory knows its training corpus")
        return CopyIndex.open(self.path, self.model_id, self.tokenizer, self.training_tokens)

    def encode_prompt(self, prompt: str, unknown_characters: str = "error") -> Ids:
        """(T,) ids of a prompt, with what the vocabulary lacks refused, dropped ("skip") or fed ("unknown").

        Raises PromptError, naming the characters.
        """
        ids = self.tokenizer.encode(prompt)
        unknown = self.tokenizer.unknown_id
        if unknown is None or unknown_characters == "unknown" or unknown not in ids:
            return ids
        lacking = [c for c in dict.fromkeys(prompt) if unknown in self.tokenizer.encode(c)]
        if unknown_characters == "error":
            raise PromptError(lacking or [prompt])
        ids = self.tokenizer.encode("".join(c for c in prompt if c not in lacking))
        known: Ids = ids[ids != unknown]
        return known

    def _settings(self, arguments: Mapping[str, Any]) -> _Settings:
        """Check keyword arguments. Raises UsageError with every fault."""
        names = attrs.fields_dict(DecodingOptions)
        given = {key: value for key, value in arguments.items() if key in names}
        for key in ("stop", "stop_tokens"):
            if key in given and not isinstance(given[key], str):
                given[key] = tuple(given[key])
        faults: list[Fault] = []
        options = structure_table(DecodingOptions, given, "", Path(), faults)
        if faults:
            raise UsageError("; ".join(map(str, faults)))
        if any(token >= self.tokenizer.vocab_size or token < 0 for token in options.stop_tokens):
            raise UsageError(f"stop_tokens must be ids from 0 to {self.tokenizer.vocab_size - 1}")
        if arguments.get("max_new_tokens", 0) is None:
            options = attrs.evolve(options, max_new_tokens=None)
        sampling = {k: v for k, v in arguments.items() if k not in names and k != "cancelled"}
        cancelled = arguments.get("cancelled")
        return _Settings(
            options,
            self.make_chain(sampling) if sampling else self.chain,
            self.seed if options.seed is None else options.seed,
            getattr(cancelled, "is_set", cancelled),
        )

    def _begin(self, prompt: str, settings: _Settings, index: int, state: GenerationState | None) -> SequenceDecoding:
        _check_whole("index", index, 0, MAX_SEED - 1)
        if state is not None and state.values["model"] != self.model_id:
            raise UsageError("the saved state belongs to another model; it goes on only with the run that made it")
        ids = self.encode_prompt(prompt, settings.options.unknown_characters)
        return SequenceDecoding(self.model, settings.chain, ids, seed=settings.seed, index=index, state=state)

    def _can_end(self, settings: _Settings) -> bool:
        options = settings.options
        return bool(options.stops or options.stop_tokens or options.time_limit is not None or settings.cancelled)

    def _watcher(self, settings: _Settings) -> StopText | None:
        if not settings.options.stops:
            return None
        return StopText(self.tokenizer.incremental_decoder(), settings.options.stops, settings.options.min_new_tokens)

    def _pieces(self, decoding: SequenceDecoding, settings: _Settings) -> Iterator[str]:
        watcher = StopText(
            self.tokenizer.incremental_decoder(), settings.options.stops, settings.options.min_new_tokens
        )
        for token in decoding.tokens(settings.limits()):
            if piece := watcher.feed(token):
                yield piece
            if watcher.stopped:
                return
        if piece := watcher.rest():
            yield piece

    def _many(self, prompts: Iterable[str], n: int, batch_size: int, settings: _Settings) -> Iterator[Generation]:
        options = settings.options
        texts: dict[int, str] = {}
        watchers: dict[int, StopText] = {}

        def requests() -> Iterator[Request]:
            numbers = itertools.count()
            for prompt in prompts:
                ids = self.encode_prompt(prompt, options.unknown_characters)
                for number in itertools.islice(numbers, n):
                    texts[number] = prompt
                    watcher = self._watcher(settings)
                    if watcher is not None:
                        watchers[number] = watcher
                    yield Request(number, ids, settings.seed, number, watcher.watch if watcher else None)

        size = batch_size if can_batch(self.model) else 1
        finished = BatchDecoding(self.model, settings.chain, settings.limits(), size).run(requests())
        ready: dict[int, Generation] = {}
        turn = 0
        for done in finished:
            number = done.request.number
            prompt, watcher = texts.pop(number), watchers.pop(number, None)
            text = self.tokenizer.decode(done.tokens) if watcher is None else watcher.text()
            ready[number] = Generation(
                prompt=prompt,
                text=prompt + text if options.echo else text,
                tokens=tuple(done.tokens.tolist()),
                finish_reason=done.reason,
                seed=settings.seed,
                index=number,
                echo=options.echo,
            )
            while turn in ready:
                yield ready.pop(turn)
                turn += 1

    def _prompt_logprobs(self, prompt: str, settings: _Settings, top: int) -> list[TokenLogprobs]:
        """Of the prompt's tokens, each given the ones before it; the first, given the start state."""
        ids = self.encode_prompt(prompt, settings.options.unknown_characters)
        decoding = SequenceDecoding(self.model, settings.chain, ids[:0], seed=0, index=0)
        return decoding.forced_logprobs(ids, top)


def _check_whole(name: str, value: Any, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise UsageError(f"{name} must be a whole number from {low} to {high:,}, and is {value!r}")
