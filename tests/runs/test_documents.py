"""Runs on documents: what is learnt of their ends, and where texts end that the model ends
itself.
"""

from __future__ import annotations

import json
import random
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

import textgen
from textgen import DOCUMENT_END, Component, Generator, NoOptions, hookimpl
from textgen.pipeline.options import DataOptions
from textgen.runs.splitting import split_tokens

MOST = 100


def words(count: int) -> list[str]:
    """Documents of three letters repeated: 3, 6, 9 … characters, the short ones most often."""
    numbers = random.Random(0)
    return ["abc" * min(1 + int(numbers.expovariate(1 / 3)), 12) for _ in range(count)]


DOCUMENTS = words(500)


def pipeline(folder: Path, **corpus: Any) -> dict[str, Any]:
    path = folder / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in DOCUMENTS))
    return {
        "device": "cpu",
        "threads": 1,
        "observer": [],
        "corpus": {"type": "file", "path": str(path), "documents": "jsonl", **corpus},
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


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> textgen.Run:
    folder = tmp_path_factory.mktemp("documents")
    return textgen.run(pipeline(folder), output=folder / "run")


@pytest.fixture(scope="module")
def writer(run: textgen.Run) -> Generator:
    """A model that has learnt where documents end."""
    return textgen.load(run.path)


def distance(lengths: Sequence[int]) -> float:
    """The Kolmogorov-Smirnov distance of lengths from those of the corpus: 0 alike, 1 apart."""
    grid = np.arange(MOST + 1)
    ours, theirs = (
        np.searchsorted(np.sort(x), grid, "right") / len(x)
        for x in (lengths, list(map(len, DOCUMENTS)))
    )
    return float(np.abs(ours - theirs).max())


@pytest.mark.slow
def test_texts_end_by_themselves_and_are_as_long_as_those_of_the_corpus(writer: Generator) -> None:
    made = list(writer.generate_many([""], n=300))
    assert {text.finish_reason for text in made} == {"end"}
    # Two samples of 300 and 500 of one distribution are farther apart than this once in two hundred
    # times.
    assert distance([len(text.text) for text in made]) < 0.127
    endless = list(writer.generate_many([""], n=30, ignore_end=True))
    assert {text.finish_reason for text in endless} == {"length"}
    assert distance([len(text.text) for text in endless]) > 0.9


def test_a_model_without_documents_ends_no_text(tmp_path: Path) -> None:
    tables = pipeline(tmp_path, documents="none")
    made = textgen.run(
        {**tables, "trainer": {"type": "adamw", "length": "1 epoch"}}, output=tmp_path / "run"
    )
    assert made.generator.tokenizer.end_id is None  # type: ignore[attr-defined]
    assert "<end>" not in json.loads((made.path / "tokenizer.json").read_text())["tokens"]
    assert distance([len(text.text) for text in made.generator.generate_many([""], n=30)]) > 0.9


def test_the_end_is_no_text(writer: Generator) -> None:
    text = writer.generate("abc", seed=3, echo=True, logprobs=1)
    end = writer.tokenizer.end_id  # type: ignore[attr-defined]
    assert text.tokens[-1] == end == writer.tokenizer.vocab_size - 1
    assert text.text == "abc" + writer.tokenizer.decode(np.array(text.tokens[:-1], int))
    assert set(text.text) <= set("abc")
    assert len(text.logprobs) == 3 + len(text.tokens)
    stream = writer.stream("abc", seed=3)
    assert "abc" + "".join(stream) == text.text
    assert stream.finish_reason == "end"
    (again,) = list(writer.generate_many(["abc"], seed=3, echo=True))
    assert again.text == text.text
    greedy = writer.generate("", temperature=0, ignore_end=True, max_new_tokens=40)
    assert set(greedy.text) <= set("abc")


def test_a_prompt_starts_a_document_and_ids_are_as_they_are_given(writer: Generator) -> None:
    end = writer.tokenizer.end_id  # type: ignore[attr-defined]
    ids = writer.tokenizer.encode("abc").tolist()
    given: list[Any] = ["", [], [end]]
    empty, none, only_end = list(
        writer.generate_many(given, temperature=0, max_new_tokens=1, logprobs=3)
    )
    assert empty.logprobs == none.logprobs
    np.testing.assert_allclose(empty.logprobs[0].logprob, only_end.logprobs[0].logprob, rtol=1e-6)
    np.testing.assert_array_equal(writer.logits("abc"), writer.logits([end, *ids])[1:])
    assert not np.array_equal(writer.logits("abc"), writer.logits(ids))
    assert writer.generate("", seed=1).text[0] == "a"
    # Penalties count what was written, and the start of a document was not.
    one, other = (
        writer.generate("", seed=5, repetition_penalty=p, max_new_tokens=1, logprobs=0)
        for p in (1.0, 9.0)
    )
    assert one == other


def test_a_text_without_limit_ends(writer: Generator) -> None:
    assert writer.generate("", max_new_tokens=None).finish_reason == "end"
    with pytest.raises(textgen.UsageError, match="never ends"):
        writer.generate("", max_new_tokens=None, ignore_end=True)


def test_a_kept_state_goes_on_with_the_next_document(writer: Generator, tmp_path: Path) -> None:
    first = writer.generate("", seed=2, keep_state=True)
    assert first.state is not None
    first.state.save(tmp_path / "state")
    state = textgen.GenerationState.load(tmp_path / "state")
    second = writer.generate("", state=state)
    assert (second.finish_reason, second.text[0]) == ("end", "a")
    both = writer.generate(
        "", seed=2, ignore_end=True, max_new_tokens=len(first.tokens) + len(second.tokens)
    )
    assert both.tokens == first.tokens + second.tokens


def test_scores_count_the_ends(writer: Generator) -> None:
    whole = writer.score("abcabc")
    assert (whole.tokens, whole.characters) == (7, 6)
    several = writer.score(iter(["abc", DOCUMENT_END, "ab", "cabc", DOCUMENT_END]))
    assert (several.tokens, several.characters) == (11, 9)
    assert writer.score("abcab").loss > whole.loss  # no document ends there
    (block,) = writer.score_tokens("abc")
    assert np.isnan(block.logprobs).tolist() == [True, False, False, False, False]


def test_evaluate_reads_documents_as_the_run_does(
    run: textgen.Run, textgen: Any, tmp_path: Path
) -> None:
    (tmp_path / "new.jsonl").write_text('{"text": "abc", "other": "abcabc"}\n' * 9)
    shown = textgen(
        "evaluate", run.path, "new.jsonl", "--json", "--html", "page.html", cwd=tmp_path
    )
    assert shown.code == 0, shown.stderr
    assert json.loads(shown.stdout)["tokens"] == 9 * 4
    assert (tmp_path / "page.html").is_file()
    other = textgen("evaluate", run.path, "new.jsonl", "--json", "--field", "other", cwd=tmp_path)
    assert json.loads(other.stdout)["tokens"] == 9 * 7
    raw = textgen("evaluate", run.path, "new.jsonl", "--documents", "none", cwd=tmp_path)
    assert "at least: the spelling of what is outside the vocabulary is not counted" in raw.stdout


def test_a_finished_run_is_skipped_and_other_borders_are_another_corpus(
    run: textgen.Run, tmp_path: Path
) -> None:
    tables = pipeline(tmp_path)
    assert textgen.run(tables, output=run.path).outcome == "skipped"
    (tmp_path / "texts.jsonl").write_text(json.dumps({"text": "".join(DOCUMENTS)}))
    with pytest.raises(textgen.RunMismatchError, match="corpus"):
        textgen.run(tables, output=run.path)


@pytest.mark.parametrize(
    ("tokens", "training", "validation"),
    [
        ([9, 1, 1, 1, 1, 1, 9, 2, 2, 9, 3, 9], [9, 1, 1, 1, 1, 1, 9, 2, 2, 9], [9, 3, 9]),
        ([9, 1, 9, 2, 2, 2, 2, 2, 2, 2, 2, 9], [9, 1, 9], [9, 2, 2, 2, 2, 2, 2, 2, 2, 9]),
        (
            [9, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 9],
            [9, 1, 1, 1, 1, 1, 1, 1, 1],
            [1, 1, 9],
        ),  # of one, the last part
        ([9, *[1] * 4999, 9, *[1] * 90_000], [9, *[1] * 4999, 9], [9, *[1] * 90_000]),  # far away
    ],
)
def test_the_held_out_part_begins_with_a_document(
    tokens: list[int], training: Any, validation: Any
) -> None:
    tokenizer = types.SimpleNamespace(end_id=9, vocab_size=10, decode=lambda ids: "x" * len(ids))
    data = split_tokens(np.array(tokens), DataOptions(window_length=1, validation=0.25), tokenizer)  # type: ignore[arg-type]
    assert (data.training.tolist(), data.validation.tolist()) == (training, validation)


# What a plugin has to bring.


@attrs.frozen
class Documents:
    """A corpus of documents."""

    pieces: Any = (
        *[piece for text in DOCUMENTS[:50] for piece in (text, "", DOCUMENT_END)],
        DOCUMENT_END,
    )

    def read(self) -> Any:
        return iter(self.pieces)


class Letters:
    """A tokenizer without an end."""

    vocab_size, unknown_id = 256, None

    def fit(self, pieces: Any) -> None:
        assert all(isinstance(piece, str) for piece in pieces)

    def encode(self, text: str) -> Any:
        return np.frombuffer(text.encode("latin-1"), np.uint8)

    def encode_pieces(self, pieces: Any) -> Any:
        return map(self.encode, pieces)

    def decode(self, ids: Any, final: bool = False) -> str:
        return bytes(np.asarray(ids).tolist()).decode("latin-1")

    def incremental_decoder(self) -> Any:
        return self

    def to_dict(self) -> Any:
        return {}

    def from_dict(self, state: Any) -> Any:
        return type(self)()


class WithEnd(Letters):
    """Has an id for the end, and shows it."""

    vocab_size, end_id = 257, 256

    def fit(self, pieces: Any) -> None:
        list(pieces)

    def decode(self, ids: Any, final: bool = False) -> str:
        return "".join(
            "<end>" if token == 256 else chr(token) for token in np.asarray(ids).tolist()
        )


class NoEnd(WithEnd):
    """Knows the mark, and has no id for it."""

    end_id = None  # type: ignore[assignment]


def run_with(tmp_path: Path, corpus: Any, tokenizer: Any = None) -> textgen.Run:
    """A short run with components that are given."""
    plugins = textgen.PluginSet.discover()
    made = {"corpora": corpus, "tokenizers": tokenizer or Letters()}
    hooks = {
        f"textgen_{kind}": hookimpl(
            lambda thing=thing: [Component("own", NoOptions, lambda config, context: thing)]
        )
        for kind, thing in made.items()
    }
    for name, hook in hooks.items():
        hook.__name__ = name

        plugins.register(
            types.SimpleNamespace(**{name: hook}), name, distribution="textgen-own", version="1"
        )
    chosen = {"type": "char" if tokenizer is None else "own"}
    tables = {**pipeline(tmp_path), "corpus": {"type": "own"}, "tokenizer": chosen}
    tables["trainer"] = {"type": "adamw", "length": "1 epoch"}
    return textgen.Engine(plugins).run(tables, output=tmp_path / "run")


def test_a_corpus_of_documents_needs_a_tokenizer_with_an_end(tmp_path: Path) -> None:
    for tokenizer in (Letters(), NoEnd()):
        with pytest.raises(
            textgen.PipelineError,
            match=r"tokenizer.type: .* no id for their end \(end_id\), given 'own'",
        ):
            run_with(tmp_path, Documents(), tokenizer)
    assert not (tmp_path / "run").exists()


def test_empty_documents_are_left_out(tmp_path: Path) -> None:
    record = json.loads((run_with(tmp_path, Documents()).path / "run.json").read_text())["data"]
    assert (
        record["training_tokens"] + record["validation_tokens"]
        == sum(map(len, DOCUMENTS[:50])) + 51 + 1
    )


@attrs.frozen
class Once:
    """Gives one iterator again and again."""

    pieces: Any

    def read(self) -> Any:
        return self.pieces


def test_a_corpus_that_can_be_read_only_once_is_named(tmp_path: Path) -> None:
    said = (
        r"corpus 'own' of plugin '.*' \(textgen-own 1\) gave another text when it was read again: "
    )
    with pytest.raises(textgen.CorpusError, match=said):
        run_with(tmp_path, Once(iter(["abc" * 100])))


def test_many_unknown_tokens_are_a_warning(tmp_path: Path) -> None:
    tables = pipeline(tmp_path, documents="none")
    (tmp_path / "texts.jsonl").write_text("".join(chr(0x4E00 + n) + "abcabc" for n in range(300)))
    tables |= {
        "tokenizer": {"type": "char", "min_frequency": 2},
        "trainer": {"type": "adamw", "length": "1 epoch"},
    }
    with pytest.warns(UserWarning, match="14% of the tokens stand for text outside the vocabulary"):
        textgen.run(tables, output=tmp_path / "run")
