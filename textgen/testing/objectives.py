"""The contract of objectives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final, Unpack

import attrs
import numpy as np

from textgen.gradient import GradientOptions
from textgen.plugin.component import Component
from textgen.testing.environment import build_from_table
from textgen.testing.outcomes import Outcome, Skip, Violation
from textgen.testing.suite import GivenData, Suite, check
from textgen.testing.training_data import small_dataset

__tracebackhide__ = True  # pytest shows the test and the code of the component

_STEPS: Final = 30
_ORDERS: Final = (
    GradientOptions(batch_size=4, order="shuffled"),
    GradientOptions(batch_size=2, accumulate=2, order="streams"),
)


def check_objective(component: Component, **given: Unpack[GivenData]) -> tuple[Outcome, ...]:
    """Hold an objective to its contract. Raises ContractFailure."""
    return check(ObjectiveSuite, component, given)


@attrs.frozen
class ObjectiveSuite(Suite):
    """The checks of an objective, with a small recurrent network or the model of a run."""

    kind: ClassVar[str] = "objective"

    def batches(self) -> None:
        size, data = self.subject.tokenizer.vocab_size, small_dataset(self.subject)
        for options in _ORDERS:
            first, other = (self.new().batches(data, options, 7) for _ in range(2))
            places = [(0, 0), (0, first.per_epoch - 1), (1, 0)]
            again = {place: other.batch(*place) for place in places[::-1]}
            for place in places:
                one, two = first.batch(*place), again[place]
                _check_form(one, size, options.rows)
                if len(one) != len(two) or not all(map(np.array_equal, one, two)):
                    raise Violation(f"batch{place} is another once others were asked for first")
        held_out = getattr(self.new(), "validation", lambda *_: ())
        for batch in held_out(data, _ORDERS[0]):
            _check_form(batch, size, len(data.validation))

    def counts(self) -> None:
        for batch in self._batches():
            objective, whole = self.new(), self.new().count(batch)
            rows = [objective.count(row) for row in _rows(batch)]
            if type(whole) is not int or whole < 0 or whole != sum(rows):
                raise Violation(f"the count of a batch is {whole!r}, and of its rows {rows}")

    def sums(self) -> None:
        for batch in self._batches():
            model = self._model()
            whole, rows = self._sum(model, batch), sum(self._sum(model, r) for r in _rows(batch))
            if not np.isclose(whole, rows, rtol=1e-3, atol=1e-4):
                raise Violation(f"a batch has {whole:.6g}, and its rows together {rows:.6g}")

    def repeatable(self) -> None:
        model, objective = self._model(), self.new()
        first = [self._sum(model, batch, objective) for batch in self._batches()]
        again = [self._sum(model, batch, objective) for batch in self._batches()]
        if first != again:
            raise Violation(f"batches had {first}, and a second time {again}")

    def falls(self) -> None:
        import torch

        from textgen.gradient.computing import summed

        model, objective = self._model(), self.new()
        if (batch := next(filter(objective.count, self._batches()), None)) is None:
            raise Skip("nothing of this text counts")
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        before, count = self._sum(model, batch), objective.count(batch)
        for _ in range(_STEPS):
            optimizer.zero_grad()
            loss = summed(objective, model, batch, None, "cpu")[0] / count
            loss.backward()
            optimizer.step()
        if not (after := self._sum(model, batch)) < before:
            raise Violation(f"the sum of a batch was {before:.6g}, and is {after:.6g}")

    def _batches(self) -> Iterator[Any]:
        """The first batches of an epoch."""
        made = self.new().batches(small_dataset(self.subject), _ORDERS[0], 0)
        for number in range(min(3, made.per_epoch)):
            yield made.batch(0, number)

    def _model(self) -> Any:
        """A new model without dropout."""
        table: Mapping[str, Any] = self.subject.tables.get("model", {"type": "rnn"})
        context = self.subject.fitted_context()
        model = build_from_table(self.subject.plugins, "model", table, context)
        return model.eval()

    def _sum(self, model: Any, batch: Any, objective: Any = None) -> float:
        from textgen.gradient.computing import summed

        made = summed(objective or self.new(), model, batch, None, "cpu")[0].item()
        if not np.isfinite(made):
            raise Violation(f"the sum of a batch is {made}")
        return float(made)


def _rows(batch: Any) -> list[Any]:
    return [tuple(each[row : row + 1] for each in batch) for row in range(len(batch[0]))]


def _check_form(batch: Any, size: int, most: int) -> None:
    """Raise a Violation unless a batch is a tuple of arrays, the first of them token ids."""
    if not isinstance(batch, tuple) or not all(isinstance(each, np.ndarray) for each in batch):
        raise Violation(f"a batch is of type {type(batch).__name__}, and no tuple of arrays")
    shapes, ids = [each.shape for each in batch], batch[0]
    if ids.ndim != 2 or ids.dtype != np.int64 or not 0 <= ids.min() <= ids.max() < size:
        raise Violation(f"the first array is {ids.dtype} of shape {ids.shape}, and no token ids")
    if {shape[:1] for shape in shapes} != {(len(ids),)} or not 0 < len(ids) <= most:
        raise Violation(f"the arrays of a batch have the shapes {shapes}, and {most} rows are most")
