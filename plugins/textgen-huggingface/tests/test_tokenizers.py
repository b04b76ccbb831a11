"""Both tokenizers: round trips, corpora in pieces, streams, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TEXT
from hypothesis import given, settings
from hypothesis import strategies as st

from textgen import DOCUMENT_END, BuildContext, PipelineError
from textgen_huggingface import plugin

CONTEXT = BuildContext(folder=Path.cwd())


def fitted(**options: Any) -> Any:
    tokenizer = plugin.build_bpe(plugin.BPEConfig(vocab_size=400, **options), CONTEXT)
    tokenizer.fit([TEXT] * 20)
    return tokenizer


BPE = fitted()
TEXTS = st.text(st.characters(codec="utf-8")) | st.text("ab 's\n\t\x1c\u3000é🍵'", max_size=60)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "tokenizer.json").write_text(json.dumps(BPE.to_dict()), encoding="utf-8")
    return folder


def loaded(path: Path) -> Any:
    tokenizer = plugin.build_folder_tokenizer(plugin.FolderTokenizerConfig(path=path), CONTEXT)
    tokenizer.fit(iter(["ignored"]))
    return tokenizer


@given(TEXTS)
def test_round_trip(text: str) -> None:
    ids = BPE.encode(text)
    assert BPE.decode(ids) == text
    assert ids.ndim == 1
    assert ids.dtype.kind == "i"
    assert (
        list(ids) == BPE.tokenizer.encode(text).ids
    )  # what the library itself gives for the whole text


@given(st.lists(TEXTS, max_size=5))
def test_a_corpus_in_pieces_is_encoded_like_the_joined_text(pieces: list[str]) -> None:
    joined = np.concatenate([np.empty(0, int), *BPE.encode_pieces(pieces)])
    assert np.array_equal(joined, BPE.encode("".join(pieces)))


@settings(max_examples=30)
@given(st.integers(1, 7000), st.lists(TEXTS, min_size=1, max_size=4))
def test_segments_change_nothing_where_there_are_spaces(repeat: int, texts: list[str]) -> None:
    from textgen_huggingface.tokenizers import _segments

    text = (" ".join(texts) + " the end ") * repeat
    text = text[:200_000]
    parts = list(_segments([text[:70_001], text[70_001:]]))
    assert "".join(parts) == text
    assert parts == list(_segments(text[i : i + 999] for i in range(0, len(text), 999)))
    assert max(map(len, parts)) <= 65536


def test_long_texts_are_encoded_as_the_library_does() -> None:
    text = TEXT * 2000
    assert len(text) > 3 * 65536
    assert BPE.encode(text).tolist() == BPE.tokenizer.encode(text).ids
    spaced = fitted()
    spaced.fit([text := "a    b " * 12_000])
    assert spaced.encode(text).tolist() == spaced.tokenizer.encode(text).ids
    endless = "x" * 150_000  # cut every 65,536 characters, whatever the pieces
    joined = np.concatenate(list(BPE.encode_pieces([endless[:100_000], endless[100_000:]])))
    assert np.array_equal(joined, BPE.encode(endless))
    assert BPE.decode(joined) == endless


@given(st.lists(st.integers(0, BPE.vocab_size - 1), max_size=40), st.data())
def test_streams_give_whole_characters_that_join_to_the_text(ids: list[int], data: Any) -> None:
    whole = BPE.decode(np.array(ids, int))
    assert whole == BPE.tokenizer.decode(ids, skip_special_tokens=False)
    stream, pieces = BPE.incremental_decoder(), []
    while ids:
        count = data.draw(st.integers(0, len(ids)))
        pieces.append(stream.decode(np.array(ids[: count or 1], int)))
        ids = ids[count or 1 :]
    assert "".join(pieces) + stream.decode(np.array([], int), final=True) == whole


def test_a_stream_holds_back_part_of_a_character() -> None:
    tokenizer = fitted(min_frequency=10_000)  # bytes alone
    stream = tokenizer.incremental_decoder()
    assert [stream.decode(np.array([i])) for i in tokenizer.encode("a🍵é")] == [
        "a",
        "",
        "",
        "",
        "🍵",
        "",
        "é",
    ]
    assert stream.decode(tokenizer.encode("🍵")[:2]) == ""
    assert stream.decode(np.array([], int), final=True) == "\N{REPLACEMENT CHARACTER}"


def test_learning_is_deterministic_whatever_the_pieces() -> None:
    other = plugin.build_bpe(plugin.BPEConfig(vocab_size=400), CONTEXT)
    text = TEXT * 20
    other.fit(text[i : i + 37] for i in range(0, len(text), 37))
    assert other.to_dict() == BPE.to_dict()
    assert BPE.vocab_size <= 400


@pytest.mark.parametrize(
    ("options", "text", "expected"),
    [
        ({"lower_case": True}, "ÀB c", "àb c"),
        ({"unicode_form": "NFC"}, "e\N{COMBINING ACUTE ACCENT}", "é"),
        ({"unicode_form": "NFD"}, "é", "e\N{COMBINING ACUTE ACCENT}"),
        ({}, "a\ud800b", "a\N{REPLACEMENT CHARACTER}b"),
    ],
)
def test_normalisation(options: dict[str, Any], text: str, expected: str) -> None:
    tokenizer = fitted(**options)
    assert tokenizer.decode(tokenizer.encode(text)) == expected


@given(TEXTS)
def test_to_dict_and_back(text: str) -> None:
    state = json.loads(json.dumps(BPE.to_dict()))
    again = plugin.build_bpe(plugin.BPEConfig(), CONTEXT).from_dict(state)
    assert np.array_equal(again.encode(text), BPE.encode(text))
    assert again.to_dict() == BPE.to_dict()


def test_a_saved_tokenizer_is_loaded_from_its_folder_or_file(saved: Path) -> None:
    for path in (saved, saved / "tokenizer.json"):
        tokenizer = loaded(path)
        assert np.array_equal(tokenizer.encode(TEXT), BPE.encode(TEXT))
        assert tokenizer.vocab_size == BPE.vocab_size


def test_special_tokens_are_kept_and_none_is_added(saved: Path, tmp_path: Path) -> None:
    import tokenizers

    special: Any = tokenizers.Tokenizer.from_file(str(saved / "tokenizer.json"))
    special.add_special_tokens(["<|endoftext|>"])
    special.post_processor = tokenizers.processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", BPE.vocab_size)]
    )
    special.enable_truncation(3)
    special.save(str(tmp_path / "tokenizer.json"))
    tokenizer = loaded(tmp_path)
    ids = tokenizer.encode("the time<|endoftext|>machine stood still")
    assert ids.tolist().count(BPE.vocab_size) == 1
    assert tokenizer.decode(ids) == "the time<|endoftext|>machine stood still"
    assert tokenizer.vocab_size == BPE.vocab_size + 1


def test_a_missing_or_broken_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"tokenizer.path: there is no .*nothing is fetched"):
        loaded(tmp_path / "gpt2")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(PipelineError, match="cannot be read"):
        loaded(tmp_path)


def test_tokenizers_that_need_the_text_before_are_refused(saved: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    words: Any = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    words.decoder = decoders.WordPiece()
    words.save(str(tmp_path / "words.json"))
    with pytest.raises(PipelineError, match="not byte-level"):
        loaded(tmp_path / "words.json")
    prefixed: Any = Tokenizer.from_file(str(saved / "tokenizer.json"))
    prefixed.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    prefixed.save(str(tmp_path / "prefixed.json"))
    with pytest.raises(PipelineError, match="puts a space before"):
        loaded(tmp_path / "prefixed.json")


def test_what_needs_a_vocabulary_says_so_before_fit() -> None:
    tokenizer = plugin.build_bpe(plugin.BPEConfig(), CONTEXT)
    for use in (lambda: tokenizer.vocab_size, lambda: tokenizer.encode("a"), tokenizer.to_dict):
        with pytest.raises(ValueError, match="not fitted"):
            use()
    for bad in (-1, BPE.vocab_size):
        with pytest.raises(ValueError, match="ids must be"):
            BPE.decode(np.array([bad]))


def test_documents_have_an_end_that_is_no_text() -> None:
    tokenizer = plugin.build_bpe(plugin.BPEConfig(vocab_size=400), CONTEXT)
    assert tokenizer.end_id is None
    tokenizer.fit(piece for _ in range(20) for piece in (TEXT, DOCUMENT_END))
    end = tokenizer.end_id
    assert end == tokenizer.vocab_size - 1
    again = tokenizer.from_dict(json.loads(json.dumps(tokenizer.to_dict())))
    named = f"{TEXT}<|endoftext|>!"
    for made in (tokenizer, again):
        assert made.end_id == end
        assert end not in made.encode(named)
        assert made.decode(made.encode(named)) == named
        assert (
            made.decode(np.array([end])) == made.incremental_decoder().decode(np.array([end])) == ""
        )
    assert BPE.end_id is None


@pytest.mark.parametrize(
    ("special", "config", "end"),
    [
        (["<|endoftext|>"], None, "<|endoftext|>"),
        (["</s>", "<|im_end|>"], {"eos_token": {"content": "<|im_end|>"}}, "<|im_end|>"),
        (
            ["</s>", "<|im_end|>"],
            {"eos_token": "clock"},
            "</s>",
        ),  # a token that is not special does not end a text
        (["<|pad|>"], {}, None),
    ],
)
def test_a_saved_tokenizer_ends_documents_with_its_own_token(
    saved: Path, tmp_path: Path, special: list[str], config: dict[str, Any] | None, end: str | None
) -> None:
    import tokenizers

    own: Any = tokenizers.Tokenizer.from_file(str(saved / "tokenizer.json"))
    own.add_special_tokens(special)
    own.post_processor = tokenizers.processors.ByteLevel(trim_offsets=False)
    own.save(str(tmp_path / "tokenizer.json"))
    if config is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = plugin.build_folder_tokenizer(plugin.FolderTokenizerConfig(path=tmp_path), CONTEXT)
    assert tokenizer.end_id is None
    tokenizer.fit(iter([TEXT, DOCUMENT_END, TEXT, DOCUMENT_END]))
    state = json.loads(json.dumps(tokenizer.to_dict()))
    for made in (tokenizer, tokenizer.from_dict(state)):
        assert made.end_id == (None if end is None else own.token_to_id(end))
        assert made.encode(TEXT).tolist() == own.encode(TEXT).ids
        if end is not None:
            named = f"{TEXT}{end}!"
            assert made.decode(made.encode(named)) == named
            assert made.end_id not in made.encode(named)
            assert made.decode(np.array([made.end_id])) == ""
    library = tokenizers.Tokenizer.from_str(json.dumps(state))
    assert (
        library.encode(TEXT).ids == own.encode(TEXT).ids
    )  # whoever else reads it sees no difference
    assert loaded(tmp_path).end_id is None  # without documents


def test_a_run_on_documents_with_a_saved_tokenizer_ends_its_texts(
    saved: Path, tmp_path: Path
) -> None:
    import tokenizers

    from textgen import load, run

    own: Any = tokenizers.Tokenizer.from_file(str(saved / "tokenizer.json"))
    own.add_special_tokens(["<|endoftext|>"])
    own.save(str(tmp_path / "tokenizer.json"))
    lines = "".join(json.dumps({"text": TEXT}) + "\n" for _ in range(12))
    (tmp_path / "texts.jsonl").write_text(lines)
    tables = {
        "output": str(tmp_path / "run"),
        "corpus": {"type": "file", "path": str(tmp_path / "texts.jsonl"), "documents": "jsonl"},
        "tokenizer": {"type": "huggingface-tokenizer", "path": str(tmp_path)},
        "data": {"window_length": 16},
        "model": {"type": "rnn", "hidden_size": 8},
        "trainer": {"type": "sgd", "length": "1 epoch"},
        "observer": [],
    }
    generator = load(run(tables).path)
    assert generator.tokenizer.end_id == own.token_to_id("<|endoftext|>")
