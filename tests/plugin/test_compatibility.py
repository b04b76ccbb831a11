"""What plugins that were written once may rely on.

The one package that is installed as a wheel.
"""

import itertools
import json
from pathlib import Path

import pytest
from commands import run_python, run_textgen
from installing import install

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


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Where the plugin of the first API is installed."""
    package = Path(__file__).parents[1] / "packages/textgen-first-api"
    return install(package, tmp_path_factory.mktemp("first-api"))


def test_the_first_plugin_still_offers_all_seven_kinds(site, tmp_path):
    described = json.loads(run_textgen("plugins", "--json", folder=tmp_path, site=[site]).stdout)
    assert described["quarantined"] == []
    components = [c for c in described["components"] if c["distribution"] == "textgen-first-api"]
    assert {c["name"] for c in components} == {
        *("countdown", "letters", "pairs", "tally", "no-echo", "logbook", "first")
    }


def test_the_first_plugin_still_trains_and_what_it_made_still_loads(site, tmp_path):
    (tmp_path / "p.toml").write_text(PIPELINE)
    command = ("-W", "error", "-m", "textgen", "run", "p.toml")
    done = run_python(*command, folder=tmp_path, site=[site])
    assert done.returncode == 0, done.stderr
    text = done.stdout.removesuffix("\n")
    assert (len(text), text[:2]) == (32, "9 ")
    assert set(text) <= set("987654321 go\n")
    assert all(before != after for before, after in itertools.pairwise(text[1:]))
    logbook = (tmp_path / "runs/p/logbook.txt").read_text().splitlines()
    assert (logbook[0], logbook[1], logbook[-1]) == ("RunStarted 0", "StepDone 1", "RunFinished 4")
    assert {"StepDone 4", "Evaluation 4", "Checkpointed 4"} <= set(logbook)

    generate = ("generate", "runs/p", "--prompt", "9 ", "--max-new-tokens", "30")
    again = run_textgen(*generate, folder=tmp_path, site=[site])
    assert again.stdout == done.stdout, again.stderr
    first = run_textgen("first", "runs/p", folder=tmp_path, site=[site])
    assert (first.returncode, len(first.stdout)) == (0, 4), first.stderr
    gone = run_textgen(*generate, folder=tmp_path)
    assert gone.returncode == 2
    assert "no plugin of textgen-first-api is loaded" in gone.stderr
