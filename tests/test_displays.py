"""What a notebook shows of runs, texts, scores and comparisons."""

import base64
import html
import pickle
import re
from xml.etree import ElementTree

import attrs
import numpy as np
import pytest
from pages import Page

import textgen
from textgen_builtins.commands.compare import Comparison

HOSTILE = '<script>alert(1)</script> & <b>"Nell"</b>\n'
SMALL = {
    "corpus": HOSTILE * 30,
    "model": {"type": "rnn", "hidden_size": 8},
    "trainer": {"type": "adamw", "length": "3 epochs", "batch_size": 16, "evaluate_every": 4},
    "data": {"window_length": 16},
}


@pytest.fixture(scope="module")
def run():
    return textgen.train(**SMALL, generate={"prompt": HOSTILE, "n": 2, "max_new_tokens": 20})


def test_a_run_shows_its_curve_its_best_loss_and_its_texts(run):
    losses = [row["validation_loss"] for row in run.history]
    assert len(losses) > 2
    assert run.best_loss == min(losses)
    assert f"best_loss={round(run.best_loss, 4)}" in repr(run)
    shown = run._repr_html_()
    page = Page.of(shown)
    assert page.text["p"].startswith(repr(run))
    assert page.text["pre"] == "".join(map(str, run.generations))
    encoded = re.search('src="data:image/svg\\+xml;base64,([^"]+)"', shown)
    curves = ElementTree.fromstring(base64.b64decode(encoded[1]))
    names = [title.text for title in curves.iterfind(".//{*}clipPath/../{*}g//{*}title")]
    assert names == ["training", "validation"]


def test_texts_are_escaped_alone_and_in_a_table(run):
    made = run.generator.generate(HOSTILE, max_new_tokens=20, seed=3)
    page = Page.of(made._repr_html_())
    assert {"script", "table"}.isdisjoint(page.text)
    assert page.text["pre"] == str(made)
    assert page.text["p"] == "length, 20 tokens, seed 3, index 0"
    several = textgen.Generations(run.generator.generate_many([HOSTILE, "<"], n=2, echo=True))
    page = Page.of(several._repr_html_())
    assert page.text["pre"] == "".join(made.text for made in several)
    assert page.text["th"] == "0123"
    assert page.text["b"] == ""  # the prompt is in the text


def test_a_score_shows_the_text_coloured(run):
    score = run.generator.score(HOSTILE)
    page = Page.of(score._repr_html_())
    assert (page.text["pre"], "script" in page.text) == (HOSTILE, False)
    (block,) = run.generator.score_tokens(HOSTILE)
    bits = -block.logprobs / np.log(2)
    assert page.titles == [f"{each:.1f} bits" for each in bits]
    assert set(attrs.asdict(score)) < set(dir(score))
    assert attrs.evolve(score, loss=0.0)._repr_html_() is None
    assert pickle.loads(pickle.dumps(score))._repr_html_() == score._repr_html_()
    assert "Nell" not in repr(score)


def test_a_comparison_shows_its_page(finished_run):
    compared = Comparison.of(str(finished_run))
    assert "the same settings" not in repr(compared)
    frame = compared._repr_html_()
    assert Page.of(frame).text == {"iframe": ""}
    source = re.search('srcdoc="([^"]*)"', frame)
    assert html.unescape(source[1]) == compared.page()
    assert Page.of(compared.page()).text["pre"] == repr(compared)
