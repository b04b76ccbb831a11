"""The copy report against a search by brute force."""

import json
import random
from pathlib import Path

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textgen import CorpusError, load, novelty, run
from textgen.novelty import NGRAMS, CopyFinder

LETTERS = "abcd"
texts = st.text(alphabet=LETTERS, max_size=60)


class Characters:
    """The part of a tokenizer that a report uses, with ids of `wide` times one byte or more."""

    unknown_id = None

    def __init__(self, wide, end_id):
        self.end_id = end_id
        self._factor = 20_000 if wide else 1
        self.vocab_size = 4 * self._factor

    def encode(self, text):
        return np.array([LETTERS.index(c) * self._factor for c in text], np.int64)

    def decode(self, ids):
        return "".join(LETTERS[int(i) // self._factor] for i in ids)


def finder_of(corpus, *, wide=False, end_id=None):
    tokenizer = Characters(wide, end_id)
    dtype = np.uint32 if wide else np.uint8
    return CopyFinder(tokenizer, tokenizer.encode(corpus).astype(dtype))


def longest(corpus, text, shortest):
    """For each place of `text`, the length of the longest run from there that the corpus holds."""
    runs = []
    for start in range(len(text)):
        length = 0
        while start + length < len(text) and text[start : start + length + 1] in corpus:
            length += 1
        runs.append(length if length >= shortest else 0)
    return runs


def check(report, corpus, text, shortest=8):
    runs = longest(corpus, text, shortest)
    assert report.tokens == len(text)
    assert report.longest == max(runs, default=0)
    assert len(report.longest_text) == report.longest
    assert report.longest_text in text
    marked = {i for begin, end in report.passages for i in range(begin, end)}
    held = [i for i in range(len(text) - 15) if text[i : i + 16] in corpus]
    assert marked == {place for i in held for place in range(i, i + 16)}
    for n in NGRAMS:
        grams = [text[i : i + n] for i in range(len(text) - n + 1)]
        expected = sum(gram in corpus for gram in grams) / len(grams) if grams else None
        assert report.ngram_shares[n] == (None if expected is None else pytest.approx(expected))
    assert report.position == (corpus.find(report.longest_text) if report.longest else None)
    assert report.longest_text[:200] in report.excerpt


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("block", [None, 7, 1])
@given(corpus=texts, text=texts, start=st.integers(0, 60), stop=st.integers(0, 60))
def test_the_report_is_what_a_search_finds(block, wide, corpus, text, start, stop):
    text += corpus[start:stop] + text
    with pytest.MonkeyPatch.context() as patch:
        if block is not None:  # brute force can search no text that has borders of real blocks
            patch.setattr(novelty, "_BLOCK", block)
        check(finder_of(corpus, wide=wide).report(text), corpus, text)


def test_a_report_is_told_in_a_few_lines():
    report = finder_of("aaabdabcabcabcabcdbbb", end_id=LETTERS.index("d")).report("abcabcabcabc")
    assert (report.position, report.excerpt) == (5, "aaabdabcabcabcabcdbbb")
    assert "is 12 of 12 tokens" in report.describe()


document = st.text(alphabet="abc", min_size=1, max_size=12)


@given(documents=st.lists(document, max_size=8), text=document)
def test_whole_documents_are_known(documents, text):
    finder = finder_of("d".join(["", *documents, ""]), end_id=LETTERS.index("d"))
    for each in (text, text[:1], *documents):
        assert finder.report(each[1:], prompt=each[:1]).is_document == (each in documents)
        assert not finder_of("".join(documents)).is_document(each)


def test_a_looping_text_in_a_looping_corpus_takes_no_longer():
    """Each of its places is in a million of the corpus's."""
    report = finder_of("ab" * 500_000).report("ab" * 3000)
    assert (report.longest, report.position, report.ngram_shares[32]) == (1000, 0, 1.0)


NAMES = {a + b for a in ("An", "Bel", "Cor", "Dan", "El") for b in ("a", "na", "in", "ina", "do")}


@pytest.fixture(scope="module")
def copier(tmp_path_factory):
    """A run that writes names of a list, and others."""
    folder = tmp_path_factory.mktemp("copier")
    (folder / "names.txt").write_text("\n".join(sorted(NAMES) * 3))
    corpus = {"type": "file", "path": str(folder / "names.txt"), "documents": "line"}
    tables = {
        "device": "cpu",
        "corpus": corpus,
        "tokenizer": {"type": "char"},
        "data": {"validation": 0},
        "model": {"type": "ngram", "order": 3},
        "trainer": {"type": "count"},
        "sampler": [{"type": "temperature", "temperature": 2.0}],
        "generate": {"n": 20, "distinct": True},
    }
    return run(tables, output=folder / "run")


def test_distinct_texts_are_new_and_come_again_by_their_index(copier):
    generator = copier.generator
    usual = {made.text for made in generator.generate_many([""], n=100)}
    assert len(usual) < 100
    assert NAMES & usual
    for batch_size in (1, 64):
        made = list(generator.generate_many(["", "D"], n=10, distinct=True, batch_size=batch_size))
        whole = [str(each) for each in made]
        assert len(set(whole)) == 20
        assert not NAMES & set(whole)
        assert all(text.startswith("D") for text in whole[10:])
        for each in made:
            assert generator.generate(each.prompt, index=each.index).text == each.text
    assert len({str(each) for each in copier.generations} - NAMES) == 20


def test_where_there_are_no_more_texts_fewer_come(copier):
    options = {"n": 1000, "distinct": True, "max_new_tokens": 1, "stop": "a"}
    with pytest.warns(UserWarning):
        made = [str(each) for each in copier.generator.generate_many(["El", "An"], **options)]
    assert 1 < len(set(made)) == len(made) < 100
    late = copier.generator.generate_many([""], n=3, distinct=True, time_limit=0)
    assert [each.finish_reason for each in late] == ["time"] * 3


def test_the_command_writes_distinct_texts(copier, textgen):
    command = ("generate", copier.path, "--distinct", "-n", 5, "-p", "")
    done = textgen(*command, "-o", "lines", cwd=copier.path)
    expected = list(copier.generator.generate_many([""], n=5, distinct=True))
    assert done.stdout.splitlines() == [each.text for each in expected]
    assert "distinct: reading the corpus" in done.stderr  # which may be a stranger's
    assert "names.txt" in done.stderr


def test_only_the_training_part_counts(tiny_pipeline):
    text = "".join(random.Random(0).choices("abcdefghijklmnopqrstuvwxyz", k=600))
    generator = run(tiny_pipeline(text=text)).generator
    longest = generator.copy_finder().report(text).longest
    assert longest == generator.record["data"]["training_tokens"] < 600


def test_the_command_reports_on_each_text_while_the_tokens_of_the_run_are_known(
    textgen,
    tmp_path,
    tiny_pipeline,
    monkeypatch,
):
    made = run(tiny_pipeline())
    command = ("generate", made.path, "-p", "the clock", "--novelty", "--n", 3, "-o", "jsonl")
    done = textgen(*command, "--max-new-tokens", 40, cwd=tmp_path)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 3, done.stderr
    finder = made.generator.copy_finder()
    for row in rows:
        report = finder.report(row["text"].removeprefix("the clock"))
        assert row["novelty"] == json.loads(json.dumps(attrs.asdict(report)))

    corpus = Path(made.generator.tables["corpus"]["path"])
    corpus.write_text("the clock")
    again = textgen(*command, "--max-new-tokens", 40, cwd=tmp_path)
    assert again.stdout == done.stdout  # the tokens of before are in the cache
    monkeypatch.setenv("TEXTGEN_CACHE_DIR", str(tmp_path / "cache"))
    with pytest.raises(CorpusError):
        load(made.path).copy_finder()
    failed = textgen(*command, cwd=tmp_path)
    reading, line = failed.stderr.splitlines()
    assert (failed.code, failed.stdout) == (1, "")
    assert str(corpus) in reading  # the run may be a stranger's
    assert "no longer the one that the model was trained on" in line
