"""The contract of models: their weights, and what those that train by gradient have besides."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, ClassVar, Unpack

import attrs
import numpy as np

from textgen.contracts.checks import FAILURES
from textgen.errors import TextgenError
from textgen.generation.sampling import to_numpy
from textgen.plugin.component import Component
from textgen.protocols import Ids, Tensors
from textgen.testing.decoders import Decoders, difference
from textgen.testing.outcomes import Outcome, Skip, Violation, shown
from textgen.testing.suite import GivenData, Suite, check
from textgen.testing.training_data import differing, is_torch_module, train, written_and_read
from textgen.testing.watching import seeds

__tracebackhide__ = True  # pytest shows the test and the code of the component

_WINDOWS = ((3, 16, 1), (3, 80, 1), (1, 1600, 10))
"""Rows and tokens for which forward() and the decoder are compared, and how many times the
tolerance logits may differ.
"""


def check_model(
    component: Component,
    *,
    trainer: Mapping[str, Any] | None = None,
    tolerance: float = 1e-4,
    **given: Unpack[GivenData],
) -> tuple[Outcome, ...]:
    """Hold a model to its contract, and its decoders to theirs. Raises ContractFailure.

    trainer     the table of a trainer that fits it; without one, a torch module is trained by
                `sgd`, others not
    tolerance   how far logits may differ that are computed in another order, relative to the
                largest
    """
    return check(ModelSuite, component, given, trainer=trainer, tolerance=tolerance)


@attrs.frozen
class ModelSuite(Suite):
    """The checks of a model.

    Those of decoders are made of a trained model, and of one that took over its weights to
    generate.
    """

    kind: ClassVar[str] = "model"
    trainer: Mapping[str, Any] | None = None
    tolerance: float = 1e-4

    def find(self, name: str) -> Callable[[], object]:
        if not hasattr(Decoders, name):
            return super().find(name)
        size = self.subject.tokenizer.vocab_size

        def of_decoders() -> None:
            for which, model in (("after training", self.trained), ("loaded", self.loaded)):
                getattr(Decoders(model, size, self.tolerance, which), name)()

        return of_decoders

    @cached_property
    def trained(self) -> Any:
        model = self.new()
        train(self.subject, model, self.subject.fitted_context(), self.trainer)
        return model

    @cached_property
    def loaded(self) -> Any:
        """The model as the engine makes it from a run directory, to generate."""
        model = self.new(training=False)
        model.load_tensors(written_and_read(self.trained.tensors()))
        return model

    def seed(self) -> None:
        if name := differing(self.new().tensors(), self.new().tensors()):
            raise Violation(f"{name} of a second model of the same seed differs")
        with seeds() as ours:
            first = self.new().tensors()
        with seeds() as theirs:
            other = self.new(seed=1).tensors()
        if ours and ours == theirs and not differing(first, other):
            raise Violation("another seed gave the same weights, drawn by the same generators")

    def saved(self) -> None:
        tensors = self.trained.tensors()
        for name, array in tensors.items():
            if not isinstance(name, str) or not isinstance(array, np.ndarray):
                raise Violation(f"tensors() has {name!r} of type {type(array).__name__}")
        fed = self._tokens((2, 12))
        expected = to_numpy(self.trained.decoder(2).score(fed)).copy()
        for training in (True, False):
            model = self.new(training=training, seed=1)
            with contextlib.suppress(*FAILURES):  # it may not decode before it is trained
                model.decoder(2).score(fed)
            model.load_tensors(written_and_read(tensors))
            if apart := difference(to_numpy(model.decoder(2).score(fed)), expected, self.tolerance):
                raise Violation(f"a model built with training={training} and loaded gives {apart}")
            if name := differing(model.tensors(), tensors) or differing(tensors, model.tensors()):
                raise Violation(
                    f"{name} of a model built with training={training} came back changed"
                )

    def refuses(self) -> None:
        tensors = self.trained.tensors()
        if not tensors:
            raise Skip("it has no weights")
        name = max(tensors, key=lambda n: tensors[n].size)
        without = {n: array for n, array in tensors.items() if n != name}
        wrong: dict[str, Tensors] = {
            f"without {name}": without,
            f"with {name} of another shape": {**tensors, name: tensors[name][None]},
            f"with {name} called another": {**without, "another": tensors[name]},
        }
        for training in (True, False):
            for what, given in wrong.items():
                try:
                    self.new(training=training).load_tensors(given)
                except ValueError as error:
                    if not str(error):
                        raise Violation(f"the ValueError for weights {what} is empty") from error
                else:
                    raise Violation(f"weights {what} were taken")

    def causal(self) -> None:
        torch = self._torch()
        from textgen.gradient.decoder import check_forward  # loads torch

        model = self.new().eval()
        fed = torch.from_numpy(self._tokens((3, 12)))
        with torch.no_grad():
            try:
                logits, _ = check_forward(model(fed), 3)
            except (TypeError, ValueError) as error:
                raise Violation(str(error), "model-forward") from error
            part, _ = model(fed[:, :5])
        if logits.shape != (3, 12, self.subject.tokenizer.vocab_size):
            raise Violation(
                f"forward() of tokens (3, 12) gave logits {shown(logits)}", "model-forward"
            )
        if apart := difference(logits[:, :5].numpy(), part.numpy(), self.tolerance):
            seen = f"forward() of 5 tokens and those that follow gave {apart}"
            raise Violation(f"{seen} than of these 5 alone")

    def forward(self) -> None:
        torch, model = self._torch(), self.trained
        model.eval()
        for rows, length, slack in _WINDOWS:
            fed = self._tokens((rows, length))
            with torch.no_grad():
                try:
                    whole, _ = model(torch.from_numpy(fed))
                except TextgenError:  # they are more than its context
                    continue
                first, state = model(torch.from_numpy(fed[:, :5]))
                rest, _ = model(torch.from_numpy(fed[:, 5:12]), state)
            resumed = torch.cat([first, rest], dim=1).numpy()
            if apart := difference(resumed, whole[:, :12].numpy(), self.tolerance):
                raise Violation(f"going on from a state gave {apart}")
            for which, other in (("its own decoder", model), ("the loaded decoder", self.loaded)):
                scored = to_numpy(other.decoder(rows).score(fed))
                if apart := difference(scored, whole.numpy(), slack * self.tolerance):
                    raise Violation(f"score() of {which} gave {apart}")

    def dropout(self) -> None:
        torch, model = self._torch(), self.trained
        fed = torch.from_numpy(self._tokens((2, 12)))
        results: list[Any] = []
        own = hasattr(model, "set_dropout_seed")
        model.train()
        before = torch.random.get_rng_state()
        with torch.random.fork_rng(devices=[]):
            for _ in range(2):
                if own:
                    model.set_dropout_seed(3)
                else:
                    torch.default_generator.manual_seed(3)
                results.append(model(fed)[0].detach().numpy())
            if own and not torch.equal(torch.random.get_rng_state(), before):
                raise Violation("with set_dropout_seed(), it drew from torch's global generator")
        model.eval()
        if not np.array_equal(results[0], results[1], equal_nan=True):
            raise Violation("with the same dropout seed, a second training step gave other logits")

    def _torch(self) -> Any:
        if not is_torch_module(self.new()):
            raise Skip("it is not a torch module")
        import torch

        return torch

    def _tokens(self, shape: tuple[int, int]) -> Ids:
        return np.random.default_rng(1).integers(0, self.subject.tokenizer.vocab_size, shape)
