"""`textgen --plugin FILE.py plugins check`."""

import json

import pytest
from commands import run_textgen

from textgen import PluginSet
from textgen.testing import command_line

SAMPLER = """
from textgen import Component, NoOptions, hookimpl

@hookimpl
def textgen_samplers():
    half = lambda logits, history: logits / 2
    return [Component("half", NoOptions, lambda config, context: half)]
"""
OBJECTIVE = """
from textgen import Component, NoOptions, UsageError, hookimpl
from textgen.documents import end_id
from textgen.gradient import NextToken

class Answers(NextToken):
    def batches(self, data, options, seed):
        if data.training.tolist().count(self.end) < 3:
            raise UsageError("there are no documents")
        return super().batches(data, options, seed)

def build(config, context):
    made = Answers()
    made.end = end_id(context.tokenizer)
    return made

@hookimpl
def textgen_objectives():
    return [Component("half", NoOptions, build)]
"""
METRIC = """
from textgen import Component, NoOptions, hookimpl

class Half:
    value = 0.5
    def add(self, scores):
        pass

@hookimpl
def textgen_kinds():
    return {"metric": [Component("half", NoOptions, lambda config, context: Half())]}
"""


@pytest.mark.slow
def test_a_file_may_load_torch_which_a_package_may_not(tmp_path):
    (tmp_path / "half.py").write_text("import torch\n" + SAMPLER)
    done = run_textgen("--plugin", "half.py", "plugins", "check", "half", folder=tmp_path)
    assert done.returncode == 0, done.stdout
    assert f"sampler 'half' of {tmp_path / 'half.py'}: component-import" in done.stdout


def lines_of(tmp_path, text, name="half", **pipeline):
    file = tmp_path / f"{name}.py"
    file.write_text(text)
    plugins = PluginSet.discover()
    plugins.register_file(file)
    return [line for _, line in command_line.check_named(name, plugins, (), **pipeline)]


@pytest.mark.slow
def test_what_learns_from_documents_is_checked_on_a_corpus_of_them(tmp_path):
    path = tmp_path / "qa.jsonl"
    path.write_text('{"text": "Q: what? A: that."}\n' * 40)
    table = f'{{type = "file", path = "{path.as_posix()}", documents = "jsonl"}}'
    *_, last = lines_of(tmp_path, OBJECTIVE, corpus=table)
    assert (last[:2], last.rpartition(" ")[2]) == ("ok", "objective-falls")
    *_, last = lines_of(tmp_path, OBJECTIVE)
    assert "UsageError: there are no documents" in last
    assert "--corpus" in last


def test_a_file_is_checked_alone_that_is_called_as_a_plugin(tmp_path):
    lines = lines_of(tmp_path, SAMPLER, "samplers")
    assert lines
    assert all("samplers.py" in line for line in lines)


def test_a_metric_needs_its_methods(tmp_path, textgen, finished_run):
    *_, last = lines_of(tmp_path, METRIC)
    assert "component-methods" in last
    assert "no method 'value'" in last
    (tmp_path / "text.txt").write_text("the hall")
    given = ("evaluate", finished_run, "text.txt", "--metric", "half")
    failed = textgen("--plugin", "half.py", *given, cwd=tmp_path)
    assert failed.code == 1
    assert "metric 'half'" in failed.stderr
    assert "no method 'value'" in failed.stderr


FIGURES = """
from textgen import Component, NoOptions, hookimpl, option
import attrs

SEEN = []

@attrs.frozen
class Longer:
    length: int = option(1, help="tokens")

class Count:
    def __init__(self, config):
        self.tokens = 0
    def add(self, scores):
        SEEN.append(id(scores))
        self.tokens += len(scores.tokens)
    def value(self):
        return self.tokens + len(set(SEEN)) / 10

class Word(Count):
    def value(self):
        return "high"

@hookimpl
def textgen_kinds():
    count = lambda config, context: Count(config)
    word = lambda config, context: Word(config)
    offers = ("count", count), ("other", count), ("word", word)
    return {"metric": [Component(name, Longer, build) for name, build in offers]}
"""


def test_all_metrics_see_one_pass_over_the_text(tmp_path, textgen, finished_run):
    (tmp_path / "figures.py").write_text(FIGURES)
    (tmp_path / "text.txt").write_text("the hall\n")
    table = "{ type = 'count', length = 2 }"
    metrics = ("--metric", "count", "--metric", "other", "--metric", table)
    given = ("evaluate", finished_run, "text.txt", "--json", *metrics)
    done = textgen("--plugin", "figures.py", *given, cwd=tmp_path)
    found = json.loads(done.stdout)
    assert found["metrics"] == dict.fromkeys(("count", "other", table), found["tokens"] + 0.1)


def test_a_metric_is_blamed_for_what_fails_in_it(tmp_path, textgen, finished_run):
    (tmp_path / "figures.py").write_text(FIGURES)
    (tmp_path / "text.txt").write_text("the hall\n")
    given = ("evaluate", finished_run, "text.txt", "--metric", "word")
    failed = textgen("--plugin", "figures.py", *given, cwd=tmp_path)
    assert failed.code == 1
    assert "metric 'word'" in failed.stderr
    assert "figures" in failed.stderr
    assert "Traceback" not in failed.stderr
