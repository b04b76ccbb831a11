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
        "'unpackaged:only'; it was a plugin of a program or a file: give it again, a "
        "file by --plugin FILE" in without.stderr
    )
    assert not (tmp_path / "__pycache__").exists()


def test_a_pipeline_or_run_directory_loads_no_file(file, tiny_pipeline):
    """They are data. What names a file is no plugin, and nothing of it runs."""
    file.write_text("raise SystemExit('it ran')")
    for name in ("only", str(file), "unpackaged:only", "my_sampler:only"):
        with pytest.raises(textgen.PipelineError) as caught:
            textgen.Engine().pipeline(tiny_pipeline(sampler=[{"type": name}]))
        assert [fault.path for fault in caught.value.faults] == ["sampler.0.type"]


def test_an_edited_file_is_another_plugin(file, tmp_path, tiny_pipeline):
    made = engine(file)
    run = made.run(tiny_pipeline(sampler=[{"type": "only", "token": 4}]))
    assert set(run.generations[0].tokens) == {4}
    assert set(made.load(run.path).generate("the", only_token=5).tokens) == {5}
    moved = file.rename(tmp_path / "moved.py")
    engine(moved).load(run.path)
    with pytest.raises(textgen.PluginError):
        made.plugins().register_file(moved)
    file.write_text(PLUGIN.replace("option(3,", "option(7,"))
    again = engine(file).run(tiny_pipeline(sampler=[{"type": "only"}]))
    assert set(again.generations[0].tokens) == {7}
