"""A text in pieces as they come, made by whoever asks for the next piece."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final, Protocol, Self

from textgen.generation.detokenise import drain
from textgen.generation.prompts import NO_IDS
from textgen.generation.results import FinishReason, GenerationState, TokenLogprobs
from textgen.generation.row import Row
from textgen.generation.scheduler import Scheduler
from textgen.protocols import Ids

_GATHER: Final = 0.001  # seconds for which a piece grows: each costs more than a token


class Source(Protocol):
    """What makes the tokens of rows: a scheduler, or a thread that runs one."""

    def submit(self, row: Row) -> None:
        """Let a row wait for its turn."""

    def cancel(self, row: Row) -> None:
        """End a row at the next step, wherever it is."""


class StreamedText:
    """A text that is read piece by piece.

    finish_reason  None until it has ended, and after an error; then as in Generation
    seed, index    with the same of these and the same prompt, the same text comes again
    samplers       the [[sampler]] tables of its chain
    ids            (T,) the token ids of the last piece; an unfinished character's come before its text
    logprobs       one entry for each of these, if `logprobs` was given
    state          the state at its end, if `keep_state` was given
    """

    def __init__(self, source: Source, row: Row, model_id: str) -> None:
        self.state: GenerationState | None = None
        self.seed, self.index = row.request.seed, row.index
        self.samplers = row.request.chain.tables
        self.ids: Ids = NO_IDS
        self.logprobs: list[TokenLogprobs] = []
        self._source, self._row, self._model_id = source, row, model_id
        self._begun = self._closed = self._failed = False
        self._reason: FinishReason | None = None

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why it ended: "cancelled" too if it was closed before its end."""
        was_left = self._closed and not self._failed
        return self._reason or ("cancelled" if was_left else None)

    def cancel(self) -> None:
        """End the text, from any thread, as `cancelled` does: held back text still comes, as the last piece."""
        self._source.cancel(self._row)

    def _leave(self) -> None:
        self._closed = True
        self._source.cancel(self._row)

    def _next(self) -> str | None:
        """The next piece, and "" after the last; None while it is not made yet."""
        with self._row.request.chain.components.blaming():
            return self._take()

    def _take(self) -> str | None:
        row = self._row
        if self._closed or self._reason is not None:
            return ""
        if not self._begun:  # the clock starts with the first piece
            self._begun = True
            row.start_clock()
            self._source.submit(row)
        piece, self.ids = row.take()
        self.logprobs = drain(row.logprobs)
        self._reason, self.state = row.finish_reason, row.state(self._model_id)
        if row.resumes():
            self._source.submit(row)
        if row.error is not None and not piece:
            raise row.error
        return piece or (None if self._reason is None else "")


class TextStream(StreamedText, Iterator[str]):
    """The text of `Generator.stream`, piece by piece; a context manager, which closes it.

    A piece holds what was made since the last one. A stream that is closed, or dropped, does no more work.
    """

    def __init__(self, scheduler: Scheduler, row: Row, model_id: str) -> None:
        super().__init__(scheduler, row, model_id)
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
        """End it, from any thread: nothing more comes."""
        self._leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
