"""Installed plugins through the command: listed, used, left out, and harmless where they are
broken.
"""

import json
import re

import pytest
from commands import run_textgen
from installing import write_package

LOUD = '''
import attrs
from textgen import Component, hookimpl, option

@attrs.frozen
class LoudConfig:
    """Multiplies logits."""
    factor: float = option(1000.0, help="what logits are multiplied by", argument="ARGUMENT")

@hookimpl
def textgen_samplers():
    build = lambda config, context: lambda logits, _: logits * config.factor
    return [Component(name, LoudConfig, build)
            for name in ("loud", "greedy")]
'''
PIPELINE = """
corpus = {type = "story"}
tokenizer = {type = "char"}
model = {type = "rnn"}
trainer = {type = "sgd"}
sampler = [{type = "SAMPLER"}]
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with a package that works, and one that raises when it is imported."""
    folder = tmp_path_factory.mktemp("site")
    write_package(folder, "loud", LOUD.replace("ARGUMENT", "stream"), version="1.2")
    write_package(folder, "broken", "\nraise RuntimeError('not charged')", version="0.3")
    return folder


def show(folder, site, sampler, *options):
    (folder / "p.toml").write_text(PIPELINE.replace("SAMPLER", sampler))
    return run_textgen(*options, "show", "p.toml", folder=folder, site=[site])


@pytest.mark.fault(26)
def test_one_that_is_broken_is_named_and_harms_nothing(site, tmp_path):
    done = run_textgen("plugins", "--json", folder=tmp_path, site=[site])
    listed = json.loads(done.stdout)
    (broken,) = listed["quarantined"]
    facts = {"plugin": "broken", "distribution": "textgen-broken", "version": "0.3"}
    place = f"{site / 'textgen_broken.py'}:2"
    assert broken == {**facts, "cause": f"RuntimeError: not charged ({place})"}
    assert done.stderr.count("left out: plugin 'broken' (textgen-broken 0.3): ") == 1
    (loud,) = [row for row in listed["components"] if row["name"] == "loud"]
    assert (loud["qualified_name"], loud["version"]) == ("textgen-loud:loud", "1.2")
    assert loud["summary"] == "Multiplies logits."
    assert loud["options"] == [
        {
            "name": "factor",
            "type": "a finite number",
            "required": False,
            "default": 1000.0,
            "help": "what logits are multiplied by",
            "argument": "stream",
        }
    ]
    plain = run_textgen("plugins", "--options", folder=tmp_path, site=[site]).stdout
    factor = " factor (stream): a finite number, default 1000.0. what logits are multiplied by\n"
    assert factor in plain
    assert "left out: broken [textgen-broken 0.3]: RuntimeError" in plain
    helped = run_textgen("--help", folder=tmp_path, site=[site])
    assert (helped.returncode, helped.stderr.count("left out")) == (0, 1)


def test_of_a_package_that_is_there_twice_the_first_is_used(site, tmp_path):
    write_package(tmp_path / "first", "loud", LOUD.replace("ARGUMENT", "stream"), version="1.0")
    both = [tmp_path / "first", site]
    listed = json.loads(run_textgen("plugins", "--json", folder=tmp_path, site=both).stdout)
    versions = [row["version"] for row in listed["components"] if row["name"] == "loud"]
    assert (versions, len(listed["quarantined"])) == (["1.0"], 1)


def test_a_package_selects_among_components_of_one_name(site, tmp_path):
    for sampler in ("greedy", "textgen-loud:greedy"):
        done = show(tmp_path, site, sampler, "--no-plugin", "broken")
        assert (done.returncode, done.stderr) == (0, "")
    assert "# Multiplies logits" in done.stdout


@pytest.mark.fault(26)
@pytest.mark.parametrize(
    ("sampler", "said"),
    [
        ("broken", "(textgen-broken 0.3): RuntimeError: not charged"),
        ("textgen-nowhere:any", "no plugin of textgen-nowhere is loaded"),
        ("lou", "did you mean 'loud'?"),
        ('loud", factr = "2', "sampler.0.factr: unknown key; did you mean 'factor'?"),
    ],
)
def test_a_pipeline_that_needs_what_is_not_there_says_why(site, tmp_path, sampler, said):
    done = show(tmp_path, site, sampler)
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.parametrize("name", ["loud", "textgen-loud", "Textgen_Loud:loud"])
def test_one_can_be_switched_off(site, tmp_path, name):
    done = show(tmp_path, site, "loud", "--no-plugin", name, "--no-plugin", "broken")
    assert done.returncode == 2
    assert "no sampler is called 'loud'" in done.stderr


def test_what_is_switched_off_has_to_be_there(tmp_path):
    listed = run_textgen("--no-plugin", "adamw", "plugins", folder=tmp_path).stdout
    trainers = re.findall(r"^trainer +(\S+)", listed, re.MULTILINE)
    assert "sgd" in trainers
    assert "adamw" not in trainers
    done = run_textgen("--no-plugin", "adamv", "plugins", folder=tmp_path)
    assert done.returncode == 2
    assert "called 'adamv'; did you mean 'adamw'?" in done.stderr


def test_the_command_keeps_its_own_options(site, tmp_path):
    """A plugin's option of the same name is for programs."""
    done = run_textgen("generate", "--help", folder=tmp_path, site=[site])
    assert (done.returncode, done.stdout.count("--stream ")) == (0, 1)


@pytest.mark.parametrize("needed", ["textgen-engine>=99", "textgen-engine<0.1", "torch>=1.9.*"])
def test_one_that_needs_another_textgen_is_not_imported(tmp_path, needed):
    site = tmp_path / "site"
    write_package(site, "later", "from textgen import Sparkle", version="0.3")
    with (site / "textgen_later-0.3.dist-info/METADATA").open("a") as metadata:
        metadata.write(f"Requires-Dist: {needed}\n")
    listed = json.loads(run_textgen("plugins", "--json", folder=tmp_path, site=[site]).stdout)
    (row,) = listed["quarantined"]
    assert needed in row["cause"]
