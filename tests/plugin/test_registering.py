"""Plugins that a program registers under a name: once, in place of another, and no longer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

import textgen
from textgen import Component, NoOptions, hookimpl, option


@attrs.frozen
class Text:
    text: str

    def read(self) -> Iterator[str]:
        yield self.text


def corpus_plugin(text: str, name: str = "mine") -> Any:
    """A plugin whose corpus is this text: the cell of a notebook."""

    class Plugin:
        @staticmethod
        @hookimpl
        def textgen_corpora() -> list[Component]:
            return [Component(name, NoOptions, lambda config, context: Text(text))]

    return Plugin


def text_of(plugins: textgen.PluginSet) -> str:
    return "".join(textgen.Engine(plugins).read_corpus({"type": "mine"}))


def test_a_component_is_offered_once_whatever_its_plugin_is_called() -> None:
    plugins = textgen.PluginSet()
    plugins.register(corpus_plugin("the first user's text"), "one")
    with pytest.raises(
        textgen.UsageError, match="unpackaged offers the corpus 'mine' already, by its plugin 'one'"
    ):
        plugins.register(corpus_plugin("the second user's text"), "two")


def test_an_option_without_a_type_is_named() -> None:
    @attrs.frozen
    class Config:
        """Repeats a text."""

        times = option(3, help="how often")

    class Plugin:
        @staticmethod
        @hookimpl
        def textgen_corpora() -> list[Component]:
            return [Component("mine", Config, lambda config, context: Text("twice" * config.times))]

    said = r"component 'mine': times has no type; annotate it, as in `times: int`"
    with pytest.raises(textgen.PluginError, match=said):
        textgen.PluginSet().register(Plugin, "notebook")


def test_one_plugin_takes_the_place_of_another() -> None:
    plugins = textgen.PluginSet()
    for text in ("first", "second", "third"):
        plugins.register(corpus_plugin(text), "notebook", replace=True)
        assert text_of(plugins) == text
    assert [offer.qualified_name for offer in plugins.offers()] == ["unpackaged:mine"]


def test_a_run_says_that_a_program_registered_its_plugin(
    tmp_path: Path, tiny_pipeline: Callable[..., dict[str, Any]]
) -> None:
    """Never to install a package of a name that anyone could register."""
    plugins = textgen.PluginSet.discover()

    class Plugin:
        @staticmethod
        @hookimpl
        def textgen_samplers() -> list[Component]:
            return [
                Component("same", NoOptions, lambda config, context: lambda logits, history: logits)
            ]

    plugins.register(Plugin, "notebook")
    run = textgen.Engine(plugins).run(tiny_pipeline(sampler=[{"type": "same"}]))
    with pytest.raises(textgen.PipelineError) as caught:
        textgen.load(run.path)
    assert "pip install" not in str(caught.value)
    assert "installed" not in str(caught.value)


def test_a_name_with_its_package_is_the_same_run(
    tiny_pipeline: Callable[..., dict[str, Any]],
) -> None:
    tables = tiny_pipeline()
    run = textgen.run(tables)
    for kind in ("tokenizer", "model", "trainer", "corpus"):
        named = {**tables[kind], "type": f"textgen-engine:{tables[kind]['type']}"}
        assert textgen.run({**tables, kind: named}).outcome == "skipped"
    shutil.rmtree(run.path)
    again = textgen.run({**tables, "model": {**tables["model"], "type": "textgen-engine:rnn"}})
    assert (
        json.loads((again.path / "run.json").read_text())["fingerprint"]["model"]["type"] == "rnn"
    )
