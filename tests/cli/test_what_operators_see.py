"""The log, the version, the event of a skipped run, and what a notebook shows."""

from __future__ import annotations

import io
import logging
import sys
import types
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from components import Recorder

import textgen
from textgen import Engine
from textgen.events import RunSkipped


def test_the_version_is_that_of_the_package() -> None:
    assert textgen.__version__ == metadata.version("textgen-engine")
    assert "__version__" not in textgen.__all__


def test_a_skipped_run_is_told_to_the_callers_observers_alone(
    tiny_pipeline: Any, tmp_path: Path
) -> None:
    first, second = Recorder(), Recorder()
    pipeline = tiny_pipeline(observers=True)
    run = textgen.run(pipeline, output=tmp_path / "run", observers=[first])
    assert not [event for event in first.events if isinstance(event, RunSkipped)]
    metrics = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    assert textgen.run(pipeline, output=tmp_path / "run", observers=[second]).outcome == "skipped"
    assert second.events == [RunSkipped(path=tmp_path / "run", step=run.generator.record["step"])]
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == metrics


def test_the_log_tells_training_checkpoints_and_loading(
    tiny_pipeline: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "textgen")
    textgen.run(tiny_pipeline(), output=tmp_path / "run")
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    folder = tmp_path / "run"
    assert ("INFO", f"training in {folder} on cpu after step 0") in said
    assert ("INFO", f"loaded the run in {folder}") in said
    assert ("DEBUG", "device cpu chosen for cpu") in said
    checkpoints = sorted(str(path) for path in (folder / "checkpoints").iterdir())
    assert checkpoints[-1] in [
        text.rpartition(" to ")[2] for _, text in said if text.startswith("checkpoint of step ")
    ]
    assert {record.name for record in caplog.records} == {"textgen"}


def test_the_command_shows_a_damaged_checkpoint_and_resumes_from_the_one_before(
    textgen: Callable[..., Any], write_pipeline: Any, tiny_pipeline: Any, tmp_path: Path
) -> None:
    import textgen as api

    tables = tiny_pipeline(
        trainer={"length": "6 epochs", "learning_rate": 1e-9}, checkpoint={"seconds": 0}
    )
    recorder = Recorder()
    with pytest.raises(api.Interrupted):
        api.run(
            tables,
            output=tmp_path / "run",
            observers=[recorder],
            cancelled=lambda: (
                sum(type(event).__name__ == "Evaluation" for event in recorder.events) == 2
            ),
        )
    steps = sorted((tmp_path / "run" / "checkpoints").iterdir())
    if len(steps) < 2:
        pytest.skip("the last step was the best")
    (steps[-1] / "model.safetensors").write_bytes(b"damaged")
    done = textgen("run", write_pipeline(tables), cwd=tmp_path)
    assert done.code == 0
    assert done.stderr.count("is damaged") == 1
    assert "textgen: warning: checkpoint of step " in done.stderr


def test_a_run_is_shown_in_a_line(tiny_pipeline: Any, tmp_path: Path) -> None:
    run = textgen.run(tiny_pipeline(generate={"n": 3}), output=tmp_path / "run")
    shown = repr(run)
    assert f"path={tmp_path / 'run'!r}" in shown
    assert "<3 texts>" in shown
    assert len(shown.splitlines()) == 1


@pytest.mark.parametrize(
    ("application", "drawn"), [("IPKernelApp", True), ("TerminalIPythonApp", False)]
)
def test_a_notebook_gets_a_bar_though_it_is_not_a_terminal(
    tiny_pipeline: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    application: str,
    drawn: bool,
) -> None:
    shell = types.SimpleNamespace(config={application: {}})
    shown = list[str]()

    def display(data: dict[str, str], *, raw: bool, **_: Any) -> Any:
        assert raw  # or the dict would be shown
        shown.append(data["text/plain"])
        return types.SimpleNamespace(update=display)

    ipython = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(display=display))
    console = io.StringIO()
    Engine().run(tiny_pipeline(observers=True), output=tmp_path / "run", console=console)
    assert any("100%|" in bar for bar in shown) == drawn
    assert ("tokens/s" in console.getvalue()) != drawn
