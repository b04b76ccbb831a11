"""Components that break one statement of their contract are caught with that statement."""

import re
import threading
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
from textgen.testing.plugin import prepared

pytestmark = pytest.mark.slow  # every check of every component

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


def test_threads_of_a_check_begin_together():
    threads = set()  # how many there are whenever one of them calls the sampler

    class Counting(StateSampler):
        def __call__(self, logits, history):
            if threading.current_thread() is not threading.main_thread():
                names = [thread.name for thread in threading.enumerate()]
                threads.add(sum(name.startswith("ThreadPoolExecutor") for name in names))
            return super().__call__(logits, history)

    with prepared("sampler", offered(Counting), plugin=LIGHT, plugins=PLUGINS) as suite:
        for outcome in suite.outcomes():
            if outcome.statement.anchor == "sampler-deterministic":
                break
    assert len(threads) == 1


@pytest.mark.parametrize("case", PASSED, ids=lambda case: case.statement)
def test_a_check_that_does_not_concern_a_component_is_passed_over(case):
    (outcome,) = (
        outcome
        for outcome in outcomes_of(case.kind, case.component, **case.given)
        if outcome.statement.anchor == case.statement
    )
    assert outcome.status == ("skipped" if case.wrong else "ok")
    assert case.wrong in outcome.reason


# Mistakes that authors make, each with the check and the case above that finds it; None where no
# check does.
MISTAKES = {
    "a sampler writes into its logits": ("sampler-input", "rarely in place"),
    "a sampler has one state for all rows": ("sampler-texts", "a state of all rows"),
    "a sampler gives float64": ("sampler-shape", "float64"),
    "a sampler counts its calls": ("sampler-deterministic", "a counter"),
    "a sampler draws by its own generator": ("sampler-deterministic", "its own generator"),
    "a sampler looks at the whole batch": ("sampler-rows", "the largest of all rows"),
    "a sampler keeps a list that grows": ("sampler-memory", "a list that grows"),
    "a sampler has a table of 256 steps": ("component-raises", "a table of 256 steps"),
    "a sampler returns a scratch buffer": ("sampler-deterministic", "a scratch buffer"),
    "a strategy remembers other texts": ("strategy-texts", "what came before"),
    "a strategy draws by its own generator": ("strategy-texts", "noise"),
    "a sampler writes into its state": ("sampler-input", "the state in place"),
    "a decoder gives its state itself": ("model-rows", "state not a copy"),
    "a decoder counts positions in each call": ("model-rows", "positions of each call"),
    "a decoder looks ahead": ("model-rows", "looks ahead late"),
    "a state has the batch second": ("model-rows", "state of another form"),
    "a decoder gives float16": ("model-logits", "half precision"),
    "a decoder takes the mean of the batch": ("model-rows", "the mean of the batch"),
    "a model seeds globally": ("component-globals", "NumPy's seed"),
    "a decoder drops out": ("model-rows", "dropout"),
    "a module keeps activations": ("model-decoders", "activations on the module"),
    "a model keeps a list that grows": ("model-memory", "a list of the model"),
    "a model changes after 20,000 tokens": ("model-rows", "another after 20,000"),
    "an optimizer's momentum is not in its state": ("trainer-resumes", "momentum"),
    "losses are in bits": ("trainer-losses", "bits"),
    "a trainer draws by its own generator": ("trainer-deterministic", "noise"),
    "a trainer's table ends early": ("component-raises", "a late IndexError"),
    "an objective gives a mean": ("objective-sums", "a mean"),
    "an objective keeps a running mean": ("objective-sums", "what it remembers"),
    "an objective draws by torch": ("objective-sums", "torch's random numbers"),
    "an objective counts one too many a row": None,
    "an objective writes into its batch": None,
    "a corpus is shuffled anew": ("corpus-again", "shuffled anew"),
    "a corpus keeps its iterator": ("corpus-again", "used up"),
    "a tokenizer drops characters": ("tokenizer-unknown", "— is dropped"),
    "a vocabulary is in the order of a set": ("tokenizer-deterministic", "a set"),
    "a tokenizer's cache grows": ("tokenizer-memory", "a cache that grows"),
    "a tokenizer's ids are in a byte": ("tokenizer-any-text", "ids in a byte"),
    "a tokenizer collects ids on itself": ("tokenizer-threads", "ids on the object"),
    "an observer writes where it is": ("observer-files", "in the current folder"),
    "an observer changes weights": ("observer-run", "other weights"),
    "an observer leaves a thread": ("component-globals", "a thread"),
    "an observer begins its file anew": ("observer-resumed", "begins its file anew"),
    "an observer keeps all events": ("observer-memory", "all events"),
    "a command fails when it is called": None,
}


def test_nearly_all_mistakes_of_authors_are_found():
    tried = {(case.statement, case.wrong) for case in BROKEN}
    tried |= {("tokenizer-deterministic", "a set")}  # by a test further down
    found = [case for case in MISTAKES.values() if case]
    assert {*found} <= tried
    assert (len(MISTAKES), len(found)) == (45, 42)


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
        ("import torch, numpy\n", 60, "torch and numpy"),
        ("raise RuntimeError('not today')\n", 60, "not today"),
        ("print('hello')\n", 60, "stdout"),
        ("import random\nrandom.seed(1)\n", 60, "random state"),
        ("import threading\nthreading.Timer(0.3, print).start()\n", 60, "threads"),
        ("import os\nos.getpid = None\n", 60, "changes what textgen and Python hold"),
        ("while True:\n    pass\n", 0.3, "0.3 s"),
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
    with pytest.raises(ContractFailure) as caught:
        checked.result()
    assert seen in caught.value.seen
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
    with pytest.raises(ContractFailure) as caught:
        testing.check("tokenizer", component, plugin="unsorted")
    assert caught.value.statement.anchor == "tokenizer-deterministic"


def test_a_command_that_loads_numpy_when_it_is_built_is_caught(tmp_path, monkeypatch):
    (tmp_path / "heavy_command.py").write_text(
        "import click\nfrom textgen import Component, NoOptions, hookimpl\n"
        "def light(config, context):\n    return click.Command('light', help='Does nothing.')\n"
        "def heavy(config, context):\n    import numpy\n    return light(config, context)\n"
        "@hookimpl\ndef textgen_commands():\n    return [Component('heavy', NoOptions, heavy),"
        " Component('a-light', NoOptions, light)]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ContractFailure) as caught:
        testing.check_plugin("heavy_command")
    assert caught.value.statement.anchor == "component-import"
    assert "'heavy'" in caught.value.component
    assert "numpy" in caught.value.seen
