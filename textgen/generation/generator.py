"""Generator: a trained model, its tokenizer and a sampler chain, made to be shared between threads."""

from __future__ import annotations

import collections.abc
import threading
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, Unpack

import attrs
import numpy as np

from textgen.errors import UsageError
from textgen.generation.arguments import GenerateArguments, Settings
from textgen.generation.continuing import Continuation
from textgen.generation.decoding import SequenceDecoding, TokenLogprobs, prompt_logprobs
from textgen.generation.detokenise import StopText
from textgen.generation.many import ManyTexts
from textgen.generation.prompts import check_prompt, text_pieces
from textgen.generation.results import Generation, Piece
from textgen.generation.sampling import Chain
from textgen.generation.scoring import TextScore, TokenScores, score_pieces, score_tokens
from textgen.generation.state import GenerationState
from textgen.generation.streams import TextStream
from textgen.pipeline.pipeline import MAX_N, MAX_SEED, UnknownCharacters
from textgen.protocols import Ids, Model, Tokenizer

if TYPE_CHECKING:
    from textgen.generation.async_streams import AsyncTextStream
    from textgen.generation.novelty import CopyIndex

_BATCH: Final = 256


@attrs.frozen(eq=False, kw_only=True)
class Generator:
    """Continues prompts. Immutable: any number of threads may use one at once. Made by textgen.load or Run.generator.

    Each text depends on its prompt, seed and index alone: not on the batch, the other texts, streaming or the thread.

    tables     the tables of its pipeline.toml
    record     its run.json: sizes of the split, where each component came from
    defaults   the run's `[generate]` table: what a call's arguments are where they are not given
    path       the run directory it came from
    model_id   the checksum of its weights, which saved states name
    training_tokens   writes the training tokens to a file and maps them; for the copying report
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
    training_tokens: Callable[[Path], Ids] | None = attrs.field(default=None, repr=False)

    def __reduce__(self) -> NoReturn:
        """Not to be pickled: it holds memory maps, locks and functions."""
        raise TypeError("a Generator is not pickled; give the other process its path, and let it call textgen.load")

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
        state       go on from a kept state, as if it had never stopped; `prompt` is then added to what was there. Its
                    seed, index and sampling arguments are kept; another `seed` takes the text elsewhere from there
        keep_state  keep the state at the end in the result. A character that is not finished there belongs to the
                    text that goes on
        arguments   see GenerateArguments

        Raises PromptError for characters outside the vocabulary, UsageError for arguments out of range, ContractError
        where a plugin is to blame.
        """
        settings = self._settings(arguments, state)
        if logprobs is not None:
            _check_whole("logprobs", logprobs, 0, self.tokenizer.vocab_size)
        settings.must_end()
        decoding = self._begin(prompt, settings, index, state)
        continuation = self._continuation(decoding, prompt, state)
        open_end = _open_end(prompt, state)
        watcher = settings.watcher(continuation, open_end) if settings.options.stops else None
        ids, text = _collect(decoding, continuation, settings, watcher, logprobs, keep_state)
        return Generation(
            prompt=prompt,
            text=prompt + text if settings.options.echo else text,
            tokens=tuple(ids),
            finish_reason=decoding.reason,
            seed=decoding.seed,
            index=decoding.index,
            echo=settings.options.echo,
            logprobs=None if logprobs is None else self._logprobs(decoding, prompt, settings, state, logprobs),
            state=None
            if not keep_state
            else decoding.state(
                self.model_id, ids, settings.sampling, open_end if watcher is None else watcher.open_end
            ),
        )

    def stream(
        self,
        prompt: str = "",
        *,
        index: int = 0,
        state: GenerationState | None = None,
        keep_state: bool = False,
        **arguments: Unpack[GenerateArguments],
    ) -> TextStream:
        """The text of `generate` in pieces as they come, never split inside a character or a stop text.

        Arguments are checked at once. With max_new_tokens=None it goes on for ever, in constant memory as long as no
        sampler asks for the whole history; `cancel()` of what is returned ends it, and its `state` goes on from there
        if `keep_state` was given.
        """
        settings = self._settings(arguments, state)
        decoding = self._begin(prompt, settings, index, state)
        return TextStream(
            decoding,
            self._continuation(decoding, prompt, state),
            settings,
            first=prompt if settings.options.echo else "",
            open_end=_open_end(prompt, state),
            keep_for=self.model_id if keep_state else None,
        )

    def astream(
        self,
        prompt: str = "",
        *,
        index: int = 0,
        state: GenerationState | None = None,
        keep_state: bool = False,
        **arguments: Unpack[GenerateArguments],
    ) -> AsyncTextStream:
        """`stream` for asyncio: pieces are made in a thread of its own, and the event loop stays free.

        Arguments are checked at once, before the first piece is waited for.
        """
        from textgen.generation.async_streams import AsyncTextStream

        return AsyncTextStream(self.stream(prompt, index=index, state=state, keep_state=keep_state, **arguments))

    def generate_many(
        self,
        prompts: Iterable[str],
        *,
        n: int = 1,
        index: int = 0,
        batch_size: int = _BATCH,
        logprobs: int | None = None,
        **arguments: Unpack[GenerateArguments],
    ) -> collections.abc.Generator[Generation, None, None]:
        """`n` continuations of each prompt, up to `batch_size` at once, in the order of the prompts.

        Continuation j of prompt i is `generate(prompt, index=index + i * n + j, logprobs=logprobs)`. A time limit holds
        for all of them together. Prompts in a list or a tuple are checked at once; others are read and checked as
        their turn comes.
        """
        if logprobs is not None:
            _check_whole("logprobs", logprobs, 0, self.tokenizer.vocab_size)
        many = self._many(prompts, n, index, batch_size, arguments, logprobs)
        many.settings.must_end()
        return many.whole(prompts)

    def stream_many(
        self,
        prompts: Iterable[str],
        *,
        n: int = 1,
        index: int = 0,
        batch_size: int = _BATCH,
        **arguments: Unpack[GenerateArguments],
    ) -> collections.abc.Generator[Piece, None, None]:
        """The texts of `generate_many` side by side, in pieces as they come.

        The pieces of index + i * n + j, joined, are continuation j of prompt i; the last of them has the finish reason.
        """
        steps = self._many(prompts, n, index, batch_size, arguments).in_pieces(prompts)
        return (piece for pieces in steps for piece in pieces)

    def astream_many(
        self,
        prompts: Iterable[str],
        *,
        n: int = 1,
        index: int = 0,
        batch_size: int = _BATCH,
        **arguments: Unpack[GenerateArguments],
    ) -> AsyncGenerator[Piece]:
        """`stream_many` for asyncio. Arguments are checked at once, before the first piece is waited for."""
        from textgen.generation.async_streams import in_thread, one_by_one

        switch = threading.Event()
        many = self._many(prompts, n, index, batch_size, arguments)
        many = attrs.evolve(many, settings=many.settings.also_ended_by(switch))
        return one_by_one(in_thread(many.in_pieces(prompts), switch.set))

    def score(self, text: str | Iterable[str]) -> TextScore:
        """How well the model predicts a text, given whole or in pieces, as one stream and in bounded memory."""
        return score_pieces(self.model, self.tokenizer, self.chain.model, text_pieces(text))

    def score_tokens(self, text: str | Iterable[str]) -> Iterator[TokenScores]:
        """The log-probability of each token of a text, in blocks, as one stream and in bounded memory."""
        return score_tokens(self.model, self.tokenizer, self.chain.model, text_pieces(text))

    def copy_index(self) -> CopyIndex:
        """What tells how much of a text is copied from the training corpus: `copy_index().report(text)`.

        Made once per run directory, which takes a second per million characters and the corpus, and kept there.
        Raises CorpusError when the corpus is no longer what the model was trained on.
        """
        from textgen.generation.novelty import CopyIndex

        if self.path is None or self.training_tokens is None:
            raise UsageError("only a generator of a run directory knows its training corpus")
        return CopyIndex.open(self.path, self.model_id, self.tokenizer, self.training_tokens)

    def encode_prompt(self, prompt: str, unknown_characters: UnknownCharacters = "error") -> Ids:
        """(T,) ids of a prompt, with what the vocabulary lacks refused, dropped ("skip") or fed ("unknown").

        Raises PromptError, naming the characters.
        """
        return check_prompt(self.tokenizer, prompt, unknown_characters)

    def _settings(self, arguments: Mapping[str, Any], state: GenerationState | None = None) -> Settings:
        if state is not None and not isinstance(state, GenerationState):
            raise UsageError("expected a GenerationState", argument="state", value=state)
        kept = None if state is None else state.values["sampling"]
        size, chain, seed = self.tokenizer.vocab_size, self.chain, self.seed
        return Settings.of(arguments, self.defaults, size, chain, self.make_chain, seed, kept)

    def _begin(self, prompt: str, settings: Settings, index: int, state: GenerationState | None) -> SequenceDecoding:
        _check_whole("index", index, 0, MAX_SEED - 1)
        seed, index = settings.seed, int(index)
        if state is not None:
            seed, index = self._resume(state, settings.options.seed, index)
        ids = self.encode_prompt(prompt, settings.options.unknown_characters)
        return SequenceDecoding(self.model, settings.chain, ids, seed=seed, index=index, state=state)

    def _resume(self, state: GenerationState, seed: int | None, index: int) -> tuple[int, int]:
        """Seed and index with which a state goes on."""
        values = state.values
        if values["model"] != self.model_id:
            raise UsageError("the saved state belongs to another model; it resumes only with the run that made it")
        if index not in (0, values["index"]):
            raise UsageError(
                f"the saved state resumes with its own index, {values['index']}; give another seed instead"
            )
        return values["seed"] if seed is None else seed, values["index"]

    def _continuation(self, decoding: SequenceDecoding, prompt: str, state: GenerationState | None) -> Continuation:
        """What a text begins with that goes on from a prompt, or from the middle of a character."""
        return Continuation.of(self.tokenizer, decoding.before, held_back=state is not None and not prompt)

    def _logprobs(
        self, decoding: SequenceDecoding, prompt: str, settings: Settings, state: GenerationState | None, top: int
    ) -> tuple[TokenLogprobs, ...]:
        """Of the generated tokens; with echo, of the prompt's before them, given `state` or the start state."""
        if not settings.options.echo:
            return tuple(decoding.logprobs)
        ids = self.encode_prompt(prompt, settings.options.unknown_characters)
        return (*prompt_logprobs(self.model, settings.chain, ids, top, state), *decoding.logprobs)

    def _many(
        self,
        prompts: Iterable[str],
        n: int,
        index: int,
        batch_size: int,
        arguments: Mapping[str, Any],
        logprobs: int | None = None,
    ) -> ManyTexts:
        if isinstance(prompts, str):
            raise UsageError("expected several; for one, write [prompt], or use generate or stream", argument="prompts")
        if not isinstance(prompts, Iterable):
            raise UsageError("expected a list or another iterable of strings", argument="prompts", value=prompts)
        settings = self._settings(arguments)
        _check_whole("n", n, 1, MAX_N)
        _check_whole("index", index, 0, MAX_SEED - 1)
        _check_whole("batch_size", batch_size, 1, MAX_N)
        many = ManyTexts(self.model, self.tokenizer, self.encode_prompt, settings, n, int(index), batch_size, logprobs)
        if isinstance(prompts, (list, tuple)):
            for place, prompt in enumerate(prompts):
                many.encoded(place, prompt)
        return many


def _open_end(prompt: str, state: GenerationState | None) -> str:
    """The end of what was generated before, where the text goes straight on from it."""
    return "" if state is None or prompt else str(state.values["open_end"])


def _collect(
    decoding: SequenceDecoding,
    continuation: Continuation,
    settings: Settings,
    watcher: StopText | None,
    top: int | None,
    hold_back: bool,
) -> tuple[list[int], str]:
    """All tokens of a decoding, and their text."""
    tokens = decoding.tokens(settings.limits(), top)
    if watcher is None:
        ids = list(tokens)
        return ids, continuation.decode(np.array(ids, np.int64), hold_back=hold_back)
    ids = []
    for token in tokens:
        ids.append(token)
        if watcher.watch(token):
            decoding.reason = "stop"
            break
    return ids, watcher.text(hold_back=hold_back)


def _check_whole(name: str, value: Any, low: int, high: int) -> None:
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or not low <= value <= high:
        raise UsageError(f"expected an integer from {low} to {high:,}", argument=name, value=value)
