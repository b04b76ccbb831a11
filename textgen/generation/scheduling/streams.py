"""Streams: a text in pieces, generated in the thread that asks for the next piece."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Self

import numpy as np

from textgen.generation.scheduling.scheduler import Scheduler
from textgen.generation.texts.prompts import NO_IDS
from textgen.generation.texts.results import FinishReason, GenerationState, TokenLogprobs
from textgen.generation.texts.row import Row
from textgen.protocols import Ids

_GATHER: Final = 0.001  # seconds for which a piece grows: each costs more than a token


class StreamedText:
    """A text that is read in pieces.

    finish_reason  as in Generation; "cancelled" if the stream was closed early; None before the end
                   and after an error
    seed, index    reproduce the text, with the same prompt and options
    ids            token ids (T,) of the latest piece, including earlier ones that completed no
                   character; after the end, the remaining ids
    logprobs       one entry for each of these ids, if `logprobs` was given
    state          the state at the end, if `keep_state` was given
    """

    def __init__(self, submit: Callable[[Row], None], row: Row, model_id: str) -> None:
        self.finish_reason: FinishReason | None = None
        self.state: GenerationState | None = None
        self.seed, self.index = row.request.seed, row.index
        self.ids: Ids = NO_IDS
        self.logprobs: list[TokenLogprobs] = []
        self._submit, self._row, self._model_id = submit, row, model_id
        self._has_begun = self._is_closed = False

    def cancel(self) -> None:
        """End the text, from any thread. Text that was held back follows as the last piece."""
        self._row.cancel()

    def _leave(self, error: BaseException | None = None) -> None:
        """End it: nothing more comes. An interrupt ends it as closing it does."""
        self._is_closed = True
        self._row.cancel()
        if not isinstance(error, Exception):
            self.finish_reason = self.finish_reason or "cancelled"

    def _begin_piece(self) -> None:
        self.ids, self.logprobs = NO_IDS, []

    def _next(self) -> str | None:
        """The next piece, and "" after the last; None while it is not made yet."""
        row = self._row
        if self._is_closed or self.finish_reason is not None:
            return ""
        with row.request.chain.components.blaming():
            if not self._has_begun:  # its time begins with the first piece
                self._has_begun = True
                self._submit(row)
            piece, ids = row.take()
            self.ids = np.concatenate([self.ids, ids])
            self.logprobs += row.logprobs[: len(ids)]  # another thread may have noted more
            del row.logprobs[: len(ids)]
            self.finish_reason, self.state = row.finish_reason, row.state(self._model_id)
            if row.waits_for_reader:
                row.waits_for_reader = False
                self._submit(row)
            if row.error is not None and not piece:
                raise row.error
            return piece or (None if self.finish_reason is None else "")


class TextStream(StreamedText, Iterator[str]):
    """The iterator of `Generator.stream`: yields the text in pieces.

    Leaving its `with` block closes it. A stream that is closed or dropped does no more work.
    """

    def __init__(self, scheduler: Scheduler, row: Row, model_id: str) -> None:
        super().__init__(scheduler.submit, row, model_id)
        self._scheduler = scheduler

    def __next__(self) -> str:
        self._begin_piece()
        try:
            while (piece := self._next()) is None:
                self._scheduler.run(_GATHER)
                self._scheduler.flush()
        except BaseException as error:
            self._leave(error)
            raise
        if not piece:
            raise StopIteration
        return piece

    def close(self) -> None:
        """End the text, from any thread, without a further piece."""
        self._leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
