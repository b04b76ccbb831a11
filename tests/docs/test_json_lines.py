"""The corpus of docs/writing-plugins.md: it is short, keeps its contract, and a model trains on it."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import textgen
from textgen import testing

PAGE = Path(__file__).parents[2] / "docs/writing-plugins.md"
MOST_LINES = 25


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module of the page."""
    section = PAGE.read_text(encoding="utf-8").partition("## A corpus of documents\n")[2]
    code = re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= MOST_LINES
    (tmp_path / "json_lines.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("json_lines")
    del sys.modules["json_lines"]


def test_the_corpus_keeps_its_contract(plugin: Any, tmp_path: Path) -> None:
    (tmp_path / "texts.jsonl").write_text('{"text": "salt"}\n{"text": "pepper"}\n')
    (component,) = plugin.textgen_corpora()
    outcomes = testing.check_corpus(
        component, options={"path": str(tmp_path / "texts.jsonl")}, plugin="json_lines"
    )
    assert {outcome.status for outcome in outcomes} <= {"ok", "skipped"}


def test_a_model_trains_on_it_and_ends_its_texts(plugin: Any, tmp_path: Path) -> None:
    (tmp_path / "texts.jsonl").write_text(
        "".join(json.dumps({"text": "salt"}) + "\n" for _ in range(200))
    )
    plugins = textgen.PluginSet.discover()
    plugins.register(plugin, "json-lines")
    pipeline = {
        "device": "cpu",
        "observer": [],
        "corpus": {"type": "json-lines", "path": str(tmp_path / "texts.jsonl")},
        "tokenizer": {"type": "char"},
        "data": {"window_length": 16},
        "model": {"type": "rnn", "hidden_size": 16},
        "trainer": {"type": "adamw", "length": "10 epochs", "batch_size": 4, "learning_rate": 0.02},
        "sampler": [{"type": "greedy"}],
    }
    (made,) = textgen.Engine(plugins).run(pipeline, output=tmp_path / "run").generations
    assert (made.text, made.finish_reason) == ("salt", "end")


@pytest.mark.parametrize(
    ("lines", "said"),
    [(None, "the texts cannot be read: "), ("{}\n", ":1: KeyError('text'); each line is an object with a text"),
     ('{"text": "salt"}\nsalt\n', ":2: JSONDecodeError("), ('{"text": "salt"}\n\n[]\n', ":2: JSONDecodeError(")],
    ids=["missing", "no-text", "no-json", "blank"],
)  # fmt: skip
def test_what_a_user_can_mend_is_said_with_file_and_line(
    plugin: Any, tmp_path: Path, lines: str | None, said: str
) -> None:
    path = tmp_path / "mine.jsonl"
    if lines is not None:
        path.write_text(lines)
    with pytest.raises(textgen.CorpusError) as caught:
        list(plugin.JsonLines(path).read())
    assert (f"{path}{said}" if said.startswith(":") else said) in str(caught.value)
    assert str(path) in str(caught.value)
