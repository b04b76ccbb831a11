"""What a process of its own shows: another order of sets, what an import does, and blocks that no signal ends."""

from __future__ import annotations

import contextlib
import itertools
import logging
import re
import signal
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from broken_components.cases import offered
from broken_components.samplers import SleepingSampler
from checking import LIGHT

from textgen import testing
from textgen.testing import ContractFailure
from textgen.testing.time_limit import within

SAMPLER = """
from textgen import Component, NoOptions, hookimpl

class Halve:
    history = "none"
    def __init__(self, context):
        self.context = context
        self.begin()
    def begin(self):
        pass
    def __call__(self, logits, history):
        return logits * 0.5

@hookimpl
def textgen_samplers():
    return [Component("halve", NoOptions, lambda config, context: Made(context))]

class Made(Halve):
"""
CORPUS = """
from textgen import Component, NoOptions, hookimpl

@hookimpl
def textgen_corpora():
    return [Component("words", NoOptions, lambda config, context: Words())]

class Words:
"""
OBSERVER = """
from textgen import Component, NoOptions, hookimpl
from textgen.events import RunFinished

@hookimpl
def textgen_observers():
    return [Component("watch", NoOptions, lambda config, context: Watch(context))]

class Watch:
    def __init__(self, context):
        self.path = context.directory / "seen.txt"
    def observe(self, event):
        if isinstance(event, RunFinished):
            self.path.write_text(" ".join({*"abcdefgh"}))
"""
TOKENIZER = """
from textgen import Component, NoOptions, hookimpl

def build(config, context):
    from broken_components.tokenizers import HashOrderedTokenizer
    return HashOrderedTokenizer()

@hookimpl
def textgen_tokenizers():
    return [Component("hashed", NoOptions, build)]
"""
MODEL = """
from textgen import Component, NoOptions, hookimpl

def build(config, context):
    from broken_components.models import GoodModel
    model = GoodModel(context)
    model.weights[:, 0] += [hash(str(number)) % 7 for number in range(context.vocab_size)]
    return model

@hookimpl
def textgen_models():
    return [Component("hashed", NoOptions, build)]
"""
TRAINER = """
from textgen import Component, NoOptions, hookimpl

def build(config, context):
    from broken_components.trainers import GoodTrainer
    made = GoodTrainer(context)
    made.rate = 0.5 + hash("rate") % 99991 / 999910
    return made

@hookimpl
def textgen_trainers():
    return [Component("hashed", NoOptions, build)]
"""
COMMAND = """
import click
from textgen import Component, NoOptions, hookimpl

def build(config, context):
    return click.Command("hashed", help=f"One of {', '.join({*'abcdefgh'})}.", callback=lambda: None)

@hookimpl
def textgen_commands():
    return [Component("hashed", NoOptions, build)]
"""
NUMBERS = itertools.count()


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where to write the module of a plugin, whose name no other test has."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / f"plugin_number_{next(NUMBERS)}.py"


def caught(plugin: Path, text: str, **arguments: Any) -> ContractFailure:
    plugin.write_text(text, encoding="utf-8")
    with pytest.raises(ContractFailure) as error:
        testing.check_plugin(plugin.stem, **arguments)
    return error.value


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (SAMPLER + "    def begin(self):\n        self.rate = 0.5 + hash('rate') % 99991 / 199982\n"
         "    def __call__(self, logits, history):\n        return logits * self.rate\n", "the logits of step 1"),
        (CORPUS + "    def read(self):\n        yield from {*'abcdefghijkl'}\n", "the text"),
        (TOKENIZER, "to_dict()"),
        (MODEL, "the initial weights"),
        (TRAINER, "the trained head.bias"),
        (OBSERVER, "the file seen.txt"),
        (COMMAND, "the help"),
    ],
    ids=["sampler", "corpus", "tokenizer", "model", "trainer", "observer", "command"],
)  # fmt: skip
def test_what_depends_on_the_hash_seed_is_caught(plugin: Path, text: str, seen: str) -> None:
    failure = caught(plugin, text)
    assert failure.statement.anchor == "component-process"
    assert (
        failure.seen
        == f"{seen} differs from one process to the next, as the order of a set of str does"
    )


@pytest.mark.parametrize(
    ("lines", "seen"),
    [
        ("import os\nos.environ['OMP_NUM_THREADS'] = '7'", "changed the environment (OMP_NUM_THREADS)"),
        ("import logging\nlogging.basicConfig(level=10)", "changed logging"),
        ("import warnings\nwarnings.simplefilter('ignore')", "changed the warning filters"),
        ("import random\nrandom.seed(1)", "changed the random state of `random`"),
        ("import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)", "changed the signal handlers"),
        ("import threading, time\nthreading.Thread(target=time.sleep, args=(9,), daemon=True, name='poll').start()",
         "left the thread 'poll' behind"),
        ("from textgen import Engine", "loads numpy by `from textgen import Engine` ({place}:1)"),
        ("import textgen.data", "loads numpy by `import textgen.data` ({place}:1)"),
        ("raise SystemExit(3)",
         "calls sys.exit(3) ({place}:1)"),
    ],
    ids=["environment", "logging", "warnings", "random", "signals", "thread", "engine", "data", "exit"],
)  # fmt: skip
def test_what_an_import_does_to_the_process_is_caught(plugin: Path, lines: str, seen: str) -> None:
    failure = caught(plugin, f"{lines}\n{SAMPLER}    pass\n")
    assert failure.statement.anchor == "component-import"
    assert failure.seen.partition(";")[0] == f"importing {plugin.stem} {seen.format(place=plugin)}"


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize(
    ("lines", "seen"),
    [
        (
            "import os\n        os.environ['NUMBER_OF_BUILDS'] = '1'",
            "the environment (NUMBER_OF_BUILDS)",
        ),
        ("import logging\n        logging.basicConfig(level=10, force=True)", "logging"),
        ("import warnings\n        warnings.simplefilter('ignore')", "the warning filters"),
        (
            "import signal\n        signal.signal(signal.SIGTERM, signal.SIG_IGN)",
            "the signal handlers",
        ),
        ("import torch\n        torch.set_num_threads(1)", "the number of torch's threads"),
    ],
    ids=["environment", "logging", "warnings", "signals", "threads"],
)
def test_what_is_set_to_the_same_value_each_time_is_caught(
    plugin: Path, lines: str, seen: str
) -> None:
    """The second of two builds in one process changes nothing any more."""
    with process_as_it_was():
        failure = caught(plugin, f"{SAMPLER}    def begin(self):\n        {lines}\n")
    assert failure.statement.anchor == "component-build"
    assert failure.seen == f"it changed {seen}"


def test_what_calls_set_is_caught(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBER_OF_CALLS", "0")  # so that it is put back
    lines = "    def __call__(self, logits, history):\n        import os\n        os.environ['NUMBER_OF_CALLS'] = '1'\n"
    failure = caught(plugin, f"{SAMPLER}{lines}        return logits\n")
    assert failure.statement.anchor == "component-calls"
    assert failure.seen == "it changed the environment (NUMBER_OF_CALLS)"


@contextlib.contextmanager
def process_as_it_was() -> Iterator[None]:
    """Put back what the plugins of these tests set."""
    import torch

    root, threads, handler = (
        logging.getLogger(),
        torch.get_num_threads(),
        signal.getsignal(signal.SIGTERM),
    )
    level, handlers = root.level, list(root.handlers)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setenv("NUMBER_OF_BUILDS", "0")
        yield
    root.setLevel(level)
    root.handlers[:] = handlers
    torch.set_num_threads(threads)
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lines", "seen"),
    [
        ("    def __call__(self, logits, history):\n        sum(iter(int, 1))\n",
         r"building and calling it in another process had not ended after 3 s, in which it had \d\.\d s of CPU time "
         r"\({place}:20\)"),
        ("    def begin(self):\n        import subprocess\n        subprocess.run(['sleep', '60'])\n",
         r"building and calling it in another process had not ended after 3 s, in which it had \d\.\d s of CPU time "
         r"\({place}:21\)"),
    ],
    ids=["c-code", "process"],
)  # fmt: skip
def test_what_blocks_where_no_signal_helps_is_ended(plugin: Path, lines: str, seen: str) -> None:
    failure = caught(plugin, SAMPLER + lines, time_limit=3.0)
    assert failure.statement.anchor == "component-ends"
    assert re.fullmatch(seen.format(place=plugin.name), failure.seen)


def test_an_import_that_blocks_is_ended(plugin: Path) -> None:
    failure = caught(plugin, "import threading\nthreading.Event().wait()\n", time_limit=0.5)
    seen = rf"importing {plugin.stem} had not ended after 0\.5 s, in which it had 0\.\d s of CPU time \({plugin.name}:2\)"
    assert re.fullmatch(seen, failure.seen)


def test_a_file_that_is_left_is_caught(plugin: Path) -> None:
    lines = (
        "    def begin(self):\n        import tempfile\n        tempfile.mkdtemp(prefix='kept-')\n"
    )
    failure = caught(plugin, SAMPLER + lines)
    assert failure.statement.anchor == "component-leaks"
    assert "it left kept-" in failure.seen
    assert failure.seen.endswith("in the folder for temporary files")


@pytest.mark.slow
def test_a_check_has_an_end_in_any_thread() -> None:
    def check() -> str:
        with pytest.raises(ContractFailure) as error:
            testing.check_sampler(offered(SleepingSampler), plugin=LIGHT, time_limit=3.0)
        return error.value.seen

    with ThreadPoolExecutor(1) as threads:
        seen = threads.submit(check).result()
    assert re.match(
        r"the check sampler-shape had not ended after 3 s, in which it had \d\.\d s of CPU time \(",
        seen,
    )
    assert Path(seen.rpartition("(")[2].partition(":")[0]).name == "samplers.py"


def test_a_timer_of_somebody_else_goes_on() -> None:
    signal.setitimer(signal.ITIMER_REAL, 600)
    try:
        assert within(5.0, lambda: "done") == "done"
        assert 590 < signal.getitimer(signal.ITIMER_REAL)[0] <= 600
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
