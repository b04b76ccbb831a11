"""Texts in pieces as they come, made by whoever asks for the next piece."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import TracebackType
from typing import Final, Self

import numpy as np

from textgen.generation.continuation import Continuation
from textgen.generation.results import FinishReason, GenerationState, Piece, TokenLogprobs
from textgen.generation.scheduler import Scheduler
from textgen.protocols import Ids

GATHER: Final = 0.005  # seconds for which pieces of several texts are gathered: each costs more than a token
GATHER_ONE: Final = 0.001  # and of one


class StreamedText:
    """What is known of a text that is read piece by piece.

    finish_reason  None until it has ended; then as in Generation
    seed, index    with the same of these and the same prompt, the same text comes again
    ids            (T,) the token ids of the last piece; an unfinished character's come before its text
    logprobs       one entry for each of these, if `logprobs` was given
    state          once it has ended, and with `keep_state`: what continues it
    """

    def __init__(self, text: Continuation, time_limit: float | None, model_id: str) -> None:
        self.finish_reason: FinishReason | None = None
        self.state: GenerationState | None = None
        self.seed, self.index = text.row.seed, text.row.index
        self.ids: Ids = np.empty(0, np.int64)
        self.logprobs: list[TokenLogprobs] = []
        self._text, self._time_limit, self._model_id = text, time_limit, model_id
        self._begun = self._closed = False

    def _take(self) -> str:
        """What has come since this was last asked."""
        piece, self.ids = self._text.take()
        self.logprobs = self._text.logprobs()
        self.finish_reason, self.state = self._text.finish_reason, self._text.state(self._model_id)
        return piece


class TextStream(StreamedText, Iterator[str]):
    """The text of `Generator.stream`, piece by piece; a context manager, which closes it.

    A piece holds what was made since the last one. A stream that is closed, or left for good, does no more work.
    """

    def __init__(self, scheduler: Scheduler, text: Continuation, time_limit: float | None, model_id: str) -> None:
        super().__init__(text, time_limit, model_id)
        self._scheduler = scheduler
        self._gather = 0.0  # the first piece comes at once

    def __next__(self) -> str:
        if self._closed or self.finish_reason is not None:
            raise StopIteration
        try:
            piece = self._next_piece()
        except BaseException:  # what failed has no end to tell of
            self.close()
            raise
        if self._closed or not piece:
            self.close()
            raise StopIteration
        return piece

    def cancel(self) -> None:
        """End the text, from any thread, as `cancelled` does: what was held back still comes, as the last piece."""
        self._scheduler.cancel(self._text.row)

    def close(self) -> None:
        """Leave it, from any thread: nothing more comes."""
        self._closed = True
        self._scheduler.cancel(self._text.row)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _next_piece(self) -> str:
        """The next piece; "" after the last."""
        text, row = self._text, self._text.row
        if not self._begun:  # the clock starts with the first piece
            self._begun = True
            row.begin(self._time_limit)
            self._scheduler.submit(row)
            if text.shown:
                shown, text.shown = text.shown, ""
                return shown
        while True:
            self._scheduler.run(self._gather and time.perf_counter() + self._gather)
            self._gather = GATHER_ONE
            self._scheduler.flush()
            piece = self._take()
            if row.error is not None and not piece:
                raise row.error
            if piece or self.finish_reason is not None or self._closed:
                return piece


def in_pieces(scheduler: Scheduler, texts: Iterator[Continuation]) -> Iterator[Piece]:
    """The pieces of several texts side by side, as they come."""
    running: list[Continuation] = []
    gathered = 0.0
    while True:
        while scheduler.free > 0 and (text := next(texts, None)) is not None:
            running.append(text)
            scheduler.submit(text.row)
        if not running:
            return
        scheduler.run(gathered and time.perf_counter() + gathered)
        gathered = GATHER
        scheduler.flush()
        for text in running:
            piece, _ = text.take()
            if text.row.error is not None:
                raise text.row.error
            if piece or text.finish_reason is not None:
                yield Piece(text.row.index, piece, text.finish_reason)
        running = [text for text in running if text.finish_reason is None]
