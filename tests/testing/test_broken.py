"""Components that break one statement of their contract are caught with that statement."""

import re
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

import pytest
from broken import BROKEN, PASSED
from broken_models import Network
from checking import LIGHT, PLUGINS, outcomes_of
from good import ALSO_GOOD, GOOD, EndTokenizer, StateSampler, offered
from networks import Recurrent

from textgen import Component, NoOptions, testing
from textgen.testing import ContractFailure

BY_THEMSELVES = {"component-import"}  # by a test further down


@pytest.mark.parametrize(
    ("kind", "component"), [*GOOD.items(), *((kind, offered(made)) for kind, made in ALSO_GOOD)]
)
def test_what_a_contract_allows_passes(kind, component):
    assert testing.check(kind, component, plugin=LIGHT, plugins=PLUGINS)


@pytest.mark.parametrize(("kind", "made"), [("sampler", StateSampler), ("tokenizer", EndTokenizer)])
def test_what_has_all_that_a_contract_allows_is_spared_no_check(kind, made):
    assert {outcome.status for outcome in outcomes_of(kind, offered(made))} == {"ok"}


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: f"{case.statement}-{case.wrong}")
def test_what_is_broken_is_caught(case):
    *_, failure = outcomes_of(case.kind, case.component, **case.given)
    assert (failure.status, failure.statement.anchor) == ("failed", case.statement)


@pytest.mark.parametrize("case", PASSED, ids=lambda case: case.statement)
def test_a_check_that_does_not_concern_a_component_is_passed_over(case):
    (outcome,) = (
        outcome
        for outcome in outcomes_of(case.kind, case.component, **case.given)
        if outcome.statement.anchor == case.statement
    )
    assert outcome.status == ("skipped" if case.wrong else "ok")
    assert case.wrong in outcome.reason


def test_a_failure_says_what_is_asked_what_was_seen_and_what_helps():
    case = BROKEN[0]
    with pytest.raises(ContractFailure) as caught:
        testing.check(case.kind, case.component, plugin=import_module(LIGHT))
    failure = caught.value
    said, seen, advice = re.split(r"\n  (?:seen|help): ", str(failure))
    assert said == f"{case.kind} {case.component.name!r} of {LIGHT}: {failure.statement.sentence}"
    assert seen == failure.seen
    assert " ".join(advice.split()) == failure.statement.advice


def test_half_precision_is_called_so():
    def half(self, tokens, state=None):
        logits, state = Recurrent.forward(self, tokens, state)
        return logits.half(), state

    *_, failed = outcomes_of("model", offered(type("Half", (Network,), {"forward": half})))
    assert (failed.status, "float16" in failed.reason) == ("failed", True)


def test_every_statement_is_broken():
    assert {case.statement for case in BROKEN} | BY_THEMSELVES == testing.STATEMENTS.keys()


def test_an_exception_is_said_with_the_line_that_raised_it():
    def build(config, context):
        return 1 / 0

    *_, failed = outcomes_of("sampler", Component("odd", NoOptions, build))
    assert (failed.status, failed.statement.anchor) == ("failed", "component-raises")
    place = f"{__file__}:{build.__code__.co_firstlineno + 1}, in build"
    assert failed.reason.endswith(f"ZeroDivisionError: division by zero ({place})")


@pytest.mark.parametrize(
    ("source", "time_limit", "seen"),
    [
        ("import torch, numpy\n", 60, "importing imported loads torch and numpy"),
        ("raise RuntimeError('not today')\n", 60, "RuntimeError: not today"),
        ("print('hello')\n", 60, r"importing imported wrote 'hello\\n' to stdout"),
        ("import random\nrandom.seed(1)\n", 60, "importing it changes the random state"),
        ("import threading\nthreading.Timer(0.3, print).start()\n", 60, "changes the threads"),
        ("import os\nos.getpid = None\n", 60, "changes what textgen and Python hold"),
        ("while True:\n    pass\n", 0.3, r"importing imported had not ended after 0\.3 s"),
    ],
)
def test_an_import_is_tried_in_a_fresh_interpreter(tmp_path, monkeypatch, source, time_limit, seen):
    """Which is ended in any thread, and knows nothing of the current folder."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here/imported.py").touch()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "imported.py").write_text(source)
    (tmp_path / "torch.py").touch()  # which loads in no time
    monkeypatch.syspath_prepend(tmp_path)
    with ThreadPoolExecutor(1) as threads:
        checked = threads.submit(
            testing.check, "sampler", GOOD["sampler"], plugin="imported", time_limit=time_limit
        )
    with pytest.raises(ContractFailure, match=seen) as caught:
        checked.result()
    assert caught.value.statement.anchor == "component-import"


def test_a_vocabulary_in_the_order_of_a_set_is_caught(tmp_path, monkeypatch):
    (tmp_path / "unsorted.py").write_text(
        "from textgen import Component, NoOptions, hookimpl\n"
        "def build(config, context):\n    from good import Tokenizer\n"
        "    class Unsorted(Tokenizer):\n        def fit(self, pieces):\n"
        "            self.characters = ''.join(set(''.join(pieces)))\n"
        "    return Unsorted()\n"
        "@hookimpl\ndef textgen_tokenizers():\n    return [Component('u', NoOptions, build)]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    (component,) = import_module("unsorted").textgen_tokenizers()
    with pytest.raises(ContractFailure, match="differs in another process"):
        testing.check("tokenizer", component, plugin="unsorted")


def test_a_command_that_loads_numpy_when_it_is_built_is_caught(tmp_path, monkeypatch):
    (tmp_path / "heavy_command.py").write_text(
        "import click\nfrom textgen import Component, NoOptions, hookimpl\n"
        "def light(config, context):\n    return click.Command('light', help='Does nothing.')\n"
        "def heavy(config, context):\n    import numpy\n    return light(config, context)\n"
        "@hookimpl\ndef textgen_commands():\n    return [Component('heavy', NoOptions, heavy),"
        " Component('a-light', NoOptions, light)]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ContractFailure, match=r"(?s)'heavy' of .*building 'heavy' loads numpy"
    ) as caught:
        testing.check_plugin("heavy_command")
    assert caught.value.statement.anchor == "component-import"
