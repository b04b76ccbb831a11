"""Runs on documents: what is learnt of their ends, and where texts end that the model ends
itself.
"""

import json
import random
import types

import numpy as np
import pytest
from raising import raises

import textgen
from textgen import DOCUMENT_END
from textgen.pipeline.options import DataOptions
from textgen.runs.split import last_tokens, split_tokens

MOST = 100


def words(count):
    """Documents of three letters repeated: 3, 6, 9 … characters, the short ones most often."""
    numbers = random.Random(0)
    return ["abc" * min(1 + int(numbers.expovariate(1 / 3)), 12) for _ in range(count)]


DOCUMENTS = words(500)


def pipeline(folder):
    path = folder / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in DOCUMENTS))
    return {
        "device": "cpu",
        "threads": 1,
        "observer": [],
        "corpus": {"type": "file", "path": str(path), "documents": "jsonl"},
        "tokenizer": {"type": "char"},
        "data": {"window_length": 32},
        "model": {"type": "rnn", "cell": "gru", "hidden_size": 24},
        "trainer": {
            "type": "adamw",
            "length": "12 epochs",
            "batch_size": 8,
            "learning_rate": 0.02,
            "order": "streams",
        },
        "generate": {"max_new_tokens": MOST},
    }


def train(corpus, **changes):
    """A short run in memory."""
    trainer = {"type": "adamw", "length": "1 epoch"}
    given = {"tokenizer": "char", "model": {"type": "rnn"}, "trainer": trainer, "device": "cpu"}
    return textgen.train(corpus=corpus, **{**given, **changes})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("documents")
    return textgen.run(pipeline(folder), output=folder / "run")


@pytest.fixture(scope="module")
def writer(run):
    """A model that has learnt where documents end."""
    return textgen.load(run.path)


def distance(lengths):
    """The Kolmogorov-Smirnov distance of lengths from those of the corpus: 0 alike, 1 apart."""
    grid = np.arange(MOST + 1)
    ours, theirs = (
        np.searchsorted(np.sort(x), grid, "right") / len(x)
        for x in (lengths, list(map(len, DOCUMENTS)))
    )
    return float(np.abs(ours - theirs).max())


@pytest.mark.slow
def test_texts_end_by_themselves_and_are_as_long_as_those_of_the_corpus(writer):
    made = list(writer.generate_many([""], n=300))
    assert {text.finish_reason for text in made} == {"end"}
    # Two samples of 300 and 500 of one distribution are farther apart than this once in two hundred
    # times.
    assert distance([len(text.text) for text in made]) < 0.127
    endless = list(writer.generate_many([""], n=30, ignore_end=True))
    assert {text.finish_reason for text in endless} == {"length"}
    assert distance([len(text.text) for text in endless]) > 0.9


def test_the_end_is_no_text(writer):
    text = writer.generate("abc", seed=3, echo=True, logprobs=1)
    assert text.tokens[-1] == writer.tokenizer.end_id == writer.tokenizer.vocab_size - 1
    assert text.text == "abc" + writer.tokenizer.decode(np.array(text.tokens[:-1], int))
    assert set(text.text) <= set("abc")
    assert len(text.logprobs) == 3 + len(text.tokens)
    stream = writer.stream("abc", seed=3)
    assert "abc" + "".join(stream) == text.text
    assert stream.finish_reason == "end"
    (again,) = writer.generate_many(["abc"], seed=3, echo=True)
    assert again.text == text.text
    greedy = writer.generate("", temperature=0, ignore_end=True, max_new_tokens=40)
    assert set(greedy.text) <= set("abc")


@pytest.mark.fault(19)
def test_a_prompt_starts_a_document_and_ids_are_as_they_are_given(writer):
    end = writer.tokenizer.end_id
    ids = writer.tokenizer.encode("abc").tolist()
    start = writer.record["priming"]
    assert start[-1] == end != start[-2]
    empty, none, same = writer.generate_many(
        ["", [], start], temperature=0, max_new_tokens=1, logprobs=3
    )
    assert empty.logprobs == none.logprobs == same.logprobs
    np.testing.assert_array_equal(writer.logits("abc"), writer.logits([*start, *ids])[-3:])
    assert not np.array_equal(writer.logits("abc"), writer.logits(ids))
    assert writer.generate("", seed=1).text[0] == "a"
    # Penalties count what was written, and the start of a document was not.
    one, other = (
        writer.generate("", seed=5, repetition_penalty=p, max_new_tokens=1, logprobs=0)
        for p in (1.0, 9.0)
    )
    assert one == other


def test_a_text_without_limit_ends(writer):
    assert writer.generate("", max_new_tokens=None).finish_reason == "end"
    with raises(textgen.UsageError, argument="max_new_tokens"):
        writer.generate("", max_new_tokens=None, ignore_end=True)


def test_a_kept_state_goes_on_with_the_next_document(writer, tmp_path):
    first = writer.generate("", seed=2, keep_state=True)
    first.state.save(tmp_path / "state")
    second = writer.generate("", state=textgen.GenerationState.load(tmp_path / "state"))
    assert (second.finish_reason, second.text[0]) == ("end", "a")
    both = writer.generate(
        "", seed=2, ignore_end=True, max_new_tokens=len(first.tokens) + len(second.tokens)
    )
    assert both.tokens == first.tokens + second.tokens


def test_scores_count_the_ends(writer):
    end = writer.tokenizer.end_id
    whole = writer.score("abcabc")
    assert (whole.tokens, whole.characters) == (7, 6)
    several = writer.score(iter(["abc", DOCUMENT_END, "ab", "cabc", DOCUMENT_END]))
    assert (several.tokens, several.characters) == (11, 9)
    assert writer.score("abcab").loss > whole.loss  # no document ends there
    (block,) = writer.score_tokens("abc")
    echoed = writer.generate("abc", max_new_tokens=1, echo=True, logprobs=0, logit_bias={end: 99})
    assert block.logprobs == pytest.approx([entry.logprob for entry in echoed.logprobs])


def test_evaluate_reads_documents_as_the_run_does(run, textgen, tmp_path):
    (tmp_path / "new.jsonl").write_text('{"text": "abc", "other": "abcabc"}\n' * 9)
    command = ("evaluate", run.path, "new.jsonl", "--json")
    shown = textgen(*command, "--html", "page.html", cwd=tmp_path)
    assert shown.code == 0, shown.stderr
    assert json.loads(shown.stdout)["tokens"] == 9 * 4
    other = textgen(*command, "--field", "other", cwd=tmp_path)
    assert json.loads(other.stdout)["tokens"] == 9 * 7


def test_a_finished_run_is_skipped_and_other_borders_are_another_corpus(run, tmp_path):
    tables = pipeline(tmp_path)
    assert textgen.run(tables, output=run.path).outcome == "skipped"
    (tmp_path / "texts.jsonl").write_text(json.dumps({"text": "".join(DOCUMENTS)}))
    with pytest.raises(textgen.RunMismatchError) as caught:
        textgen.run(tables, output=run.path)
    assert {each.key.partition(".")[0] for each in caught.value.differences} == {"corpus"}


@pytest.mark.parametrize(
    ("tokens", "training", "validation"),
    [
        ([9, 1, 1, 1, 1, 1, 9, 2, 2, 9, 3, 9], [9, 1, 1, 1, 1, 1, 9, 2, 2, 9], [9, 3, 9]),
        ([9, 1, 9, 2, 2, 2, 2, 2, 2, 2, 2, 9], [9, 1, 9, 2, 2, 2, 2, 2, 2], [2, 2, 9]),
        (
            [9, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 9],
            [9, 1, 1, 1, 1, 1, 1, 1, 1],
            [1, 1, 9],
        ),  # of one, the last part
        ([9, *[1] * 59_999, 9, *[1] * 35_000], [9, *[1] * 59_999, 9], [9, *[1] * 35_000]),  # far
    ],
)
def test_the_held_out_part_begins_with_a_document(tokens, training, validation):
    tokenizer = types.SimpleNamespace(end_id=9, vocab_size=10, decode=lambda ids: "x" * len(ids))
    data = split_tokens(np.array(tokens), DataOptions(window_length=1, validation=0.25), tokenizer)
    assert (data.training.tolist(), data.validation.tolist()) == (training, validation)


def test_a_short_last_document_is_not_held_out_alone():
    texts = ["It rained. " * 3] * 10 + ["And then the sun came out again. " * 60, "The end."]
    data = train(texts, data={"window_length": 32}).generator.record["data"]
    assert data["validation_tokens"] > 200  # of the long document


def test_what_follows_the_part_that_was_held_out_is_trained_on():
    tokenizer = types.SimpleNamespace(end_id=9, vocab_size=10, decode=lambda ids: "x" * len(ids))
    tokens = np.array([9, 1, 1, 1, 1, 9, 2, 2, 9, 3, 3, 9])
    options = DataOptions(window_length=1, validation=0.25)
    whole = split_tokens(tokens[:9], options, tokenizer)
    sizes = {"training_tokens": len(whole.training), "validation_tokens": len(whole.validation)}
    longer = split_tokens(tokens, options, tokenizer, last_tokens(sizes, options))
    assert longer.validation.tolist() == whole.validation.tolist() == [9, 2, 2, 9]
    assert longer.training.tolist() == [*whole.training.tolist(), 3, 3, 9]


# What a plugin has to bring.


@pytest.mark.parametrize("given", [{"fit": "".join}, {"fit": list, "end_id": None}])
def test_a_corpus_of_documents_needs_a_tokenizer_with_an_end(given):
    """One without `end_id` is not even shown the ends."""
    methods = dict.fromkeys(("encode", "decode", "to_dict", "from_dict"), list)
    tokenizer = types.SimpleNamespace(vocab_size=256, **methods, **given)
    with raises(textgen.UsageError, argument="tokenizer.type"):
        train(DOCUMENTS, tokenizer=tokenizer)


def test_empty_documents_are_left_out():
    pieces = [piece for text in DOCUMENTS[:50] for piece in (text, "", DOCUMENT_END)]
    corpus = types.SimpleNamespace(read=lambda: iter([*pieces, DOCUMENT_END]))
    data = train(corpus).generator.record["data"]
    tokens = data["training_tokens"] + data["validation_tokens"]
    assert tokens == sum(map(len, DOCUMENTS[:50])) + 51 + 1


def test_many_unknown_tokens_are_a_warning():
    text = "".join(chr(0x4E00 + n) + "abcabc" for n in range(300))
    with pytest.warns(UserWarning, match="14%"):
        train(text, tokenizer={"type": "char", "min_frequency": 2})


def test_a_model_that_learns_from_the_text_so_far_generates_as_it_was_trained(tmp_path):
    """Each document repeats its own line: within a few tokens nothing is known of it, and training
    read them whole. No warning says that it does otherwise.
    """
    drawn = random.Random(0)
    lines = ["".join(drawn.choices("abcdefghijkl ", k=160)) + "\n" for _ in range(8)]
    folder = tmp_path / "texts"
    folder.mkdir()
    for place, line in enumerate(lines):
        (folder / f"{place}.txt").write_text(line * 12)
    made = textgen.train(
        corpus={"type": "file", "path": str(folder), "documents": "file"},
        tokenizer="char",
        model={"type": "ngram", "order": 5},
        trainer="count",
        device="cpu",
    )
    assert made.best_loss < 1
