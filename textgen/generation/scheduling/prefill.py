"""Feeds prompts to a model, a chunk at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from textgen.contracts.decoders import DecoderFactory
from textgen.generation.sampling.chain import rows_of
from textgen.generation.scheduling.prompt_cache import BLOCK, PromptCache, block_keys
from textgen.generation.steps.batch import Batch
from textgen.generation.texts.row import Row, failing
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
        self._prompts: list[tuple[Ids, list[bytes], list[Row]]] = []
        self._decoder: Any = None
        self._fed = 0

    def step(self) -> Batch | None:
        """Feed a chunk. The rows whose prompts are fed with it, if any, begun."""
        if self._decoder is None:
            self._begin()
        prompts, fed = self._prompts, self._fed
        width = min(min(len(ids) for ids, _, _ in prompts) - fed, BLOCK - fed % BLOCK)
        chunk = np.stack([ids[fed : fed + width] for ids, _, _ in prompts])
        logits = self._factory.extend(self._decoder, chunk)
        self._fed = fed = fed + width
        self._keep_states()
        ready = {
            row: index
            for index, (ids, _, rows) in enumerate(prompts)
            for row in rows
            if len(ids) <= fed and not row.ended
        }
        batch = self._batch(ready, logits) if ready else None
        rest = [index for index, (ids, _, _) in enumerate(prompts) if len(ids) > fed]
        if 0 < len(rest) < len(prompts):
            self._decoder = self._factory.take(self._decoder, rest)
        self._prompts = [prompts[index] for index in rest]
        self.rows = [row for _, _, rows in self._prompts for row in rows]
        return batch

    def _begin(self) -> None:
        """Find the different prompts, each from the longest known state on: now, since those before
        may have left it.
        """
        equal = defaultdict[tuple[str, bytes], list[Row]](list)
        for row in self.rows:
            equal[row.request.cache_salt, row.to_feed().tobytes()].append(row)
        begun, new = list[Any](), list[tuple[Ids, list[bytes], list[Row]]]()
        for (salt, _), rows in equal.items():
            ids, keys = rows[0].to_feed(), list[bytes]()
            known, state = 0, None
            if self._cache is not None and rows[0].start is None:
                keys = block_keys(ids, salt)
                known, state = self._cache.longest(keys)
            prompt = ids[known * BLOCK :], keys[known:], rows
            if state is None:
                new.append(prompt)
            else:
                self._prompts.append(prompt)
                begun.append(self._factory.restored(state))
        self._prompts += new
        if new:
            begun.append(self._factory(len(new)))
        self._decoder, *others = begun
        for other in others:
            self._factory.join(self._decoder, other)
        self.rows[0].restore(self._decoder)  # a row that resumes is fed by itself

    def _batch(self, ready: Mapping[Row, int], logits: Array) -> Batch:
        """Rows, each with its index in the decoder, begun with the logits there."""
        rows, indices = [*ready], [*ready.values()]
        decoder = self._decoder
        if indices != [*range(len(self._prompts))]:  # else each row has its own, and all are ready
            decoder = self._factory.take(decoder, indices)
        batch = Batch(self._factory, decoder, rows)
        with failing(rows):
            batch.begin(rows_of(logits, np.array(indices)))
        return batch

    def _keep_states(self) -> None:
        """Keep the states of prompts at the end of a block."""
        block, rest = divmod(self._fed, BLOCK)
        if (cache := self._cache) is None or rest or not block:
            return
        for index, (_, keys, _) in enumerate(self._prompts):
            if len(keys) >= block:
                cache.keep(keys[block - 1], self._factory.state(self._decoder, index))
