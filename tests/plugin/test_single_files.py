"""A plugin in one file: `textgen --plugin FILE.py`, and PluginSet.register_file."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time
import types
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import textgen
from textgen.plugin import discovery
from textgen.plugin.component import Plugin

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
TOKENIZER = """
from textgen import Component, hookimpl
from textgen_builtins.tokenizers.plugin import CharConfig, build as build_char


@hookimpl
def textgen_tokenizers() -> list[Component]:
    return [Component("mine", CharConfig, build_char)]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my_sampler.py"
    path.write_text(PLUGIN)
    return path


def test_every_command_takes_it(
    file: Path,
    tmp_path: Path,
    textgen: Callable[..., Any],
    tiny_pipeline: Callable[..., dict[str, Any]],
    write_pipeline: Callable[..., Path],
) -> None:
    pipeline = write_pipeline(tiny_pipeline(sampler=[{"type": "only"}]))
    with_it = ("--plugin", "my_sampler.py")
    done = textgen(*with_it, "run", pipeline, cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert len(set(done.stdout.strip("\n"))) == 1  # one token, again and again
    (entry,) = [
        c
        for c in json.loads((tmp_path / "run/run.json").read_text())["components"]
        if c["kind"] == "sampler"
    ]
    assert entry == {
        "kind": "sampler",
        "name": "only",
        "plugin": "my_sampler",
        "distribution": "unpackaged",
        "version": f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}",
        "path": str(file),
    }
    more = textgen(*with_it, "generate", "run", "-p", "the ", "--max-new-tokens", "5", cwd=tmp_path)
    assert (more.code, len(set(more.stdout.strip("\n")[-5:]))) == (0, 1), more.stderr
    other = textgen(
        *with_it,
        "generate",
        "run",
        "-p",
        "the ",
        "--only-token",
        "5",
        "--logprobs",
        "0",
        "-o",
        "jsonl",
        cwd=tmp_path,
    )
    assert {entry["token"] for entry in json.loads(other.stdout)["logprobs"][4:]} == {5}, (
        other.stderr
    )
    assert 'type = "only"' in textgen(*with_it, "show", pipeline, cwd=tmp_path).stdout
    assert "only" in textgen(*with_it, "plugins", "--kind", "sampler", cwd=tmp_path).stdout
    assert str(file) in textgen(*with_it, "plugins", "--kind", "sampler", cwd=tmp_path).stdout
    score = textgen(*with_it, "evaluate", "run", "corpus.txt", cwd=tmp_path)
    assert score.code == 0, score.stderr
    without = textgen("generate", "run", "-p", "the ", cwd=tmp_path)
    assert without.code == 2
    assert without.stdout == ""
    assert "no sampler is called 'unpackaged:only'; it was an object, a file" in without.stderr
    assert not (tmp_path / "__pycache__").exists()


def test_a_pipeline_or_run_directory_loads_no_file(
    file: Path, tiny_pipeline: Callable[..., dict[str, Any]]
) -> None:
    """They are data. What names a file is no plugin, and nothing of it runs."""
    file.write_text("raise SystemExit('it ran')")
    for name in ("only", str(file), "unpackaged:only", "my_sampler:only"):
        with pytest.raises(textgen.PipelineError, match="no sampler is called"):
            textgen.Engine().pipeline(tiny_pipeline(sampler=[{"type": name}]))
    with pytest.raises(textgen.PipelineError, match="plugins: unknown key"):
        textgen.Engine().pipeline(tiny_pipeline(plugins={"files": [str(file)]}))


def test_a_program_registers_a_file(
    file: Path, tiny_pipeline: Callable[..., dict[str, Any]]
) -> None:
    plugins = textgen.PluginSet.discover()
    plugins.register_file(file)
    engine = textgen.Engine(plugins)
    run = engine.run(tiny_pipeline(sampler=[{"type": "only", "token": 4}]))
    assert set(run.generations[0].tokens) == {4}
    assert set(engine.load(run.path).generate("the", only_token=5).tokens) == {5}
    with pytest.raises(textgen.UsageError, match="offers the sampler 'only' already"):
        plugins.register_file(file)
    file.write_text(PLUGIN.replace("option(3,", "option(7,"))
    plugins.register_file(file, replace=True)  # edited
    with pytest.warns(UserWarning, match="trained with another version of this plugin"):
        assert set(engine.run(tiny_pipeline(sampler=[{"type": "only"}])).generations[0].tokens) == {
            7
        }


def test_a_file_that_was_edited_since_the_run_was_trained_is_named(
    file: Path,
    tmp_path: Path,
    textgen: Callable[..., Any],
    tiny_pipeline: Callable[..., dict[str, Any]],
    write_pipeline: Callable[..., Path],
) -> None:
    file.write_text(PLUGIN + TOKENIZER)
    pipeline = write_pipeline(
        tiny_pipeline(tokenizer={"type": "mine"}, sampler=[{"type": "only"}] * 2)
    )
    assert textgen("--plugin", file, "run", pipeline, cwd=tmp_path).code == 0
    commands = [
        ("generate", "run", "-p", "the "),
        ("evaluate", "run", "corpus.txt"),
        ("run", pipeline),
    ]
    (tmp_path / "moved").mkdir()
    moved = file.rename(tmp_path / "moved/my_sampler.py")
    said = f"textgen: warning: {moved} was changed: the run was trained with another version of this plugin"
    for source, expected in ((PLUGIN + TOKENIZER, []), (PLUGIN + TOKENIZER + "\n# mine\n", [said])):
        moved.write_text(source)
        for command in commands:
            done = textgen("--plugin", moved, *command, cwd=tmp_path)
            warned = [line for line in done.stderr.splitlines() if "warning" in line]
            assert (done.code, warned) == (0, expected), done.stderr


def test_a_training_that_resumes_with_an_edited_file_says_so(
    file: Path, tiny_pipeline: Callable[..., dict[str, Any]]
) -> None:
    steps = iter(range(9))
    tables = tiny_pipeline(sampler=[{"type": "only"}], trainer={"length": "4 epochs"})
    for source in (PLUGIN, PLUGIN + "\n# mine\n"):
        file.write_text(source)
        plugins = textgen.PluginSet.discover()
        plugins.register_file(file)
        if source == PLUGIN:
            with pytest.raises(textgen.Interrupted):
                textgen.Engine(plugins).run(tables, cancelled=lambda: next(steps) == 3)
        else:
            with pytest.warns(
                UserWarning, match=r"my_sampler\.py was changed: the run was trained with another"
            ):
                assert textgen.Engine(plugins).run(tables).outcome == "resumed"
    with warnings.catch_warnings(action="error"):
        textgen.Engine(plugins).load(
            tables["output"]
        )  # the record is of the version that finished it


def test_a_file_that_is_no_plugin_is_an_error(file: Path, tmp_path: Path) -> None:
    plugins = textgen.PluginSet()
    for path in (tmp_path / "missing.py", tmp_path):
        with pytest.raises(textgen.UsageError, match="cannot be read"):
            plugins.register_file(path)
    before = set(sys.modules)
    for source, said in {
        "import nobody_has_this": r"needs the module 'nobody_has_this', which is not installed",
        "1 / 0": "ZeroDivisionError",
        "raise SystemExit(3)": "SystemExit: 3",
        "x = ": "SyntaxError",
        "x = 1": "it offers nothing",
    }.items():
        file.write_text(source)
        with pytest.raises(textgen.PluginError, match=said) as caught:
            plugins.register_file(file)
        assert caught.value.path == str(file)
        assert f"plugin 'my_sampler' ({file})" in str(caught.value)
    assert plugins.quarantined == []
    left = {name for name in set(sys.modules) - before if name.startswith("textgen_plugin_")}
    assert len(left) == 1  # of what was imported and offers nothing


def test_what_an_import_raises_is_shown_with_its_line(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "helper_of_mine.py").write_text("\n\ndef read():\n    return {}['x']\n")
    monkeypatch.syspath_prepend(tmp_path)
    for source, place in {
        "\n{}['x']": f"{file}:2)",
        "import helper_of_mine\nhelper_of_mine.read()": f"{file}:2)",
    }.items():
        file.write_text(source)
        with pytest.raises(textgen.PluginError) as caught:
            textgen.PluginSet().register_file(file)
        assert caught.value.cause.startswith("KeyError: 'x' (")
        assert caught.value.cause.endswith(place)


def test_what_a_hook_raises_is_shown_with_the_hook_and_its_line(file: Path) -> None:
    file.write_text(
        PLUGIN.replace('    return [Component("only"', '    1 / 0\n    return [Component("only"')
    )
    with pytest.raises(textgen.PluginError) as caught:
        textgen.PluginSet().register_file(file)
    line = file.read_text().splitlines().index("    1 / 0") + 1
    assert (
        caught.value.cause
        == f"ZeroDivisionError: division by zero ({file}:{line}, in textgen_samplers)"
    )


def test_what_fails_in_a_file_is_shown_with_its_line(
    file: Path, tiny_pipeline: Callable[..., dict[str, Any]]
) -> None:
    file.write_text(PLUGIN.replace("changed = logits.copy()", "changed = logits.nothing()"))
    plugins = textgen.PluginSet.discover()
    plugins.register_file(file)
    with pytest.raises(textgen.ContractError, match=r"my_sampler\.py:17, in only\)"):
        textgen.Engine(plugins).run(tiny_pipeline(sampler=[{"type": "only"}]))


def test_an_installed_plugin_whose_import_takes_long_is_named_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(discovery, "SLOW_SECONDS", 0.05)
    (tmp_path / "textgen_sleepy.py").write_text("import time\ntime.sleep(0.5)\n")
    monkeypatch.syspath_prepend(tmp_path)
    entry_point = metadata.EntryPoint("sleepy", "textgen_sleepy", "textgen")
    discovery.imported(Plugin("sleepy", "textgen-sleepy", "1.0"), entry_point)
    (said,) = [record.getMessage() for record in caplog.records]
    assert said == "still importing plugin 'sleepy' (textgen-sleepy 1.0)"


def test_an_import_that_takes_long_says_whose_it_is(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(discovery, "SLOW_SECONDS", 0.05)
    file.write_text(
        "import time\ntime.sleep(0.5)\n" + PLUGIN.replace("from __future__ import annotations", "")
    )
    begun = time.monotonic()
    textgen.PluginSet().register_file(file)
    assert time.monotonic() - begun > 0.5
    assert [record.getMessage() for record in caplog.records] == [
        f"still importing plugin 'my_sampler' ({file})"
    ]


def test_nothing_is_said_after_an_import_that_was_quick(file: Path) -> None:
    textgen.PluginSet().register_file(file)
    timers = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
    assert all(timer.finished.is_set() for timer in timers)


def test_it_is_held_to_its_contract(tmp_path: Path, textgen: Callable[..., Any]) -> None:
    body = PLUGIN[PLUGIN.index("    def only") : PLUGIN.index("@hookimpl")]
    (tmp_path / "half.py").write_text(
        PLUGIN.replace(body, "    return lambda logits, history: logits / 2\n\n\n")
    )
    for name in ("half", "half:only"):
        done = textgen("--plugin", "half.py", "plugins", "check", name, cwd=tmp_path)
        assert done.code == 0, done.stdout
        assert f"ok       sampler 'only' of {tmp_path / 'half.py'}: sampler-shape" in done.stdout


def test_all_files_that_are_missing_are_named_at_once(
    file: Path, tiny_pipeline: Callable[..., dict[str, Any]]
) -> None:
    other = file.with_name("other.py")
    other.write_text(PLUGIN.replace('"only"', '"other"').replace('"only_token"', '"other_token"'))
    plugins = textgen.PluginSet.discover()
    plugins.register_file(file)
    plugins.register_file(other)
    engine = textgen.Engine(plugins)
    run = engine.run(
        tiny_pipeline(sampler=[{"type": "only", "token": 4}, {"type": "other", "token": 4}])
    )
    with pytest.raises(
        textgen.UsageError,
        match=r"other_tokn: no sampler takes this option; did you mean 'other_token'",
    ):
        run.generator.generate("the", other_tokn=5)
    with pytest.raises(textgen.PipelineError) as caught:
        textgen.load(run.path)
    assert len(caught.value.faults) == 2


def test_plugins_that_are_imported_at_once_leave_stdout_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first import begins before the second, and ends before it."""
    gates: Any = types.ModuleType("gates")
    gates.second_begun, gates.first_ended = threading.Event(), threading.Event()
    monkeypatch.setitem(sys.modules, "gates", gates)
    for name, wait in (
        ("first", "second_begun.wait(20)"),
        ("second", "second_begun.set(); gates.first_ended.wait(20)"),
    ):
        text = f"{PLUGIN}\nimport gates\ngates.{wait}\n"
        (tmp_path / f"{name}.py").write_text(text)

    def register(name: str) -> None:
        textgen.PluginSet().register_file(tmp_path / f"{name}.py")
        if name == "first":
            gates.first_ended.set()

    before = sys.stdout
    with ThreadPoolExecutor() as pool:
        list(pool.map(register, ("first", "second")))
    assert sys.stdout is before
