"""The contract of objectives."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Final

import attrs
import numpy as np

from textgen.errors import UsageError
from textgen.gradient import GradientOptions
from textgen.testing.outcomes import Skip, Violation
from textgen.testing.partners import SMALL_NETWORK
from textgen.testing.training import TrainingSuite

__tracebackhide__ = True  # pytest shows the test and the code of the component

_STEPS: Final = 30
_ORDERS: Final = (
    GradientOptions(batch_size=4, order="shuffled"),
    GradientOptions(batch_size=2, accumulate=2, order="streams"),
)


@attrs.frozen(kw_only=True)
class ObjectiveSuite(TrainingSuite):
    """The checks of an objective, with a small recurrent network or the model of a run."""

    @cached_property
    def orders(self) -> list[GradientOptions]:
        """The orders of windows that it does not refuse; it has to take one of them."""
        taken, refusals = [], []
        for options in _ORDERS:
            try:
                self.new().batches(self.data(), options, 7).batch(0, 0)
            except UsageError as error:
                refusals.append(error)
            else:
                taken.append(options)
        if not taken:
            raise refusals[0]
        return taken

    def objective_batches(self) -> None:
        data = self.data()
        for options in self.orders:
            first, other = (
                self.new().batches(each, options, 7)
                for each in (data, attrs.evolve(data, validation=data.validation[:0]))
            )
            indices = [(0, 0), (0, first.per_epoch - 1), (1, 0)]
            again = {index: other.batch(*index) for index in indices[::-1]}
            for index in indices:
                one, two = first.batch(*index), again[index]
                self._check_form(one, options.rows)
                if not all(map(np.array_equal, one, two)):
                    raise Violation(f"batch{index} is another after others, or with none held out")
        validation = getattr(self.new(), "validation", lambda *_: ())
        batches, more = ([*validation(data, self.orders[0])] for _ in range(2))
        for batch in batches:
            self._check_form(batch, len(data.validation))
        if len(batches) != len(more):
            raise Violation(f"validation gave {len(batches)} batches, and then {len(more)}")

    def objective_sums(self) -> None:
        """Sums of whole batches, of their rows, and of the same batches again by one object."""
        from textgen.gradient.data_parallel import summed

        model, objective, sums = self._model(), self.new(), []
        for batch in self._batches():
            rows = [tuple(each[[i]] for each in batch) for i in range(len(batch[0]))]
            whole, counts = objective.count(batch), list(map(objective.count, rows))
            if type(whole) is not int or whole != sum(counts):
                raise Violation(f"the count of a batch is {whole!r}, and of its rows {counts}")
            for state in (summed(self.new(), model, batch, None, "cpu")[1], None):
                total, parts = self._sum(self.new(), model, batch, state), 0.0
                for i, row in enumerate(rows):
                    part = state and tuple(each[[i]] for each in state)
                    parts += self._sum(self.new(), model, row, part)
                if not np.isclose(total, parts, rtol=1e-4, atol=1e-4):
                    raise Violation(f"a batch has {total:.6g}, and its rows together {parts:.6g}")
            sums.append(total)
        again = [self._sum(objective, model, batch) for batch in self._batches() * 2]
        if not np.allclose(again, sums * 2, rtol=1e-6):
            raise Violation(f"batches had {sums}, and twice by one object {again}")

    def objective_falls(self) -> None:
        import torch

        from textgen.gradient.data_parallel import summed

        model, objective = self._model(), self.new()
        if (batch := next(filter(objective.count, self._batches()), None)) is None:
            raise Skip("nothing of this text counts")
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        before, count = self._sum(objective, model, batch), objective.count(batch)
        for _ in range(_STEPS):
            optimizer.zero_grad()
            (summed(objective, model, batch, None, "cpu")[0] / count).backward()
            optimizer.step()
        if not (after := self._sum(objective, model, batch)) < before:
            raise Violation(f"the sum of a batch was {before:.6g}, and is {after:.6g}")

    def _batches(self) -> list[Any]:
        """The first batches of an epoch."""
        made = self.new().batches(self.data(), self.orders[0], 0)
        return [made.batch(0, number) for number in range(min(3, made.per_epoch))]

    def _model(self) -> Any:
        """A new model without dropout."""
        table = self.pipeline.get("model", SMALL_NETWORK)
        return self.other("model", table, tokenizer=self.tokenizer).eval()

    def _sum(self, objective: Any, model: Any, batch: Any, state: Any = None) -> float:
        from textgen.gradient.data_parallel import summed

        made = summed(objective, model, batch, state, "cpu")[0].item()
        if not np.isfinite(made):
            raise Violation(f"the sum of a batch is {made}")
        return made

    def _check_form(self, batch: Any, most: int) -> None:
        """Raise a Violation unless a batch is a tuple of arrays, the first of them token ids."""
        if not isinstance(batch, tuple) or not all(isinstance(each, np.ndarray) for each in batch):
            raise Violation(f"a batch is of type {type(batch).__name__}, and no tuple of arrays")
        shapes, ids = [each.shape for each in batch], batch[0]
        if ids.ndim != 2 or ids.dtype != np.int64 or ids.max() >= self.tokenizer.vocab_size:
            raise Violation(f"the first array is {ids.dtype} of shape {ids.shape}, no token ids")
        if {shape[:1] for shape in shapes} != {(len(ids),)} or not 0 < len(ids) <= most:
            raise Violation(f"the arrays of a batch have the shapes {shapes}, at most {most} rows")
