"""The log, the version, the event of a skipped run, and what a notebook shows."""

import io
import logging
import sys
import types
from importlib import metadata

import pytest
from components import Recorder

import textgen as api
from textgen.events import RunSkipped, StepDone


def test_the_version_is_that_of_the_package():
    assert api.__version__ == metadata.version("textgen-engine")


def test_a_skipped_run_is_told_to_the_callers_observers_alone(tiny_pipeline, tmp_path):
    first, second = Recorder(), Recorder()
    pipeline = tiny_pipeline(observers=True)
    run = api.run(pipeline, observers=[first])
    assert first.of(RunSkipped) == []
    metrics = (tmp_path / "run/metrics.jsonl").read_bytes()
    assert api.run(pipeline, observers=[second]).outcome == "skipped"
    assert second.events == [RunSkipped(path=run.path, step=run.generator.record["step"])]
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == metrics


def test_the_log_tells_training_checkpoints_and_loading(tiny_pipeline, tmp_path, caplog):
    caplog.set_level(logging.DEBUG, "textgen")
    api.run(tiny_pipeline())
    folder = tmp_path / "run"
    said = {(record.name, record.levelname, record.getMessage()) for record in caplog.records}
    assert {
        ("textgen", "INFO", f"training in {folder} on cpu after step 0"),
        ("textgen", "INFO", f"loaded the run in {folder}"),
        ("textgen", "DEBUG", "device cpu chosen for cpu"),
    } <= said
    assert {name for name, _, _ in said} == {"textgen"}
    assert f" to {max((folder / 'checkpoints').iterdir())}" in caplog.text


def test_the_command_shows_a_damaged_checkpoint_and_resumes_from_the_one_before(
    textgen, write_pipeline, tiny_pipeline, tmp_path
):
    tables = tiny_pipeline(trainer={"evaluate_every": 2}, checkpoint={"seconds": 0})
    recorder = Recorder()
    with pytest.raises(api.Interrupted):
        api.run(tables, observers=[recorder], cancelled=lambda: len(recorder.of(StepDone)) == 3)
    _, last = sorted((tmp_path / "run/checkpoints").iterdir())
    (last / "model.safetensors").write_bytes(b"damaged")
    done = textgen("run", write_pipeline(tables), cwd=tmp_path)
    assert (done.code, done.stderr.count("is damaged")) == (0, 1)
    assert "textgen: warning: checkpoint of step " in done.stderr


def test_a_run_is_shown_in_a_line(tiny_pipeline, tmp_path):
    shown = repr(api.run(tiny_pipeline(generate={"n": 3})))
    assert f"path={tmp_path / 'run'!r}" in shown
    assert "<3 texts>" in shown
    assert "\n" not in shown


@pytest.mark.parametrize(
    ("application", "drawn"), [("IPKernelApp", True), ("TerminalIPythonApp", False)]
)
def test_a_notebook_gets_a_bar_though_it_is_not_a_terminal(
    tiny_pipeline, monkeypatch, application, drawn
):
    shell = types.SimpleNamespace(config={application: {}})
    shown = list[str]()

    def display(data, *, raw, **_):
        assert raw  # or the dict would be shown
        shown.append(data["text/plain"])
        return types.SimpleNamespace(update=display)

    ipython = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(display=display))
    console = io.StringIO()
    api.Engine().run(tiny_pipeline(observers=True), console=console)
    assert any("100%|" in bar for bar in shown) == drawn
    assert ("tokens/s" in console.getvalue()) != drawn
