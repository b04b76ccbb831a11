"""Feeds prompts to a model, a chunk at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from textgen.contracts.decoders import DecoderFactory
from textgen.generation.batch import Batch
from textgen.generation.chain import rows_of
from textgen.generation.prompt_cache import BLOCK, PromptCache, block_keys
from textgen.generation.row import Row, failing, start_history
from textgen.generation.sampling import log_softmax, to_numpy
from textgen.protocols import Array, Ids


class Prefill:
    """Feeds the prompts of rows side by side. Equal prompts are fed once.

    rows  those whose prompts are not fed yet
    """

    def __init__(
        self, factory: DecoderFactory, rows: Sequence[Row], cache: PromptCache | None
    ) -> None:
        self.rows = [*rows]
        self._factory, self._cache = factory, cache
        equal = defaultdict[tuple[str, bytes], list[Row]](list)
        for row in rows:
            equal[row.request.cache_salt, row.to_feed().tobytes()].append(row)
        prompts: list[tuple[Tensors | None, Ids, list[bytes], list[Row]]] = []
        for (salt, _), same in equal.items():
            ids, known, state, keys = same[0].to_feed(), 0, None, list[bytes]()
            if cache is not None and same[0].start is None:
                keys = block_keys(ids, salt)
                known, state = cache.longest(keys)
            prompts.append((state, ids[known * BLOCK :], keys[known:], same))
        prompts.sort(key=lambda prompt: prompt[0] is None)  # those with a state come first
        self._prompts = [prompt[1:] for prompt in prompts]
        states = [state for state, *_ in prompts if state is not None]
        # A row that resumes is fed by itself.
        self._decoder: Any = rows[0].restore(self._begin(states, len(prompts) - len(states)))
        self._fed = 0

    def step(self) -> Batch | None:
        """Feed a chunk. The rows whose prompts are fed with it, if any, begun."""
        prompts, fed = self._prompts, self._fed
        width = min(min(len(ids) for ids, _, _ in prompts) - fed, BLOCK - fed % BLOCK)
        chunk = np.stack([ids[fed : fed + width] for ids, _, _ in prompts])
        logits = self._factory.extend(self._decoder, chunk)
        self._fed = fed = fed + width
        self._keep_states()
        ready, places = list[Row](), list[int]()
        for place, (ids, _, rows) in enumerate(prompts):
            if len(ids) > fed:
                continue
            for row in rows:
                if row.peeks:
                    _peek(row, rows_of(logits, np.array([place])))
                elif not row.ended:
                    ready.append(row)
                    places.append(place)
        batch = self._batch(ready, places, logits) if ready else None
        rest = [
            place
            for place, (ids, _, rows) in enumerate(prompts)
            if len(ids) > fed and not all(row.ended for row in rows)
        ]
        if 0 < len(rest) < len(prompts):
            self._decoder = self._factory.take(self._decoder, rest)
        self._prompts = [prompts[place] for place in rest]
        self.rows = [row for _, _, rows in self._prompts for row in rows]
        return batch

    def _begin(self, states: Iterable[Tensors], others: int) -> Any:
        """A decoder with rows in these states, of any lengths where they grow, and some more."""
        begun = [self._factory.restored(state) for state in states]
        first, *more = [*begun, *([self._factory(others)] if others else [])]
        for other in more:
            self._factory.join(first, other)
        return first

    def _batch(self, rows: list[Row], places: list[int], logits: Array) -> Batch:
        """The rows at some places of the decoder, begun with the logits there."""
        is_all = places == [*range(len(self._prompts))]
        decoder = self._decoder if is_all else self._factory.take(self._decoder, places)
        batch = Batch(self._factory, decoder, rows)
        with failing(rows):
            batch.begin(rows_of(logits, np.array(places)))
        return batch

    def _keep_states(self) -> None:
        """Keep the states of prompts at the end of a block."""
        block, rest = divmod(self._fed, BLOCK)
        if (cache := self._cache) is None or rest or not block:
            return
        for place, (_, keys, _) in enumerate(self._prompts):
            if len(keys) == block or (len(keys) > block and not cache.grows):
                cache.keep(keys[block - 1], self._factory.state(self._decoder, place))


def _peek(row: Row, logits: Array) -> None:
    """End a row with what may follow its prompt, by logits (1, V)."""
    chain = row.request.chain
    with failing([row]):
        row.open(logits[0])
        before = log_softmax(to_numpy(logits)[0])
        if row.ending and row.is_early:
            logits[:, list(row.ending)] = -np.inf
        after = to_numpy(chain.sampled(logits, start_history([row])))[0].astype(np.float64)
        row.next_logprobs = before, log_softmax(after) if after.max() > -np.inf else after
        row.reason = "length"
