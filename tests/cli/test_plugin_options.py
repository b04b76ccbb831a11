"""The command and its session take the options of plugins' samplers, and import plugins only if
they are needed.
"""

from functools import partial

import pytest
from installing import write_package

MODULE = '''
"""Samplers with options of several types."""

import sys

import attrs

from textgen import Component, hookimpl, option



@attrs.frozen
class OnlyConfig:
    """Keeps some tokens only."""

    ids: tuple[int, ...] = option((), help="ids of kept tokens", argument="only_tokens")
    text: str = option("", help="a text; most are refused", argument="only_text")
    strict: bool = option(True, help="whether it works at all", argument="only_strictly")

    def __attrs_post_init__(self):
        if self.ids and self.text:
            raise ValueError("they are not for the same text")


@attrs.frozen
class Only:
    config: OnlyConfig
    uses_history = False

    def __call__(self, logits, history):
        if self.config.text not in ("", "[1"):
            raise ValueError(self.config.text)
        if not self.config.ids or not self.config.strict:
            return logits
        kept = logits - float("inf")
        kept[:, list(self.config.ids)] = logits[:, list(self.config.ids)]
        return kept


@hookimpl
def textgen_samplers():
    return [Component("only", OnlyConfig, lambda config, context: Only(config), order=5)]
'''


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder in which the plugin is installed."""
    folder = tmp_path_factory.mktemp("site")
    write_package(folder, "only", MODULE)
    return folder


@pytest.fixture
def generate(generate, site):
    return partial(generate, site=[site])


def test_help_shows_the_options_of_plugins(generate):
    shown = " ".join(generate("--help").stdout.split())
    assert "--only-tokens INTEGER Ids of kept tokens." in shown
    assert "--only-strictly / --no-only-strictly" in shown


def test_an_option_of_a_plugin_changes_the_chain(generate):
    options = ("-p", "the ", "--max-new-tokens", 8, "--only-tokens", 3, "--no-echo")
    done = generate(*options)
    assert (done.code, len(set(done.stdout[:-1]))) == (0, 1), done.stderr
    assert len(set(generate(*options, "--no-only-strictly").stdout)) > 2
    as_it_is = generate("-p", "the ", "--max-new-tokens", 2, "--only-text", "[1")
    assert as_it_is.code == 0, as_it_is.stderr
    for wrong, said in (
        (("--only-tokens", "e"), "only_tokens.1: expected an integer"),
        (("--only-text", 5), "error: only: they are not for the same text\n"),
    ):
        failed = generate(*options, *wrong)
        assert (failed.code, said in failed.stderr) == (2, True)


def test_a_misspelt_option_of_a_plugin_is_named(generate):
    assert "--only-tokens" in generate("--only-token", 3).stderr


def test_a_session_takes_them(begin, finished_run, site):
    session = begin(finished_run, "--max-new-tokens", "8", "--no-echo", PYTHONPATH=str(site))
    assert session.ask("/set only-tokens=[3]") == ""
    assert len(set(session.ask("the ")[:-1])) == 1
    assert "did you mean 'only_tokens'?" in session.ask("/set only_token=[3]")
