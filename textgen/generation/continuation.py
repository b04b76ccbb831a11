"""A prompt that is being continued: its row, and the text that the row's tokens make."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

import attrs
import numpy as np

from textgen.errors import UsageError
from textgen.generation.arguments import Settings
from textgen.generation.detokenise import TAIL, Detokeniser, Tail
from textgen.generation.prompts import NO_IDS
from textgen.generation.results import FinishReason, GenerationState, TokenLogprobs
from textgen.generation.row import Row, RowState
from textgen.generation.sampling import saved_arrays
from textgen.protocols import Ids, Tokenizer

_HISTORY: Final = "history."
_STATE: Final = "state."


@attrs.frozen(eq=False)
class PromptText:
    """A prompt: its text, its ids (T,), their tail, and what is fed before them at the start (see document_start)."""

    text: str
    ids: Ids
    tail: Tail
    start: Ids


@attrs.define(eq=False)
class Continuation:
    """The text of one request, as far as it has come.

    prompt  its text
    ids     (T,) its ids
    shown   text that comes before all else: the prompt, with `echo`
    """

    row: Row
    prompt: str
    ids: Ids
    shown: str
    echo: bool
    sampling: dict[str, Any]
    _text: Detokeniser
    _last: deque[int]
    _finished: bool = False

    @classmethod
    def begin(
        cls,
        tokenizer: Tokenizer,
        prompt: PromptText,
        settings: Settings,
        *,
        seed: int,
        index: int,
        state: GenerationState | None = None,
        keep_state: bool = False,
    ) -> Continuation:
        """A row for a prompt, after `state` or the start."""
        ids, tail, decoding, open_end = prompt.ids, prompt.tail, settings.decoding, ""
        if state is not None:
            before = np.concatenate([np.array(state.values["tail"], np.int64), ids])
            tail = Tail.of(tokenizer, before, mid_character=not len(ids))
            open_end = "" if len(ids) else str(state.values["open_end"])
        detokeniser = Detokeniser(
            tokenizer, tail, stops=decoding.stops, min_tokens=decoding.min_new_tokens, open_end=open_end
        )
        row = Row(
            prompt=ids,
            before=prompt.start,
            chain=settings.chain,
            seed=seed,
            index=index,
            max_new_tokens=decoding.max_new_tokens,
            min_new_tokens=decoding.min_new_tokens,
            stop_tokens=decoding.stop_tokens,
            end_id=None if decoding.ignore_end else settings.end_id,
            cancelled=settings.cancelled,
            stop_at=detokeniser.stop_at if detokeniser.searches else None,
            top=settings.top,
            keep_state=keep_state,
            start=None if state is None else _row_state(state, settings),
            exact=settings.exact,
        )
        shown = prompt.text if decoding.echo else ""
        last = deque(tail.ids.tolist(), TAIL)
        return cls(row, prompt.text, ids, shown, decoding.echo, dict(settings.sampling), detokeniser, last)

    @property
    def finish_reason(self) -> FinishReason | None:
        """None until the row has ended and all its text is taken."""
        if not self._finished:
            return None
        return "stop" if self._text.stopped else self.row.reason

    def take(self) -> tuple[str, Ids]:
        """Text and tokens that came since they were last taken. What the row was ended by is raised after all text."""
        ended = self.row.ended  # before the tokens are taken: another thread may be adding some
        ids = self.row.take()
        unseen = NO_IDS if self._text.searches else ids  # where it searches, it has seen each token as it was drawn
        self._last.extend(ids[-TAIL:].tolist())
        if ended and not self._finished:
            self._finished = True
            self._text.finish(unseen, hold_back=self.row.keep_state)
        else:
            self._text.feed(unseen)
        shown, self.shown = self.shown, ""
        return shown + self._text.take(), ids

    def logprobs(self) -> list[TokenLogprobs]:
        """Those that came since they were last taken."""
        noted = self.row.logprobs
        return [noted.popleft() for _ in range(len(noted))]

    def state(self, model_id: str) -> GenerationState | None:
        """Where the text stands, once it has ended and if it was to be kept."""
        end = self.row.end
        if end is None or not self._finished:
            return None
        arrays = {_STATE + name: array for name, array in end.decoder.items()}
        arrays |= {_HISTORY + name: np.asarray(array) for name, array in end.history.items()}
        values = {
            "seed": self.row.seed,
            "index": self.row.index,
            "position": end.position,
            "pending": end.pending.tolist(),
            "lengths": list(end.lengths),
            "tail": list(self._last),
            "model": model_id,
            "sampling": self.sampling,
            "open_end": self._text.open_end,
        }
        return GenerationState(arrays, values)


def _row_state(state: GenerationState, settings: Settings) -> RowState:
    arrays, values = state.arrays, state.values
    history = {name.removeprefix(_HISTORY): array for name, array in arrays.items() if name.startswith(_HISTORY)}
    level = settings.chain.level
    if not history.keys() >= {*saved_arrays(level), *(("tokens",) if level == "tokens" else ())}:
        raise UsageError(
            "the saved state keeps no history of its tokens, and a sampler needs it; give the sampling options that "
            "the text was begun with, or none"
        )
    return RowState(
        {name.removeprefix(_STATE): array for name, array in arrays.items() if name.startswith(_STATE)},
        history,
        values["position"],
        np.array(values["pending"], np.int64),
        tuple(values["lengths"]),
    )
