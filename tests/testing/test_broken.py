"""Components that break one statement of their contract are caught with that statement."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from broken import BROKEN, PASSED
from checking import (
    CHECKS,
    LIGHT,
    NOISE,
    PLUGINS,
    SENTENCES,
    Case,
    changed_module,
    outcomes_of,
)
from good import ALSO_GOOD, GOOD, Sampler, offered

from textgen import Component, NoOptions, testing
from textgen.testing import ContractFailure

# Checked by tests of their own, further down.
BY_THEMSELVES = {"component-import", "component-ends", "command-light", "sampler-threads"}


@pytest.mark.parametrize("kind", GOOD)
def test_the_components_that_are_broken_next_pass_while_whole(kind: str) -> None:
    assert CHECKS[kind](GOOD[kind], plugin=LIGHT, plugins=PLUGINS)


@pytest.mark.parametrize(("kind", "made"), ALSO_GOOD)
def test_what_a_contract_allows_passes(kind: str, made: type) -> None:
    outcomes = CHECKS[kind](offered(made), plugin=LIGHT, plugins=PLUGINS)
    if made.__name__.startswith(("State", "End")):
        skipped = {o.statement.anchor for o in outcomes if o.statement and o.status == "skipped"}
        assert skipped <= {"sampler-promise"}


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: f"{case.statement}-{case.seen[:20]}")
def test_what_is_broken_is_caught_by_its_own_check(case: Case) -> None:
    only = case.check or case.statement
    *_, failure = outcomes_of(case.kind, case.component, only=only, **case.arguments)
    assert failure.statement == SENTENCES[case.statement]
    assert case.seen in failure.reason


@pytest.mark.parametrize("case", PASSED, ids=lambda case: case.statement)
def test_a_check_that_does_not_concern_a_component_is_passed_over(case: Case) -> None:
    (outcome,) = outcomes_of(case.kind, case.component, only=case.statement, **case.arguments)
    assert outcome.status == ("skipped" if case.seen else "ok")
    assert case.seen in outcome.reason


def test_a_failure_says_what_is_asked_what_was_seen_and_what_helps() -> None:
    case = BROKEN[0]
    with pytest.raises(ContractFailure) as caught:
        CHECKS[case.kind](case.component, plugin=import_module(LIGHT))
    failure = caught.value
    said, seen, advice = re.split(r"\n  (?:seen|help): ", str(failure))
    assert said == f"{case.kind} {case.component.name!r} of {LIGHT}: {failure.statement.sentence}"
    assert seen == failure.seen
    assert " ".join(advice.split()) == failure.statement.advice


def test_every_statement_is_broken() -> None:
    of_modules = {"model-forward", "model-dropout"}
    assert {case.statement for case in BROKEN} | of_modules | BY_THEMSELVES == set(SENTENCES)


def test_an_exception_is_said_with_the_line_that_raised_it() -> None:
    def build(config: Any, context: Any) -> Any:
        return 1 / 0

    *_, failed = outcomes_of("sampler", Component("odd", NoOptions, build))
    assert (failed.status, failed.statement) == ("failed", SENTENCES["component-raises"])
    place = re.search(
        r"ZeroDivisionError: division by zero \((.+):(\d+), in build\)$", failed.reason
    )
    assert place
    assert "1 / 0" in Path(place[1]).read_text("utf-8").splitlines()[int(place[2]) - 1]


def test_what_does_not_give_the_same_twice_has_no_example_but_a_failure() -> None:
    """Hypothesis has an error of its own for that."""

    class Flaky(Sampler):
        def __call__(self, logits: Any, history: Any) -> Any:
            return logits[:, : int(NOISE.integers(1, 30))]

    (failed,) = outcomes_of("sampler", offered(Flaky), only="sampler-shape")
    assert failed.failure
    assert failed.failure.statement == SENTENCES["sampler-shape"]


def test_a_check_that_has_no_end_is_interrupted_where_it_is() -> None:
    class Endless(Sampler):
        def __call__(self, logits: Any, history: Any) -> Any:
            while True:
                logits = logits * 0.5

    endless = Component("endless", NoOptions, lambda config, context: Endless(context))
    (failed,) = outcomes_of("sampler", endless, only="sampler-shape", time_limit=0.5)
    assert failed.statement == SENTENCES["component-ends"]
    assert re.search(r"had not ended after 0\.5 s \(.*test_broken\.py:\d", failed.reason)


@pytest.mark.parametrize(
    ("source", "seen"),
    [
        ("import torch, numpy\n", "importing imported loads torch and numpy"),
        ("raise RuntimeError('not today')\n", "RuntimeError: not today"),
        ("print('hello')\n", r"importing imported wrote 'hello\\n' to stdout"),
    ],
    ids=["torch", "raises", "prints"],
)
def test_an_import_is_tried_in_a_fresh_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, seen: str
) -> None:
    (tmp_path / "imported.py").write_text(source)
    (tmp_path / "torch.py").touch()  # which loads in no time
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ContractFailure, match=seen) as caught:
        testing.check_sampler(GOOD["sampler"], plugin="imported")
    assert caught.value.statement.anchor == "component-import"


def test_an_import_without_end_is_ended_in_any_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "endless.py").write_text("while True:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    with ThreadPoolExecutor(1) as threads:
        checked = threads.submit(
            testing.check_sampler, GOOD["sampler"], plugin="endless", time_limit=0.3
        )
    with pytest.raises(ContractFailure, match=r"importing endless had not ended after 0\.3 s"):
        checked.result()


def test_a_command_that_loads_numpy_when_it_is_built_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "heavy_command.py").write_text(
        "import click\nfrom textgen import Component, NoOptions, hookimpl\n"
        "def light(config, context):\n"
        "    return click.Command('light', help='Does nothing.')\n"
        "def build(config, context):\n"
        "    import numpy\n"
        "    return click.Command('heavy', help='Does nothing.')\n"
        "@hookimpl\ndef textgen_commands():\n    return [Component('heavy', NoOptions, build),"
        " Component('a-light', NoOptions, light)]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ContractFailure, match=r"(?s)'heavy' of .*building it loads numpy"
    ) as caught:
        testing.check_plugin("heavy_command")
    assert caught.value.statement.anchor == "command-light"


def test_a_sampler_that_threads_share_badly_is_caught() -> None:
    class Racing(Sampler):
        def __call__(self, logits: Any, history: Any) -> Any:
            self.logits = logits
            time.sleep(0)
            return self.logits * 0.5

    (failed,) = outcomes_of("sampler", offered(Racing), only="sampler-threads")
    assert "while other threads called too" in failed.reason


# Torch modules.


def unequal(logits: Any, state: Any) -> Any:
    return logits + float(NOISE.normal()), state


@pytest.mark.parametrize(
    ("anchor", "seen", "change", "only"),
    [
        ("model-forward", "forward gave Tensor", lambda logits, state: logits, "model-causal"),
        (
            "model-forward",
            "forward() of tokens (3, 12) gave logits (3, 12, 35)",
            lambda logits, state: (logits[..., 1:], state),
            "model-causal",
        ),
        (
            "model-causal",
            "forward() of 5 tokens and those",
            lambda logits, state: (logits + logits.mean(dim=1, keepdim=True), state),
            "",
        ),
        (
            "model-forward",
            "going on from a state gave",
            lambda logits, state: (logits, tuple(part * 0 for part in state)),
            "model-forward",
        ),
        (
            "model-forward",
            "score() of its own decoder gave",
            lambda logits, state: (logits * 2, state),
            "model-forward",
        ),
        (
            "model-dropout",
            "torch's global generator",
            lambda logits, state: (logits + logits.new_empty(()).uniform_(), state),
            "model-dropout",
        ),
        ("model-dropout", "a second training step gave other", unequal, "model-dropout"),
    ],
    ids=["no-state", "few-logits", "ahead", "forgetful", "other-decoder", "global", "unequal"],
)
def test_a_broken_forward_is_caught(anchor: str, seen: str, change: Any, only: str) -> None:
    def forward(self: Any, tokens: Any, state: Any = None) -> Any:
        return change(*super(type(self), self).forward(tokens, state))

    *_, failed = outcomes_of("model", changed_module(forward=forward), only=only)
    assert failed.statement == SENTENCES[anchor]
    assert seen in failed.reason
