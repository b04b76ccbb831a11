"""The corpus of docs/plugin-recipes.md: it is short, keeps its contract, and a model trains on
it.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import textgen
from textgen import testing

PAGE = Path(__file__).parents[2] / "docs/plugin-recipes.md"
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


def test_the_corpus_keeps_its_contract_and_a_model_ends_its_texts(
    plugin: Any, tiny_pipeline: Any, tmp_path: Path
) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "salt"}\n' * 200)
    corpus = {"type": "json-lines", "path": str(path)}
    (component,) = plugin.textgen_corpora()
    outcomes = testing.check_corpus(component, options={"path": str(path)}, plugin="json_lines")
    assert {outcome.status for outcome in outcomes} <= {"ok", "skipped"}
    plugins = textgen.PluginSet.discover()
    plugins.register(plugin, "json-lines")
    tables = tiny_pipeline(
        model={"hidden_size": 16}, sampler=[{"type": "greedy"}], generate={"max_new_tokens": 100}
    )
    trainer = {"type": "adamw", "length": "10 epochs", "batch_size": 4, "learning_rate": 0.02}
    run = textgen.Engine(plugins).run({**tables, "corpus": corpus, "trainer": trainer})
    (made,) = run.generations
    assert (made.text, made.finish_reason) == ("salt", "end")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (None, "the texts cannot be read: [Errno 2] No such file or directory: '{}'"),
        ("{}\n", "{}:1: KeyError('text'); each line is an object with a text"),
        ('{"text": "salt"}\nsalt\n', "{}:2: JSONDecodeError("),
    ],
)
def test_what_a_user_can_mend_is_said_with_file_and_line(
    plugin: Any, tmp_path: Path, lines: str | None, said: str
) -> None:
    path = tmp_path / "mine.jsonl"
    if lines is not None:
        path.write_text(lines)
    with pytest.raises(textgen.CorpusError) as caught:
        list(plugin.JsonLines(path).read())
    assert said.format(path) in str(caught.value)
