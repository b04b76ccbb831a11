"""A prompt that is being continued: its row, and the text that the row's tokens make."""

from __future__ import annotations

from typing import Final

import attrs
import numpy as np

from textgen.errors import UsageError
from textgen.generation.detokenise import TAIL, Detokeniser, Tail
from textgen.generation.prompts import NO_IDS
from textgen.generation.results import FinishReason, GenerationState
from textgen.generation.row import Asked, Row, RowState, Settings
from textgen.generation.sampling import saved_arrays
from textgen.protocols import Ids, Tokenizer

_HISTORY: Final = "history."
_STATE: Final = "state."


@attrs.define(eq=False)
class Continuation:
    """The text of one request, as far as it has come.

    shown  text that comes before all else: the prompt, with `echo`
    """

    row: Row
    shown: str
    _text: Detokeniser
    _last: list[int]
    _finished: bool = False

    @classmethod
    def begin(cls, tokenizer: Tokenizer, asked: Asked, index: int) -> Continuation:
        """With nothing done for it yet."""
        settings, state, tail, open_end = asked.settings, asked.state, asked.tail, ""
        decoding = settings.decoding
        if state is not None:
            before = np.concatenate([np.array(state.values["tail"], np.int64), asked.ids])
            tail = Tail.of(tokenizer, before, mid_character=not len(asked.ids))
            open_end = "" if len(asked.ids) else str(state.values["open_end"])
        detokeniser = Detokeniser(
            tokenizer,
            tail,
            stops=decoding.stops,
            min_tokens=decoding.min_new_tokens,
            open_end=open_end,
        )
        row = Row(
            asked,
            index,
            prompt=asked.ids,
            stop_at=detokeniser.stop_at if detokeniser.searches else None,
            start=None if state is None else _row_state(state, settings),
        )
        last = tail.ids.tolist() if asked.keep_state else []
        return cls(row, asked.prompt if decoding.echo else "", detokeniser, last)

    @property
    def finish_reason(self) -> FinishReason | None:
        """None until the row has ended and all its text is taken."""
        if not self._finished:
            return None
        return "stop" if self._text.stopped else self.row.reason

    @property
    def has_news(self) -> bool:
        """Whether there is something to take."""
        return self.row.has_news or bool(self.shown)

    def take(self) -> tuple[str, Ids]:
        """Text and tokens that came since they were last taken. What the row was ended by is raised after all text."""
        ended = self.row.ended  # before the tokens are taken: another thread may be adding some
        ids = self.row.take()
        unseen = (
            NO_IDS if self._text.searches else ids
        )  # where it searches, it has seen each token as it was drawn
        if self.row.asked.keep_state:
            self._last = (self._last + ids[-TAIL:].tolist())[-TAIL:]
        if ended and not self._finished:
            self._finished = True
            self._text.finish(unseen, hold_back=self.row.asked.keep_state)
        else:
            self._text.feed(unseen)
        shown, self.shown = self.shown, ""
        return shown + self._text.take(), ids

    def state(self, model_id: str) -> GenerationState | None:
        """Where the text stands, once it has ended and if it was to be kept."""
        end = self.row.end
        if end is None or not self._finished:
            return None
        arrays = {_STATE + name: array for name, array in end.decoder.items()}
        arrays |= {_HISTORY + name: np.asarray(array) for name, array in end.history.items()}
        values = {
            "seed": self.row.asked.seed,
            "index": self.row.index,
            "position": end.position,
            "pending": end.pending.tolist(),
            "lengths": list(end.lengths),
            "tail": self._last,
            "model": model_id,
            "sampling": dict(self.row.asked.settings.sampling),
            "open_end": self._text.open_end,
        }
        return GenerationState(arrays, values)


def _row_state(state: GenerationState, settings: Settings) -> RowState:
    arrays, values = state.arrays, state.values
    history = {
        name.removeprefix(_HISTORY): array
        for name, array in arrays.items()
        if name.startswith(_HISTORY)
    }
    level = settings.chain.level
    if not history.keys() >= {*saved_arrays(level), *(("tokens",) if level == "tokens" else ())}:
        raise UsageError(
            "the saved state keeps no history of its tokens, and a sampler needs it; give the sampling options that "
            "the text was begun with, or none",
            argument="state",
        )
    return RowState(
        {
            name.removeprefix(_STATE): array
            for name, array in arrays.items()
            if name.startswith(_STATE)
        },
        history,
        values["position"],
        np.array(values["pending"], np.int64),
        tuple(values["lengths"]),
    )
