"""The copying report against a search by brute force, and the index that it is made from."""

from __future__ import annotations

import json
import os
import shutil
import tomllib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textgen import CorpusError, Generator, RunError, UsageError, load, run
from textgen.generation import novelty
from textgen.generation.novelty import NGRAMS, CopyIndex, CopyReport, suffix_array
from textgen.runs.directory import RunDirectory
from textgen.runs.record import described, pipeline_text

LETTERS = "abcd"
texts = st.text(alphabet=LETTERS, max_size=60)


@given(
    tokens=st.lists(st.integers(0, 3), max_size=80) | st.lists(st.integers(0, 70_000), max_size=40)
)
def test_a_suffix_array_is_the_order_of_the_suffixes(tokens: list[int]) -> None:
    expected = sorted(range(len(tokens)), key=lambda start: tokens[start:])
    assert suffix_array(np.array(tokens, np.int64)).tolist() == expected


@pytest.mark.parametrize(
    "tokens", [[0] * 3000, [0, 1] * 1500, [5], []], ids=["one", "two", "single", "none"]
)
def test_a_suffix_array_of_repeats(tokens: list[int]) -> None:
    expected = sorted(range(len(tokens)), key=lambda start: tokens[start:])
    assert suffix_array(np.array(tokens, np.int64)).tolist() == expected


class Characters:
    """The part of a tokenizer that the index uses, with ids of `wide` times one byte or more."""

    unknown_id = None

    def __init__(self, wide: bool) -> None:
        self._factor = 20_000 if wide else 1
        self.vocab_size = 4 * self._factor

    def encode(self, text: str) -> Any:
        return np.array([LETTERS.index(c) * self._factor for c in text], np.int64)

    def decode(self, ids: Any) -> str:
        return "".join(LETTERS[int(i) // self._factor] for i in ids)


def index_of(corpus: str, folder: Path, *, wide: bool = False, model: str = "m") -> CopyIndex:
    tokenizer: Any = Characters(wide)
    return CopyIndex.open(folder, model, tokenizer, lambda file: tokenizer.encode(corpus))


def longest(corpus: str, text: str) -> list[int]:
    """For each place of `text`, the length of the longest run from there that the corpus holds."""
    runs = []
    for start in range(len(text)):
        length = 0
        while start + length < len(text) and text[start : start + length + 1] in corpus:
            length += 1
        runs.append(length)
    return runs


def check(report: CopyReport, corpus: str, text: str) -> None:
    runs = longest(corpus, text)
    assert report.tokens == len(text)
    assert report.longest == max(runs, default=0)
    assert len(report.longest_text) == report.longest
    assert report.longest_text in corpus
    assert report.longest_text in text
    for n in NGRAMS:
        grams = [text[i : i + n] for i in range(len(text) - n + 1)]
        expected = sum(gram in corpus for gram in grams) / len(grams) if grams else None
        assert report.ngram_shares[n] == (None if expected is None else pytest.approx(expected))
    found = corpus.count(report.longest_text) if report.longest else 0
    assert len(report.places) >= min(found, 1)
    assert len({place.offset for place in report.places}) == len(report.places) <= 3
    for place in report.places:
        assert corpus.startswith(report.longest_text, place.offset)
        assert report.longest_text[:200] in place.excerpt


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("block", [None, 7, 1])
@given(corpus=texts, text=texts)
def test_the_report_is_what_a_search_finds(
    tmp_path_factory: pytest.TempPathFactory, block: int | None, wide: bool, corpus: str, text: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if (
            block is not None
        ):  # the only way to have block borders in a text that brute force can search
            patch.setattr(novelty, "_BLOCK", block)
        folder = tmp_path_factory.mktemp("run")
        index = index_of(corpus, folder, wide=wide)
        check(index.report(text), corpus, text)
        check(index.report(corpus[5:40]), corpus, corpus[5:40])
        shutil.rmtree(folder)


def test_a_copied_passage_is_found_in_full(tmp_path: Path) -> None:
    corpus = "".join(np.random.default_rng(0).choice(list(LETTERS), 5000))
    text = "abcd" * 5 + corpus[1234:1634] + "dcba" * 5
    report = index_of(corpus, tmp_path).report(text)
    check(report, corpus, text)
    assert report.longest >= 400
    assert corpus[1234:1634] in report.longest_text
    assert f"{report.longest} of {len(text)} tokens" in report.describe()


@pytest.fixture
def copied_run(finished_run: Path, tmp_path: Path) -> Path:
    """A run directory to change, with a corpus of its own."""
    shutil.copytree(finished_run, tmp_path / "run")
    pipeline = tmp_path / "run" / "pipeline.toml"
    corpus = finished_run.parent / "corpus.txt"
    shutil.copy(corpus, tmp_path / "corpus.txt")
    text = pipeline.read_text(encoding="utf-8")
    assert str(corpus) in text
    tables = tomllib.loads(text.replace(str(corpus), str(tmp_path / "corpus.txt")))
    pipeline.write_bytes(pipeline_text(tables))
    directory = RunDirectory(tmp_path / "run")
    directory.write_run(described(tables, directory.read_run()))
    return tmp_path / "run"


def test_the_index_is_made_once_and_kept_in_the_run_directory(copied_run: Path) -> None:
    first = load(copied_run).copy_index().report("the clock of the hall struck the hour of xx")
    assert first.longest_text == "the clock of the hall struck the hour"
    (copied_run.parent / "corpus.txt").unlink()  # it is not needed again
    assert (
        load(copied_run).copy_index().report("the clock of the hall struck the hour of xx") == first
    )
    assert not (copied_run / ".copy-index/partial").exists()


def test_a_run_that_is_skipped_leaves_an_index_alone_that_is_being_made(
    textgen: Callable[..., Any], tmp_path: Path, tiny_pipeline: Any, write_pipeline: Any
) -> None:
    write_pipeline(tiny_pipeline())
    generator = run(tiny_pipeline()).generator
    outcomes = []

    def meanwhile(file: Path) -> Any:
        file.with_name("begun").touch()
        for change in (
            (),
            ("--set", "generate.max_new_tokens=5"),
        ):  # which is written down, and so takes the lock
            done = textgen("run", "pipeline.toml", *change, cwd=tmp_path)
            outcomes.append((done.code, done.stderr.partition(":")[0]))
        assert file.with_name("begun").exists()
        return generator.training_tokens(file)

    index = attrs.evolve(generator, training_tokens=meanwhile).copy_index()
    assert outcomes == [(0, "skipped")] * 2
    assert index.report("the clock").longest == 9


def test_who_comes_second_waits_for_the_index(copied_run: Path) -> None:
    generator = load(copied_run)
    with ThreadPoolExecutor(1) as pool:
        second: Future[CopyIndex] | None = None

        def never(file: Path) -> Any:
            raise AssertionError("made twice")

        def meanwhile(file: Path) -> Any:
            nonlocal second
            second = pool.submit(attrs.evolve(generator, training_tokens=never).copy_index)
            with pytest.raises(TimeoutError):
                second.result(0.3)
            return generator.training_tokens(file)

        first = attrs.evolve(generator, training_tokens=meanwhile).copy_index()
        assert second is not None
        assert second.result(60).report("the clock") == first.report("the clock")


def test_an_index_made_while_a_run_is_replaced_does_not_keep_it_from_coming_back(
    tiny_pipeline: Any,
) -> None:
    path = run(tiny_pipeline()).path
    load(path).copy_index()
    shutil.rmtree(path / "copy-index")
    before = load(path).generate(max_new_tokens=5)

    class Fails:
        def observe(self, event: Any) -> None:
            with pytest.warns(UserWarning, match="is not finished"):
                old = load(path)
            assert old.path == path / ".previous"
            old.copy_index()
            raise RuntimeError("before the first checkpoint")

    with pytest.raises(RuntimeError, match="before the first checkpoint"):
        run(tiny_pipeline(seed=5), overwrite=True, observers=[Fails()])
    assert load(path).generate(max_new_tokens=5) == before
    assert not (path / ".previous").exists()


MAKER = """
import os, sys
import attrs, textgen
generator = textgen.load(sys.argv[1])
attrs.evolve(generator, training_tokens=lambda file: file.write_bytes(b"half") and os._exit(9)).copy_index()
"""


def test_what_a_killed_maker_left_is_removed_by_the_next(
    python: Callable[..., Any], copied_run: Path
) -> None:
    assert python("-c", MAKER, copied_run, cwd=copied_run.parent).code == 9
    assert (copied_run / ".copy-index/partial/corpus.bin").read_bytes() == b"half"
    assert load(copied_run).copy_index().report("the clock").longest == 9
    assert not (copied_run / ".copy-index/partial").exists()


@pytest.mark.parametrize("name", [".copy-index", ".copy-index/lock"])
def test_no_index_is_made_through_a_link(copied_run: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/lock").write_bytes(b"the only copy")
    (copied_run / name).parent.mkdir(exist_ok=True)
    (copied_run / name).symlink_to(tmp_path / "outside" / Path(name).relative_to(".copy-index"))
    with pytest.raises(RunError, match="leads out of the run directory"):
        load(copied_run).copy_index()
    assert [path.read_bytes() for path in (tmp_path / "outside").iterdir()] == [b"the only copy"]


def test_only_the_training_part_counts(copied_run: Path) -> None:
    corpus = (copied_run.parent / "corpus.txt").read_text(encoding="utf-8")
    record = json.loads((copied_run / "run.json").read_text(encoding="utf-8"))
    report = load(copied_run).copy_index().report(corpus)
    assert report.longest == record["data"]["training_tokens"] < len(corpus)


def test_the_index_of_another_model_is_made_anew(tmp_path: Path) -> None:
    assert index_of("abcabc", tmp_path, model="one").report("abcabc").longest == 6
    assert index_of("dddddd", tmp_path, model="one").report("abcabc").longest == 6
    assert index_of("dddddd", tmp_path, model="two").report("abcabc").longest == 0
    assert sorted(os.listdir(tmp_path)) == [".copy-index", "copy-index"]
    assert os.listdir(tmp_path / ".copy-index") in (["lock"], [])


def test_a_corpus_that_changed_is_an_error_and_leaves_nothing(copied_run: Path) -> None:
    with (copied_run.parent / "corpus.txt").open("a", encoding="utf-8") as file:
        file.write("and so on")
    with pytest.raises(CorpusError, match="no longer the one"):
        load(copied_run).copy_index()
    assert not (copied_run / "copy-index").exists()
    assert not (copied_run / ".copy-index/partial").exists()


def test_a_damaged_index_is_made_anew(copied_run: Path) -> None:
    text = "the clock of the hall"
    first = load(copied_run).copy_index().report(text)
    for name, data in (
        ("index.json", b"{"),
        ("index.json", b"[]"),
        ("suffixes.bin", b"xx"),
        ("tokens.bin", b""),
    ):
        (copied_run / "copy-index" / name).write_bytes(data)
        assert load(copied_run).copy_index().report(text) == first
    (copied_run / "copy-index" / "suffixes.bin").unlink()
    assert load(copied_run).copy_index().report(text) == first


def test_a_generator_without_a_run_knows_no_corpus(finished_run: Path) -> None:
    bare: Generator = attrs.evolve(load(finished_run), path=None)
    with pytest.raises(UsageError, match="training corpus"):
        bare.copy_index()


def test_a_model_that_recites_is_told_so(
    textgen: Callable[..., Any], tmp_path: Path, tiny_pipeline: Any
) -> None:
    tables = tiny_pipeline(
        text="abcdefgh" * 300,
        model={"hidden_size": 16},
        trainer={"type": "adamw", "epochs": 4, "learning_rate": 0.03, "batch_size": 8},
    )
    made = run(tables)
    text = made.generator.generate("abcd", max_new_tokens=120, temperature=0).text
    report = made.generator.copy_index().report(text)
    assert report.longest == len(text)
    assert report.ngram_shares[32] == 1.0
    done = textgen(
        *(
            "generate",
            made.path,
            "-p",
            "abcd",
            "--greedy",
            "--max-new-tokens",
            120,
            "--novelty",
            "--no-echo",
        ),
        cwd=tmp_path,
    )
    assert (done.code, done.stdout) == (0, text + "\n")
    assert "is 120 of 120 tokens" in done.stderr


def test_the_command_reports_on_each_text(
    textgen: Callable[..., Any], copied_run: Path, tmp_path: Path
) -> None:
    arguments = (
        "-p",
        "the clock",
        "--novelty",
        "--n",
        3,
        "--output",
        "jsonl",
        "--max-new-tokens",
        40,
    )
    done = textgen("generate", copied_run, *arguments, cwd=tmp_path)
    assert done.code == 0, done.stderr
    index = load(copied_run).copy_index()
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 3
    for row in rows:
        report = index.report(row["text"].removeprefix("the clock"))
        assert row["novelty"]["longest"] == report.longest
        assert row["novelty"]["longest_text"] == report.longest_text
        assert row["novelty"]["tokens"] == 40


@pytest.mark.parametrize("form", ["text", "jsonl"])
def test_a_corpus_that_is_gone_or_changed_costs_the_report_and_not_the_text(
    textgen: Callable[..., Any], copied_run: Path, tmp_path: Path, form: str
) -> None:
    generator = load(copied_run)
    text = str(generator.generate("the clock", max_new_tokens=20))
    corpus = tmp_path / "corpus.txt"
    command = (
        "generate",
        copied_run,
        "-p",
        "the clock",
        "--novelty",
        "--max-new-tokens",
        20,
        "--output",
        form,
    )
    corpus.write_text("the clock", encoding="utf-8")
    changed = textgen(*command, cwd=tmp_path)
    corpus.unlink()
    gone = textgen(*command, cwd=tmp_path)
    for done, said in (
        (changed, "no longer the one that the model was trained on"),
        (gone, "No such file"),
    ):
        shown = done.stdout if form == "text" else json.loads(done.stdout)["text"] + "\n"
        assert (done.code, shown) == (1, text + "\n")
        reading, line = done.stderr.splitlines()
        assert reading.startswith(f"novelty: making the index of the corpus of {copied_run}, ")
        assert str(corpus) in reading  # the run may be a stranger's
        assert line.startswith("textgen: error: there is no report on what is copied: ")
        assert said in line
    assert form == "text" or json.loads(gone.stdout)["novelty"] is None
