"""Texts in pieces as they come, made by whoever asks for the next piece."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from typing import Final, Protocol, Self

from textgen.generation.continuation import Continuation
from textgen.generation.detokenise import drain
from textgen.generation.prompts import NO_IDS
from textgen.generation.results import FinishReason, GenerationState, Piece, TokenLogprobs
from textgen.generation.row import Row
from textgen.generation.scheduler import Scheduler
from textgen.protocols import Ids

_GATHER: Final = 0.001  # seconds for which a piece grows: each costs more than a token
_GATHER_MANY: Final = 0.005  # and the pieces of several texts


class Source(Protocol):
    """What makes the tokens of rows: a scheduler, or a thread that runs one."""

    def submit(self, row: Row) -> None:
        """Let a row wait for its turn."""

    def cancel(self, row: Row) -> None:
        """End a row at the next step, wherever it is."""


class StreamedText:
    """A text that is read piece by piece, and what is known of it.

    finish_reason  None until it has ended, and after an error; then as in Generation
    seed, index    with the same of these and the same prompt, the same text comes again
    samplers       the [[sampler]] tables of its chain
    ids            (T,) the token ids of the last piece; an unfinished character's come before its text
    logprobs       one entry for each of these, if `logprobs` was given
    state          once it has ended, and with `keep_state`: what continues it
    """

    def __init__(self, source: Source, text: Continuation, model_id: str) -> None:
        self.state: GenerationState | None = None
        self.seed, self.index = text.row.asked.seed, text.row.index
        self.samplers = text.row.settings.chain.tables
        self.ids: Ids = NO_IDS
        self.logprobs: list[TokenLogprobs] = []
        self._source, self._text, self._model_id = source, text, model_id
        self._begun = self._closed = self._failed = False
        self._reason: FinishReason | None = None

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why it ended: "cancelled" as well where it was closed before its end."""
        was_left = self._closed and not self._failed
        return self._reason or ("cancelled" if was_left else None)

    def cancel(self) -> None:
        """End the text, from any thread, as `cancelled` does: what was held back still comes, as the last piece."""
        self._source.cancel(self._text.row)

    def _leave(self) -> None:
        self._closed = True
        self._source.cancel(self._text.row)

    def _next(self) -> str | None:
        """The next piece, and "" after the last; None while it is not made yet."""
        with self._text.row.settings.chain.components.blaming():
            return self._take()

    def _take(self) -> str | None:
        text, row = self._text, self._text.row
        if self._closed or self._reason is not None:
            return ""
        if not self._begun:  # the clock starts with the first piece
            self._begun = True
            row.begin()
            self._source.submit(row)
        piece, self.ids = text.take()
        self.logprobs = drain(row.logprobs)
        self._reason, self.state = text.finish_reason, text.state(self._model_id)
        if row.resumes():
            self._source.submit(row)
        if row.error is not None and not piece:
            raise row.error
        return piece or (None if self._reason is None else "")


class StreamedTexts:
    """Several texts that are read piece by piece, up to `size` side by side."""

    def __init__(self, source: Source, texts: Iterator[Continuation], size: int) -> None:
        self._source, self._texts, self._size = source, texts, size
        self.running: list[Continuation] = []
        self._come: deque[Piece] = deque()

    def next_piece(self) -> Piece | None:
        """The next piece; None while it is not made yet, and after the last, when no text is running."""
        if not self._come:
            while len(self.running) < self._size and (text := next(self._texts, None)) is not None:
                self.running.append(text)
                self._source.submit(text.row)
            for text in self.running.copy():
                if text.has_news:
                    self._take(text)
        return self._come.popleft() if self._come else None

    def _take(self, text: Continuation) -> None:
        with text.row.settings.chain.components.blaming():
            piece, _ = text.take()
            if text.row.error is not None:
                raise text.row.error
        if text.row.resumes():
            self._source.submit(text.row)
        if piece or text.finish_reason is not None:
            self._come.append(Piece(text.row.index, piece, text.finish_reason))
        if text.finish_reason is not None:
            self.running.remove(text)

    def leave(self) -> None:
        """End them all; no more comes."""
        self._texts = iter(())
        self._come.clear()
        for text in self.running:
            self._source.cancel(text.row)
        self.running.clear()


class TextStream(StreamedText, Iterator[str]):
    """The text of `Generator.stream`, piece by piece; a context manager, which closes it.

    A piece holds what was made since the last one. A stream that is closed, or left for good, does no more work.
    """

    def __init__(self, scheduler: Scheduler, text: Continuation, model_id: str) -> None:
        super().__init__(scheduler, text, model_id)
        self._scheduler = scheduler
        self._gather = 0.0  # the first piece comes at once

    def __next__(self) -> str:
        try:
            while (piece := self._next()) is None:
                self._scheduler.run(self._gather and time.perf_counter() + self._gather)
                self._scheduler.flush()
                self._gather = _GATHER
        except BaseException as error:
            self._failed = isinstance(error, Exception)  # an interrupt ends it as closing it does
            self.close()
            raise
        if not piece:
            raise StopIteration
        return piece

    def close(self) -> None:
        """Leave it, from any thread: nothing more comes."""
        self._leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def in_pieces(scheduler: Scheduler, texts: Iterator[Continuation], size: int) -> Iterator[Piece]:
    """The pieces of several texts side by side, as they come."""
    streamed, gather = StreamedTexts(scheduler, texts, size), 0.0
    while True:
        piece = streamed.next_piece()
        if piece is not None:
            yield piece
        elif streamed.running:
            scheduler.run(gather and time.perf_counter() + gather)
            scheduler.flush()
            gather = _GATHER_MANY
        else:
            return
