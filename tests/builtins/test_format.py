"""The sampler format: the text has the form, and ends where nothing can follow."""

from __future__ import annotations

import json
import re
import string
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from components import component, make

from textgen import GenerationState, Generator, UsageError, load, run

LETTERS = string.ascii_letters + string.digits + ' .,:;-{}[]"\\/'
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "maximum": 999},
    },
    "required": ["name", "age"],
}


@pytest.fixture(scope="module", autouse=True)
def llguidance() -> Any:
    return pytest.importorskip("llguidance")


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    """A model that has hardly learnt anything, of a vocabulary that JSON can be written with, and ends of documents."""
    folder = tmp_path_factory.mktemp("writer")
    (folder / "corpus.txt").write_text(f"{LETTERS}\n" * 40)
    tables = {
        "output": str(folder / "run"),
        "device": "cpu",
        "corpus": {"type": "file", "path": str(folder / "corpus.txt"), "documents": "line"},
        "tokenizer": {"type": "char"},
        "data": {"window_length": 16},
        "model": {"type": "rnn", "hidden_size": 8},
        "trainer": {"type": "sgd", "length": "1 epoch", "batch_size": 16},
        "observer": [],
    }
    return load(run(tables).path)


@pytest.mark.parametrize(
    "expression",
    [
        "[a-d]{3,5} (cat|tree)",
        "(ab?|[0-9]{2}){4}",
        r"[A-Z][a-z]{2,9}, [0-9]{1,3}\.",
        "x",
        r"\d{3}-\d{4}",
    ],
)
def test_a_text_matches_and_ends(writer: Generator, expression: str) -> None:
    texts = list(writer.generate_many(["a", "The ", ""] * 4, max_new_tokens=50, regex=expression))
    assert {text.finish_reason for text in texts} == {"end"}
    for index, text in enumerate(texts):
        assert re.fullmatch(expression, text.text), text.text
        alone = writer.generate(text.prompt, max_new_tokens=50, regex=expression, index=index)
        assert (alone.text, alone.finish_reason) == (text.text, "end")
    assert len({text.text for text in texts}) > 1 or expression == "x"


def test_other_samplers_choose_among_what_matches(writer: Generator) -> None:
    options = {"mirostat_tau": 3.0, "xtc_probability": 0.5, "top_k": 3, "temperature": 0.7}
    for text in writer.generate_many(
        [""] * 6, regex="[a-z]{8}[0-9]{4}", max_new_tokens=50, **options
    ):
        assert re.fullmatch("[a-z]{8}[0-9]{4}", text.text)
    greedy = writer.generate("", regex="[a-z]{8}", max_new_tokens=50, temperature=0)
    assert greedy.text == writer.generate("", regex="[a-z]{8}", max_new_tokens=50, top_k=1).text


def test_the_end_of_a_document_comes_only_where_a_text_may_end(writer: Generator) -> None:
    texts = list(
        writer.generate_many([""] * 30, regex="[a-e]{5,}", max_new_tokens=400, logit_bias={1: 2.0})
    )
    end_id = getattr(writer.tokenizer, "end_id", None)
    assert end_id is not None
    assert {text.finish_reason for text in texts} == {"end"}
    assert all(re.fullmatch("[a-e]{5,}", text.text) and text.tokens[-1] == end_id for text in texts)
    assert len({len(text.text) for text in texts}) > 5


def test_without_an_end_of_documents_an_open_text_goes_on(generator: Generator) -> None:
    text = generator.generate("the ", regex="[a-e]{5,}", max_new_tokens=70)
    assert (len(text.text), text.finish_reason) == (70, "length")
    assert re.fullmatch("[a-e]{5,}", text.text)


def test_a_dead_end_of_the_vocabulary_is_never_entered(writer: Generator) -> None:
    texts = list(writer.generate_many([""] * 12, regex="a(b*ß|c|d+e)", max_new_tokens=300))
    assert all(re.fullmatch("ac|ad+e", text.text) and text.finish_reason == "end" for text in texts)


def test_json_follows_its_schema(writer: Generator) -> None:
    for text in writer.generate_many(
        ["", "a"] * 5, json_schema=json.dumps(SCHEMA), max_new_tokens=300
    ):
        assert text.finish_reason == "end"
        value = json.loads(text.text)
        assert value.keys() == {"name", "age"}
        assert isinstance(value["name"], str)
        assert isinstance(value["age"], int)


@pytest.mark.parametrize("at", [0, 1, 6, 12])
def test_a_text_resumes_within_the_expression(writer: Generator, tmp_path: Path, at: int) -> None:
    expression = "[a-c]{4}[d-f]{4}[0-9]{4}"
    whole = writer.generate("a", regex=expression)
    first = writer.generate("a", regex=expression, max_new_tokens=at, keep_state=True)
    assert first.state is not None
    first.state.save(tmp_path / "state")
    state = GenerationState.load(tmp_path / "state")
    rest = writer.generate(state=state, regex=expression, max_new_tokens=50)
    assert (first.text + rest.text, rest.finish_reason) == (whole.text, "end")


def test_a_text_resumes_in_another_process(
    python: Callable[..., Any], writer: Generator, tmp_path: Path
) -> None:
    schema = json.dumps(SCHEMA)
    whole = writer.generate("a", json_schema=schema, max_new_tokens=300)
    first = writer.generate("a", json_schema=schema, max_new_tokens=15, keep_state=True)
    assert first.state is not None
    first.state.save(tmp_path / "state")
    script = (
        "import sys, textgen\n"
        "state = textgen.GenerationState.load('state')\n"
        "options = dict(state=state, json_schema=sys.argv[2], max_new_tokens=300)\n"
        "print(textgen.load(sys.argv[1]).generate(**options).text, end='')\n"
    )
    done = python("-c", script, writer.path, schema, cwd=tmp_path)
    assert (done.code, first.text + done.stdout) == (0, whole.text), done.stderr


def test_the_command_takes_both(
    textgen: Callable[..., Any], writer: Generator, tmp_path: Path
) -> None:
    made = textgen("generate", writer.path, "--regex", '"[a-z]{3}"', cwd=tmp_path)
    assert re.fullmatch('"[a-z]{3}"\n?', made.stdout), made
    made = textgen(
        "generate", writer.path, "--json-schema", '{"enum": ["on", "off"]}', cwd=tmp_path
    )
    assert made.stdout.strip() in ('"on"', '"off"'), made


class Words:
    """A tokenizer of 50,000 tokens, most of them several characters, some of them parts of a character."""

    unknown_id = None

    def __init__(self) -> None:
        rng, letters = np.random.default_rng(0), np.array(list(string.ascii_lowercase + " "))
        words = {"".join(rng.choice(letters, rng.integers(2, 8))) for _ in range(50_000)}
        self.texts = [*string.printable, "\ufffd", "", *sorted(words)]

    @property
    def vocab_size(self) -> int:
        return len(self.texts)

    def decode(self, ids: Any) -> str:
        return "".join(self.texts[i] for i in ids.tolist())


def test_a_large_vocabulary_is_cut_by_characters() -> None:
    tokenizer = Words()
    made = make("sampler", "format", Context(tokenizer), regex="(the )?[a-f]{2,6}!")
    past = Past({name: value[None] for name, value in made.start(np.array([1])).items()}, [1])
    rng, text = np.random.default_rng(1), ""
    while True:
        out = made(rng.normal(0, 1, (1, tokenizer.vocab_size)).astype(np.float32), past)
        allowed = np.flatnonzero(np.isfinite(out[0]))
        expected = {i for i, word in enumerate(tokenizer.texts) if word and begins(text + word)}
        assert set(allowed.tolist()) == expected
        if not len(allowed):
            break
        token = rng.choice(allowed)
        past = Past(made.accept(np.array([token]), out, past), [*past.ids, token])
        text += tokenizer.texts[int(token)]
    assert re.fullmatch("(the )?[a-f]{2,6}!", text)


def begins(text: str) -> bool:
    """Whether a text can be continued to one that matches."""
    rest = text.removeprefix("the ") if text.startswith("the ") else text
    return "the ".startswith(text) or bool(re.fullmatch("[a-f]{0,6}|[a-f]{2,6}!", rest))


class Past:
    def __init__(self, state: Any, tokens: Any) -> None:
        self.state, self.ids = state, tokens

    def tokens(self, row: int) -> Any:
        return np.array(self.ids)


class Context:
    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"regex": "(a"}, "regex: it cannot be followed: unclosed group, given"),
        ({"regex": r"a(?=b)"}, "regex: it cannot be followed: look-around, .* not supported"),
        ({"regex": "ß+"}, r"regex: the vocabulary cannot write it: it lacks 'ß', given 'ß\+'$"),
        ({"regex": r"[ß=\x7f]+"}, "the vocabulary cannot write it: it lacks '=ß', given"),
        ({"regex": r"\x7f"}, r"regex: the vocabulary cannot write it, given"),
        ({"regex": "a*ß"}, r"regex: the vocabulary cannot write it: it lacks 'ß'"),
        ({"regex": "((a{1000}){1000}){1000}"}, "regex: it cannot be followed: fuel exhausted"),
        ({"regex": "a" * 100_001}, "regex: "),
        ({"json_schema": '{"const": "ß"}'}, "cannot write it: it lacks 'ß', given"),
        ({"json_schema": {"properties": {"ß": {}}}}, "cannot write it: it lacks 'ß', given"),
        ({"json_schema": "{"}, "json_schema: not valid JSON"),
        ({"json_schema": "[" * 100_000}, "json_schema: not valid JSON"),
        ({"json_schema": '{"type": "nothing"}'}, "it cannot be followed: Invalid type: nothing"),
        ({"json_schema": "3"}, "json_schema: not a JSON schema: expected an object, given '3'$"),
        ({"json_schema": {"not": {"type": "null"}}}, 'cannot be followed: .*"not"'),
        ({"json_schema": {"items": {"uniqeItems": True}}}, "unknown keyword 'uniqeItems'"),
        ({"json_schema": {"enum": list(range(50_000))}}, "must be at most 100,000 characters"),
        ({"regex": "a", "json_schema": "true"}, "not both"),
    ],
)
def test_what_cannot_be_followed_is_refused(
    writer: Generator, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        writer.generate("a", **options)


def test_what_was_refused_once_is_refused_from_memory(
    writer: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = []
    for library in (sys.modules["llguidance"], None):  # without it nothing can be compiled
        monkeypatch.setitem(sys.modules, "llguidance", library)
        with pytest.raises(UsageError, match="regex: it cannot be followed: fuel") as caught:
            writer.generate("a", regex="((a{999}){999}){999}")
        refused.append(caught.value)
    assert refused[0] is not refused[1]
    assert refused[0].faults == refused[1].faults


@pytest.mark.parametrize(
    ("schema", "fits"),
    [
        ({"type": "integer", "minimum": -3, "exclusiveMaximum": 17}, lambda v: -3 <= v < 17),
        ({"type": "string", "pattern": "^[a-c]{3}$"}, lambda v: re.fullmatch("[a-c]{3}", v)),
        (
            {"properties": {"a": {"type": "number", "maximum": 9}}, "required": ["a"]},
            lambda v: isinstance(v, dict) and v.keys() == {"a"} and v["a"] <= 9,
        ),
        (
            {"additionalProperties": {"type": "integer"}, "type": "object"},
            lambda v: all(type(each) is int for each in v.values()),
        ),
    ],
)
def test_every_keyword_is_followed(
    writer: Generator, schema: dict[str, Any], fits: Callable[[Any], bool]
) -> None:
    if "properties" in schema:
        schema["type"] = "object"
    made = list(writer.generate_many([""] * 20, json_schema=schema, max_new_tokens=200))
    whole = [text for text in made if text.finish_reason == "end"]
    assert whole
    assert all(fits(json.loads(text.text)) for text in whole)


def test_an_added_prompt_has_to_follow_the_form(writer: Generator) -> None:
    regex = "[a-c]{2}x[0-9]{3}"
    first = writer.generate("a", regex=regex, max_new_tokens=2, keep_state=True)
    rest = writer.generate("x", state=first.state, regex=regex, max_new_tokens=9)
    assert re.fullmatch("[0-9]{3}", rest.text)
    with pytest.raises(UsageError, match="the form cannot be followed any further"):
        writer.generate("y", state=first.state, regex=regex, max_new_tokens=9)


def test_without_the_library_it_says_what_to_install(
    writer: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(
        UsageError, match=r"json_schema: needs llguidance; pip install 'textgen-engine\[format\]'"
    ):
        writer.generate("a", json_schema='{"type": "null"}')
    assert component("sampler", "format").summary.endswith("Needs `textgen-engine[format]`.")
