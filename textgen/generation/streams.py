"""One text in pieces as they come."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator

from textgen.generation.arguments import Settings
from textgen.generation.continuing import TAIL, Continuation
from textgen.generation.decoding import FinishReason, SequenceDecoding
from textgen.generation.state import GenerationState


class TextStream(Iterator[str]):
    """The text of `Generator.stream`, piece by piece. A stream that is left, by `close` or for good, does no more work.

    finish_reason   None until it has ended; then as in Generation
    state           None until it has ended, and without `keep_state`; then what goes on from there
    """

    def __init__(
        self,
        decoding: SequenceDecoding,
        continuation: Continuation,
        settings: Settings,
        *,
        first: str = "",
        open_end: str = "",
        keep_for: str | None = None,
    ) -> None:
        """`first` comes before all else, `open_end` came before. With `keep_for`, a state of that model is kept."""
        self.finish_reason: FinishReason | None = None
        self.state: GenerationState | None = None
        self._switch = threading.Event()
        self._settings = settings.also_ended_by(self._switch)
        self._decoding, self._first, self._keep_for = decoding, first, keep_for
        self._text = settings.watcher(continuation, open_end)
        self._made: deque[int] = deque(maxlen=TAIL)
        self._tokens: Iterator[int] | None = None
        self._closed = False

    def __next__(self) -> str:
        if self._closed:
            raise StopIteration
        if self._first:
            first, self._first = self._first, ""
            return first
        try:
            piece = self._next_piece()
        except BaseException:  # what failed has no end to tell of
            self.close()
            raise
        if not piece or self._closed:  # by another thread, say
            self.close()
            raise StopIteration
        return piece

    def cancel(self) -> None:
        """End the text, from any thread, as `cancelled` does: what was held back still comes, as the last piece."""
        self._switch.set()

    def close(self) -> None:
        """Leave it, from any thread: nothing more comes."""
        self._closed, self._tokens = True, iter(())
        self._switch.set()

    def _next_piece(self) -> str:
        """The next piece; "" after the last."""
        if self.finish_reason is not None:
            return ""
        if self._tokens is None:  # the clock starts with the first piece
            self._tokens = self._decoding.tokens(self._settings.limits())
        for token in () if self._text.stopped else self._tokens:
            self._made.append(token)
            if piece := self._text.feed(token):
                return piece
            if self._text.stopped:
                break
        rest = self._text.rest(hold_back=self._keep_for is not None)
        if self._keep_for is not None:
            self.state = self._decoding.state(
                self._keep_for, list(self._made), self._settings.sampling, self._text.open_end
            )
        self.finish_reason = "stop" if self._text.stopped else self._decoding.reason
        return rest
