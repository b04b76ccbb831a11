"""The sampler format: the text has the form, and ends where nothing can follow."""

import contextlib
import json
import re
import string
import sys
import time
import tracemalloc

import attrs
import numpy as np
import pytest
from components import component, context, make
from raising import raises
from test_samplers import Past

from textgen import UsageError, load, run

PIPELINE = """
device = "cpu"
corpus = {type = "file", path = "corpus.txt", documents = "line"}
tokenizer = {type = "char"}
data = {window_length = 16}
model = {type = "rnn", hidden_size = 8}
trainer = {type = "sgd", length = "1 epoch", batch_size = 16}
observer = []
"""
LETTERS = string.ascii_letters + string.digits + ' .,:;-{}[]"\\/'


@pytest.fixture(scope="module", autouse=True)
def llguidance():
    return pytest.importorskip("llguidance")


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    """A model that has hardly learnt anything, of a vocabulary that JSON can be written with, and
    ends of documents.
    """
    folder = tmp_path_factory.mktemp("writer")
    (folder / "corpus.txt").write_text(f"{LETTERS}\n" * 40)
    (folder / "p.toml").write_text(PIPELINE)
    return load(run(folder / "p.toml", output=folder / "run").path)


@pytest.mark.parametrize(
    "expression",
    [
        "(ab?|[0-9]{2}){4}",
        "a(b*ß|c|d+e)",  # of which the vocabulary lacks a letter
        r"[A-Z][a-z]{2,9}, [0-9]{1,3}\.",
        r"a\/?b/?c{2}",
    ],
)
def test_a_text_matches_and_ends(writer, expression):
    texts = list(writer.generate_many(["a", "The ", ""] * 4, max_new_tokens=50, regex=expression))
    assert {text.finish_reason for text in texts} == {"end"}
    for index, text in enumerate(texts):
        assert re.fullmatch(expression, text.text), text.text
        alone = writer.generate(text.prompt, max_new_tokens=50, regex=expression, index=index)
        assert (alone.text, alone.finish_reason) == (text.text, "end")
    assert len({text.text for text in texts}) > 1


def test_a_long_expression_is_read_in_time_in_proportion_to_it(writer):
    def spent(many):
        begun = time.process_time()
        with contextlib.suppress(UsageError):  # it may be too much to follow
            writer.generate("", max_new_tokens=1, regex="\\." * many)
        return time.process_time() - begun

    assert spent(16_000) < 3 * spent(8_000) + 0.3


def test_the_end_of_a_document_comes_only_where_a_text_may_end_and_there_though_ignored(writer):
    form = "[a-e]{5,}"
    texts = list(
        writer.generate_many([""] * 30, regex=form, max_new_tokens=400, logit_bias={1: 2.0})
    )
    ends = {(text.finish_reason, text.tokens[-1]) for text in texts}
    assert ends == {("end", writer.tokenizer.end_id)}
    assert all(re.fullmatch(form, text.text) for text in texts)
    assert len({len(text.text) for text in texts}) > 5
    text = writer.generate("", regex=form, ignore_end=True, logit_bias={1: 9.0})
    assert text.finish_reason == "end"
    assert re.fullmatch(form, text.text)


def test_without_an_end_of_documents_an_open_text_goes_on(generator):
    text = generator.generate("the ", regex="[a-e]{5,}", max_new_tokens=70)
    assert (len(text.text), text.finish_reason) == (70, "length")
    assert re.fullmatch("[a-e]{5,}", text.text)


def test_strategies_write_texts_of_a_form(generator):
    options = {"regex": "(s|t[a-e]{4})", "max_new_tokens": 9}
    beams = generator.generate("the ", beams=3, **options)
    assert "s" in [each.text for each in beams.ranked]
    guided = generator.generate("the ", negative_prompt="and the ", **options)
    assert re.fullmatch(options["regex"], guided.text)


def test_a_sampler_that_keeps_a_state_is_never_asked_about_no_text(finished_run):
    with load(finished_run, sampler=Counting()) as counting:
        assert counting.generate("the ", regex="(s|t)", max_new_tokens=9).finish_reason == "end"


class Counting:
    """Counts the tokens of each text."""

    history = "none"

    def start(self, prompt):
        return {"count": np.zeros(())}

    def __call__(self, logits, history):
        return logits

    def accept(self, tokens, logits, history):
        counts = history.state["count"]
        return {"count": np.stack([counts[i] + 1 for i in range(len(tokens))])}


class Words:
    """A tokenizer of 20,000 tokens, most of them several characters, some of them parts of a
    character.
    """

    unknown_id = None

    def __init__(self):
        rng, letters = np.random.default_rng(0), list(string.ascii_lowercase + " ")
        words = {"".join(rng.choice(letters, rng.integers(2, 8))) for _ in range(20_000)}
        self.texts = [*string.printable, "\ufffd", "", *sorted(words)]
        self.vocab_size = len(self.texts)

    def decode(self, ids):
        return "".join(self.texts[i] for i in ids.tolist())


def test_a_large_vocabulary_is_cut_by_characters():
    tokenizer = Words()
    knowing = attrs.evolve(context(), tokenizer=tokenizer)
    made = make("sampler", "format", knowing, regex="(the )?[a-f]{2,6}!")
    state = {name: value[None] for name, value in made.start(np.array([1])).items()}
    past = Past(texts=[[1]], state=state)
    rng, text = np.random.default_rng(1), ""
    while True:
        out = made(rng.normal(0, 1, (1, tokenizer.vocab_size)).astype(np.float32), past)
        allowed = np.flatnonzero(np.isfinite(out[0]))
        expected = {i for i, word in enumerate(tokenizer.texts) if word and begins(text + word)}
        assert set(allowed.tolist()) == expected
        if not len(allowed):
            break
        token = rng.choice(allowed)
        state = made.accept(np.array([token]), out, past)
        past = Past(texts=[[*past.texts[0], token]], state=state)
        text += tokenizer.texts[int(token)]
    assert re.fullmatch("(the )?[a-f]{2,6}!", text)


def begins(text):
    """Whether a text can be continued to one that matches."""
    rest = "[a-f]{0,6}|[a-f]{2,6}!"
    return "the ".startswith(text) or bool(re.fullmatch(rest, text.removeprefix("the ")))


@pytest.mark.parametrize(
    ("option", "form"),
    [
        ("regex", "(a"),
        ("regex", "ß+"),
        ("regex", "((a{1000}){1000}){1000}"),
        ("regex", "a" * 100_001),
        ("json_schema", "3"),
        ("json_schema", '{"$ref": "#"}'),
        ("json_schema", "{"),
        ("json_schema", '{"type": "nothing"}'),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_cannot_be_followed_is_refused(writer, option, form):
    with raises(UsageError, argument=option):
        writer.generate("a", **{option: form})


def test_a_text_has_one_form_of_limited_length(writer):
    with raises(UsageError, argument="format"):
        writer.generate("a", json_schema={"enum": list(range(50_000))})
    with pytest.raises(UsageError):
        writer.generate("a", regex="a", json_schema="true")


@pytest.mark.parametrize(
    ("schema", "fits"),
    [
        (
            {
                "type": "object",
                "properties": {"a": {"type": "number", "maximum": 9}},
                "required": ["a"],
                "additionalProperties": False,
            },
            lambda v: v.keys() == {"a"} and v["a"] <= 9,
        ),
        ({"type": "integer", "minimum": -3, "exclusiveMaximum": 17}, lambda v: -3 <= v < 17),
    ],
)
def test_a_schema_is_followed(writer, schema, fits):
    made = writer.generate_many([""] * 20, json_schema=schema, max_new_tokens=200)
    whole = [json.loads(text.text) for text in made if text.finish_reason == "end"]
    assert whole
    assert all(map(fits, whole))


def test_what_the_vocabulary_lacks_is_named_wherever_it_is_missed(generator):
    with pytest.raises(UsageError, match="'-0123456789'"):
        generator.generate("the ", json_schema='{"type": "integer"}')
    with pytest.raises(UsageError, match="'\"'"):
        generator.generate("the ", json_schema='{"type": "string", "format": "date-time"}')


def test_texts_of_a_form_leave_each_other_its_tables(writer):
    form = {"regex": "(.*a){200}", "logit_bias": {"a": 3.0}, "max_new_tokens": 500}
    alone = load(writer.path).generate("", **form | {"max_new_tokens": 2})
    with pytest.raises(UsageError):
        writer.generate("", seed=2, **form)
    assert writer.generate("", **form | {"max_new_tokens": 2}) == alone


@pytest.mark.slow
def test_a_form_takes_memory_for_the_length_of_its_texts_and_not_for_their_number(writer):
    def write(n):
        for _ in writer.generate_many([""], n=n, regex=r"\w{2000,}", max_new_tokens=3):
            pass
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        few = write(1500)
        assert write(3000) < few + 100_000
        tracemalloc.reset_peak()
        writer.generate("", regex=r"\w{2000,}", max_new_tokens=2000)
        now, peak = tracemalloc.get_traced_memory()
        assert (now < few, peak < few + 2_000_000) == (True, True)
    finally:
        tracemalloc.stop()


def test_an_added_prompt_has_to_follow_the_form(writer):
    regex = "[a-c]{2}x[0-9]{3}"
    first = writer.generate("a", regex=regex, max_new_tokens=2, keep_state=True)
    rest = writer.generate("x", state=first.state, regex=regex, max_new_tokens=9)
    assert re.fullmatch("[0-9]{3}", rest.text)
    with pytest.raises(UsageError):
        writer.generate("y", state=first.state, regex=regex, max_new_tokens=9)


def test_without_the_library_it_says_what_to_install(writer, monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(UsageError, match="pip install llguidance"):
        writer.generate("a", json_schema='{"type": "null"}')
    assert component("sampler", "format").summary.endswith("Needs llguidance.")
