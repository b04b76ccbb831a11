"""Many texts in one batch, whole or in pieces."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

import attrs

from textgen.errors import UsageError
from textgen.generation.arguments import Settings
from textgen.generation.batching import BatchDecoding, Finished, Request, can_batch
from textgen.generation.continuing import Continuation
from textgen.generation.decoding import TokenLogprobs, prompt_logprobs
from textgen.generation.detokenise import StopText
from textgen.generation.results import Generation, Piece
from textgen.pipeline.pipeline import UnknownCharacters
from textgen.protocols import Ids, Model, Tokenizer

_Watch = Callable[[int], bool]


@attrs.frozen(eq=False)
class _Given:
    """A prompt, the text that begins after it, and the log-probabilities of its own tokens where they are wanted."""

    prompt: str
    continuation: Continuation
    logprobs: Sequence[TokenLogprobs]


@attrs.frozen(eq=False)
class ManyTexts:
    """`n` continuations of each prompt, up to `batch_size` at once, with indices from `first` on in that order.

    With `top`, whole texts have log-probabilities.
    """

    model: Model
    tokenizer: Tokenizer
    encode: Callable[[str, UnknownCharacters], Ids]
    settings: Settings
    n: int
    first: int
    batch_size: int
    top: int | None = None

    def whole(self, prompts: Iterable[str]) -> Generator[Generation, None, None]:
        """The texts, in the order of their indices."""
        begun: dict[int, _Given] = {}
        watchers: dict[int, StopText] = {}

        def begin(index: int, given: _Given) -> _Watch | None:
            begun[index] = given
            if not self.settings.options.stops:
                return None
            watchers[index] = self.settings.watcher(given.continuation)
            return watchers[index].watch

        ready: dict[int, Generation] = {}
        turn = self.first
        for done in self._decode(prompts, begin, keep=True):
            if done is None:
                continue
            index = done.request.index
            given = begun.pop(index)
            watcher = watchers.pop(index, None)
            text = given.continuation.decode(done.tokens) if watcher is None else watcher.text()
            ready[index] = self._generation(given, text, done)
            while turn in ready:
                yield ready.pop(turn)
                turn += 1

    def in_pieces(self, prompts: Iterable[str]) -> Iterator[list[Piece]]:
        """The texts side by side, as they come: what each step gives."""
        come: list[Piece] = []
        watchers: dict[int, StopText] = {}

        def begin(index: int, given: _Given) -> _Watch:
            watchers[index] = text = self.settings.watcher(given.continuation)
            if self.settings.options.echo and given.prompt:
                come.append(Piece(index, given.prompt))

            def watch(token: int) -> bool:
                if piece := text.feed(token):
                    come.append(Piece(index, piece))
                return text.stopped

            return watch

        for done in self._decode(prompts, begin, keep=False):
            if done is not None:
                index = done.request.index
                come.append(Piece(index, watchers.pop(index).rest(), done.reason))
            if come:
                yield come.copy()
                come.clear()

    def encoded(self, place: int, prompt: str) -> Ids:
        """(T,) ids of a prompt. Raises UsageError with its place among the others."""
        try:
            return self.encode(prompt, self.settings.options.unknown_characters)
        except UsageError as error:
            error.source = f"prompts[{place}]"
            raise

    def _decode(
        self, prompts: Iterable[str], begin: Callable[[int, _Given], _Watch | None], *, keep: bool
    ) -> Iterator[Finished | None]:
        """The batch. `begin` gives what is told each token of a text, and ends it by answering True."""
        settings = self.settings

        def requests() -> Iterator[Request]:
            indices = itertools.count(self.first)
            for place, prompt in enumerate(prompts):
                ids = self.encoded(place, prompt)
                echoed = self.top is not None and settings.options.echo
                logprobs = prompt_logprobs(self.model, settings.chain, ids, self.top or 0) if echoed else ()
                given = _Given(prompt, Continuation.of(self.tokenizer, ids), logprobs)
                for index in itertools.islice(indices, self.n):
                    yield Request(ids, settings.seed, index, begin(index, given))

        size = self.batch_size if can_batch(self.model, settings.chain.model) else 1
        decoding = BatchDecoding(self.model, settings.chain, settings.limits(), size, keep=keep, top=self.top)
        return decoding.run(requests())

    def _generation(self, given: _Given, text: str, done: Finished) -> Generation:
        echo = self.settings.options.echo
        return Generation(
            prompt=given.prompt,
            text=given.prompt + text if echo else text,
            tokens=tuple(done.tokens.tolist()),
            finish_reason=done.reason,
            seed=done.request.seed,
            index=done.request.index,
            echo=echo,
            logprobs=None if self.top is None else (*given.logprobs, *done.logprobs),
        )
