"""Many texts in one batch, whole or in pieces."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator

import attrs

from textgen.arguments import Settings
from textgen.batching import BatchDecoding, Finished, Request, can_batch
from textgen.continuing import Continuation
from textgen.errors import UsageError
from textgen.protocols import Ids, Model, Tokenizer
from textgen.stopping import StopText
from textgen.texts import Generation, Piece

_Watch = Callable[[int], bool]


@attrs.frozen(eq=False)
class ManyTexts:
    """`n` continuations of each prompt, up to `batch_size` at once. Continuation j of prompt i has index i * n + j."""

    model: Model
    tokenizer: Tokenizer
    encode: Callable[[str, str], Ids]
    settings: Settings
    n: int
    batch_size: int

    def whole(self, prompts: Iterable[str]) -> Iterator[Generation]:
        """The texts, in the order of their indices."""
        given: dict[int, tuple[str, Continuation]] = {}
        watchers: dict[int, StopText] = {}

        def begin(index: int, prompt: str, continuation: Continuation) -> _Watch | None:
            given[index] = prompt, continuation
            if not self.settings.options.stops:
                return None
            watchers[index] = self.settings.watcher(continuation)
            return watchers[index].watch

        ready: dict[int, Generation] = {}
        turn = 0
        for done in self._decode(prompts, begin, keep=True):
            if done is None:
                continue
            index = done.request.index
            prompt, continuation = given.pop(index)
            watcher = watchers.pop(index, None)
            text = continuation.decode(done.tokens) if watcher is None else watcher.text()
            ready[index] = self._generation(prompt, text, done)
            while turn in ready:
                yield ready.pop(turn)
                turn += 1

    def in_pieces(self, prompts: Iterable[str]) -> Iterator[list[Piece]]:
        """The texts side by side, as they come: what each step gives."""
        come: list[Piece] = []
        watchers: dict[int, StopText] = {}

        def begin(index: int, prompt: str, continuation: Continuation) -> _Watch:
            watchers[index] = text = self.settings.watcher(continuation)
            if self.settings.options.echo and prompt:
                come.append(Piece(index, prompt))

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
            error.args = (f"prompts[{place}]: {error}",)
            raise

    def _decode(
        self, prompts: Iterable[str], begin: Callable[[int, str, Continuation], _Watch | None], *, keep: bool
    ) -> Iterator[Finished | None]:
        """The batch. `begin` gives what is told each token of a text, and ends it by answering True."""
        settings = self.settings

        def requests() -> Iterator[Request]:
            indices = itertools.count()
            for place, prompt in enumerate(prompts):
                ids = self.encoded(place, prompt)
                continuation = Continuation.of(self.tokenizer, ids)
                for index in itertools.islice(indices, self.n):
                    yield Request(ids, settings.seed, index, begin(index, prompt, continuation))

        size = self.batch_size if can_batch(self.model, settings.chain.model) else 1
        return BatchDecoding(self.model, settings.chain, settings.limits(), size, keep=keep).run(requests())

    def _generation(self, prompt: str, text: str, done: Finished) -> Generation:
        echo = self.settings.options.echo
        return Generation(
            prompt=prompt,
            text=prompt + text if echo else text,
            tokens=tuple(done.tokens.tolist()),
            finish_reason=done.reason,
            seed=done.request.seed,
            index=done.request.index,
            echo=echo,
        )
