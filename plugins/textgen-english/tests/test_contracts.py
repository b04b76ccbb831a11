"""The contracts of every plugin, by textgen's own suites."""

import os
from pathlib import Path

import textgen_english

from textgen.testing import check_plugin

RUN = Path(textgen_english.__file__).with_name("run")


def test_the_run_is_whole_loads_and_generates():
    assert {outcome.status for outcome in check_plugin(textgen_english)} == {"ok"}


def test_the_installed_package_has_the_run_and_is_small():
    files = {path.name: path.stat().st_size for path in RUN.iterdir()}
    assert files.keys() == {"run.json", "pipeline.toml", "tokenizer.json", "model.safetensors"}
    assert sum(files.values()) < 12_000_000


def test_the_run_names_no_path_of_the_machine_that_trained_it():
    for name in ("run.json", "pipeline.toml"):
        text = (RUN / name).read_text(encoding="utf-8")
        assert "books.txt" in text or name == "run.json"
        assert "/home" not in text
        assert os.sep + "work" not in text
