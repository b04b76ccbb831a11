"""The contract of models: their weights, and what those that train by gradient have besides."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from functools import cached_property
from types import MethodType
from typing import Any, Final

import attrs
import numpy as np
import numpy.typing as npt
from hypothesis import strategies as strategy

from textgen.contracts.checks import FAILURES
from textgen.generation.sampling import to_numpy
from textgen.plugin.component import Component
from textgen.plugin.registry import PluginSet
from textgen.protocols import Ids, Tensors
from textgen.testing.decoders import DecoderSuite, difference
from textgen.testing.environment import Subject, close, subject
from textgen.testing.examples import cuts
from textgen.testing.general import calls_check, check_methods, general_checks, leaves_alone
from textgen.testing.other_process import process_check
from textgen.testing.outcomes import Check, Outcome, Skip, Violation, raise_first, run_checks, shown
from textgen.testing.row_decoders import check_rows_come_and_go
from textgen.testing.time_limit import TIME_LIMIT
from textgen.testing.training_data import differing, is_torch_module, train, written_and_read

__tracebackhide__ = True  # what pytest shows is the test, and the code of the component

_KERNEL_TOLERANCE: Final = {"float32": 0.01, "bfloat16": 0.05}  # of a gradient's norm


def check_model(
    component: Component,
    *,
    options: Mapping[str, Any] | None = None,
    trainer: Mapping[str, Any] | None = None,
    tolerance: float = 1e-4,
    plugin: object | str | None = None,
    plugins: PluginSet | None = None,
    time_limit: float = TIME_LIMIT,
) -> tuple[Outcome, ...]:
    """Hold a model to its contract, and its decoders to theirs. Raises ContractFailure.

    options     its TOML table; what has no default must be in it. Small sizes make it quick
    trainer     the table of a trainer that fits it; without one, a torch module is trained by `sgd`, others not
    tolerance   how far logits may differ that are computed in another order, relative to the largest
    plugin      the module it comes from, or its name; found from the component if not given
    plugins     where `trainer` is found, and what the context offers; the built-in set if not given
    time_limit  seconds for each check
    """
    with subject("model", component, options, plugin, plugins, time_limit=time_limit) as made:
        return raise_first(run_checks(model_checks(made, trainer, tolerance), made))


def model_checks(
    subject: Subject, trainer: Mapping[str, Any] | None = None, tolerance: float = 1e-4
) -> list[Check]:
    """The suite. Decoders are checked of a trained model, and of one that took over its weights to generate."""
    suite = _Suite(subject, trainer, tolerance)
    stepwise = suite.with_tokens(DecoderSuite.stepwise, places=cuts(10))
    any_token = strategy.integers(0, subject.tokenizer.vocab_size - 1)
    comparable = (
        "model-dtype",
        "component-calls",
        "model-deterministic",
    )  # what comparing logits asks for
    along = (*comparable, "model-causal", "model-stepwise")  # and comparing steps with score()
    return [
        *general_checks(subject, suite.build),
        Check("model-forward", suite.plain_forward, trial=True),
        Check("component-methods", suite.methods, trial=True),
        Check("model-shape", suite.plain_call, trial=True),
        Check("model-saved", lambda: suite.loaded, trial=True),
        Check("model-shape", suite.of_decoders(DecoderSuite.shape)),
        Check("model-dtype", suite.of_decoders(DecoderSuite.dtype)),
        Check("model-finite", suite.of_decoders(DecoderSuite.finite), after=("model-dtype",)),
        Check("model-input", suite.of_decoders(DecoderSuite.input)),
        calls_check(suite.calls),
        Check(
            "model-deterministic",
            suite.with_tokens(DecoderSuite.deterministic),
            after=comparable[:2],
        ),
        process_check(subject),
        Check("model-causal", suite.causal, after=comparable),
        Check("model-rows", suite.with_tokens(DecoderSuite.rows), after=comparable),
        Check("model-stepwise", stepwise, after=(*comparable, "model-causal")),
        Check(
            "model-decoders", suite.of_decoders(DecoderSuite.apart), after=(*along, "model-rows")
        ),
        Check("model-output", suite.of_decoders(DecoderSuite.output), after=along),
        Check(
            "model-greedy",
            suite.with_tokens(DecoderSuite.greedy, never=any_token),
            after=comparable,
        ),
        Check("model-state-form", suite.of_decoders(DecoderSuite.state_form)),
        Check(
            "model-state",
            suite.with_tokens(DecoderSuite.state, place=strategy.integers(0, 9)),
            after=along,
        ),
        Check(
            "model-state-rows",
            suite.of_decoders(DecoderSuite.state_rows),
            after=(*along, "model-rows"),
        ),
        Check("model-state-copy", suite.of_decoders(DecoderSuite.state_copy)),
        Check(
            "model-take-join",
            suite.of_decoders(check_rows_come_and_go),
            after=(*comparable, "model-rows"),
        ),
        Check("model-length", suite.of_decoders(DecoderSuite.length), after=along),
        Check("model-seed", suite.seed),
        Check("model-saved", suite.saved, after=comparable),
        Check("model-refuses", suite.refuses),
        Check("model-forward", suite.forward, after=along),
        Check("model-dropout", suite.dropout),
        Check("model-kernels", suite.kernels, after=("model-dropout",)),
    ]


@attrs.frozen
class _Suite:
    subject: Subject
    trainer: Mapping[str, Any] | None
    tolerance: float

    def build(self, **changes: Any) -> Any:
        return self.subject.build(self.subject.fitted_context(**changes))

    @cached_property
    def trained(self) -> Any:
        model = self.build()
        train(self.subject, model, self.subject.fitted_context(), self.trainer)
        return model

    @cached_property
    def loaded(self) -> Any:
        """As the engine makes it from a run directory, to generate."""
        model = self.build(training=False)
        model.load_tensors(written_and_read(self.trained.tensors()))
        return model

    def of_decoders(self, check: Callable[[DecoderSuite], None]) -> Callable[[], None]:
        """A check of the decoders."""
        return lambda: self.with_decoders(check)

    def with_tokens(self, check: Callable[..., None], **more: Any) -> Callable[[], None]:
        """A check of the decoders with many tokens."""
        return lambda: self.with_decoders(
            lambda decoders: decoders.each(MethodType(check, decoders), **more)
        )

    def with_decoders(self, check: Callable[[DecoderSuite], None]) -> None:
        for which, model in (("after training", self.trained), ("to generate with", self.loaded)):
            check(self._decoders(model, which))

    def _decoders(self, model: Any, which: str) -> DecoderSuite:
        return DecoderSuite(model, self.subject.tokenizer.vocab_size, self.tolerance, which)

    def calls(self) -> None:
        for training in (True, False):
            model = self.build(training=training)
            model.load_tensors(written_and_read(self.trained.tensors()))
            self._decoders(model, "").plain_call()
            close(model)

    def seed(self) -> None:
        first, second = self.build().tensors(), self.build().tensors()
        if name := differing(second, first):
            raise Violation(f"{name} of a second model of the same seed differs")

    def saved(self) -> None:
        tensors = self.trained.tensors()
        for name, array in tensors.items():
            if not isinstance(name, str) or not isinstance(array, np.ndarray):
                raise Violation(f"tensors() has {name!r} of type {type(array).__name__}")
        fed = self._tokens((2, 12))
        expected = to_numpy(self.trained.decoder(2).score(fed)).copy()
        for training in (True, False):
            model = self.build(training=training, seed=1)
            before = self._logits_before(model, fed)
            model.load_tensors(written_and_read(tensors))
            given = to_numpy(model.decoder(2).score(fed))
            if (
                before is not None
                and difference(before, expected, self.tolerance)
                and np.array_equal(before, given)
            ):
                seen = f"a decoder made after load_tensors() has the weights from before (training={training})"
                raise Violation(seen)
            if apart := difference(given, expected, self.tolerance):
                raise Violation(f"a model built with training={training} and loaded gives {apart}")
            again = model.tensors()
            if again.keys() != tensors.keys() or differing(again, tensors):
                raise Violation(
                    f"tensors() of a model built with training={training} came back changed"
                )

    def _logits_before(self, model: Any, fed: Ids) -> Any:
        """What a decoder gives of a model with other weights; None where it cannot be used untrained."""
        try:
            model.load_tensors(written_and_read(self.build(seed=1).tensors()))
            return to_numpy(model.decoder(2).score(fed)).copy()
        except FAILURES:
            return None

    def refuses(self) -> None:
        tensors = self.trained.tensors()
        if not tensors:
            raise Skip("it has no weights")
        name = max(tensors, key=lambda n: tensors[n].size)
        without = {n: array for n, array in tensors.items() if n != name}
        wrong: dict[str, Tensors] = {
            f"without {name}": without,
            f"with {name} of shape {(1, *tensors[name].shape)}": {
                **tensors,
                name: tensors[name][None],
            },
            f"with {name} called {name}-of-another": {
                **without,
                f"{name}-of-another": tensors[name],
            },
        }
        for training in (True, False):
            for what, given in wrong.items():
                model = self.build(training=training)
                try:
                    model.load_tensors(given)
                except ValueError as error:
                    if not str(error):
                        raise Violation(
                            f"the ValueError for weights {what} says nothing"
                        ) from error
                except FAILURES as error:
                    raise Violation(
                        f"weights {what} raised {type(error).__name__}: {error}"
                    ) from error
                else:
                    raise Violation(f"weights {what} were taken")

    def plain_forward(self) -> None:
        """Before training, which needs it."""
        model = self.build()
        if not is_torch_module(model):
            return
        import torch

        from textgen.gradient.decoder import check_forward

        model.eval()
        with torch.no_grad():
            given = model(torch.from_numpy(self._tokens((3, 12))))
        try:
            logits, _ = check_forward(given, 3)
        except (TypeError, ValueError) as error:
            raise Violation(str(error)) from error
        size = self.subject.tokenizer.vocab_size
        if getattr(logits, "shape", None) != (3, 12, size):
            raise Violation(
                f"forward() of tokens (3, 12) gave logits {shown(logits)}, and the vocabulary has {size}"
            )

    def methods(self) -> None:
        """Of its decoders."""
        check_methods(self.build().decoder(1), "decoder")

    def plain_call(self) -> None:
        """Before anything that compares logits."""
        self._decoders(self.trained, "after training").shape()

    def causal(self) -> None:
        if is_torch_module(self.trained):
            self._causal_forward()
        self.with_decoders(DecoderSuite.causal)

    def _causal_forward(self) -> None:
        torch, model = self._module()
        fed = torch.from_numpy(self._tokens((3, 12)))
        model.eval()
        with torch.no_grad():
            whole, part = (model(tokens)[0].numpy() for tokens in (fed, fed[:, :5]))
        if apart := difference(whole[:, :5], part, self.tolerance):
            raise Violation(
                f"forward() of 5 tokens and those that follow gave {apart} than of these 5 alone"
            )

    def forward(self) -> None:
        torch, model = self._module()
        fed = self._tokens((3, 12))
        model.eval()
        with torch.no_grad():
            logits, _ = model(torch.from_numpy(fed))
            first, state = model(torch.from_numpy(fed[:, :5]))
            rest, _ = model(torch.from_numpy(fed[:, 5:]), state)
        if apart := difference(
            torch.cat([first, rest], dim=1).numpy(), logits.numpy(), self.tolerance
        ):
            raise Violation(f"going on from a state gave {apart}")
        for which, other in (
            ("its own decoder", model),
            ("the decoder to generate with", self.loaded),
        ):
            scored = to_numpy(other.decoder(3).score(fed))
            if apart := difference(scored, logits.numpy(), self.tolerance):
                raise Violation(f"score() of {which} gave {apart}")

    def dropout(self) -> None:
        torch, model = self._module()
        fed = torch.from_numpy(self._tokens((2, 12)))
        results: list[Any] = []
        own = hasattr(model, "set_dropout_seed")
        model.train()
        try:
            with leaves_alone() if own else torch.random.fork_rng(devices=[]):
                for _ in range(2):
                    if own:
                        model.set_dropout_seed(3)
                    else:
                        torch.default_generator.manual_seed(3)
                    results.append(model(fed)[0].detach().numpy())
        finally:
            model.eval()
        if not np.array_equal(results[0], results[1], equal_nan=True):
            seen = (
                "with the same dropout seed"
                if own
                else "without set_dropout_seed(), from one global seed"
            )
            raise Violation(f"{seen}, a second training step gave other logits")

    def kernels(self) -> None:
        self._module()
        from textgen.gradient import choosing
        from textgen.gradient.computing import TORCH

        model, tried = self.build(), False
        if not hasattr(model, "kernels"):
            return  # torch's is the only one
        for precision, tolerance in _KERNEL_TOLERANCE.items():
            for kernel in choosing.kernels(model, precision)[1:]:
                tried, expected = True, self._step(model, TORCH, precision)
                for name, given in self._step(model, kernel, precision).items():
                    apart = float(
                        np.linalg.norm(given - expected[name])
                        / (np.linalg.norm(expected[name]) + 1e-12)
                    )
                    if not apart <= tolerance:
                        raise Violation(
                            f"{name} of {kernel!r} in {precision} is off by {apart:.2g} of torch's"
                        )
        if not tried:
            raise Skip("it offers no kernels here, of this size")

    def _step(self, model: Any, kernel: str, precision: str) -> dict[str, npt.NDArray[Any]]:
        """The loss of a step and its gradients, by name."""
        from textgen.gradient.computing import Computation, Way

        with contextlib.closing(
            Computation.of(model, "cpu", Way(precision, 1, kernel))
        ) as computation:
            loss, _ = computation.gradients(self._tokens((3, 13)).astype(np.int64), None, (0, 1))
        given = {
            f"the gradient of {name}": p.grad
            for name, p in model.named_parameters()
            if p.grad is not None
        }
        return {
            name: tensor.detach().float().numpy().copy()
            for name, tensor in {"the loss": loss, **given}.items()
        }

    def _module(self) -> tuple[Any, Any]:
        if not is_torch_module(self.trained):
            raise Skip("it is no torch module")
        import torch

        return torch, self.trained

    def _tokens(self, shape: tuple[int, int]) -> Ids:
        return np.random.default_rng(1).integers(0, self.subject.tokenizer.vocab_size, shape)
