"""A plugin in one file: `textgen --plugin FILE.py`, and PluginSet.register_file."""

import hashlib
import json

import pytest

import textgen

PLUGIN = '''
from __future__ import annotations

import attrs
from textgen import Component, hookimpl, option


@attrs.frozen
class OnlyConfig:
    """Leaves one token possible."""

    token: int = option(3, help="which one", argument="only_token")


def build(config, context):
    def only(logits, history):
        changed = logits.copy()
        changed[:, [i for i in range(logits.shape[1]) if i != config.token]] = -float("inf")
        return changed

    return only


@hookimpl
def textgen_samplers() -> list[Component]:
    return [Component("only", OnlyConfig, build)]
'''


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "my_sampler.py"
    path.write_text(PLUGIN)
    return path


def engine(*files):
    plugins = textgen.PluginSet.discover()
    for path in files:
        plugins.register_file(path)
    return textgen.Engine(plugins)


def test_every_command_takes_it(file, tmp_path, textgen, tiny_pipeline, write_pipeline):
    pipeline = write_pipeline(tiny_pipeline(sampler=[{"type": "only"}]))
    with_it = ("--plugin", "my_sampler.py")
    done = textgen(*with_it, "run", pipeline, cwd=tmp_path)
    assert len(set(done.stdout.strip("\n"))) == 1, done.stderr  # one token, again and again
    components = json.loads((tmp_path / "run/run.json").read_text())["components"]
    assert {
        "kind": "sampler",
        "name": "only",
        "plugin": "my_sampler",
        "distribution": "unpackaged",
        "version": f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}",
        "path": str(file),
    } in components
    option = ("--only-token", "5", "--no-echo", "-o", "jsonl")
    more = textgen(*with_it, "generate", "run", "-p", "the ", *option, cwd=tmp_path)
    assert len(set(json.loads(more.stdout)["text"])) == 1, more.stderr
    assert 'type = "unpackaged:only"' in textgen(*with_it, "show", pipeline, cwd=tmp_path).stdout
    assert str(file) in textgen(*with_it, "plugins", cwd=tmp_path).stdout
    assert textgen(*with_it, "evaluate", "run", "corpus.txt", cwd=tmp_path).code == 0
    without = textgen("generate", "run", "-p", "the ", cwd=tmp_path)
    assert (without.code, without.stdout) == (2, "")
    assert (
        "'unpackaged:only'; it was an object, or a plugin of a program or a file: gi"
        in without.stderr
    )
    assert not (tmp_path / "__pycache__").exists()


def test_a_pipeline_or_run_directory_loads_no_file(file, tiny_pipeline):
    """They are data. What names a file is no plugin, and nothing of it runs."""
    file.write_text("raise SystemExit('it ran')")
    for name in ("only", str(file), "unpackaged:only", "my_sampler:only"):
        with pytest.raises(textgen.PipelineError) as caught:
            textgen.Engine().pipeline(tiny_pipeline(sampler=[{"type": name}]))
        assert [fault.path for fault in caught.value.faults] == ["sampler.0.type"]


def test_an_edited_file_is_another_plugin_and_is_named(file, tmp_path, tiny_pipeline):
    made = engine(file)
    run = made.run(tiny_pipeline(sampler=[{"type": "only", "token": 4}]))
    assert set(run.generations[0].tokens) == {4}
    assert set(made.load(run.path).generate("the", only_token=5).tokens) == {5}
    moved = file.rename(tmp_path / "moved.py")
    engine(moved).load(run.path)
    with pytest.raises(textgen.UsageError, match="offers the sampler 'only' already"):
        made.plugins().register_file(moved)
    file.write_text(PLUGIN.replace("option(3,", "option(7,"))
    with pytest.warns(UserWarning, match=r"my_sampler\.py was changed: the run was trained with"):
        again = engine(file).run(tiny_pipeline(sampler=[{"type": "only"}]))
    assert set(again.generations[0].tokens) == {7}


def test_a_training_that_resumes_with_an_edited_file_says_so(file, tiny_pipeline):
    steps = iter(range(9))
    tables = tiny_pipeline(sampler=[{"type": "only"}], trainer={"length": "4 epochs"})
    with pytest.raises(textgen.Interrupted):
        engine(file).run(tables, cancelled=lambda: next(steps) == 3)
    file.write_text(PLUGIN + "\n# mine\n")
    with pytest.warns(UserWarning, match="was changed: the run was trained with another"):
        assert engine(file).run(tables).outcome == "resumed"
    engine(file).load(tables["output"])  # the record is of the version that finished it


@pytest.mark.parametrize(
    ("source", "cause", "line"),
    [
        ("import nobody_has_this", "it needs the module 'nobody_has_this', which is not", 0),
        ("\n{}['x']", "KeyError: 'x' (", 2),
        ("raise SystemExit(3)", "SystemExit: 3 (", 1),
        ("x = ", "SyntaxError", 1),
        ("x = 1", "it offers nothing", 0),
        (PLUGIN.replace("    return [C", "    1 / 0\n    return [C"), "ZeroDivisionError", 26),
    ],
)
def test_a_file_that_is_no_plugin_is_an_error(file, source, cause, line):
    plugins = textgen.PluginSet()
    file.write_text(source)
    with pytest.raises(textgen.PluginError) as caught:
        plugins.register_file(file)
    assert (caught.value.plugin.name, caught.value.plugin.path) == ("my_sampler", str(file))
    assert cause in caught.value.cause
    assert (f"({file}:{line}" in caught.value.cause) is bool(line)
    with pytest.raises(textgen.UsageError, match="cannot be read"):
        plugins.register_file(file.parent / "missing.py")


def test_what_fails_in_a_file_is_shown_with_its_line(file, tiny_pipeline):
    file.write_text(PLUGIN.replace("logits.copy()", "logits.nothing()"))
    with pytest.raises(textgen.ContractError, match=r"my_sampler\.py:17, in only\)"):
        engine(file).run(tiny_pipeline(sampler=[{"type": "only"}]))


def test_all_files_that_are_missing_are_named_at_once(file, tiny_pipeline):
    other = file.with_name("other.py")
    other.write_text(PLUGIN.replace('"only"', '"other"').replace('"only_token"', '"other_token"'))
    run = engine(file, other).run(tiny_pipeline(sampler=[{"type": "only"}, {"type": "other"}]))
    with pytest.raises(textgen.UsageError, match="did you mean 'other_token'"):
        run.generator.generate("the", other_tokn=5)
    with pytest.raises(textgen.PipelineError) as caught:
        textgen.load(run.path)
    assert len(caught.value.faults) == 2
