"""The tokenizer bpe: merges worked out by hand, exact round trips, documents, what is refused."""

import json

import numpy as np
import pytest
from components import context, make
from raising import raises

import textgen
from textgen import DOCUMENT_END

TEXT = "The café served naïve travellers tea 🍵, and they said: «how fine»! It's 1895.\n"


def fitted(parts, **options):
    tokenizer = make("tokenizer", "bpe", context(), **options)
    tokenizer.fit(parts)
    return tokenizer


BPE = fitted([TEXT, "\n".join([TEXT] * 5)], vocab_size=320)


def test_merges_worked_out_by_hand():
    tokenizer = fitted(["aab aab aab abc abc"])
    # Words: aab, " aab" and " abc" twice each. Pairs: a b 5 times, then a ab 3 times, then twice
    # each those of the space, which is the byte 220, with 256 and 257, and then " ab" with c.
    state = tokenizer.to_dict()
    assert state["model"]["merges"] == [
        ["a", "b"],
        ["a", "ab"],
        ["Ġ", "ab"],
        ["Ġ", "aab"],
        ["Ġab", "c"],
    ]
    assert tokenizer.vocab_size == 261
    assert tokenizer.encode("aab abc aab").tolist() == [257, 260, 259]
    assert tokenizer.encode("abc baab").tolist() == [256, 66, 220, 65, 257]
    assert fitted(["ab ab ab ab bc bc bc"]).encode("abc").tolist() == [256, 66]  # learnt first
    assert fitted(["aab aab aab abc abc"], vocab_size=258).to_dict()["model"]["merges"] == [
        ["a", "b"],
        ["a", "ab"],
    ]


def test_bytes_alone():
    tokenizer = fitted([TEXT] * 9, vocab_size=256)
    assert tokenizer.vocab_size == 256
    ids = tokenizer.encode("a🍵é")
    assert sorted(tokenizer.encode(bytes(range(128)).decode())) == sorted(
        tokenizer.to_dict()["model"]["vocab"][name]
        for name in (*map(chr, range(0x21, 0x7F)), *map(chr, range(0x100, 0x122)))
    )
    stream = tokenizer.incremental_decoder()
    assert [stream.decode(ids[i : i + 1]) for i in range(7)] == ["a", "", "", "", "🍵", "", "é"]
    assert stream.decode(ids[1:3]) == ""
    assert stream.decode(ids[:0], final=True) == "\N{REPLACEMENT CHARACTER}"
    for bad in (-1, 256):
        with pytest.raises(ValueError, match="255"):
            tokenizer.decode(np.array([bad]))


def test_texts_without_spaces_are_cut_at_places_of_their_own():
    letters = np.random.default_rng(0).choice(list("acgt"), 80_000)
    for text in ("".join(letters), "x" * 80_000, " " * 80_000, "漢字" * 40_000):
        parts = [text[:50_000], text[50_000:]]
        tokenizer = fitted(parts, vocab_size=262)
        assert tokenizer.to_dict() == fitted([text], vocab_size=262).to_dict()
        assert tokenizer.vocab_size > 256
        ids = tokenizer.encode(text)
        assert len(ids) < len(text.encode())
        assert np.array_equal(np.concatenate([*tokenizer.encode_pieces(parts)]), ids)
        assert tokenizer.decode(ids) == text


def test_documents_have_an_end_that_is_no_text():
    tokenizer = fitted([TEXT, DOCUMENT_END] * 9, vocab_size=300)
    end = tokenizer.end_id
    assert end == tokenizer.vocab_size - 1 == 300
    named = f"{TEXT}<|endoftext|>!"
    for made in (tokenizer, tokenizer.from_dict(json.loads(json.dumps(tokenizer.to_dict())))):
        assert made.end_id == end
        assert end not in made.encode(named)
        assert made.decode(made.encode(named)) == named
        assert made.decode(np.array([end])) == ""
        assert made.incremental_decoder().decode(np.array([end])) == ""
    assert BPE.end_id is None
    # No pair extends over the end of a document.
    assert fitted(["ab", DOCUMENT_END] * 9).vocab_size == 256 + 1 + 1
    tokenizer.fit([TEXT])
    assert tokenizer.end_id is None


def test_a_vocabulary_is_extended_by_characters_of_several_bytes():
    tokenizer = fitted(["so they said " * 9, "🍵⍵" * 99], vocab_size=260)  # which end alike
    before = [tokenizer.decode(np.array([token])) for token in range(260)]
    tokenizer.extend([TEXT, DOCUMENT_END])
    assert [tokenizer.decode(np.array([token])) for token in range(260)] == before
    assert tokenizer.end_id == tokenizer.vocab_size - 1
    for made in (tokenizer, tokenizer.from_dict(json.loads(json.dumps(tokenizer.to_dict())))):
        assert made.decode(made.encode(TEXT)) == TEXT
        assert {len(made.encode(each)) for each in TEXT} == {1}


def endless(state):
    """Merges that double the length of a token sixty times, under names of three letters."""
    names = ["!", *(f"n{i:02}" for i in range(60))]
    model = state["model"]
    bytes_alone = {name: i for name, i in model["vocab"].items() if i < 256}
    model["vocab"] = bytes_alone | {name: 256 + i for i, name in enumerate(names[1:])}
    model["merges"] = [[name, name] for name in names[:-1]]


@pytest.mark.parametrize(
    "spoil",
    [
        dict.clear,
        endless,
        lambda state: state.update(extra=1),
        lambda state: state.update(added_tokens=[{"id": 320, "content": "</s>"}]),
        lambda state: state.update(pre_tokenizer=None),
        lambda state: state["model"]["vocab"].update(abcdef=320),
        lambda state: state["model"]["merges"].pop(),
        lambda state: state["model"]["merges"].append(state["model"]["merges"][0]),
        lambda state: state["model"]["merges"].insert(0, "abc"),
    ],
)
def test_another_vocabulary_is_refused(spoil):
    state = json.loads(json.dumps(BPE.to_dict()))
    assert BPE.from_dict(state).to_dict() == BPE.to_dict()
    spoil(state)
    with pytest.raises(ValueError, match="merges"):
        BPE.from_dict(state)


def test_learning_can_be_cancelled(tiny_pipeline, monkeypatch):
    monkeypatch.setattr("textgen_builtins.tokenizers.bpe._SECONDS_TO_ASK", 0.0)
    asked = iter(range(9))
    tables = tiny_pipeline(tokenizer={"type": "bpe", "vocab_size": 300})
    with raises(textgen.Interrupted, step=None):
        textgen.run(tables, cancelled=lambda: next(asked) == 8)
