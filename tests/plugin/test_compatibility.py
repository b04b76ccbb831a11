"""What plugins that were written once may rely on: plugin API 1."""

from __future__ import annotations

import itertools
import json
import subprocess
import types
from pathlib import Path

import pytest
from commands import run_python, run_textgen
from installing import install

import textgen
from textgen.plugin.component import KINDS

PIPELINE = """
device = "cpu"
[corpus]
type = "countdown"
start = 9
[tokenizer]
type = "letters"
[data]
window_length = 8
[model]
type = "pairs"
[trainer]
type = "tally"
[[sampler]]
type = "no-echo"
[[observer]]
type = "logbook"
[checkpoint]
seconds = 0
[generate]
prompt = "9 "
max_new_tokens = 30
"""


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the plugin of the first API is installed."""
    return install(
        Path(__file__).parents[1] / "packages/textgen-first-api",
        tmp_path_factory.mktemp("first-api"),
    )


@pytest.fixture(scope="session")
def trained(
    site: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A folder with a run made of nothing but its components, and what the run said."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "p.toml").write_text(PIPELINE)
    return folder, run_python(
        "-W", "error", "-m", "textgen", "run", "p.toml", folder=folder, site=[site]
    )


def test_this_is_plugin_api_1() -> None:
    assert textgen.PLUGIN_API_VERSION == 1


def test_the_first_plugin_still_offers_all_seven_kinds(site: Path, tmp_path: Path) -> None:
    described = json.loads(run_textgen("plugins", "--json", folder=tmp_path, site=[site]).stdout)
    assert described["quarantined"] == []
    offered = {
        c["kind"]: c["name"]
        for c in described["components"]
        if c["distribution"] == "textgen-first-api"
    }
    names = ("countdown", "letters", "pairs", "tally", "no-echo", "logbook", "first")
    assert offered == dict(zip(KINDS, names, strict=True))


def test_the_first_plugin_still_trains_and_generates(
    trained: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, done = trained
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr.lower()
    text = done.stdout.removesuffix("\n")
    assert len(text) == 32
    assert text.startswith("9 ")
    assert set(text) <= set("987654321 go\n")
    assert all(before != after for before, after in itertools.pairwise(text[1:]))
    logbook = (folder / "runs/p/logbook.txt").read_text().splitlines()
    assert (logbook[0], logbook[1], logbook[-1]) == ("RunStarted 0", "StepDone 1", "RunFinished 4")
    assert {"StepDone 4", "Evaluation 4", "Checkpointed 4"} <= set(logbook)


def test_what_the_first_plugin_made_still_loads(
    trained: tuple[Path, subprocess.CompletedProcess[str]], site: Path
) -> None:
    folder, done = trained
    again = run_textgen(
        "generate", "runs/p", "--prompt", "9 ", "--max-new-tokens", "30", folder=folder, site=[site]
    )
    assert again.stdout == done.stdout, again.stderr
    first = run_textgen("first", "runs/p", folder=folder, site=[site])
    assert (first.returncode, len(first.stdout)) == (0, 4), first.stderr
    gone = run_textgen("generate", "runs/p", folder=folder)
    assert gone.returncode == 2
    assert "textgen-first-api 1.0" in gone.stderr


@pytest.mark.parametrize("number", [0, 1, None])
def test_a_plugin_of_this_api_or_an_earlier_one_is_taken(number: int | None) -> None:
    module = types.ModuleType("old")
    module.textgen_samplers = textgen.hookimpl(_nothing)  # type: ignore[attr-defined]
    if number is not None:
        module.TEXTGEN_PLUGIN_API = number  # type: ignore[attr-defined]
    textgen.PluginSet().register(module, "old")


def _nothing() -> list[textgen.Component]:
    return []


_nothing.__name__ = "textgen_samplers"


@pytest.mark.fault(29)
def test_a_plugin_of_the_next_api_is_left_out_with_the_sentence() -> None:
    module = types.ModuleType("new")
    module.TEXTGEN_PLUGIN_API = 2  # type: ignore[attr-defined]
    plugins = textgen.PluginSet()
    with pytest.raises(textgen.PluginError) as caught:
        plugins.register(module, "new", distribution="textgen-new", version="3.1")
    said = "it needs plugin API 2, and this textgen has 1; upgrade textgen-engine"
    assert caught.value.cause == said
