"""One fault in a component is one failure, which says where it is; what depends on it is skipped."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import attrs
import pytest
from broken_components import GOOD
from broken_components.cases import offered
from broken_components.corpora import OtherEachTimeCorpus, PrintingCorpus, RaisingCorpus
from broken_components.models import (
    AllNaNDecoder,
    GoodModel,
    HalfDecoder,
    MeanDecoder,
    NoisyDecoder,
    NoisyExtendDecoder,
    RaisingModel,
    with_decoder,
)
from broken_components.records import unbuildable
from broken_components.samplers import (
    GoodSampler,
    NaNSampler,
    NoisySampler,
    PrintingSampler,
    RaisingSampler,
    SeldomRaisingSampler,
)
from broken_components.tokenizers import RaisingTokenizer
from broken_components.trainers import DictStateTrainer, RaisingTrainer
from checking import changed_module, failed_and_skipped, outcomes_of, unchecked
from hypothesis import strategies
from hypothesis.errors import FlakyStrategyDefinition

from textgen import Component, NoOptions, option


@pytest.mark.parametrize(
    ("kind", "component"),
    [
        *((kind, Component("unbuildable", NoOptions, unbuildable)) for kind in GOOD),
        ("sampler", offered(RaisingSampler)),
        ("sampler", offered(SeldomRaisingSampler)),
        ("model", offered(RaisingModel)),
        ("tokenizer", offered(RaisingTokenizer)),
        ("trainer", offered(RaisingTrainer)),
        ("corpus", offered(RaisingCorpus)),
    ],
)
def test_one_fault_is_one_failure_and_says_where(kind: str, component: Component) -> None:
    failed, skipped = failed_and_skipped(kind, component)
    ((at, said),) = failed
    assert at == "component-raises"
    assert "ZeroDivisionError" in said
    place = re.search(r"\((.*):(\d+)\)$", said)
    assert place
    broken = Path(place[1])
    assert broken.parent == Path(__file__).with_name("broken_components")
    assert "1 / 0" in broken.read_text(encoding="utf-8").splitlines()[int(place[2]) - 1]
    assert "not checked: see component-raises" in skipped


@pytest.mark.parametrize(
    ("kind", "anchor"),
    [
        *[
            ("observer", "observer-run"),
            ("tokenizer", "tokenizer-vocabulary"),
            ("trainer", "trainer-data"),
        ],
        ("command", "command-build"),
    ],
)
def test_what_all_else_needs_is_checked_once(kind: str, anchor: str) -> None:
    announced: list[str] = []
    outcomes = outcomes_of(kind, GOOD[kind], announced.append)
    assert [
        each.status for each in outcomes if each.statement and each.statement.anchor == anchor
    ] == ["ok"]
    assert sum(each.endswith(f": {anchor}") for each in announced) == 1


def test_a_method_that_is_missing_is_named() -> None:
    (failed,), _ = failed_and_skipped(
        "model", offered(type("Unloadable", (GoodModel,), {"load_tensors": None}))
    )
    assert failed == (
        "component-methods",
        "what is built is of type Unloadable, which has no method 'load_tensors'",
    )


@pytest.mark.parametrize(
    ("kind", "component"),
    [("sampler", offered(PrintingSampler)), ("corpus", offered(PrintingCorpus))],
    ids=["sampler", "corpus"],
)
def test_printing_is_caught_and_kept_off_stdout(
    kind: str, component: Component, capsys: pytest.CaptureFixture[str]
) -> None:
    failed, _ = failed_and_skipped(kind, component)
    ((anchor, said),) = failed
    assert anchor == "component-quiet"
    assert said.startswith("it wrote 'here\\nhere\\n")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("given", "said"), [(None, "None; is a `return` missing?"), ([[0.0]], "a list")]
)
def test_what_is_no_array_is_called_what_it_is(given: Any, said: str) -> None:
    def build(config: Any, context: Any) -> Any:
        return lambda logits, history: given

    failed, _ = failed_and_skipped("sampler", Component("odd", NoOptions, build))
    assert failed == [("sampler-shape", f"logits (2, 36) came back as {said}")]


@attrs.frozen
class RefusedConfig:
    """Its default is refused by its own validator."""

    size: int = option(0, help="how many", validator=attrs.validators.ge(1))


@attrs.frozen
class UntypedConfig:
    """One option has no type."""

    size = option(8, help="how many")


@pytest.mark.parametrize(
    ("config", "anchor", "said"),
    [
        (RefusedConfig, "component-record", "the default of size: must be >= 1"),
        (
            UntypedConfig,
            "component-record",
            "size has no type; declare it as in `size: int = option(…)`",
        ),
    ],
)
def test_a_config_that_cannot_be_used_is_one_failure(config: type, anchor: str, said: str) -> None:
    failed, _ = failed_and_skipped(
        "sampler", Component("odd", config, lambda config, context: GoodSampler(context))
    )
    assert failed[0][0] == anchor
    assert said in failed[0][1]
    assert {at for at, _ in failed} <= {anchor, "component-options"}


@pytest.mark.parametrize(
    ("kind", "component"),
    [("sampler", offered(NaNSampler)), ("model", with_decoder(AllNaNDecoder))],
    ids=["sampler", "model"],
)
def test_nan_is_accused_of_nothing_but_nan(kind: str, component: Component) -> None:
    failed, _ = failed_and_skipped(kind, component)
    assert [anchor for anchor, _ in failed] == [f"{kind}-finite"]


@pytest.mark.parametrize(
    ("kind", "component", "anchor", "unasked"),
    [
        ("sampler", offered(NoisySampler), "sampler-deterministic", {"rows", "torch", "threads"}),
        (
            "model",
            with_decoder(NoisyDecoder),
            "model-deterministic",
            {"rows", "decoders", "stepwise", "state"},
        ),
        (
            "model",
            with_decoder(NoisyExtendDecoder),
            "model-deterministic",
            {"rows", "decoders", "stepwise"},
        ),
        ("model", with_decoder(MeanDecoder), "model-rows", {"decoders", "state-rows"}),
        (
            "model",
            with_decoder(HalfDecoder),
            "model-dtype",
            {"rows", "decoders", "saved", "finite"},
        ),
        ("trainer", offered(DictStateTrainer), "trainer-state-form", {"resumes", "finished"}),
        ("corpus", offered(OtherEachTimeCorpus), "corpus-again", {"readers"}),
    ],
)
def test_what_depends_on_what_failed_is_not_checked(
    kind: str, component: Component, anchor: str, unasked: set[str]
) -> None:
    failed, skipped = failed_and_skipped(kind, component)
    assert [at for at, _ in failed] == [anchor]
    assert f"not checked: see {anchor}" in skipped
    assert {f"{kind}-{name}" for name in unasked} <= unchecked(kind, component)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda logits, state: (logits[:, -1], state), "gave logits (3, "),
        (
            lambda logits, state: (logits, None),
            "gave a state of type NoneType, and must give a tuple of tensors, such as (hidden,), or ()",
        ),
    ],
)
def test_a_forward_of_another_shape_is_one_failure(change: Any, said: str) -> None:
    def forward(self: Any, tokens: Any, state: Any = None) -> Any:
        return change(*super(type(self), self).forward(tokens, state))

    failed, skipped = failed_and_skipped("model", changed_module(forward=forward))
    ((anchor, seen),) = failed
    assert anchor == "model-forward"
    assert said in seen
    assert "not checked: see model-forward" in skipped


def test_what_hypothesis_says_of_a_component_that_is_not_deterministic_is_put_plainly() -> None:
    class NowAndThen(GoodSampler):
        calls = itertools.count(1)

        def __call__(self, logits: Any, history: Any) -> Any:
            if next(self.calls) % 37 == 0:
                raise RuntimeError("not now")
            return super().__call__(logits, history)

    failed, _ = failed_and_skipped("sampler", offered(NowAndThen))
    plain = "did not give the same twice: the component, or the machine, is not deterministic; once it raised"
    assert any(
        f"the check {anchor} {plain} RuntimeError: not now" in said for anchor, said in failed
    )
    assert "laky" not in str(failed)


def test_so_is_what_it_says_of_a_component_that_changes_which_examples_are_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Hypothesis has an error of its own for that, which holds no other."""
    integers, calls = strategies.integers, itertools.count()

    class Counted(GoodSampler):
        odd = False

        def __call__(self, logits: Any, history: Any) -> Any:
            type(self).odd = next(calls) % 2 == 1
            return super().__call__(logits, history)

    @strategies.composite
    def changing(draw: strategies.DrawFn, low: int, high: int) -> int:
        return (
            draw(integers(low, high)) if Counted.odd else round(draw(strategies.floats(low, high)))
        )

    monkeypatch.setattr(strategies, "integers", changing)
    (failure,) = [
        each.failure
        for each in outcomes_of("sampler", offered(Counted))
        if each.failure is not None
    ]
    assert isinstance(failure.__cause__, FlakyStrategyDefinition)
    plain = "did not give the same twice: the component, or the machine, is not deterministic"
    assert failure.seen == f"the check {failure.statement.anchor} {plain}"
