"""The contract of models: their weights, and what those that train by gradient have besides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import numpy as np

from textgen.contracts.guards import FAILURES
from textgen.generation.sampling import to_numpy
from textgen.plugin.component import BuildContext, Component
from textgen.plugin.registry import PluginSet
from textgen.protocols import Ids, Tensors
from textgen.testing import statements as st
from textgen.testing.decoders import DecoderSuite, difference
from textgen.testing.environment import Subject, fitted_tokenizer, subject
from textgen.testing.general import calls_check, check_methods, close, general_checks, leaves_alone
from textgen.testing.other_process import process_check
from textgen.testing.outcomes import Check, Outcome, Skip, raise_first, run_checks, shown
from textgen.testing.positions import check_causal, check_length
from textgen.testing.row_decoders import check_rows_come_and_go
from textgen.testing.time_limit import TIME_LIMIT
from textgen.testing.training_data import is_torch_module, train, written_and_read

__tracebackhide__ = True  # what pytest shows is the test, and the code of the component


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
        return raise_first(run_checks(model_checks(made, trainer, tolerance), made.label, made.packages, time_limit))


def model_checks(subject: Subject, trainer: Mapping[str, Any] | None = None, tolerance: float = 1e-4) -> list[Check]:
    """The suite. Decoders are checked of a trained model, and of one that took over its weights to generate."""
    suite = _Suite(subject, trainer, tolerance)

    comparable = (st.MODEL_DTYPE, st.COMPONENT_CALLS, st.MODEL_DETERMINISTIC)  # what comparing logits asks for
    along = (*comparable, st.MODEL_CAUSAL, st.MODEL_STEPWISE)  # and comparing steps with score()
    return [
        *general_checks(subject, suite.build),
        Check(st.MODEL_FORWARD, suite.plain_forward, trial=True),
        Check(st.COMPONENT_METHODS, suite.methods, trial=True),
        Check(st.MODEL_SHAPE, suite.plain_call, trial=True),
        Check(st.MODEL_SAVED, lambda: suite.loaded, trial=True),
        Check(st.MODEL_SHAPE, suite.of_decoders(DecoderSuite.shape)),
        Check(st.MODEL_DTYPE, suite.of_decoders(DecoderSuite.dtype)),
        Check(st.MODEL_FINITE, suite.of_decoders(DecoderSuite.finite), after=(st.MODEL_DTYPE,)),
        Check(st.MODEL_INPUT, suite.of_decoders(DecoderSuite.input)),
        calls_check(subject, suite.calls),
        Check(st.MODEL_DETERMINISTIC, suite.of_decoders(DecoderSuite.deterministic), after=comparable[:2]),
        process_check(subject),
        Check(st.MODEL_CAUSAL, suite.causal, after=comparable),
        Check(st.MODEL_ROWS, suite.of_decoders(DecoderSuite.rows), after=comparable),
        Check(st.MODEL_STEPWISE, suite.of_decoders(DecoderSuite.stepwise), after=(*comparable, st.MODEL_CAUSAL)),
        Check(st.MODEL_DECODERS, suite.of_decoders(DecoderSuite.apart), after=(*along, st.MODEL_ROWS)),
        Check(st.MODEL_OUTPUT, suite.of_decoders(DecoderSuite.output), after=along),
        Check(st.MODEL_GREEDY, suite.of_decoders(DecoderSuite.greedy), after=comparable),
        Check(st.MODEL_STATE_FORM, suite.of_decoders(DecoderSuite.state_form)),
        Check(st.MODEL_STATE, suite.of_decoders(DecoderSuite.state), after=along),
        Check(st.MODEL_STATE_ROWS, suite.of_decoders(DecoderSuite.state_rows), after=(*along, st.MODEL_ROWS)),
        Check(st.MODEL_STATE_COPY, suite.of_decoders(DecoderSuite.state_copy)),
        Check(st.MODEL_TAKE_JOIN, suite.of_decoders(check_rows_come_and_go), after=(*comparable, st.MODEL_ROWS)),
        Check(st.MODEL_LENGTH, suite.of_decoders(check_length), after=along),
        Check(st.MODEL_SEED, suite.seed),
        Check(st.MODEL_SAVED, suite.saved, after=comparable),
        Check(st.MODEL_REFUSES, suite.refuses),
        Check(st.MODEL_FORWARD, suite.forward, after=along),
        Check(st.MODEL_DROPOUT, suite.dropout),
    ]


@attrs.define
class _Suite:
    subject: Subject
    trainer: Mapping[str, Any] | None
    tolerance: float
    _context: BuildContext | None = None
    _trained: Any = None
    _loaded: Any = None

    def context(self, **changes: Any) -> BuildContext:
        if self._context is None:
            bare = self.subject.context()
            self._context = attrs.evolve(bare, tokenizer=fitted_tokenizer(self.subject.plugins, bare))
        return attrs.evolve(self._context, **changes)

    def build(self, **changes: Any) -> Any:
        return self.subject.build(self.context(**changes))

    @property
    def trained(self) -> Any:
        if self._trained is None:
            model = self.build()
            train(self.subject, model, self.context(), self.trainer)
            self._trained = model
        return self._trained

    @property
    def loaded(self) -> Any:
        """As the engine makes it from a run directory, to generate."""
        if self._loaded is None:
            model = self.build(training=False)
            model.load_tensors(written_and_read(self.trained.tensors()))
            self._loaded = model
        return self._loaded

    def of_decoders(self, check: Callable[[DecoderSuite], None]) -> Callable[[], None]:
        """A check of the decoders."""
        return lambda: self.with_decoders(check)

    def with_decoders(self, check: Callable[[DecoderSuite], None]) -> None:
        for which, model in (("after training", self.trained), ("to generate with", self.loaded)):
            check(DecoderSuite(self.subject, model, self.context().vocab_size, self.tolerance, which))

    def calls(self) -> None:
        for training in (True, False):
            model = self.build(training=training)
            model.load_tensors(written_and_read(self.trained.tensors()))
            DecoderSuite(self.subject, model, self.context().vocab_size, self.tolerance, "").plain_call()
            close(model)

    def seed(self) -> None:
        first, second = self.build().tensors(), self.build().tensors()
        for name, array in first.items():
            if name not in second or not np.array_equal(array, second[name], equal_nan=True):
                self.subject.fail(st.MODEL_SEED, f"{name} of a second model of the same seed differs")

    def saved(self) -> None:
        tensors = self.trained.tensors()
        for name, array in tensors.items():
            if not isinstance(name, str) or not isinstance(array, np.ndarray):
                self.subject.fail(st.MODEL_SAVED, f"tensors() has {name!r} of type {type(array).__name__}")
        fed = self._tokens((2, 12))
        expected = to_numpy(self.trained.decoder(2).score(fed)).copy()
        for training in (True, False):
            model = self.build(training=training, seed=1)
            before = self._logits_before(model, fed)
            model.load_tensors(written_and_read(tensors))
            given = to_numpy(model.decoder(2).score(fed))
            if before is not None and difference(before, expected, self.tolerance) and np.array_equal(before, given):
                seen = f"a decoder made after load_tensors() has the weights from before (training={training})"
                self.subject.fail(st.MODEL_SAVED, seen)
            if apart := difference(given, expected, self.tolerance):
                self.subject.fail(st.MODEL_SAVED, f"a model built with training={training} and loaded gives {apart}")
            again = model.tensors()
            if again.keys() != tensors.keys() or not all(
                np.array_equal(again[n], tensors[n], equal_nan=True) for n in tensors
            ):
                self.subject.fail(
                    st.MODEL_SAVED, f"tensors() of a model built with training={training} came back changed"
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
            f"with {name} of shape {(1, *tensors[name].shape)}": {**tensors, name: tensors[name][None]},
            f"with {name} called {name}-of-another": {**without, f"{name}-of-another": tensors[name]},
        }
        for training in (True, False):
            for what, given in wrong.items():
                model = self.build(training=training)
                try:
                    model.load_tensors(given)
                except ValueError as error:
                    if not str(error):
                        self.subject.fail(st.MODEL_REFUSES, f"the ValueError for weights {what} says nothing")
                except FAILURES as error:
                    self.subject.fail(st.MODEL_REFUSES, f"weights {what} raised {type(error).__name__}: {error}")
                else:
                    self.subject.fail(st.MODEL_REFUSES, f"weights {what} were taken")

    def plain_forward(self) -> None:
        """Before training, which needs it."""
        model = self.build()
        if not is_torch_module(model):
            return
        import torch

        model.eval()
        with torch.no_grad():
            given = model(torch.from_numpy(self._tokens((3, 12))))
        if not isinstance(given, tuple) or len(given) != 2:
            self.subject.fail(
                st.MODEL_FORWARD,
                f"forward() gave {type(given).__name__}, and must give logits and the state after them",
            )
        self._check_forward_shape(given[0])
        self._check_forward_state(given[1])

    def methods(self) -> None:
        """Of its decoders."""
        check_methods(self.subject, self.build().decoder(1), "decoder")

    def plain_call(self) -> None:
        """Before anything that compares logits."""
        DecoderSuite(self.subject, self.trained, self.context().vocab_size, self.tolerance, "after training").shape()

    def _check_forward_shape(self, logits: Any) -> None:
        size = self.context().vocab_size
        if getattr(logits, "shape", None) != (3, 12, size):
            seen = f"forward() of tokens (3, 12) gave logits {shown(logits)}, and the vocabulary has {size}"
            self.subject.fail(st.MODEL_FORWARD, seen)

    def causal(self) -> None:
        if is_torch_module(self.trained):
            self._causal_forward()
        self.with_decoders(check_causal)

    def _causal_forward(self) -> None:
        torch, model = self._module()
        fed = torch.from_numpy(self._tokens((3, 12)))
        model.eval()
        with torch.no_grad():
            whole, part = (model(tokens)[0].numpy() for tokens in (fed, fed[:, :5]))
        if apart := difference(whole[:, :5], part, self.tolerance):
            seen = f"forward() of 5 tokens and those that follow gave {apart} than of these 5 alone"
            self.subject.fail(st.MODEL_CAUSAL, seen)

    def forward(self) -> None:
        torch, model = self._module()
        fed = self._tokens((3, 12))
        model.eval()
        with torch.no_grad():
            logits, _ = model(torch.from_numpy(fed))
            first, state = model(torch.from_numpy(fed[:, :5]))
            rest, _ = model(torch.from_numpy(fed[:, 5:]), state)
        if apart := difference(torch.cat([first, rest], dim=1).numpy(), logits.numpy(), self.tolerance):
            self.subject.fail(st.MODEL_FORWARD, f"going on from a state gave {apart}")
        for which, other in (("its own decoder", model), ("the decoder to generate with", self.loaded)):
            scored = to_numpy(other.decoder(3).score(fed))
            if apart := difference(scored, logits.numpy(), self.tolerance):
                self.subject.fail(st.MODEL_FORWARD, f"score() of {which} gave {apart}")

    def _check_forward_state(self, state: Any) -> None:
        import torch

        if not isinstance(state, tuple):
            seen = f"forward() gave a state of type {type(state).__name__}"
            self.subject.fail(st.MODEL_FORWARD, f"{seen}, and must give a tuple of tensors, or () for none")
        for number, part in enumerate(state):
            if not isinstance(part, torch.Tensor) or not part.ndim or len(part) != 3:
                seen = f"part {number} of the state of a batch of 3 is {shown(part)}"
                self.subject.fail(st.MODEL_FORWARD, seen)

    def dropout(self) -> None:
        torch, model = self._module()
        fed = torch.from_numpy(self._tokens((2, 12)))
        results: list[Any] = []
        own = hasattr(model, "set_dropout_seed")
        model.train()
        try:
            with leaves_alone(self.subject, st.MODEL_DROPOUT) if own else torch.random.fork_rng(devices=[]):
                for _ in range(2):
                    if own:
                        model.set_dropout_seed(3)
                    else:
                        torch.default_generator.manual_seed(3)
                    results.append(model(fed)[0].detach().numpy())
        finally:
            model.eval()
        if not np.array_equal(results[0], results[1], equal_nan=True):
            seen = "with the same dropout seed" if own else "without set_dropout_seed(), from one global seed"
            self.subject.fail(st.MODEL_DROPOUT, f"{seen}, a second training step gave other logits")

    def _module(self) -> tuple[Any, Any]:
        if not is_torch_module(self.trained):
            raise Skip("it is no torch module")
        import torch

        return torch, self.trained

    def _tokens(self, shape: tuple[int, int]) -> Ids:
        return np.random.default_rng(1).integers(0, self.context().vocab_size, shape)
